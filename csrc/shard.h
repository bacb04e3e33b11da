// Record to bytes, checked. Shards are read with pread, not mapped: a shard that shrinks or vanishes under a running
// job is an error, never a SIGBUS.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "image.h"

namespace pass_loader {

// The index's columns, borrowed: the caller keeps them alive. One entry a record.
struct IndexColumns {
  std::span<const int32_t> shard;
  std::span<const int64_t> offset, length;  // bytes
  std::span<const uint32_t> crc;
};

struct PackFiles {
  std::vector<std::string> paths;  // of the shards
  IndexColumns index;
};

// The records of one pack or of several, numbered through: those of the first, then those of the second, ...
class ShardReader {
 public:
  explicit ShardReader(std::vector<PackFiles> packs);
  ~ShardReader();
  ShardReader(const ShardReader&) = delete;
  ShardReader& operator=(const ShardReader&) = delete;

  int64_t records() const {
    return parts_.back().first_record + static_cast<int64_t>(parts_.back().index.shard.size());
  }

  // Which of the packs a record in [0, records()) lies in.
  size_t pack_of(int64_t record) const {
    size_t pack = parts_.size() - 1;
    while (record < parts_[pack].first_record) --pack;
    return pack;
  }

  // Of the record's shard; "?" for a record that the packs do not have.
  const char* path_of(int64_t record) const;

  // The record's bytes, in `buffer`. Safe from any number of threads, each with its own buffer.
  // Throws Error(argument) for a record out of range, Error(io), Error(record) where the CRC does not fit.
  std::span<const uint8_t> read(int64_t record, Scratch<uint8_t>& buffer) const;

 private:
  struct Opened;
  struct Part {  // one pack
    int64_t first_record;
    size_t first_shard, shards;
    IndexColumns index;
  };
  Opened open(size_t shard) const;
  bool reopen(size_t shard) const;  // whether what is kept open is now what lies at the path
  std::span<const uint8_t> read_bytes(size_t shard, int64_t offset, int64_t length, Scratch<uint8_t>& buffer) const;

  std::vector<std::string> paths_;                   // of all packs
  std::vector<Part> parts_;                          // at least one
  std::unique_ptr<std::atomic<int>[]> descriptors_;  // of the first kKeptOpen shards; -1: not opened yet
};

}  // namespace pass_loader
