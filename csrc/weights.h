// Pillow's resampling filters as fixed-point taps of one axis. CUDA makes the same integers from filters.h.
#pragma once
#include <cstdint>
#include <vector>

#include "filters.h"

namespace pass_loader {

// Output o is the sum over t < count[o] of input[first[o] + t] * weight[o * stride + t], plus a half, >> kWeightBits,
// clipped.
struct AxisWeights {
  int32_t stride = 0;              // taps reserved for each output, a multiple of 4, filled with zero weights
  int32_t input_begin, input_end;  // the inputs that any output uses
  std::vector<int32_t> first, count, weight;
  std::vector<double> exact;     // the weights in double, if the request asks for them
  std::vector<double> unscaled;  // scratch of make_weights, as `fixed`
  std::vector<int32_t> fixed;
};

struct AxisRequest {
  int32_t in_size;           // the crop box's side
  int32_t resize_size;       // the side after the resize
  int32_t offset, out_size;  // the window of that
  uint8_t interpolation;     // PIL's Resampling value, but for 0, nearest
  bool reversed;             // outputs in reverse order, for a flip
  bool exact = false;        // also makes the weights in double, for pictures of 16 bits
};

// Reuses the vectors of `weights`. Sizes are at least 1, and the window is inside the resize (see check_plan).
void make_weights(const AxisRequest& request, AxisWeights& weights);

}  // namespace pass_loader
