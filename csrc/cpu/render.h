// Executes plans: makes one view from a decoded picture and a plan.
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

// Runs the steps crop, resize, flip, jitter, grayscale, blur and solarize. The plan must have been checked against the
// picture's size and, for a deep picture, by check_deep, which allows the first three steps alone. Returns as many
// planes as the picture has, without gaps between rows. They belong to `scratch` and are valid until its next use. Each
// step that runs is charged to `clock`.
Planes render_view(const ConstPlanes& picture, const ViewPlan& plan, RenderScratch& scratch, StageClock& clock);

}  // namespace pass_loader::cpu
