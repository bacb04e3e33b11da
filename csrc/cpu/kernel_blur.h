// torchvision's GaussianBlur: a kernel with a given number of taps, reflected edges, float32, rounded to 8 bits.
#pragma once
#include "cpu/jitter.h"
#include "image.h"

namespace pass_loader::cpu {

struct KernelBlurScratch {
  Scratch<float> floats, sums, kernel;
  Scratch<uint32_t> doubtful;
};

// count: the number of taps, odd, at most 255. sigma > 0, in pixels. view.count == height * width, both above count /
// 2.
void kernel_blur(const ViewPixels& view, int height, int width, int count, float sigma, KernelBlurScratch& scratch);

}  // namespace pass_loader::cpu
