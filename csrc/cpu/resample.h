// Crop, antialiased resize and flip: Pillow's two passes with 8 bits between them.
#pragma once
#include "image.h"
#include "weights.h"

namespace pass_loader::cpu {

struct ResampleScratch {
  AxisWeights horizontal, vertical;
  Scratch<uint8_t> between;  // the picture between the passes
  Scratch<uint8_t> padded;   // the output of a horizontal pass that runs second
  Scratch<uint8_t> columns;  // one tile, transposed; resample_pairs' vertical weights
  Scratch<uint8_t> groups;   // resample_pairs' horizontal weights
};

struct ResampleRequest {
  int32_t crop_x, crop_y, crop_width, crop_height;
  int32_t resize_height, resize_width;
  int32_t offset_x, offset_y;  // the window's corner; its size is the output's
  uint8_t interpolation;
  bool flip, vertical_first;
};

// `out` has as many planes as the picture, and rows of out.width bytes without gaps. Both buffers may be read up to two
// tiles past their ends, and `out` written.
void resample(const ConstPlanes& picture, const ResampleRequest& request, const Planes& out, ResampleScratch& scratch);

}  // namespace pass_loader::cpu
