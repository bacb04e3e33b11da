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

class ShardReader {
 public:
  ShardReader(std::vector<std::string> paths, IndexColumns index);
  ~ShardReader();
  ShardReader(const ShardReader&) = delete;
  ShardReader& operator=(const ShardReader&) = delete;

  int64_t records() const { return static_cast<int64_t>(index_.shard.size()); }

  // The record's bytes, in `buffer`. Safe from any number of threads, each with its own buffer.
  // Throws Error(argument) for a record out of range, Error(io), Error(record) where the CRC does not fit.
  std::span<const uint8_t> read(int64_t record, Scratch<uint8_t>& buffer) const;

 private:
  struct Opened;
  Opened open(int32_t shard) const;
  bool reopen(int32_t shard) const;  // whether what is kept open is now what lies at the path
  std::span<const uint8_t> read_bytes(int32_t shard, int64_t offset, int64_t length, Scratch<uint8_t>& buffer) const;

  std::vector<std::string> paths_;
  IndexColumns index_;
  std::unique_ptr<std::atomic<int>[]> descriptors_;  // of the first kKeptOpen shards; -1: not opened yet
};

}  // namespace pass_loader
