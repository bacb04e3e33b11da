// Half types, rounded to the nearest, ties to even.
#pragma once
#include <bit>
#include <cstdint>

#include "isa.h"

namespace pass_loader::cpu {

// IEEE 754-2008, 4.3.1.
PL_INLINE uint16_t to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffff;
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // no number
  if (magnitude >= 0x47800000) return sign | 0x7c00;  // 65536 and above become infinite
  if (magnitude < 0x38800000) {                       // below 2^-14: subnormal, in steps of 2^-24
    // A sum with 0.5 has its last bit at 2^-24, so the addition rounds to it.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(rounded) - 0x3f000000);
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);  // infinite if it rounds up to 65536
}

PL_INLINE uint16_t to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace pass_loader::cpu
