#include "shard.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "error.h"

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

// Only a regular file: a pipe would be waited for, a device read without end.
int open_regular(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status;
  if (descriptor < 0 || (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode))) return descriptor;
  ::close(descriptor);
  errno = EINVAL;
  return -1;
}

int open_shard(const std::string& path) {
  const int descriptor = open_regular(path);
  PL_CHECK(descriptor >= 0 || errno != EMFILE, Fault::io,
           "cannot open the shard: the process has as many files open as it may, %llu; allow more (`ulimit -n 65536`, "
           "resource.setrlimit) or close some",
           static_cast<unsigned long long>(open_file_limit()));
  PL_CHECK(descriptor >= 0 || errno != EINVAL, Fault::io, "cannot open the shard: it is no regular file");
  PL_CHECK(descriptor >= 0, Fault::io, "cannot open the shard: %s", reason(errno));
  return descriptor;
}

}  // namespace

struct ShardReader::Opened {
  int descriptor;
  bool kept;
  Opened(int d, bool k) : descriptor(d), kept(k) {}
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
    parts_.push_back({records, paths_.size(), pack.paths.size(), pack.index});
    records += static_cast<int64_t>(n);
    paths_.insert(paths_.end(), std::make_move_iterator(pack.paths.begin()), std::make_move_iterator(pack.paths.end()));
  }
  descriptors_ = std::make_unique<std::atomic<int>[]>(paths_.size());
  for (size_t i = 0; i < paths_.size(); ++i) descriptors_[i] = -1;
}

ShardReader::~ShardReader() {
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (descriptors_[i] < 0) continue;
    ::close(descriptors_[i]);
    kept_descriptors.fetch_sub(1);
  }
}

ShardReader::Opened ShardReader::open(size_t shard) const {
  if (const int kept = descriptors_[shard]; kept >= 0) return {kept, true};
  const int descriptor = open_shard(paths_[shard]);
  if (!reserve_descriptor()) return {descriptor, false};
  int none = -1;
  if (!descriptors_[shard].compare_exchange_strong(none, descriptor)) {  // another thread was first
    ::close(descriptor);
    kept_descriptors.fetch_sub(1);
    return {none, true};
  }
  return {descriptor, true};
}

// The file may have been moved away and put back, or its server may have been restarted. dup3 replaces the open file of
// a descriptor in one step, while other threads read through it.
bool ShardReader::reopen(size_t shard) const {
  if (descriptors_[shard] < 0) return false;
  const int descriptor = open_regular(paths_[shard]);
  if (descriptor < 0) return false;
  const bool exchanged = ::dup3(descriptor, descriptors_[shard], O_CLOEXEC) >= 0;
  ::close(descriptor);
  return exchanged;
}

const char* ShardReader::path_of(int64_t record) const {
  if (record < 0 || record >= records()) return "?";
  const Part& part = parts_[pack_of(record)];
  const int32_t shard = part.index.shard[static_cast<size_t>(record - part.first_record)];
  return shard >= 0 && static_cast<size_t>(shard) < part.shards ? paths_[part.first_shard + shard].c_str() : "?";
}

std::span<const uint8_t> ShardReader::read(int64_t record, Scratch<uint8_t>& buffer) const {
  PL_CHECK(record >= 0 && record < records(), Fault::argument, "record %lld is not in the pack's %lld records",
           static_cast<long long>(record), static_cast<long long>(records()));
  const Part& part = parts_[pack_of(record)];
  const size_t row = static_cast<size_t>(record - part.first_record);
  const int32_t own_shard = part.index.shard[row];
  const int64_t offset = part.index.offset[row], length = part.index.length[row];
  PL_CHECK(own_shard >= 0 && static_cast<size_t>(own_shard) < part.shards && offset >= 0 && length >= 0 &&
               length <= kMaxRecordBytes && offset <= INT64_MAX - length,
           Fault::record, "the index is damaged: shard %d, offset %lld, length %lld", own_shard,
           static_cast<long long>(offset), static_cast<long long>(length));
  const size_t shard = part.first_shard + static_cast<size_t>(own_shard);
  std::span<const uint8_t> bytes;
  try {
    bytes = read_bytes(shard, offset, length, buffer);
  } catch (const Error&) {
    if (!reopen(shard)) throw;
    bytes = read_bytes(shard, offset, length, buffer);
  }
  uint32_t crc = crc32c(bytes);
  PL_CHECK(crc == part.index.crc[row], Fault::record, "CRC32C is %08x, the index says %08x: the bytes were changed",
           crc, part.index.crc[row]);
  return bytes;
}

std::span<const uint8_t> ShardReader::read_bytes(size_t shard, int64_t offset, int64_t length,
                                                 Scratch<uint8_t>& buffer) const {
  Opened file = open(shard);
  struct stat status;
  PL_CHECK(::fstat(file.descriptor, &status) == 0, Fault::io, "cannot stat the shard: %s", reason(errno));
  PL_CHECK(offset + length <= status.st_size, Fault::io,
           "the shard has %lld bytes, its index wants %lld at %lld: it was cut off or replaced",
           static_cast<long long>(status.st_size), static_cast<long long>(length), static_cast<long long>(offset));
  uint8_t* bytes = buffer.need(static_cast<size_t>(length));
  for (int64_t done = 0; done < length;) {
    ssize_t got = ::pread(file.descriptor, bytes + done, static_cast<size_t>(length - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    PL_CHECK(got > 0, Fault::io, "cannot read %lld bytes at %lld: %s", static_cast<long long>(length - done),
             static_cast<long long>(offset + done), reason(got < 0 ? errno : 0));
    done += got;
  }
  return {bytes, static_cast<size_t>(length)};
}

}  // namespace pass_loader
