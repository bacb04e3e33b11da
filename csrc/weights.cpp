#include "weights.h"

#include <algorithm>
#include <cmath>

namespace pass_loader {
namespace {

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double bicubic(double x) {  // Keys, a = -0.5
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

int32_t fixed_point(double weight) {
  return static_cast<int32_t>(weight * (1 << kWeightBits) + (weight < 0 ? -0.5 : 0.5));
}

}  // namespace

// The order of operations is Pillow's, in double: regrouping would change last bits and then pixels.
void make_weights(const AxisRequest& request, AxisWeights& weights) {
  const bool cubic = request.interpolation == 3;
  const double scale = static_cast<double>(request.in_size) / request.resize_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = (cubic ? 2.0 : 1.0) * filter_scale;
  const double inverse = 1.0 / filter_scale;
  weights.stride = (static_cast<int32_t>(std::ceil(support)) * 2 + 1 + 3) / 4 * 4;
  weights.first.resize(request.out_size);
  weights.count.resize(request.out_size);
  weights.weight.resize(static_cast<size_t>(request.out_size) * weights.stride);
  weights.input_begin = request.in_size;
  weights.input_end = 0;

  std::vector<double>& unscaled = weights.unscaled;
  unscaled.resize(weights.stride);
  for (int32_t i = 0; i < request.out_size; ++i) {
    const double center = (request.offset + i + 0.5) * scale;
    const int32_t first = std::max(static_cast<int32_t>(center - support + 0.5), 0);
    const int32_t end = std::min(static_cast<int32_t>(center + support + 0.5), request.in_size);
    const int32_t count = end - first;
    double sum = 0.0;
    for (int32_t t = 0; t < count; ++t) {
      double x = (t + first - center + 0.5) * inverse;
      unscaled[t] = cubic ? bicubic(x) : bilinear(x);
      sum += unscaled[t];
    }
    const int32_t out = request.reversed ? request.out_size - 1 - i : i;
    int32_t* fixed = &weights.weight[static_cast<size_t>(out) * weights.stride];
    for (int32_t t = 0; t < count; ++t) fixed[t] = fixed_point(sum != 0.0 ? unscaled[t] / sum : unscaled[t]);
    std::fill(fixed + count, fixed + weights.stride, 0);
    weights.first[out] = first;
    weights.count[out] = count;
    weights.input_begin = std::min(weights.input_begin, first);
    weights.input_end = std::max(weights.input_end, end);
  }
}

}  // namespace pass_loader
