// Executes plans: makes one view from a decoded picture and a plan.
#pragma once
#include <span>

#include "cpu/blur.h"
#include "cpu/kernel_blur.h"
#include "cpu/places.h"
#include "cpu/resample.h"
#include "cpu/steps.h"
#include "image.h"
#include "plan.h"
#include "stages.h"

namespace pass_loader::cpu {

struct RenderScratch {
  ResampleScratch resample;
  BlurScratch blur;
  KernelBlurScratch kernel_blur;
  StepsScratch steps;
  PlacesScratch places;
  StepsScratch whole_steps;
  Scratch<uint8_t> view, via, inner, whole;
};

// Runs those of `steps` that stand before the crop on a copy of the picture, then the steps crop, resize, flip, jitter,
// grayscale, blur and solarize, then the other `steps`. The plan must have been checked against the picture's size and,
// for a deep picture, by check_deep, which allows crop, resize and flip alone. Returns as many planes as the picture
// has, or three if a further step fills a gray picture with a colour, without gaps between rows. They belong to
// `scratch` and are valid until its next use. Each step that runs is charged to `clock`, the further ones together.
Planes render_view(const ConstPlanes& picture, const ViewPlan& plan, std::span<const StepPlan> steps,
                   RenderScratch& scratch, StageClock& clock);

}  // namespace pass_loader::cpu
