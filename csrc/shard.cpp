#include "shard.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <iterator>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "error.h"
#include "system_calls.h"

namespace pass_loader {
namespace {

constexpr int64_t kMaxRecordBytes = int64_t{1} << 31;

const char* reason(int error) { return error == 0 ? "end of file" : std::strerror(error); }

uint64_t open_file_limit() {
  struct rlimit limit;
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
}

// Descriptors that all readers of the process keep. They may be half of what the process may open (1,024 by default):
// the rest belongs to its other files. Shards beyond that are opened for each read.
std::atomic<uint64_t> kept_descriptors{0};

bool reserve_descriptor() {
  if (kept_descriptors.fetch_add(1) < open_file_limit() / 2) return true;
  kept_descriptors.fetch_sub(1);
  return false;
}

struct File {
  int descriptor;  // -1: none
  int64_t bytes;
};

// Only a regular file: a pipe would be waited for, a device read without end.
File open_regular(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status;
  if (descriptor < 0) return {-1, 0};
  if (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) return {descriptor, status.st_size};
  ::close(descriptor);
  errno = EINVAL;
  return {-1, 0};
}

File open_shard(const std::string& path) {
  const File file = open_regular(path);
  PL_CHECK(file.descriptor >= 0 || errno != EMFILE, Fault::io,
           "cannot open the shard: the process has as many files open as it may, %llu; allow more (`ulimit -n 65536`, "
           "resource.setrlimit) or close some",
           static_cast<unsigned long long>(open_file_limit()));
  PL_CHECK(file.descriptor >= 0 || errno != EINVAL, Fault::io, "cannot open the shard: it is no regular file");
  PL_CHECK(file.descriptor >= 0, Fault::io, "cannot open the shard: %s", reason(errno));
  return file;
}

// Reads all of it, or returns false with errno, which is 0 at the end of the file.
bool pread_all(int descriptor, uint8_t* bytes, int64_t length, int64_t offset) {
  for (int64_t done = 0; done < length;) {
    const ssize_t got = ::pread(descriptor, bytes + done, static_cast<size_t>(length - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = 0;
    if (got <= 0) return false;
    done += got;
  }
  return true;
}

}  // namespace

struct ShardReader::Opened {
  int descriptor;
  int64_t bytes;  // of the file, when it was opened
  bool kept;
  Opened(int d, int64_t b, bool k) : descriptor(d), bytes(b), kept(k) {}
  Opened(const Opened&) = delete;
  ~Opened() {
    if (!kept) ::close(descriptor);
  }
};

ShardReader::ShardReader(std::vector<PackFiles> packs) {
  PL_CHECK(!packs.empty(), Fault::argument, "want one pack or more");
  int64_t records = 0;
  for (PackFiles& pack : packs) {
    const size_t n = pack.index.shard.size();
    PL_CHECK(pack.index.offset.size() == n && pack.index.length.size() == n && pack.index.crc.size() == n,
             Fault::argument, "index: columns differ in length");
    parts_.push_back({records, paths_.size(), pack.paths.size(), pack.index, pack.proofs});
    records += static_cast<int64_t>(n);
    paths_.insert(paths_.end(), std::make_move_iterator(pack.paths.begin()), std::make_move_iterator(pack.paths.end()));
  }
  kept_ = std::make_unique<Kept[]>(paths_.size());
}

ShardReader::~ShardReader() {
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (kept_[i].descriptor < 0) continue;
    ::close(kept_[i].descriptor);
    kept_descriptors.fetch_sub(1);
  }
}

ShardReader::Opened ShardReader::open(size_t shard) const {
  Kept& kept = kept_[shard];
  if (const int descriptor = kept.descriptor; descriptor >= 0) return {descriptor, kept.bytes, true};
  const File file = open_shard(paths_[shard]);
  if (!reserve_descriptor()) return {file.descriptor, file.bytes, false};
  kept.bytes = file.bytes;
  int none = -1;
  if (!kept.descriptor.compare_exchange_strong(none, file.descriptor)) {  // another thread was first
    ::close(file.descriptor);
    kept_descriptors.fetch_sub(1);
    return {none, file.bytes, true};
  }
  return {file.descriptor, file.bytes, true};
}

// The file may have been moved away and put back, or its server may have been restarted. Other threads read through
// the descriptor meanwhile.
bool ShardReader::reopen(size_t shard) const {
  Kept& kept = kept_[shard];
  if (kept.descriptor < 0) return false;
  const File file = open_regular(paths_[shard]);
  if (file.descriptor < 0) return false;
  const bool exchanged = replace_file(file.descriptor, kept.descriptor);
  ::close(file.descriptor);
  if (exchanged) kept.bytes = file.bytes;
  return exchanged;
}

const char* ShardReader::path_of(int64_t record) const {
  if (record < 0 || record >= records()) return "?";
  const Part& part = parts_[pack_of(record)];
  const int32_t shard = part.index.shard[static_cast<size_t>(record - part.first_record)];
  return shard >= 0 && static_cast<size_t>(shard) < part.shards ? paths_[part.first_shard + shard].c_str() : "?";
}

ShardReader::Place ShardReader::place_of(int64_t record) const {
  const Part& part = part_of(record);
  const size_t row = static_cast<size_t>(record - part.first_record);
  const int32_t shard = part.index.shard[row];
  const int64_t offset = part.index.offset[row], length = part.index.length[row];
  PL_CHECK(shard >= 0 && static_cast<size_t>(shard) < part.shards && offset >= 0 && length >= 0 &&
               length <= kMaxRecordBytes && offset <= INT64_MAX - length,
           Fault::record, "the index is damaged: shard %d, offset %lld, length %lld", shard,
           static_cast<long long>(offset), static_cast<long long>(length));
  return {part.first_shard + static_cast<size_t>(shard), offset, length};
}

uint32_t ShardReader::crc_of(int64_t record) const {
  const Part& part = part_of(record);
  return part.index.crc[static_cast<size_t>(record - part.first_record)];
}

Proof ShardReader::proof_of(int64_t record) const {
  const Part& part = part_of(record);
  const size_t row = static_cast<size_t>(record - part.first_record);
  return pass_loader::proof_of(part.proofs, row, part.index.crc[row], part.index.length[row]);
}

std::span<const uint8_t> ShardReader::read(int64_t record, Scratch<uint8_t>& buffer) const {
  PL_CHECK(record >= 0 && record < records(), Fault::argument, "record %lld is not in the pack's %lld records",
           static_cast<long long>(record), static_cast<long long>(records()));
  const Place place = place_of(record);
  std::span<const uint8_t> bytes;
  try {
    bytes = read_bytes(place, buffer);
  } catch (const Error&) {
    if (!reopen(place.shard)) throw;
    bytes = read_bytes(place, buffer);
  }
  const uint32_t want = crc_of(record);
  uint32_t crc = crc32c(bytes);
  if (crc != want && reopen(place.shard)) {
    bytes = read_bytes(place, buffer);
    crc = crc32c(bytes);
  }
  PL_CHECK(crc == want, Fault::record, "CRC32C is %08x, the index says %08x: the bytes were changed", crc, want);
  return bytes;
}

// Asks for the file's size only where the index wants more than it had, or than it gives: on a network file system that
// can be a question to the server.
std::span<const uint8_t> ShardReader::read_bytes(const Place& place, Scratch<uint8_t>& buffer) const {
  const Opened file = open(place.shard);
  const auto check_size = [&] {
    struct stat status;
    PL_CHECK(::fstat(file.descriptor, &status) == 0, Fault::io, "cannot stat the shard: %s", reason(errno));
    PL_CHECK(place.offset + place.length <= status.st_size, Fault::io,
             "the shard has %lld bytes, its index wants %lld at %lld: it was cut off or replaced",
             static_cast<long long>(status.st_size), static_cast<long long>(place.length),
             static_cast<long long>(place.offset));
  };
  if (place.offset + place.length > file.bytes) check_size();
  uint8_t* bytes = buffer.need(static_cast<size_t>(place.length));
  if (!pread_all(file.descriptor, bytes, place.length, place.offset)) {
    const int error = errno;
    if (error == 0) check_size();
    fail(Fault::io, "cannot read %lld bytes at %lld: %s", static_cast<long long>(place.length),
         static_cast<long long>(place.offset), reason(error));
  }
  return {bytes, static_cast<size_t>(place.length)};
}

int64_t ShardReader::length_of(int64_t record) const noexcept {
  if (record < 0 || record >= records()) return -1;
  try {
    return place_of(record).length;
  } catch (const std::exception&) {
    return -1;
  }
}

bool ShardReader::read_into(int64_t record, uint8_t* bytes) const noexcept {
  try {
    const Place place = place_of(record);
    return pread_all(open(place.shard).descriptor, bytes, place.length, place.offset);
  } catch (const std::exception&) {
    return false;
  }
}

bool ShardReader::matches(int64_t record, std::span<const uint8_t> bytes) const noexcept {
  return crc32c(bytes) == crc_of(record);
}

ShardReader::Cached ShardReader::in_page_cache(int64_t record) const noexcept {
  try {
    const Place place = place_of(record);
    const Opened file = open(place.shard);
    const int64_t last = std::max<int64_t>(place.length, 1) - 1;
    // The first page and the last may be there for the sake of the neighbours, with which the record shares them.
    for (const int64_t at : {last / 2, last, int64_t{0}}) {
      if (readable_at_once(file.descriptor, place.offset + at)) continue;
      return errno == EAGAIN ? Cached::no : Cached::unknown;
    }
    return Cached::yes;
  } catch (const std::exception&) {
    return Cached::unknown;
  }
}

void ShardReader::will_need(int64_t record) const noexcept {
  try {
    const Place place = place_of(record);
    read_soon(open(place.shard).descriptor, place.offset, place.length);
  } catch (const std::exception&) {  // `read` tells
  }
}

}  // namespace pass_loader
