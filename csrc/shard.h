// Reads records and checks their bytes. Shards are read with pread, not mapped, so that a shard that shrinks or
// vanishes during a job is an error and never a SIGBUS.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "image.h"

namespace pass_loader {

// The index's columns, one entry for each record. They are borrowed: the caller keeps them alive.
struct IndexColumns {
  std::span<const int32_t> shard;
  std::span<const int64_t> offset, length;  // bytes
  std::span<const uint32_t> crc;
};

struct PackFiles {
  std::vector<std::string> paths;  // the shards' paths
  IndexColumns index;
};

// The records of one pack or of several. They are numbered through all packs: those of the first, then those of the
// second, ...
class ShardReader {
 public:
  explicit ShardReader(std::vector<PackFiles> packs);
  ~ShardReader();
  ShardReader(const ShardReader&) = delete;
  ShardReader& operator=(const ShardReader&) = delete;

  int64_t records() const {
    return parts_.back().first_record + static_cast<int64_t>(parts_.back().index.shard.size());
  }

  // Returns the number of the pack that has a record in [0, records()).
  size_t pack_of(int64_t record) const {
    size_t pack = parts_.size() - 1;
    while (record < parts_[pack].first_record) --pack;
    return pack;
  }

  // Returns the path of the record's shard; "?" for a record that the packs do not have.
  const char* path_of(int64_t record) const;

  // Returns the record's bytes, which are in `buffer`. May be called by any number of threads, each with its own
  // buffer. Throws Error(argument) for a record out of range, Error(io), or Error(record) if the CRC does not match.
  std::span<const uint8_t> read(int64_t record, Scratch<uint8_t>& buffer) const;

 private:
  struct Opened;
  struct Part {  // one pack
    int64_t first_record;
    size_t first_shard, shards;
    IndexColumns index;
  };
  Opened open(size_t shard) const;
  bool reopen(size_t shard) const;  // returns true if the descriptor that is kept now has the file at the path
  std::span<const uint8_t> read_bytes(size_t shard, int64_t offset, int64_t length, Scratch<uint8_t>& buffer) const;

  std::vector<std::string> paths_;                   // the paths of all packs
  std::vector<Part> parts_;                          // at least one
  std::unique_ptr<std::atomic<int>[]> descriptors_;  // those that are kept, a shard each; -1: none
};

}  // namespace pass_loader
