// A view's bytes to what the batch holds.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "image.h"

namespace pass_loader::cpu {

enum class Element : int { float32, float16, bfloat16, uint8 };

constexpr size_t bytes_of(Element element) {
  return element == Element::float32 ? 4 : element == Element::uint8 ? 1 : 2;
}

// [channel][byte]: what a byte becomes. Made in Python with torch's arithmetic: (x / 255 - mean) / std in float32, and casts
// of that as the bits of a half type.
using NormalizeTable = std::array<std::array<float, 256>, 3>;
using HalfTable = std::array<std::array<uint16_t, 256>, 3>;

// uint8 is stored as it is: neither tables nor mean and std are used.
struct Normalization {
  Normalization(Element element, bool channels_last, const NormalizeTable& table, const HalfTable& half,
                const std::array<float, 3>& mean, const std::array<float, 3>& std);

  Element element;
  bool channels_last;
  NormalizeTable table;
  HalfTable half;
  std::array<float, 3> mean, std, std_reciprocal;
  bool computable;  // arithmetic without divisions gives every value of the table
};

// out: contiguous elements, (3, height, width) or with channels_last (height, width, 3).
void normalize(const Planes& view, const Normalization& normalization, void* out);

// out: (height, width, 3) uint8, contiguous.
void interleave(const ConstPlanes& view, uint8_t* out);

}  // namespace pass_loader::cpu
