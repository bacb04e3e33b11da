#include "read_ahead.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include "image.h"
#include "memory.h"
#include "system_calls.h"

namespace pass_loader {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostReaders = 512;
constexpr size_t kGroup = 32;        // tickets that are looked at in one turn
constexpr uint64_t kRoomShare = 16;  // the scout sleeps until one part in so many of the tickets is given back
constexpr double kFastS = 0.002;     // reads that take less are left to the kernel's own reading ahead
constexpr int kFirstReads = 16;      // reads that tell how fast the storage is
constexpr uint64_t kSampled = 64;    // of fast storage, one record in so many is read here, to notice a change
constexpr double kSpare = 1.25;      // readers beyond what the mean latency asks for
constexpr double kHurry = 2;         // the same while records come too late
constexpr double kLate = 0.02;       // share of late records above which that is so
constexpr auto kRatePeriod = std::chrono::milliseconds(20);

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

// Where a record stands. Only who changes `state` from one value to the next may touch the rest.
struct ReadAhead::Ticket {
  enum State : uint32_t {
    announced,   // the scout has not looked at it
    queued,      // has room in the ring, and waits for a reader
    reading,     //
    abandoned,   // the same, and nobody will take it
    ready,       // its bytes are in the ring
    cached,      // to be read by who takes it: the page cache has it
    unreadable,  // to be read by who takes it
    given_back,
  };
  std::atomic<uint32_t> state{given_back};
  const ShardReader* reader = nullptr;
  int64_t record = -1;
  uint8_t* bytes = nullptr;  // in the ring
  size_t length = 0;
  uint64_t end = 0;  // of its room, counted as if the ring had no end; 0: it has none

  bool change(State from, State to) {
    uint32_t expected = from;
    return state.compare_exchange_strong(expected, to);
  }
};

// One thread, the scout, looks at tickets in their order: asks the page cache, makes room in the ring, starts readers.
// Tickets are numbered from 0; ticket n is tickets[n % size]. Always given_back <= next_read <= looked_at <= announced.
struct ReadAhead::State {
  State(size_t records, size_t bytes) : tickets(records), ring_bytes(bytes / kMemoryAlign * kMemoryAlign) {}
  ~State() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    work.notify_all();
    queue.notify_all();
    if (scout.joinable()) scout.join();
    for (std::thread& reader : readers) reader.join();
    give_memory_back(ring, ring_bytes);
  }

  Ticket& at(uint64_t number) { return tickets[number % tickets.size()]; }

  void look();
  bool place(Ticket& ticket);
  void wait_for_room(Ticket& ticket, std::unique_lock<std::mutex>& lock);
  void wake_readers(uint64_t queued, std::unique_lock<std::mutex>& lock);
  bool has_ring();
  bool has_room(size_t bytes, uint64_t& begin);
  void take_back();
  void note_given_back(int64_t count);
  void read();
  void note_read(double latency);
  void start_readers();
  bool is_fast() const { return reads >= kFirstReads && latency_s < kFastS; }

  const pid_t owner = ::getpid();
  std::vector<Ticket> tickets;
  const size_t ring_bytes;
  uint8_t* ring = nullptr;

  mutable std::mutex mutex;             // guards all below that is not atomic
  std::condition_variable work, queue;  // for the scout: tickets or room; for readers: queued tickets
  bool stopping = false;
  uint64_t announced = 0, looked_at = 0, next_read = 0, given_back = 0;  // tickets
  uint64_t used_to = 0, free_to = 0;                                     // bytes of the ring, as Ticket::end
  std::thread scout;
  std::vector<std::thread> readers;
  int64_t reads = 0;
  double latency_s = 0, rate = 0;  // recent means
  Clock::time_point rated = Clock::now();
  int64_t rated_taken = 0, rated_late = 0;

  std::atomic<int64_t> scout_waits_for{
      0};  // so many more tickets to be given back; 0 or less: it does not wait for room
  std::atomic<int64_t> from_ring{0}, late{0}, cached{0}, left{0};
};

// Called with the lock. Tickets are given back in any order, their room in the order of tickets.
void ReadAhead::State::take_back() {
  while (given_back < looked_at && at(given_back).state == Ticket::given_back) {
    if (at(given_back).end != 0) free_to = at(given_back).end;
    ++given_back;
  }
  next_read = std::max(next_read, given_back);
}

// To be called after tickets were given back. A thread that renders seldom has to wake the scout.
void ReadAhead::State::note_given_back(int64_t count) {
  if (scout_waits_for <= 0) return;
  if (const int64_t before = scout_waits_for.fetch_sub(count); before <= 0 || before > count) return;
  std::lock_guard lock(mutex);
  work.notify_one();
}

// Finds `begin` for so many bytes in one piece.
bool ReadAhead::State::has_room(size_t bytes, uint64_t& begin) {
  begin = used_to;
  if (begin % ring_bytes + bytes > ring_bytes) begin += ring_bytes - begin % ring_bytes;
  return begin + bytes <= free_to + ring_bytes;
}

