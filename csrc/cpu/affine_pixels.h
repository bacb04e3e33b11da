// Bilinear and bicubic values of pixels that lie anywhere between pixels.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::cpu {

constexpr int32_t kPixelGroup = 16;  // pixels that are made together

// The pixels of a view, four bytes each, so that one load takes four neighbours in all planes. There are two pixels
// more on each side, which repeat the edge.
struct Mosaic {
  const uint8_t* first;  // of the pixel 0, 0
  ptrdiff_t pitch;       // bytes from row to row
};

// Where the pixels of a row come from: as many as there are, and up to a whole group more.
struct Spots {
  const int32_t* offset;                     // in the mosaic, bytes, of the pixel at or before the place
  const uint8_t* inside;                     // 0: the fill
  const double *across, *down;               // how far the place lies past that pixel, in [0, 1)
  const float *nearly_across, *nearly_down;  // the same, rounded
};

// Pillow's Geometry.c in double, clipped and truncated, of `count` pixels in each plane. A float says what the byte is
// where it is farther from a whole number than it can err; else the double is computed.
void linear_pixels(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3], int planes,
                   uint8_t* const (&out)[3]);
void cubic_pixels(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3], int planes,
                  uint8_t* const (&out)[3]);

}  // namespace pass_loader::cpu
