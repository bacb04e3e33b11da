// The steps from decoded components to planar RGB: upsampling, JFIF's colour conversion, Pillow's gray and CMYK.
#pragma once
#include <cstddef>
#include <cstdint>

#include "image.h"

namespace pass_loader::jpeg {

// Converts JFIF's YCbCr to RGB, in place. Whole tiles are converted.
void ycc_to_rgb(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count);

// Converts CMYK to RGB in place, without a profile (Pillow, Convert.c: cmyk2rgb). The samples are inverted, as Adobe's
// files hold them. complemented: r, g, b already hold 255 - C, M, Y, as ycc_to_rgb leaves the first three components of
// YCCK.
void cmyk_to_rgb(const uint8_t* black, bool complemented, size_t count, uint8_t* r, uint8_t* g, uint8_t* b);

// Upsamples one row by 2 in width, in height or in both, with libjpeg's smooth ("fancy") upsampling (jdsample.c: a
// triangle filter).
struct Upsampling {
  int horizontal, vertical;  // 1 or 2, not both 1

  // near: the input row that holds the output row. far: its neighbour on the output row's side, or `near` again without
  // vertical upsampling. lower: the output row is the lower one of its input row's two. sums: scratch for count + 2 *
  // kTile values. `out` has room for whole tiles.
  void run(const uint8_t* near, const uint8_t* far, bool lower, size_t count, uint16_t* sums, uint8_t* out) const;
};

// Writes one interleaved row of 1, 3 or 4 components from libjpeg to row y of the planes: one plane for 1 component,
// else three.
void split_row(const uint8_t* row, int components, const Planes& planes, int32_t y);

}  // namespace pass_loader::jpeg
