// Records announced, taken by several threads and dropped at random, under sanitizers: read_ahead_storm SECONDS SEED
// FILE. Reads are slow, fail or are cut short at random, and the page cache has what it likes. Prints what became
// of the records; aborts where a promise of csrc/read_ahead.h is broken.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "crc32c.h"
#include "error.h"
#include "read_ahead.h"

using namespace pass_loader;

namespace {

std::atomic<uint32_t> calls{0};
std::atomic<int> slowness_us{0};
std::atomic<bool> nothing_is_cached{false};
std::atomic<int64_t> lacks_from{0}, lacks_to{0};  // where they differ, the page cache lacks these bytes alone

void want(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace

// In place of the C library's.
extern "C" ssize_t pread(int file, void* bytes, size_t size, off_t offset) {
  const uint32_t call = calls++;
  if (slowness_us > 0) ::usleep(static_cast<useconds_t>(call * 2654435761u % static_cast<uint32_t>(slowness_us)));
  if (call % 97 == 0 && size > 1) size /= 2;  // as the system may do
  static thread_local std::vector<uint8_t> read(1 << 16);
  want(size <= read.size(), "no record is as long");
  const ssize_t got = ::syscall(SYS_pread64, file, read.data(), size, offset);
  if (got > 0) std::memcpy(bytes, read.data(), static_cast<size_t>(got));  // which sanitizers see, a call they do not
  return got;
}

extern "C" ssize_t preadv2(int, const struct iovec*, int, off_t offset, int) {
  if (lacks_from < lacks_to) {
    errno = EAGAIN;
    return lacks_from <= offset && offset < lacks_to ? -1 : 1;
  }
  if (!nothing_is_cached && calls++ % 3 == 0) return 1;
  errno = nothing_is_cached || calls % 5 != 0 ? EAGAIN : EOPNOTSUPP;
  return -1;
}

namespace {

struct Shards {
  std::vector<int32_t> shard;
  std::vector<int64_t> offset, length;
  std::vector<uint32_t> crc;
  std::unique_ptr<ShardReader> reader;
};

// Every seventh record cannot be read: the file ends too soon. Every eleventh has other bytes than the index says.
bool is_good(int64_t record) { return record % 7 != 0 && record % 11 != 0; }

std::unique_ptr<Shards> write_shards(const char* path, std::mt19937& random) {
  auto made = std::make_unique<Shards>();
  std::FILE* file = std::fopen(path, "wb");
  want(file != nullptr, "the file can be written");
  int64_t end = 0;
  for (int64_t record = 0; record < 500; ++record) {
    std::vector<uint8_t> bytes(1 + random() % 3000 + (record % 50 == 1 ? 40000 : 0));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    made->shard.push_back(0);
    made->offset.push_back(record % 7 == 0 ? int64_t{1} << 40 : end);
    made->length.push_back(static_cast<int64_t>(bytes.size()));
    made->crc.push_back(crc32c(bytes) + (record % 11 == 0));
    end += static_cast<int64_t>(bytes.size());
  }
  std::fclose(file);
  made->reader = std::make_unique<ShardReader>(
      std::vector<PackFiles>{{{path}, {made->shard, made->offset, made->length, made->crc}}});
  return made;
}

struct Batch {
  std::vector<int64_t> records;
  std::shared_ptr<const ReadAhead::Announcement> announced;
  std::atomic<size_t> next{0};
};

// What was taken or dropped has given its ticket and its room back: a record can be read ahead once more.
void reads_ahead_again(ReadAhead& ahead, const ShardReader& reader) {
  slowness_us = 0, nothing_is_cached = true;
  for (int i = 0; i < 5000; ++i) {  // one of 64 is read where storage is fast
    const int64_t record[1] = {2};
    const auto announced = ahead.announce(reader, record);
    ::usleep(500);
    if (!take(announced, 0).is_empty()) return;
  }
  want(false, "what is given back can be used again");
}

// The page cache may have the first page and the last, which the record shares with its neighbours.
void looks_between_the_neighbours(const Shards& shards) {
  constexpr int64_t kPage = 4096, kLong = 51;
  const int64_t begin = shards.offset[kLong], end = begin + shards.length[kLong];
  lacks_from = (begin / kPage + 1) * kPage, lacks_to = end / kPage * kPage;
  want(lacks_from < lacks_to, "the record has pages of its own");
  const auto found = shards.reader->in_page_cache(kLong);
  lacks_from = lacks_to = 0;
  want(found == ShardReader::Cached::no, "a record whose own pages are not there is read ahead");
}

// The scout waits for room, and nothing is announced any more: what is given back wakes it.
void goes_on_when_there_is_room(const Shards& shards) {
  slowness_us = 6000, nothing_is_cached = true;  // too slow to be left to the kernel
  ReadAhead ahead(100, 1 << 13);
  std::vector<int64_t> records;
  for (int64_t record = 0; records.size() < 60; ++record)
    if (is_good(record) && shards.length[record] < 3000) records.push_back(record);
  const auto announced = ahead.announce(*shards.reader, records);
  int64_t taken = 0, lent = 0;
  for (; taken < 60; ++taken) {
    ::usleep(20000);
    lent += !take(announced, taken).is_empty();
  }
  want(lent > 30, "the scout goes on when there is room");
}

// What nobody will take is still being written: its room and its ticket are not given to others before.
void keeps_room_that_is_written(const Shards& shards) {
  slowness_us = 6000, nothing_is_cached = true;
  ReadAhead ahead(12, 1 << 13);
  Scratch<uint8_t> buffer;
  std::vector<int64_t> records;
  for (int64_t record = 0; records.size() < 100; ++record)
    if (is_good(record) && shards.length[record] < 3000) records.push_back(record);
  for (size_t first = 0; first + 10 <= records.size(); first += 5) {
    const std::span<const int64_t> some(records.data() + first, 10);
    auto dropped = ahead.announce(*shards.reader, some.first(5));
    ::usleep(4000);
    dropped.reset();
    const auto announced = ahead.announce(*shards.reader, some.last(5));
    for (int64_t i = 0; i < 5; ++i) {
      ::usleep(4000);
      const ReadAhead::Loan loan = take(announced, i);
      uint8_t* const outside = buffer.need(1 << 16);
      const auto bytes = loan.read(*shards.reader, some[static_cast<size_t>(i) + 5], buffer);
      want(loan.is_empty() == (bytes.data() == outside), "nobody else writes where a record lies");
    }
  }
}

// One life. Takes batches in order, by several threads, and drops some of them half taken.
void storm(const Shards& shards, std::mt19937& random, ReadAheadCounts& total) {
  slowness_us = random() % 2 ? static_cast<int>(random() % 6000) : 0;
  nothing_is_cached = random() % 2 != 0;
  ReadAhead ahead(1 + random() % 300, size_t{1} << (13 + random() % 6));
  const auto pause_us = random() % 3 * 300;
  std::mutex mutex;
  std::deque<std::shared_ptr<Batch>> queue;
  bool ended = false;
  const auto take_all = [&](unsigned seed) {
    std::mt19937 own(seed);
    Scratch<uint8_t> buffer;
    while (true) {
      std::shared_ptr<Batch> batch;
      {
        std::lock_guard lock(mutex);
        if (queue.empty() && ended) return;
        if (!queue.empty()) batch = queue.front();
      }
      if (batch == nullptr) {
        std::this_thread::yield();
        continue;
      }
      const size_t index = batch->next++;
      if (index >= batch->records.size() || own() % 64 == 0) {  // worked through, or dropped half taken
        batch->next = batch->records.size();
        std::lock_guard lock(mutex);
        if (!queue.empty() && queue.front() == batch) queue.pop_front();
        continue;
      }
      const int64_t record = batch->records[index];
      if (pause_us > 0) ::usleep(static_cast<useconds_t>(pause_us));  // as long as rendering takes
      const ReadAhead::Loan loan = take(batch->announced, static_cast<int64_t>(index));
      try {
        want(loan.is_empty() || record % 7 != 0, "a read that failed is not handed on");
        const bool twice = own() % 16 == 0;
        want(!twice || take(batch->announced, static_cast<int64_t>(index)).is_empty(), "a record is lent once");
        uint8_t* const outside = buffer.need(1 << 16);
        const auto bytes = loan.read(*shards.reader, record, buffer);
        want(loan.is_empty() == (bytes.data() == outside), "the ring has the record's own bytes");
        want(record >= 0 && is_good(record), "a bad record is an error");
        want(static_cast<int64_t>(bytes.size()) == shards.length[record] && crc32c(bytes) == shards.crc[record],
             "a record has its own bytes");
      } catch (const Error&) {
        want(record < 0 || !is_good(record), "a good record is no error");
      }
    }
  };
  std::vector<std::thread> takers;
  for (unsigned i = 0; i < 1 + random() % 4; ++i) takers.emplace_back(take_all, static_cast<unsigned>(random()));
  std::deque<std::shared_ptr<Batch>> dropped;  // a little later, while they are being read
  for (int number = 0; number < 40; ++number) {
    if (dropped.size() > 2) dropped.pop_front();
    auto batch = std::make_shared<Batch>();
    for (size_t i = random() % 40; i-- > 0;) batch->records.push_back(static_cast<int64_t>(random() % 501) - 1);
    batch->announced = ahead.announce(*shards.reader, batch->records);
    if (random() % 4 == 0) {  // never asked for
      dropped.push_back(std::move(batch));
      ::usleep(2000);
      continue;
    }
    std::lock_guard lock(mutex);
    queue.push_back(std::move(batch));
  }
  {
    std::lock_guard lock(mutex);
    ended = true;
    if (random() % 4 == 0) queue.clear();
  }
  for (std::thread& taker : takers) taker.join();
  queue.clear();
  const ReadAheadCounts counts = ahead.counts();
  if (random() % 4 == 0) reads_ahead_again(ahead, *shards.reader);
  total.from_ring += counts.from_ring, total.late += counts.late, total.cached += counts.cached;
  total.left += counts.left, total.readers += counts.readers;
}

}  // namespace

int main(int count, char** arguments) {
  want(count == 4, "usage: read_ahead_storm SECONDS SEED FILE");
  std::mt19937 random(static_cast<unsigned>(std::atoi(arguments[2])));
  const auto shards = write_shards(arguments[3], random);
  looks_between_the_neighbours(*shards);
  goes_on_when_there_is_room(*shards);
  for (int i = 0; i < 3; ++i) keeps_room_that_is_written(*shards);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(arguments[1]));
  ReadAheadCounts total;
  while (std::chrono::steady_clock::now() < end) storm(*shards, random, total);
  std::printf("%lld from the ring, %lld late, %lld cached, %lld left, %d readers\n",
              static_cast<long long>(total.from_ring), static_cast<long long>(total.late),
              static_cast<long long>(total.cached), static_cast<long long>(total.left), total.readers);
}
