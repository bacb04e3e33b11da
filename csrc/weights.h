// Pillow's resampling filters as fixed-point taps for one axis. CUDA makes the same integers from filters.h.
#pragma once
#include <cstdint>
#include <vector>

#include "filters.h"

namespace pass_loader {

// Output o: the sum over t < count[o] of input[first[o] + t] * weight[o * stride + t], plus a half, >> kWeightBits,
// clipped.
struct AxisWeights {
  int32_t stride = 0;              // taps reserved an output, a multiple of 4; zero weights fill them
  int32_t input_begin, input_end;  // the inputs that any output touches
  std::vector<int32_t> first, count, weight;
  std::vector<double> exact;     // the weights in double, where the request wants them
  std::vector<double> unscaled;  // scratch of make_weights, as is
  std::vector<int32_t> fixed;
};

struct AxisRequest {
  int32_t in_size;           // the crop box's side
  int32_t resize_size;       // what it is resized to
  int32_t offset, out_size;  // the window of it that is wanted
  uint8_t interpolation;     // PIL's Resampling value: 2 bilinear, 3 bicubic
  bool reversed;             // outputs in the opposite order: a flip
  bool exact = false;        // the weights in double too: pictures of 16 bits
};

// Reuses the vectors of `weights`. Sizes >= 1, the window inside the resize (check_plan).
void make_weights(const AxisRequest& request, AxisWeights& weights);

}  // namespace pass_loader
