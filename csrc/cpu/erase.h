// Rectangles of a normalised view that are erased.
#pragma once
#include <span>

#include "cpu/normalize.h"
#include "plan.h"

namespace pass_loader::cpu {

// Executes those of the steps that erase, which were checked against the view's plan. out: the view's elements, as
// normalize() writes them; not uint8.
void erase(std::span<const StepPlan> steps, const OutputForm& form, int32_t height, int32_t width, void* out);

}  // namespace pass_loader::cpu
