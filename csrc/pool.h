// Threads that make samples, and the queue of batches. A pool knows how many samples a batch has and that they
// can be made one by one; what making a sample means is the business of the classes derived from Batch.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "error.h"

namespace pass_loader {

struct Failure {
  int64_t slot;  // which sample of the batch
  Fault fault;
  std::string message;
};

// One step's samples. A derived class holds what they need and where they go; it does not change while a pool has the
// batch.
class Batch {
 public:
  explicit Batch(size_t size) : size_(static_cast<int64_t>(size)) {}
  virtual ~Batch() = default;
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  bool is_done() const { return done_ >= size_; }

  // In any order. Complete once the batch is done, and not to be read before.
  const std::vector<Failure>& failures() const { return failures_; }

 private:
  friend class Pool;

  // Makes one sample, in the memory of one worker: the number of the thread, or 0 in a pool without threads. Called at
  // most once a slot, for several slots at a time. What it throws becomes a Failure.
  virtual void make(int64_t slot, size_t worker) = 0;

  // Zeros everything that belongs to a slot whose sample has failed.
  virtual void clear(int64_t slot) = 0;

  void run(int64_t slot, size_t worker);
  void fail_sample(int64_t slot, Fault fault, const char* message);
  void finish(int64_t samples);

  const int64_t size_;            // samples
  std::atomic<int64_t> next_{0};  // the slot to be taken next
  std::atomic<int64_t> done_{0};  // samples that are made, failed or cancelled
  std::mutex mutex_;              // guards failures_; a waiter tests done_ under it
  std::condition_variable finished_;
  std::vector<Failure> failures_;
};

// What all threads of a pool together have done since it was made.
struct ThreadTimes {
  int64_t busy_ns = 0;  // making samples
  int64_t idle_ns = 0;  // waiting for a batch to be submitted
};

// Batches are worked through in the order in which they were submitted.
class Pool {
 public:
  // threads == 0: whoever waits makes the samples. cpus: thread i runs on cpus[i % size] alone; empty: anywhere.
  Pool(int threads, const std::vector<int>& cpus);
  // Returns soon: threads finish the sample at hand. Must not run in a forked process, see in_owner_process.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // How many samples are made at the same time at most. Workers are numbered from 0.
  static size_t workers(int threads) { return threads > 0 ? static_cast<size_t>(threads) : 1; }

  void submit(std::shared_ptr<Batch> batch);

  // Returns true when the batch is done, false when the time has passed first.
  bool wait(Batch& batch, std::chrono::milliseconds timeout);

  // Hands out no further sample of the batch and returns when no thread writes to its memory any more.
  void cancel(Batch& batch);

  // May be called while the threads work. What a thread does at this moment is counted up to now.
  ThreadTimes times() const;

  // False in a process forked from the one that made the pool. Such a process has none of the threads, and their locks
  // may be held for ever: submit and wait throw, cancel does nothing, and the pool must be left as it is.
  bool in_owner_process() const;

 private:
  struct State;
  class Timer;

  void start(int threads, const std::vector<int>& cpus);
  void stop();
  void work(size_t worker);
  void check_owner() const;

  std::unique_ptr<State> state_;
};

}  // namespace pass_loader
