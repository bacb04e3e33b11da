// Executes plans: one decoded picture and one plan in, one view out.
#pragma once
#include <array>
#include <cstdint>

#include "cpu/blur.h"
#include "cpu/resample.h"
#include "image.h"
#include "plan.h"

namespace pass_loader::cpu {

struct RenderScratch {
  ResampleScratch resample;
  BlurScratch blur;
  Scratch<uint8_t> view, via;
};

// The steps crop, resize, flip, jitter, grayscale, blur, solarize. The plan was checked against the picture's size.
// Returns three planes without row gaps, owned by `scratch` and valid until its next use.
Planes render_view(const ConstPlanes& picture, const ViewPlan& plan, RenderScratch& scratch);

// value[channel][byte]: what a byte becomes in the batch. Made in Python with torch's arithmetic (x / 255 - mean) / std.
using NormalizeTable = std::array<std::array<float, 256>, 3>;

// out: (3, height, width) float32, contiguous.
void normalize(const Planes& view, const NormalizeTable& table, float* out);

// out: (height, width, 3) uint8, contiguous.
void interleave(const ConstPlanes& view, uint8_t* out);

}  // namespace pass_loader::cpu
