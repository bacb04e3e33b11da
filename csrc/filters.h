// Pillow's resampling filters (src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc) for one output of
// one axis, in double. The order of operations is Pillow's: another order would change last bits, and then pixels.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace pass_loader {

constexpr int kWeightBits = 22;  // 32 - 8 bits of pixel - 2 bits of headroom for negative lobes

PL_BOTH double bilinear(double x) {
  x = x < 0.0 ? -x : x;
  return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys, a = -0.5. Each part is 0 at both ends of the other's range, so that their sum needs no choice between them.
PL_BOTH double bicubic(double x) {
  constexpr double a = -0.5;
  x = x < 0.0 ? -x : x;
  const double near = x < 1.0 ? x : 1.0, below = x < 2.0 ? x : 2.0, far = below > 1.0 ? below : 1.0;
  const double inner = ((a + 2.0) * near - (a + 3.0)) * near * near + 1.0;
  const double outer = (((far - 5.0) * far + 8.0) * far - 4.0) * a;
  return inner + outer;
}

// How far a filter reaches. interpolation: PIL's Resampling value, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
PL_BOTH double reach_of(uint8_t interpolation) {
  return interpolation == 3 ? 2.0 : interpolation == 1 ? 3.0 : interpolation == 4 ? 0.5 : 1.0;
}

struct Scaling {
  double scale, support, inverse;
  bool cubic;
};

// Returns the scaling from in_size inputs to resize_size outputs. interpolation: as in reach_of.
PL_BOTH Scaling scaling_of(int32_t in_size, int32_t resize_size, uint8_t interpolation) {
  Scaling s;
  s.cubic = interpolation == 3;
  s.scale = static_cast<double>(in_size) / resize_size;
  const double filter_scale = s.scale > 1.0 ? s.scale : 1.0;
  s.support = reach_of(interpolation) * filter_scale;
  s.inverse = 1.0 / filter_scale;
  return s;
}

PL_BOTH double centre_of(const Scaling& s, int32_t out) { return (out + 0.5) * s.scale; }

// The inputs [first_tap, end_tap) of the output at `centre`.
PL_BOTH int32_t first_tap(const Scaling& s, double centre) {
  const int32_t first = static_cast<int32_t>(centre - s.support + 0.5);
  return first > 0 ? first : 0;
}
PL_BOTH int32_t end_tap(const Scaling& s, double centre, int32_t in_size) {
  const int32_t end = static_cast<int32_t>(centre + s.support + 0.5);
  return end < in_size ? end : in_size;
}

// Of the filters bilinear and bicubic, which alone a GPU has.
PL_BOTH double weight_of(const Scaling& s, double input, double centre) {
  const double x = (input - centre + 0.5) * s.inverse;
  return s.cubic ? bicubic(x) : bilinear(x);
}

// Returns a weight as a share of the sum of all weights, in units of 2^-kWeightBits.
PL_BOTH int32_t fixed_weight(double weight, double sum) {
  weight = weight / sum * (1 << kWeightBits);
  return static_cast<int32_t>(weight + (weight < 0.0 ? -0.5 : 0.5));
}

}  // namespace pass_loader
