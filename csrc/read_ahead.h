// Records read before a thread asks for them. The loader announces what it will need. What the page cache does not have
// is read, by threads that only read, into one ring of bytes: so slow storage is waited for many times at once.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "shard.h"

namespace pass_loader {

// What became of the records that were asked for, since the start.
struct ReadAheadCounts {
  int64_t from_ring = 0;  // read ahead
  int64_t late = 0;       // of these: were still being read
  int64_t cached = 0;     // left to the thread that asked: the page cache had them, or soon would
  int64_t left = 0;       // left to it for another reason: no room, not yet looked at, not readable
  int readers = 0;        // threads
  double latency_s = 0;   // of a read, the recent mean
};

class ReadAhead {
 public:
  class Announcement;
  class Loan;

  // records: the most that are announced and not given back. ring_bytes: of records that are read and not given back.
  // 0 switches reading ahead off. Threads start, and memory is touched, when they are needed.
  ReadAhead(size_t records, size_t ring_bytes);
  // Waits for reads that are under way. Must not run in a forked process, see Pool.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Announces records in the order in which they will be needed; those below 0 will not be. The reader must outlive
  // this. Those without room are read when they are taken.
  std::shared_ptr<const Announcement> announce(const ShardReader& reader, std::span<const int64_t> records);

  ReadAheadCounts counts() const;

 private:
  struct Ticket;
  struct State;
  std::unique_ptr<State> state_;
};

// A record that was taken. Holds its room in the ring for its lifetime.
class ReadAhead::Loan {
 public:
  Loan() = default;
  Loan(State* state, Ticket* ticket) : state_(state), ticket_(ticket) {}
  Loan(Loan&& other) noexcept : state_(other.state_), ticket_(other.ticket_) { other.ticket_ = nullptr; }
  ~Loan();

  bool is_empty() const { return ticket_ == nullptr; }

  // As ShardReader::read, of the same record. The bytes are in the ring or in `buffer`.
  std::span<const uint8_t> read(const ShardReader& reader, int64_t record, Scratch<uint8_t>& buffer) const;

 private:
  State* state_ = nullptr;
  Ticket* ticket_ = nullptr;  // null: the record was not read ahead
};

// Records that were announced together. What was not taken is given back at the end. Any number of threads may take.
class ReadAhead::Announcement {
 public:
  Announcement(State& state, uint64_t first, size_t count);
  ~Announcement();
  Announcement(const Announcement&) = delete;
  Announcement& operator=(const Announcement&) = delete;

  // Waits if the record is being read. A loan for the same index a second time is empty.
  Loan take(int64_t index) const;

 private:
  State& state_;
  const uint64_t first_;
  const size_t count_;  // the first ones, which have a ticket
  const std::unique_ptr<std::atomic<bool>[]> taken_;
};

// What a batch has announced; null: nothing.
struct Announced {
  std::shared_ptr<const ReadAhead::Announcement> samples;
  std::shared_ptr<const ReadAhead::Announcement> others;  // companions or heatmaps
};

// Returns an empty loan where nothing was announced.
inline ReadAhead::Loan take(const std::shared_ptr<const ReadAhead::Announcement>& announced, int64_t index) {
  return announced == nullptr ? ReadAhead::Loan() : announced->take(index);
}

}  // namespace pass_loader
