// Arithmetic of single pixels and values, for every machine. It gives Pillow's bytes.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace pass_loader {

PL_BOTH int32_t luma(int32_t r, int32_t g, int32_t b) {  // Pillow, Convert.c: L24
  return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

// Pillow, Blend.c. For factors in [0, 1] Pillow does not clip; the value cannot leave [0, 255] then.
PL_BOTH uint8_t blend(float from, float to, float factor) {
  float value = from + factor * (to - from);
  value = value > 0.0f ? value : 0.0f;
  value = value < 255.0f ? value : 255.0f;
  return static_cast<uint8_t>(static_cast<int32_t>(value));
}

PL_BOTH int32_t solarized(int32_t x, int32_t threshold) { return x >= threshold ? 255 - x : x; }

// Hue. Pillow (Convert.c: rgb2hsv_row, hsv2rgb) mixes float and double. With c = max - min and an integer n that says
// how far round the circle the colour is (in sixths, times c), its bytes are these exact quotients:
//
//   hue byte        floor(85 n / 2c), but one less for some quotients that are whole (Pillow's roundings fall short)
//   saturation byte floor(255 c / max)
//   colour back     round(v (21675 - s w) / 21675), w in [0, 85] by channel and hue, 21675 = 85 * 255
//
// Each was compared with Pillow's arithmetic on all 2^24 inputs (tests/native/test_render.py repeats it through PIL).
// The code below computes in float32. That is exact, because all integers stay below 2^24, a correctly rounded division
// of integers is whole only if the quotient is, and 1/21675 leaves no value near a half (2 v (21675 - s w) is even,
// 21675 is odd).

// If 85 n / 2c is whole, Pillow gives that number or one less. Which of them depends on the number alone.
PL_BOTH constexpr bool falls_short(int32_t k) {
  return (k >= 1 && k <= 31) || (k >= 88 && k <= 104 && k % 4 == 0) || (k >= 129 && k <= 149 && k % 2 == 1) ||
         (k >= 153 && k <= 209 && k % 4 == 1) || k == 176 || k == 184;
}

struct HueQuotients {
  int32_t floor;  // floor of 85 n / 2c
  int32_t exact;  // 255 if the quotient is whole, else 0
  int32_t saturation, value;
};

PL_BOTH HueQuotients hue_quotients_of(int32_t r, int32_t g, int32_t b) {
  const int32_t higher = g > b ? g : b, lower = g < b ? g : b;
  const int32_t max = r > higher ? r : higher, chroma = max - (r < lower ? r : lower);
  int32_t n = r == max ? g - b : g == max ? 2 * chroma + b - r : 4 * chroma + r - g;
  n = n < 0 ? n + 6 * chroma : n;
  const int32_t divisor = 2 * chroma > 1 ? 2 * chroma : 1, most = max > 1 ? max : 1;
  const float quotient = static_cast<float>(85 * n) / static_cast<float>(divisor);
  const int32_t floor = static_cast<int32_t>(quotient);
  const int32_t saturation = static_cast<int32_t>(static_cast<float>(255 * chroma) / static_cast<float>(most));
  return {floor, static_cast<float>(floor) == quotient ? 255 : 0, saturation, max};
}

// Returns w of one channel: 0 where it keeps the value, 85 where it is lowest, and a ramp in between.
PL_BOTH uint8_t channel_byte(int32_t value, int32_t saturation, int32_t w) {
  w = w < 0 ? 0 : w < 85 ? w : 85;
  float scaled = static_cast<float>(value * (21675 - saturation * w)) * (1.0f / 21675.0f);
  return static_cast<uint8_t>(static_cast<int32_t>(scaled + 0.5f));
}

// Returns the ramps of the three channels at a hue byte.
struct HueRamps {
  int32_t r, g, b;
};
PL_BOTH HueRamps hue_ramps_of(int32_t hue) {
  const int32_t x = 2 * hue;  // 85 to a sixth of the circle
  const int32_t up = x - 85, down = 425 - x, from_green = x - 170, from_blue = x - 340;
  return {up < down ? up : down, (from_green < 0 ? -from_green : from_green) - 85,
          (from_blue < 0 ? -from_blue : from_blue) - 85};
}

}  // namespace pass_loader
