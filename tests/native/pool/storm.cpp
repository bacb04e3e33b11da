// Many small batches on a pool, cancelled and dropped at random, under ThreadSanitizer: storm SECONDS SEED. Prints what
// was done; aborts where a promise of csrc/pool.h is broken.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "pool.h"

using namespace pass_loader;

namespace {

void want(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

struct Shared {
  std::vector<std::unique_ptr<std::atomic<bool>>> busy;  // one a worker: its memory must be used by one thread alone
  bool in_order;                                         // one thread makes all samples
  int64_t last_number = -1, last_slot = -1;              // of that thread
};

// Writes to memory that its owner takes away once the batch is done or cancelled: without atomics, so that
// ThreadSanitizer sees a write that comes late.
class StormBatch final : public Batch {
 public:
  StormBatch(Shared& shared, int64_t number, size_t size, std::vector<int>& slots)
      : Batch(size), shared_(shared), number_(number), slots_(slots) {}

 private:
  void make(int64_t slot, size_t worker) override {
    want(!shared_.busy[worker]->exchange(true), "two threads have one worker's memory");
    if (shared_.in_order) {
      want(number_ > shared_.last_number || (number_ == shared_.last_number && slot > shared_.last_slot),
           "batches are begun in the order in which they were submitted");
      shared_.last_number = number_, shared_.last_slot = slot;
    }
    want(slots_[slot] == 0, "a slot is made once");
    slots_[slot] = 1;
    if (slot % 4 == 0) std::this_thread::yield();
    shared_.busy[worker]->store(false);
    if ((number_ + slot) % 11 == 0) throw Error(Fault::record, "as asked");
    if ((number_ + slot) % 23 == 0) throw std::bad_alloc();
    if ((number_ + slot) % 29 == 0) throw std::runtime_error("as asked");
  }
  void clear(int64_t slot) override { slots_[slot] = 2; }

  Shared& shared_;
  const int64_t number_;
  std::vector<int>& slots_;
};

bool fails(int64_t number, size_t slot) {
  const int64_t sum = number + static_cast<int64_t>(slot);
  return sum % 11 == 0 || sum % 23 == 0 || sum % 29 == 0;
}

struct Submitted {
  int64_t number;
  std::unique_ptr<std::vector<int>> slots;
  std::shared_ptr<StormBatch> batch;
};

void check_whole(const Submitted& one) {
  size_t failures = 0;
  for (size_t slot = 0; slot < one.slots->size(); ++slot) {
    want((*one.slots)[slot] == (fails(one.number, slot) ? 2 : 1), "every slot is made, or fails and is cleared");
    failures += fails(one.number, slot);
  }
  want(one.batch->failures().size() == failures, "every failure is told");
  for (const Failure& failure : one.batch->failures())
    want(fails(one.number, static_cast<size_t>(failure.slot)), "a failure has its slot");
}

// One pool's life. Returns the number of batches.
int64_t storm(int threads, std::mt19937& random, std::chrono::steady_clock::time_point end) {
  Shared shared{.busy = {}, .in_order = threads == 1};
  for (size_t i = 0; i < Pool::workers(threads); ++i) shared.busy.push_back(std::make_unique<std::atomic<bool>>(false));
  Pool pool(threads, {});
  std::deque<Submitted> queue;
  int64_t number = 0;
  const int64_t batches = 1 + random() % 2000;
  while (number < batches && std::chrono::steady_clock::now() < end) {
    for (size_t depth = random() % 6; queue.size() < depth;) {
      Submitted one{number++, std::make_unique<std::vector<int>>(random() % 9), nullptr};
      one.batch = std::make_shared<StormBatch>(shared, one.number, one.slots->size(), *one.slots);
      pool.submit(one.batch);
      queue.push_back(std::move(one));
    }
    if (queue.empty()) continue;
    const size_t which = random() % 8 == 0 ? random() % queue.size() : 0;
    Submitted one = std::move(queue[which]);
    queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(which));
    switch (random() % 4) {
      case 0:  // cancelled: nothing is written from now on
        pool.cancel(*one.batch);
        want(one.batch->is_done(), "a cancelled batch is done");
        one.slots->assign(one.slots->size(), 3);
        break;
      case 1:  // cancelled after a moment
        if (pool.wait(*one.batch, std::chrono::milliseconds(0))) check_whole(one);
        pool.cancel(*one.batch);
        break;
      default:
        while (!pool.wait(*one.batch, std::chrono::milliseconds(random() % 3))) {
        }
        check_whole(one);
    }
  }
  for (Submitted& one : queue) pool.cancel(*one.batch);
  const ThreadTimes first = pool.times(), second = pool.times();  // threads are idle, or about to be
  want(first.busy_ns >= 0 && first.idle_ns >= 0, "threads take their time");
  want(second.busy_ns + second.idle_ns >= first.busy_ns, "what was busy has been so");
  return number;
}

}  // namespace

int main(int count, char** arguments) {
  want(count == 3, "usage: storm SECONDS SEED");
  std::mt19937 random(static_cast<unsigned>(std::atoi(arguments[2])));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1000 * std::atoi(arguments[1]));
  int64_t pools = 0, batches = 0;
  for (; std::chrono::steady_clock::now() < end; ++pools) batches += storm(static_cast<int>(random() % 9), random, end);
  std::printf("%lld pools, %lld batches\n", static_cast<long long>(pools), static_cast<long long>(batches));
}
