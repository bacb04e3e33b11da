// Renders a second picture of a sample, such as a heatmap, by the plan of a view: the same crop box, window and flip,
// with nearest pixels.
#pragma once
#include "cpu/places.h"
#include "image.h"
#include "plan.h"

namespace pass_loader::cpu {

// picture: gray. out: (out_height, out_width) float32, contiguous, from 0 to 1: torchvision's ToTensor of Pillow's
// NEAREST resize. The plan must have been checked against the picture's size. Its colour steps and its blur are
// ignored.
void nearest(const ConstPlanes& picture, const ViewPlan& plan, PlacesScratch& scratch, float* out);

}  // namespace pass_loader::cpu
