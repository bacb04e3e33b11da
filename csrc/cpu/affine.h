// Image.transform, AFFINE and PERSPECTIVE: each pixel of the view is looked for in the view before.
#pragma once
#include <cstdint>

#include "image.h"
#include "plan.h"

namespace pass_loader::cpu {

struct AffineScratch {
  Scratch<uint8_t> padded, mosaic, turned, back;
  Scratch<double> fractions;
  Scratch<float> rounded;
  Scratch<int32_t> places;
};

// Executes a step whose op is affine or perspective. `out` has the size and the planes of `view` and lies elsewhere.
void affine(const ConstPlanes& view, const StepPlan& step, const Planes& out, AffineScratch& scratch);

}  // namespace pass_loader::cpu
