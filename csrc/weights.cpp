#include "weights.h"

#include <algorithm>
#include <cmath>

#include "isa.h"
#include "portable_math.h"

namespace pass_loader {
namespace {

constexpr int kLanes = 8;  // outputs that are computed together; each lane adds its taps in Pillow's order

// Makes the weights of kLanes outputs of the resize, from number `begin`. `unscaled` and `fixed` have kLanes values for
// each tap. With `exact`, the weights in double replace `unscaled`.
PL_INLINE void weights_by(const Scaling& scaling, bool cubic, bool exact, int32_t begin, int32_t in_size, int32_t taps,
                          int32_t* first_out, int32_t* count_out, double* unscaled, int32_t* fixed) {
  Scaling s = scaling;  // a copy, which no store below can change: the loops vectorise
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
#if defined(__aarch64__)  // narrow vectors: one filter and a branch cost less than both filters and a choice
  if (s.cubic)
    weights_by(s, true, exact, begin, in_size, taps, first, count, unscaled, fixed);
  else
    weights_by(s, false, exact, begin, in_size, taps, first, count, unscaled, fixed);
#else
  weights_by(s, s.cubic, exact, begin, in_size, taps, first, count, unscaled, fixed);
#endif
}

PL_LEVELS(lane_weights,
          (const Scaling& s, bool exact, int32_t begin, int32_t in_size, int32_t taps, int32_t* first, int32_t* count,
           double* unscaled, int32_t* fixed),
          (s, exact, begin, in_size, taps, first, count, unscaled, fixed))

// Pillow, Resample.c: box_filter, hamming_filter, lanczos_filter.

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  const SinCos at = portable_sin_cos(x * kPi);
  return at.sin / (x * kPi) * (static_cast<double>(0.54f) + static_cast<double>(0.46f) * at.cos);
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= kPi;
  return portable_sin_cos(x).sin / x;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

// As lane_weights, for the filters that are none of its two.
void lane_weights_of(double (*filter)(double), const Scaling& s, bool exact, int32_t begin, int32_t in_size,
                     int32_t taps, int32_t* first, int32_t* count, double* unscaled, int32_t* fixed) {
  for (int i = 0; i < kLanes; ++i) {
    const double center = centre_of(s, begin + i);
    first[i] = first_tap(s, center);
    count[i] = end_tap(s, center, in_size) - first[i];
    double sum = 0.0;
    for (int32_t t = 0; t < taps; ++t) {
      const double x = (static_cast<double>(t) + first[i] - center + 0.5) * s.inverse;
      sum += unscaled[t * kLanes + i] = t < count[i] ? filter(x) : 0.0;
    }
    sum = sum != 0.0 ? sum : 1.0;
    for (int32_t t = 0; t < taps; ++t) {
      double& weight = unscaled[t * kLanes + i];
      fixed[t * kLanes + i] = fixed_weight(weight, sum);
      if (exact) weight /= sum;
    }
  }
}

}  // namespace

void make_weights(const AxisRequest& request, AxisWeights& weights) {
  const Scaling s = scaling_of(request.in_size, request.resize_size, request.interpolation);
  double (*const filter)(double) = request.interpolation == 1   ? lanczos
                                   : request.interpolation == 4 ? box
                                   : request.interpolation == 5 ? hamming
                                                                : nullptr;
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
    const int32_t from = request.offset + begin;
    if (filter == nullptr)
      lane_weights(s, request.exact, from, request.in_size, taps, first, count, weights.unscaled.data(),
                   weights.fixed.data());
    else
      lane_weights_of(filter, s, request.exact, from, request.in_size, taps, first, count, weights.unscaled.data(),
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
