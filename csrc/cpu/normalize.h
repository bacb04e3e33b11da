// Converts a view's bytes to the batch's elements.
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

// What a byte becomes, by [channel][byte]. Both tables are made in Python with torch's arithmetic: (x / 255 - mean) /
// std in float32, and casts of that as the bits of a half type.
using NormalizeTable = std::array<std::array<float, 256>, 3>;
using HalfTable = std::array<std::array<uint16_t, 256>, 3>;

// The form of what is written. channels is 3 or 1.
struct OutputForm {
  Element element;
  bool channels_last;
  int channels;
};

// uint8 is stored as it is, without tables, mean and std. The tables' first channels are used, as many as the form has.
struct Normalization {
  Normalization(const OutputForm& form, const NormalizeTable& table, const HalfTable& half,
                const std::array<float, 3>& mean, const std::array<float, 3>& std);

  OutputForm form;
  NormalizeTable table;
  HalfTable half;
  std::array<float, 3> mean, std, std_reciprocal;
  std::array<float, 3> scale, offset;  // what one multiply-add takes
  bool
      computable;  // arithmetic gives every value of the table exactly: without divisions, bfloat16 by one multiply-add
};

// out: contiguous elements, (channels, height, width) or with channels_last (height, width, channels). A gray view
// fills three channels with its one plane; a view with three planes needs three channels.
void normalize(const Planes& view, const Normalization& normalization, void* out);

// out: (height, width, channels) uint8, contiguous. A gray view gives three equal channels if `channels` is 3.
void interleave(const ConstPlanes& view, int channels, uint8_t* out);

}  // namespace pass_loader::cpu
