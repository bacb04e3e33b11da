// What is known of a record from an earlier decode: that it is sound, and where decoding can begin inside its JPEG's
// scan. docs/format.md specifies the file points.arrow, whose columns these are.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "image.h"

namespace pass_loader {

// The beginning of a row of MCUs in a baseline scan. On disk: 10 bytes, little-endian, in this order.
struct EntryPoint {
  static constexpr size_t kBytes = 10;

  uint32_t bit;   // of the scan, from the first byte after its header, stuffed zeros counted
  int16_t dc[3];  // each component's prediction; 0 for one that the picture does not have

  static EntryPoint load(const uint8_t* from);
  void append_to(std::vector<uint8_t>* points) const;
};

// One entry for each record. They are borrowed, and nothing in them is trusted. Empty columns: nothing is known.
struct ProofColumns {
  std::span<const uint8_t> proven;  // 1: decoded whole without error or warning
  std::span<const uint32_t> check;
  std::span<const int64_t> ends;    // of each record's entry points, in bytes; the first is 0, so one more than records
  std::span<const uint8_t> points;  // of all records
};

struct Proof {
  bool proven = false;
  std::span<const uint8_t> points{};  // an EntryPoint for each row of MCUs, or none
};

// Returns the CRC32C of entry points, followed by the record's own CRC32C (4 bytes) and length (8 bytes).
uint32_t check_of(std::span<const uint8_t> points, uint32_t crc, int64_t length);

// Returns what is known of a row, which has this CRC32C and length by the index. Nothing where its check does not fit.
Proof proof_of(const ProofColumns& columns, size_t row, uint32_t crc, int64_t length);

// What is wanted of a picture that is proven. Whether a picture is bad must not depend on what is wanted of it: others
// are decoded whole.
struct Part {
  Window window;
  std::span<const uint8_t> points;  // see Proof
};

}  // namespace pass_loader
