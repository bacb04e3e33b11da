// The weights of both blurs, made on the CPU: used by the CPU and by CUDA.
#pragma once
#include <cstdint>

namespace pass_loader {

constexpr int kBoxPasses = 3;

// A box of real-valued radius: 2 * radius + 1 pixels of weight ww and one on each side of weight fw, in 1 / 2^24.
struct Box {
  int32_t radius;
  uint32_t ww, fw;
};

// Of Pillow's GaussianBlur; sigma > 0, pixels (what PIL calls radius).
Box box_of(float sigma);

// torchvision's kernel of one axis; taps odd, sigma > 0. Its two-dimensional kernel holds the products of these.
void gaussian_taps(int taps, float sigma, float* out);

}  // namespace pass_loader
