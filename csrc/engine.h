// What all batches of a loader share: where records come from, what becomes of them, and the pool of threads with each
// thread's memory.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/nearest.h"
#include "cpu/normalize.h"
#include "cpu/render.h"
#include "decode.h"
#include "error.h"
#include "image.h"
#include "plan.h"
#include "pool.h"
#include "read_ahead.h"
#include "shard.h"
#include "stages.h"

namespace pass_loader {

// Fixed when the engine is made.
struct Setup {
  std::shared_ptr<const ShardReader> reader;
  std::vector<ViewSpec> recipe;
  StepRecipe steps;  // of the recipe
  uint64_t seed;
  std::vector<cpu::Normalization> normalizations;  // one a source of records and view, or one a source; of one form
  bool one_a_view = false;                         // the views of a source have normalizations of their own
  std::shared_ptr<const ShardReader> heatmaps;     // null: no batch has heatmaps
  Limits limits;                                   // of every picture
  size_t read_ahead_records = 0, read_ahead_bytes = 0;  // see ReadAhead; 0: nothing is read ahead

  size_t views() const { return view_count(recipe); }
  size_t sources() const { return normalizations.size() / (one_a_view ? views() : 1); }
  const cpu::Normalization& normalization(size_t source, size_t view) const {
    return normalizations[one_a_view ? source * views() + view : source];
  }

  // If it has one channel, pictures become gray when they are decoded.
  const cpu::OutputForm& form() const { return normalizations.front().form; }
};

// What making one sample needs. All of it is reused for the next sample.
struct WorkingMemory {
  Scratch<uint8_t> bytes;
  Decoder decoder;
  std::vector<ViewPlan> plans;
  std::vector<StepPlan> steps;  // each view's, one after the other
  Scratch<uint8_t> gray;
  cpu::RenderScratch scratch;
  cpu::PlacesScratch nearest;
};

// One thread's memory and times.
class Worker {
 public:
  // Calls make(memory, clock), which returns the pixels of the largest picture that it has decoded, or 0 if it has made
  // no sample.
  template <typename Make>
  void run(const Make& make) {
    if (!memory_) memory_ = std::make_unique<WorkingMemory>();  // by the thread itself
    StageClock clock(times_);
    int64_t pixels = 0;
    try {
      pixels = make(*memory_, clock);
    } catch (const Error&) {
      throw;
    } catch (...) {  // out of memory, or nobody knows what: begin anew
      memory_.reset();
      throw;
    }
    if (pixels > 0) times_.add_sample();
    if (pixels > kLargePicturePx) memory_.reset();
  }

  const StageTimes& times() const { return times_; }

 private:
  StageTimes times_;
  std::unique_ptr<WorkingMemory> memory_;
};

class Engine {
 public:
  // Checks the recipe. threads and cpus: see Pool.
  Engine(Setup setup, int threads, const std::vector<int>& cpus);
  ~Engine();  // prompt, see ~Pool
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const Setup& setup() const;
  Pool& pool() const;
  ReadAhead& read_ahead() const;
  Worker& worker(size_t number) const;

  // Summed over the threads since the engine was made. May be called while they work.
  StageTotals stage_times() const;
  ThreadTimes thread_times() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pass_loader
