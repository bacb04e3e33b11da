// Pillow's bilinear and bicubic interpolation of one value (Geometry.c), operation for operation.
#pragma once
#include <cstdint>

#include "isa.h"

namespace pass_loader::cpu {

PL_INLINE double linear(double a, double b, double t) { return a + (b - a) * t; }
PL_INLINE double cubic(double a, double b, double c, double d, double t) {
  return b + t * ((-a + c) + t * ((2 * (a - b) + c - d) + t * (-a + b - c + d)));
}
PL_INLINE uint8_t cut(double value) {
  value = value > 0.0 ? value : 0.0;
  return static_cast<uint8_t>(static_cast<int32_t>(value < 255.0 ? value : 255.0));
}

}  // namespace pass_loader::cpu
