#include "blur_weights.h"

#include <cmath>

namespace pass_loader {
namespace {

// Sums n floats in the order of torch on x86: 8 lanes, then the rest, then the lanes; 4 lanes for less than 8 numbers
// (SumKernel.cpp).
float sum_of(const float* values, int n) {
  float lanes[8] = {}, sum = 0.0f;
  const int width = n < 8 ? 4 : 8, whole = n / width * width;
  for (int i = 0; i < whole; ++i) lanes[i % width] += values[i];
  if (n < 8) {
    for (int i = whole; i < n; ++i) lanes[0] += values[i];
  } else {
    for (int i = whole; i < n; ++i) sum += values[i];
  }
  for (int lane = 0; lane < width; ++lane) sum += lanes[lane];
  return sum;
}

}  // namespace

// Pillow, BoxBlur.c: _gaussian_blur_radius and ImagingHorizontalBoxBlur. The types are float where Pillow has float: a
// radius in double would give other weights, and then other pixels.
Box box_of(float sigma) {
  float sigma2 = sigma * sigma / kBoxPasses;
  float length = static_cast<float>(std::sqrt(12.0 * sigma2 + 1.0));
  float whole = static_cast<float>(std::floor((length - 1.0) / 2.0));
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * sigma2);
  part /= 6 * (sigma2 - (whole + 1) * (whole + 1));
  float radius = whole + part;
  Box box;
  box.radius = static_cast<int32_t>(radius);
  box.ww = static_cast<uint32_t>(16777216.0f / (radius * 2 + 1));
  box.fw = ((1u << 24) - static_cast<uint32_t>(box.radius * 2 + 1) * box.ww) / 2;
  return box;
}

// exp is computed in double and rounded. torch uses MKL's, which differs in the last place for about one value in a
// hundred.
void gaussian_taps(int taps, float sigma, float* out) {
  for (int i = 0; i < taps; ++i) {
    const float x = static_cast<float>(i - taps / 2) / sigma;
    out[i] = static_cast<float>(std::exp(static_cast<double>(-0.5f * (x * x))));
  }
  const float sum = sum_of(out, taps);
  for (int i = 0; i < taps; ++i) out[i] /= sum;
}

}  // namespace pass_loader
