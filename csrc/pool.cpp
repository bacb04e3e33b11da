#include "pool.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <new>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

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

struct Pool::State {
  const pid_t owner = ::getpid();
  std::mutex mutex;
  std::condition_variable submitted;
  std::deque<std::shared_ptr<Batch>> queue;
  std::atomic<bool> stopping = false;
  std::vector<std::thread> threads;
  std::mutex caller_mutex;  // several Python threads may wait on a pool without threads
};

Pool::Pool(int threads, const std::vector<int>& cpus) : state_(std::make_unique<State>()) {
  PL_CHECK(threads >= 0 && threads <= 1024, Fault::argument, "%d threads, want [0, 1024]", threads);
  for (int cpu : cpus)
    PL_CHECK(cpu >= 0 && cpu < CPU_SETSIZE, Fault::argument, "CPU %d, want [0, %d)", cpu, CPU_SETSIZE);
  try {
    start(threads, cpus);
  } catch (const std::system_error& error) {
    stop();
    fail(Fault::io, "cannot start thread %zu of %d: %s", state_->threads.size() + 1, threads, error.what());
  } catch (const Error&) {
    stop();
    throw;
  }
}

void Pool::start(int threads, const std::vector<int>& cpus) {
  state_->threads.reserve(static_cast<size_t>(threads));
  for (size_t i = 0; i < static_cast<size_t>(threads); ++i) {
    std::thread& thread = state_->threads.emplace_back([this, i] { work(i); });
    if (cpus.empty()) continue;
    const int cpu = cpus[i % cpus.size()];
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    const int error = pthread_setaffinity_np(thread.native_handle(), sizeof allowed, &allowed);
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
      batch.run(batch.next_++, 0);
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

// No lock in the sample path: a thread takes the next sample of the front batch by one atomic addition, and the lock
// only when that batch has none left.
void Pool::work(size_t worker) {
  std::shared_ptr<Batch> batch;
  while (true) {
    if (!batch) {
      std::unique_lock lock(state_->mutex);
      state_->submitted.wait(lock, [&] { return state_->stopping || !state_->queue.empty(); });
      if (state_->stopping) return;
      batch = state_->queue.front();
    }
    const int64_t slot = batch->next_++;
    if (slot < batch->size_) {
      batch->run(slot, worker);
    } else {
      std::lock_guard lock(state_->mutex);
      if (!state_->queue.empty() && state_->queue.front() == batch) state_->queue.pop_front();
      batch.reset();
    }
    if (state_->stopping) return;
  }
}

}  // namespace pass_loader
