// The key and the counter of every random decision. A decision's slot in the counter is never reused or shifted, so
// that changing one probability changes no other decision.
#pragma once
#include "rng.h"

namespace pass_loader {

constexpr uint32_t kMaxDraws = 1 << 16;  // how often one record may be drawn in one epoch; 16 bits of the counter

struct SampleKey {
  uint64_t seed;
  uint32_t epoch;
  int64_t record;     // [0, 2^40)
  uint32_t draw = 0;  // [0, kMaxDraws): another number gives the sample other views
};

struct Draws {
  Words base;
  uint64_t seed;

  Words words(uint32_t slot) const { return philox({base[0], base[1], base[2], slot}, seed); }
  double first(uint32_t slot) const {
    Words w = words(slot);
    return unit(w[0], w[1]);
  }
};

// The draws of a sample's view. Counter: epoch | record, low 32 bits | view (8), record's high bits (8), draw (16) |
// slot.
inline Draws draws_of(const SampleKey& key, uint32_t view) {
  uint32_t mixed = view | static_cast<uint32_t>(key.record >> 32 & 0xFF) << 8 | key.draw % kMaxDraws << 16;
  return {{key.epoch, static_cast<uint32_t>(key.record), mixed, 0}, key.seed};
}

// The draws of a batch. Counter: epoch | step, low 32 bits | rank (16), step's high bits (16) | slot from kBatchSlots
// on, which no view uses.
constexpr uint32_t kBatchSlots = 0x80000000;

struct BatchKey {
  uint64_t seed;
  uint32_t epoch;
  int64_t step;   // [0, 2^48)
  uint32_t rank;  // [0, 2^16)
};

inline Draws draws_of(const BatchKey& key) {
  uint32_t mixed = (key.rank & 0xFFFF) | static_cast<uint32_t>(key.step >> 32 & 0xFFFF) << 16;
  return {{key.epoch, static_cast<uint32_t>(key.step), mixed, 0}, key.seed};
}

}  // namespace pass_loader
