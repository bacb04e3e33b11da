#include "weights.h"

#include <algorithm>
#include <cmath>

#include "isa.h"

namespace pass_loader {
namespace {

constexpr int kLanes = 8;  // outputs that are computed together; each lane adds its taps in Pillow's order

// Makes the weights of kLanes outputs of the resize, from number `begin`. `unscaled` and `fixed` have kLanes values for
// each tap. With `exact`, the weights in double replace `unscaled`. `s` is a copy, which no store below can change, and
// its filter a constant: the loops vectorise, and make no weights of the other filter.
template <bool cubic>
PL_INLINE void weights_by(Scaling s, bool exact, int32_t begin, int32_t in_size, int32_t taps, int32_t* first_out,
                          int32_t* count_out, double* unscaled, int32_t* fixed) {
  s.cubic = cubic;
  double center[kLanes], sum[kLanes], first[kLanes], count[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    center[i] = centre_of(s, begin + i);
    first_out[i] = first_tap(s, center[i]);
    count_out[i] = end_tap(s, center[i], in_size) - first_out[i];
    first[i] = first_out[i];
    count[i] = count_out[i];
    sum[i] = 0.0;
  }
  for (int32_t t = 0; t < taps; ++t) {
    const double tap = t;
    for (int i = 0; i < kLanes; ++i) {
      double weight = weight_of(s, tap + first[i], center[i]);
      weight = tap < count[i] ? weight : 0.0;
      unscaled[t * kLanes + i] = weight;
      sum[i] += weight;
    }
  }
  for (int i = 0; i < kLanes; ++i) sum[i] = sum[i] != 0.0 ? sum[i] : 1.0;
  for (int32_t t = 0; t < taps; ++t)
    for (int i = 0; i < kLanes; ++i) fixed[t * kLanes + i] = fixed_weight(unscaled[t * kLanes + i], sum[i]);
  if (!exact) return;
  for (int32_t t = 0; t < taps; ++t)
    for (int i = 0; i < kLanes; ++i) unscaled[t * kLanes + i] /= sum[i];
}

PL_INLINE void lane_weights_body(const Scaling& s, bool exact, int32_t begin, int32_t in_size, int32_t taps,
                                 int32_t* first, int32_t* count, double* unscaled, int32_t* fixed) {
  if (s.cubic) {
    weights_by<true>(s, exact, begin, in_size, taps, first, count, unscaled, fixed);
  } else {
    weights_by<false>(s, exact, begin, in_size, taps, first, count, unscaled, fixed);
  }
}

PL_LEVELS(lane_weights,
          (const Scaling& s, bool exact, int32_t begin, int32_t in_size, int32_t taps, int32_t* first, int32_t* count,
           double* unscaled, int32_t* fixed),
          (s, exact, begin, in_size, taps, first, count, unscaled, fixed))

}  // namespace

void make_weights(const AxisRequest& request, AxisWeights& weights) {
  const Scaling s = scaling_of(request.in_size, request.resize_size, request.interpolation);
  const int32_t stride = (static_cast<int32_t>(std::ceil(s.support)) * 2 + 1 + 3) / 4 * 4;
  // An output has less than 2 support + 1 taps, apart from rounding.
  const int32_t taps = static_cast<int32_t>(2.0 * s.support + 0.001) + 1;
  weights.stride = stride;
  weights.first.resize(request.out_size);
  weights.count.resize(request.out_size);
  weights.weight.resize(static_cast<size_t>(request.out_size) * stride);
  weights.unscaled.resize(static_cast<size_t>(stride) * kLanes);
  weights.fixed.assign(static_cast<size_t>(stride) * kLanes, 0);
  if (request.exact) weights.exact.resize(static_cast<size_t>(request.out_size) * stride);
  int32_t input_begin = request.in_size, input_end = 0;
  for (int32_t begin = 0; begin < request.out_size; begin += kLanes) {
    int32_t first[kLanes], count[kLanes];
    lane_weights(s, request.exact, request.offset + begin, request.in_size, taps, first, count, weights.unscaled.data(),
                 weights.fixed.data());
    for (int i = 0; i < std::min(kLanes, request.out_size - begin); ++i) {
      const int32_t out = request.reversed ? request.out_size - 1 - (begin + i) : begin + i;
      int32_t* to = &weights.weight[static_cast<size_t>(out) * stride];
      const int32_t* from = &weights.fixed[i];
      for (int32_t t = 0; t < stride; t += 4, from += 4 * kLanes)
        for (int k = 0; k < 4; ++k) to[t + k] = from[k * kLanes];
      for (int32_t t = 0; t < count[i] && request.exact; ++t)
        weights.exact[static_cast<size_t>(out) * stride + t] = weights.unscaled[t * kLanes + i];
      weights.first[out] = first[i];
      weights.count[out] = count[i];
      input_begin = std::min(input_begin, first[i]);
      input_end = std::max(input_end, first[i] + count[i]);
    }
  }
  weights.input_begin = input_begin;
  weights.input_end = input_end;
}

}  // namespace pass_loader
