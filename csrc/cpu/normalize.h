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

// [channel][byte]: what a byte becomes. Made in Python with torch's arithmetic: (x / 255 - mean) / std in float32, and
// casts of that as the bits of a half type.
using NormalizeTable = std::array<std::array<float, 256>, 3>;
using HalfTable = std::array<std::array<uint16_t, 256>, 3>;

// What is written: 3 channels, or 1.
struct OutputForm {
  Element element;
  bool channels_last;
  int channels;
};

// uint8 is stored as it is: neither tables nor mean and std are used. Of the tables as many channels as the form has.
struct Normalization {
  Normalization(const OutputForm& form, const NormalizeTable& table, const HalfTable& half,
                const std::array<float, 3>& mean, const std::array<float, 3>& std);

  OutputForm form;
  NormalizeTable table;
  HalfTable half;
  std::array<float, 3> mean, std, std_reciprocal;
  bool computable;  // arithmetic without divisions gives every value of the table
};

// out: contiguous elements, (channels, height, width) or with channels_last (height, width, channels). A gray view
// fills three channels with its one; a view of three planes needs three.
void normalize(const Planes& view, const Normalization& normalization, void* out);

// out: (height, width, channels) uint8, contiguous; three equal channels of a gray view where `channels` is 3.
void interleave(const ConstPlanes& view, int channels, uint8_t* out);

}  // namespace pass_loader::cpu
