// The weights of both blurs. They are made on the CPU, for the CPU's kernels and for CUDA's.
#pragma once
#include <cstdint>

namespace pass_loader {

constexpr int kBoxPasses = 3;

// A box with a real-valued radius: 2 * radius + 1 pixels with weight ww, and one on each side with weight fw, in units
// of 2^-24.
struct Box {
  int32_t radius;
  uint32_t ww, fw;
};

// Returns the box of Pillow's GaussianBlur. sigma > 0, in pixels; PIL calls it radius.
Box box_of(float sigma);

// Writes torchvision's kernel for one axis. taps is odd, sigma > 0. The two-dimensional kernel holds the products of
// these.
void gaussian_taps(int taps, float sigma, float* out);

}  // namespace pass_loader