bool ReadAhead::State::has_ring() {
  if (ring != nullptr) return true;
  try {
    ring = static_cast<uint8_t*>(take_memory(ring_bytes));
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

void ReadAhead::State::look() {
  enum class Way : uint8_t { read, cached, unreadable };
  Way ways[kGroup];
  std::unique_lock lock(mutex);
  while (true) {
    work.wait(lock, [&] { return stopping || looked_at < announced; });
    if (stopping) return;
    const uint64_t first = looked_at, count = std::min<uint64_t>(announced - looked_at, kGroup);
    const bool fast = is_fast();
    lock.unlock();
    for (uint64_t i = 0; i < count; ++i) {
      Ticket& ticket = at(first + i);
      ways[i] = Way::unreadable;
      if (ticket.state != Ticket::announced) continue;  // taken already
      const auto there = ticket.reader->in_page_cache(ticket.record);
      if (there == ShardReader::Cached::yes) {
        ways[i] = Way::cached;
      } else if (fast && (first + i) % kSampled != 0) {
        if (there == ShardReader::Cached::no) ticket.reader->will_need(ticket.record);
        ways[i] = Way::cached;
      } else {
        ways[i] = Way::read;
      }
    }
    lock.lock();
    uint64_t queued = 0;
    for (uint64_t i = 0; i < count && !stopping; ++i) {
      Ticket& ticket = at(first + i);
      if (ways[i] != Way::read) {
        ticket.change(Ticket::announced, ways[i] == Way::cached ? Ticket::cached : Ticket::unreadable);
      } else if (!place(ticket)) {
        wake_readers(std::exchange(queued, 0), lock);
        wait_for_room(ticket, lock);
      }
      if (ticket.state == Ticket::queued) ++queued;
      ++looked_at;
    }
    wake_readers(queued, lock);
  }
}

// Called with the lock, which it gives up: who is woken would have to wait for it.
void ReadAhead::State::wake_readers(uint64_t queued, std::unique_lock<std::mutex>& lock) {
  if (queued == 0) return;
  if (readers.empty()) start_readers();
  lock.unlock();
  for (uint64_t i = 0; i < queued; ++i) queue.notify_one();
  lock.lock();
}

// Queues a ticket, or leaves it to who takes it. Returns false where the ring has no room for it yet. Called with the
// lock.
bool ReadAhead::State::place(Ticket& ticket) {
  const size_t bytes = padded_bytes(ticket.length);
  if (bytes > ring_bytes / 2 || !has_ring()) {
    ticket.change(Ticket::announced, Ticket::unreadable);
    return true;
  }
  take_back();
  uint64_t begin = 0;
  if (!has_room(bytes, begin)) return ticket.state != Ticket::announced;
  ticket.bytes = ring + begin % ring_bytes;
  ticket.end = begin + bytes;
  if (ticket.change(Ticket::announced, Ticket::queued))
    used_to = ticket.end;
  else  // taken meanwhile
    ticket.end = 0;
  return true;
}

// Places a ticket as soon as there is room. Called with the lock, which it gives up while it waits.
void ReadAhead::State::wait_for_room(Ticket& ticket, std::unique_lock<std::mutex>& lock) {
  while (!stopping) {
    scout_waits_for = static_cast<int64_t>((looked_at - given_back) / kRoomShare + 1);
    if (place(ticket)) break;
    work.wait(lock, [&] { return stopping || scout_waits_for <= 0; });
  }
  scout_waits_for = 0;
}

// Called with the lock. As many as the rate and the latency ask for (Little's law).
void ReadAhead::State::start_readers() {
  const Clock::time_point now = Clock::now();
  const double period = seconds(now - rated);
  const int64_t taken = from_ring + cached + left, too_late = late + left;
  const double share = taken > rated_taken ? static_cast<double>(too_late - rated_late) / (taken - rated_taken) : 0;
  if (taken > rated_taken) rate = static_cast<double>(taken - rated_taken) / period;
  rated = now, rated_taken = taken, rated_late = too_late;
  const double wanted = std::ceil(rate * latency_s * (share > kLate ? kHurry : kSpare)) + 1;
  const size_t most = std::min({kMostReaders, tickets.size(), static_cast<size_t>(wanted)});
  try {
    readers.reserve(kMostReaders);
    while (readers.size() < most) {
      name_thread(readers.emplace_back([this] { read(); }).native_handle(), "pass-reader");
    }
  } catch (const std::exception&) {  // the system allows no more: what is queued is read by who takes it
  }
}

void ReadAhead::State::note_read(double latency) {
  latency_s += (latency - latency_s) / static_cast<double>(std::min<int64_t>(++reads, kFirstReads));
  if (Clock::now() - rated > kRatePeriod) start_readers();
}

void ReadAhead::State::read() {
  std::unique_lock lock(mutex);
  while (true) {
    Ticket* ticket = nullptr;
    queue.wait(lock, [&] {
      while (next_read < looked_at && ticket == nullptr)
        if (Ticket& next = at(next_read++); next.change(Ticket::queued, Ticket::reading)) ticket = &next;
      return stopping || ticket != nullptr;
    });
    if (stopping) return;
    lock.unlock();
    const Clock::time_point began = Clock::now();
    const bool whole = ticket->reader->read_into(ticket->record, ticket->bytes);
    const double latency = seconds(Clock::now() - began);
    if (ticket->change(Ticket::reading, whole ? Ticket::ready : Ticket::unreadable)) {
      ticket->state.notify_all();
    } else {  // abandoned
      ticket->state = Ticket::given_back;
      note_given_back(1);
    }
    lock.lock();
    note_read(latency);
  }
}

ReadAhead::ReadAhead(size_t records, size_t ring_bytes) : state_(std::make_unique<State>(records, ring_bytes)) {}
ReadAhead::~ReadAhead() = default;

std::shared_ptr<const ReadAhead::Announcement> ReadAhead::announce(const ShardReader& reader,
                                                                   std::span<const int64_t> records) {
  State& state = *state_;
  if (state.tickets.empty() || state.ring_bytes == 0) return nullptr;
  std::lock_guard lock(state.mutex);
  if (!state.scout.joinable()) {
    try {
      state.scout = std::thread([&state] { state.look(); });
      name_thread(state.scout.native_handle(), "pass-scout");
    } catch (const std::system_error&) {  // records are read when they are taken
      return nullptr;
    }
  }
  state.take_back();
  const size_t room = state.given_back + state.tickets.size() - state.announced;
  const size_t count = std::min(room, records.size());
  auto announcement = std::make_shared<Announcement>(state, state.announced, count);
  for (size_t i = 0; i < count; ++i) {
    Ticket& ticket = state.at(state.announced++);
    const int64_t length = reader.length_of(records[i]);
    ticket.reader = &reader, ticket.record = records[i];
    ticket.length = static_cast<size_t>(std::max<int64_t>(length, 0)), ticket.end = 0;
    ticket.state = length < 0 ? Ticket::unreadable : Ticket::announced;
  }
  state.work.notify_one();
  return announcement;
}

ReadAheadCounts ReadAhead::counts() const {
  const State& state = *state_;
  std::lock_guard lock(state.mutex);
  return {state.from_ring, state.late, state.cached, state.left, static_cast<int>(state.readers.size()),
          state.latency_s};
}

ReadAhead::Announcement::Announcement(State& state, uint64_t first, size_t count)
    : state_(state), first_(first), count_(count), taken_(std::make_unique<std::atomic<bool>[]>(count)) {}

ReadAhead::Announcement::~Announcement() {
  if (::getpid() != state_.owner) return;
  int64_t given_back = 0;
  for (size_t i = 0; i < count_; ++i) {
    if (taken_[i]) continue;
    Ticket& ticket = state_.at(first_ + i);
    uint32_t now = ticket.state;
    while (!ticket.state.compare_exchange_weak(now, now == Ticket::reading ? Ticket::abandoned : Ticket::given_back)) {
    }
    given_back += now != Ticket::reading;
  }
  state_.note_given_back(given_back);
}

ReadAhead::Loan ReadAhead::Announcement::take(int64_t index) const {
  const auto i = static_cast<size_t>(index);
  if (i >= count_ || taken_[i].exchange(true)) {
    ++state_.left;
    return {};
  }
  Ticket& ticket = state_.at(first_ + i);
  uint32_t now = ticket.state;
  if (now == Ticket::reading) ++state_.late;
  while (true) {
    if (now == Ticket::reading) {
      ticket.state.wait(now);
      now = ticket.state;
    } else if (now == Ticket::ready) {
      ++state_.from_ring;
      return {&state_, &ticket};
    } else if (ticket.state.compare_exchange_weak(now, Ticket::given_back)) {
      ++(now == Ticket::cached ? state_.cached : state_.left);
      state_.note_given_back(1);
      return {};
    }
  }
}

ReadAhead::Loan::~Loan() {
  if (ticket_ == nullptr) return;
  ticket_->state = Ticket::given_back;
  state_->note_given_back(1);
}

std::span<const uint8_t> ReadAhead::Loan::read(const ShardReader& reader, int64_t record,
                                               Scratch<uint8_t>& buffer) const {
  if (ticket_ != nullptr && ticket_->reader == &reader && ticket_->record == record) {
    const std::span<const uint8_t> bytes{ticket_->bytes, ticket_->length};
    if (reader.matches(record, bytes)) return bytes;
  }
  return reader.read(record, buffer);  // which says what is wrong, where something is
}

}  // namespace pass_loader
