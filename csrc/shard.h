// Reads records and checks their bytes. Shards are read with pread, not mapped, so that a shard that shrinks or
// vanishes during a job is an error and never a SIGBUS.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "entry_points.h"
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
  ProofColumns proofs{};  // empty where nothing is known
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

  // Returns what is known of a record in [0, records()), whose bytes `read` has returned.
  Proof proof_of(int64_t record) const;

  // For reading ahead: none of these throws, and none says why something is not possible. `read` does.

  // Returns the record's bytes, -1 if the packs or the index do not have it.
  int64_t length_of(int64_t record) const noexcept;
  // Reads a record that has a length, unchecked. Returns false if that fails.
  bool read_into(int64_t record, uint8_t* bytes) const noexcept;
  // Returns true if these are the record's bytes by their CRC.
  bool matches(int64_t record, std::span<const uint8_t> bytes) const noexcept;
  enum class Cached : uint8_t { yes, no, unknown };
  // Asks for the record's first and last byte.
  Cached in_page_cache(int64_t record) const noexcept;
  // Lets the kernel read the record into the page cache, without waiting for it.
  void will_need(int64_t record) const noexcept;

 private:
  struct Opened;
  struct Part {  // one pack
    int64_t first_record;
    size_t first_shard, shards;
    IndexColumns index;
    ProofColumns proofs;
  };
  struct Place {  // as the index says
    size_t shard;
    int64_t offset, length;
  };
  struct Kept {
    std::atomic<int> descriptor{-1};  // -1: none
    std::atomic<int64_t> bytes{0};    // of the file, when it was opened
  };
  const Part& part_of(int64_t record) const { return parts_[pack_of(record)]; }
  uint32_t crc_of(int64_t record) const;
  Place place_of(int64_t record) const;  // of a record that the packs have. Throws Error(record)
  Opened open(size_t shard) const;
  bool reopen(size_t shard) const;  // returns true if the descriptor that is kept now has the file at the path
  std::span<const uint8_t> read_bytes(const Place& place, Scratch<uint8_t>& buffer) const;

  std::vector<std::string> paths_;  // the paths of all packs
  std::vector<Part> parts_;         // at least one
  std::unique_ptr<Kept[]> kept_;    // a shard each
};

}  // namespace pass_loader
