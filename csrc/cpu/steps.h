// The further steps of a view, in their order.
#pragma once
#include <span>

#include "cpu/affine.h"
#include "cpu/blur.h"
#include "cpu/kernel_blur.h"
#include "image.h"
#include "plan.h"

namespace pass_loader::cpu {

struct StepsScratch {
  Scratch<uint8_t> other;  // a second view, for steps that read one and write the other
  AffineScratch affine;
  BlurScratch blur;
  KernelBlurScratch kernel_blur;
};

// Executes steps that were checked against the view's plan. `view` has no gaps between rows and lies in `memory`.
// Returns where the result lies: there, or in the scratch. A gray view, of one plane, has three if a step fills it with
// a colour. What erases is left to cpu/erase.h.
Planes run_steps(Planes view, Scratch<uint8_t>& memory, std::span<const StepPlan> steps, StepsScratch& scratch);

}  // namespace pass_loader::cpu
