// A view's bytes to what the batch holds.
#pragma once
#include <array>
#include <cstdint>

#include "image.h"

namespace pass_loader::cpu {

// value[channel][byte]: what a byte becomes. Made in Python with torch's arithmetic, (x / 255 - mean) / std.
using NormalizeTable = std::array<std::array<float, 256>, 3>;

struct Normalization {
  Normalization(const NormalizeTable& table, const std::array<float, 3>& mean, const std::array<float, 3>& std);

  NormalizeTable table;
  std::array<float, 3> mean, std, std_reciprocal;
  bool computable;  // arithmetic without divisions gives every value of the table
};

// out: (3, height, width) float32, contiguous.
void normalize(const Planes& view, const Normalization& normalization, float* out);

// out: (height, width, 3) uint8, contiguous.
void interleave(const ConstPlanes& view, uint8_t* out);

}  // namespace pass_loader::cpu
