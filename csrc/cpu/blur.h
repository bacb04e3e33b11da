// Pillow's GaussianBlur: three extended box blurs along each axis (Gwosdek et al., SSVM 2011), with 8 bits between
// passes.
#pragma once
#include "cpu/jitter.h"
#include "image.h"

namespace pass_loader::cpu {

struct BlurScratch {
  Scratch<uint8_t> planes;
  Scratch<uint16_t> words;  // a strip of columns in 16 bits, twice
};

// sigma > 0, in pixels; PIL calls it radius. view.count == height * width.
void gaussian_blur(const ViewPixels& view, int height, int width, float sigma, BlurScratch& scratch);

}  // namespace pass_loader::cpu
