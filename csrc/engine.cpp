#include "engine.h"

#include <utility>

namespace pass_loader {

struct Engine::State {
  State(Setup made_of, int threads, const std::vector<int>& cpus)
      : setup(std::move(made_of)),
        workers(Pool::workers(threads)),
        read_ahead(setup.read_ahead_records, setup.read_ahead_bytes),
        pool(threads, cpus) {}

  const Setup setup;
  std::vector<Worker> workers;
  ReadAhead read_ahead;
  Pool pool;  // the last member: its threads are gone, and their batches, before what they use is
};

Engine::Engine(Setup setup, int threads, const std::vector<int>& cpus) {
  PL_CHECK(!setup.normalizations.empty(), Fault::argument, "want at least one normalisation");
  check_recipe(setup.recipe);
  PL_CHECK(!setup.steps.erases() || setup.form().element != cpu::Element::uint8, Fault::argument,
           "a step of the recipe erases after normalisation, which uint8 output does not have");
  state_ = std::make_unique<State>(std::move(setup), threads, cpus);
}

Engine::~Engine() {
  if (!state_->pool.in_owner_process()) (void)state_.release();  // threads were in the middle of using all of it
}

const Setup& Engine::setup() const { return state_->setup; }
Pool& Engine::pool() const { return state_->pool; }
ReadAhead& Engine::read_ahead() const { return state_->read_ahead; }
Worker& Engine::worker(size_t number) const { return state_->workers[number]; }

StageTotals Engine::stage_times() const {
  StageTotals totals;
  for (const Worker& worker : state_->workers) worker.times().sum_into(totals);
  return totals;
}

ThreadTimes Engine::thread_times() const { return state_->pool.times(); }

}  // namespace pass_loader
