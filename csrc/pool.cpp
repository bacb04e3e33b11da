#include "pool.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>
#include <system_error>
#include <thread>

#include <unistd.h>

#include "system_calls.h"

namespace pass_loader {

// One sample or one Failure; never an exception, never a slot with another sample's pixels.
void Batch::run(int64_t slot, size_t worker) {
  try {
    make(slot, worker);
  } catch (const Error& error) {
    fail_sample(slot, error.fault(), error.what());
  } catch (const std::bad_alloc&) {
    fail_sample(slot, Fault::record, "out of memory for this picture");
  } catch (const std::exception& error) {
    fail_sample(slot, Fault::record, error.what());
  }
  finish(1);
}

void Batch::fail_sample(int64_t slot, Fault fault, const char* message) {
  clear(slot);
  std::lock_guard lock(mutex_);
  failures_.push_back({slot, fault, message});
}

void Batch::finish(int64_t samples) {
  if (done_.fetch_add(samples) + samples < size_) return;
  std::lock_guard lock(mutex_);  // so that a waiter is either before its test or inside its wait
  finished_.notify_all();
}

// The times of one thread: only that thread writes. They are aligned as StageTimes are.
class alignas(128) Pool::Timer {
 public:
  void begin(bool is_busy) {
    const int64_t now = now_ns();
    since_.store(is_busy ? now : -now, std::memory_order_relaxed);
  }

  void end() {
    const int64_t since = since_.load(std::memory_order_relaxed);
    std::atomic<int64_t>& total = since > 0 ? busy_ns_ : idle_ns_;
    total.store(total.load(std::memory_order_relaxed) + now_ns() - std::abs(since), std::memory_order_relaxed);
    since_.store(0, std::memory_order_relaxed);
  }

  void sum_into(ThreadTimes& times) const {
    const int64_t since = since_.load(std::memory_order_relaxed), now = now_ns();
    times.busy_ns += busy_ns_.load(std::memory_order_relaxed) + (since > 0 ? now - since : 0);
    times.idle_ns += idle_ns_.load(std::memory_order_relaxed) + (since < 0 ? now + since : 0);
  }

 private:
  static int64_t now_ns() {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  std::atomic<int64_t> busy_ns_{0}, idle_ns_{0};
  std::atomic<int64_t> since_{0};  // busy since then, or with a minus idle since then; 0: neither
};

struct Pool::State {
  explicit State(int threads) : timers(workers(threads)) {}

  const pid_t owner = ::getpid();
  std::mutex mutex;
  std::condition_variable submitted;
  std::deque<std::shared_ptr<Batch>> queue;
  std::atomic<bool> stopping = false;
  std::vector<Timer> timers;  // one a worker
  std::vector<std::thread> threads;
  std::mutex caller_mutex;  // several Python threads may wait on a pool without threads
};

Pool::Pool(int threads, const std::vector<int>& cpus) {
  PL_CHECK(threads >= 0 && threads <= 1024, Fault::argument, "%d threads, want [0, 1024]", threads);
  for (int cpu : cpus) PL_CHECK(cpu >= 0 && cpu < kMaxCpus, Fault::argument, "CPU %d, want [0, %d)", cpu, kMaxCpus);
  state_ = std::make_unique<State>(threads);
  try {
    start(threads, cpus);
  } catch (const std::system_error& error) {
    stop();
    fail(Fault::io, "cannot start thread %zu of %d: %s", state_->threads.size() + 1, threads, error.what());
  } catch (const std::bad_alloc&) {
    stop();
    fail(Fault::io, "cannot start thread %zu of %d: out of memory", state_->threads.size() + 1, threads);
  } catch (const Error&) {
    stop();
    throw;
  }
}

void Pool::start(int threads, const std::vector<int>& cpus) {
  state_->threads.reserve(static_cast<size_t>(threads));
  for (size_t i = 0; i < static_cast<size_t>(threads); ++i) {
    std::thread& thread = state_->threads.emplace_back([this, i] { work(i); });
    name_thread(thread.native_handle(), "pass-render");
    if (cpus.empty()) continue;
    const int cpu = cpus[i % cpus.size()];
    const int error = run_on_cpu(thread.native_handle(), cpu);
    PL_CHECK(error == 0, Fault::argument, "cannot run a thread on CPU %d: %s", cpu, std::strerror(error));
  }
}

void Pool::stop() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->submitted.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

Pool::~Pool() { stop(); }

bool Pool::in_owner_process() const { return ::getpid() == state_->owner; }

void Pool::check_owner() const {
  PL_CHECK(in_owner_process(), Fault::argument,
           "this loader's threads live in the process that forked this one: make an iterator here");
}

void Pool::submit(std::shared_ptr<Batch> batch) {
  check_owner();
  if (state_->threads.empty()) return;  // wait makes its samples
  {
    std::lock_guard lock(state_->mutex);
    state_->queue.push_back(std::move(batch));
  }
  state_->submitted.notify_all();
}

bool Pool::wait(Batch& batch, std::chrono::milliseconds timeout) {
  check_owner();
  if (state_->threads.empty()) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    std::lock_guard lock(state_->caller_mutex);
    while (!batch.is_done()) {
      state_->timers[0].begin(true);
      batch.run(batch.next_++, 0);
      state_->timers[0].end();
      if (std::chrono::steady_clock::now() > deadline) break;
    }
    return batch.is_done();
  }
  std::unique_lock lock(batch.mutex_);
  return batch.finished_.wait_for(lock, timeout, [&] { return batch.is_done(); });
}

void Pool::cancel(Batch& batch) {
  if (!in_owner_process()) return;
  const int64_t handed_out = std::min(batch.next_.exchange(batch.size_), batch.size_);
  batch.finish(batch.size_ - handed_out);
  if (state_->threads.empty()) return;
  std::unique_lock lock(batch.mutex_);
  batch.finished_.wait(lock, [&] { return batch.is_done(); });
}

ThreadTimes Pool::times() const {
  ThreadTimes times;
  for (const Timer& timer : state_->timers) timer.sum_into(times);
  return times;
}

// No lock in the sample path: a thread takes the next sample of the front batch by one atomic addition, and the lock
// only when that batch has none left.
void Pool::work(size_t worker) {
  Timer& timer = state_->timers[worker];
  std::shared_ptr<Batch> batch;
  while (true) {
    if (!batch) {
      std::unique_lock lock(state_->mutex);
      const auto has_work = [&] { return state_->stopping || !state_->queue.empty(); };
      if (!has_work()) {
        timer.begin(false);
        state_->submitted.wait(lock, has_work);
        timer.end();
      }
      if (state_->stopping) return;
      batch = state_->queue.front();
    }
    const int64_t slot = batch->next_++;
    if (slot < batch->size_) {
      timer.begin(true);
      batch->run(slot, worker);
      timer.end();
    } else {
      std::lock_guard lock(state_->mutex);
      if (!state_->queue.empty() && state_->queue.front() == batch) state_->queue.pop_front();
      batch.reset();
    }
    if (state_->stopping) return;
  }
}

}  // namespace pass_loader
