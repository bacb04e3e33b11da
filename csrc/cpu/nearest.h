// A second picture of a sample, such as a heatmap, through the plan of a view: same box, window and flip, nearest
// pixels.
#pragma once
#include "image.h"
#include "plan.h"

namespace pass_loader::cpu {

struct NearestScratch {
  Scratch<int32_t> rows, columns, via;
};

// picture: gray. out: (out_height, out_width) float32, contiguous: 0 to 1, as torchvision's ToTensor of Pillow's
// NEAREST resize. The plan was checked against the picture's size; its steps of colour and its blur mean nothing here.
void nearest(const ConstPlanes& picture, const ViewPlan& plan, NearestScratch& scratch, float* out);

}  // namespace pass_loader::cpu
