// Bilinear and bicubic values of neighbouring pixels that lie between neighbouring pixels: the taps of each are bytes
// side by side, so that nothing is gathered.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::cpu {

constexpr int32_t kRunGroup = 16;  // pixels that are made together; as many may be read past the last one

struct Run {
  const uint8_t* tap[4];  // of the first pixel, in their order; bilinear: the two in the middle
  const double* part;     // how far each pixel lies past tap[1], in [0, 1)
  const float* nearly;    // the same, rounded
  int32_t count;
  uint8_t* out;
};

// Pillow's Geometry.c in double, clipped and truncated. A float says what the byte is where it is farther from a whole
// number than it can err; else the double is computed.
void linear_run(const Run& run);
void cubic_run(const Run& run);

}  // namespace pass_loader::cpu
