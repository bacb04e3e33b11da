// What lies between decoded components and planar RGB: upsampling, JFIF's colour conversion, Pillow's gray and CMYK.
#pragma once
#include <cstddef>
#include <cstdint>

#include "image.h"

namespace pass_loader::jpeg {

// JFIF's YCbCr to RGB, in place. Whole tiles are converted.
void ycc_to_rgb(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count);

// Samples of CMYK as Adobe's files hold them, inverted, to RGB in place, without a profile (Pillow, Convert.c:
// cmyk2rgb). complemented: r, g, b hold 255 - C, M, Y already, which YCCK's first three components become by
// ycc_to_rgb.
void cmyk_to_rgb(const uint8_t* black, bool complemented, size_t count, uint8_t* r, uint8_t* g, uint8_t* b);

// libjpeg's smooth ("fancy") upsampling of one row (jdsample.c: a triangle filter) by 2 in width, in height or in both.
struct Upsampling {
  int horizontal, vertical;  // 1 or 2, not both 1

  // near, far: the input row that holds the output row, and its neighbour on the output row's side; the same without
  // vertical upsampling. lower: whether the output row is the lower of its input row's two. sums: scratch of count + 2
  // * kTile values. `out` takes whole tiles.
  void run(const uint8_t* near, const uint8_t* far, bool lower, size_t count, uint16_t* sums, uint8_t* out) const;
};

// One interleaved row of 1, 3 or 4 components from libjpeg, to row y of the planes: one for 1 component, else three.
void split_row(const uint8_t* row, int components, const Planes& planes, int32_t y);

}  // namespace pass_loader::jpeg
