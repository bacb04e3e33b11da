// Executes plans: one decoded picture and one plan in, one view out.
#pragma once
#include <cstdint>

#include "cpu/blur.h"
#include "cpu/kernel_blur.h"
#include "cpu/resample.h"
#include "image.h"
#include "plan.h"
#include "stages.h"

namespace pass_loader::cpu {

struct RenderScratch {
  ResampleScratch resample;
  BlurScratch blur;
  KernelBlurScratch kernel_blur;
  Scratch<uint8_t> view, via;
};

// The steps crop, resize, flip, jitter, grayscale, blur, solarize. The plan was checked against the picture's size and,
// for a deep picture, by check_deep: it has the first three alone. Returns as many planes as the picture has, without
// row gaps, owned by `scratch` and valid until its next use. Each step that runs is charged to `clock`.
Planes render_view(const ConstPlanes& picture, const ViewPlan& plan, RenderScratch& scratch, StageClock& clock);

}  // namespace pass_loader::cpu
