#include "cpu/jitter.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "image.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = kTile;

PL_INLINE int32_t luma(int32_t r, int32_t g, int32_t b) {  // Pillow, Convert.c: L24
  return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

// Pillow, Blend.c. Inside [0, 1] Pillow does not clip, and there the value cannot leave [0, 255].
PL_INLINE uint8_t blend(float from, float to, float factor) {
  float value = from + factor * (to - from);
  value = value > 0.0f ? value : 0.0f;
  value = value < 255.0f ? value : 255.0f;
  return static_cast<uint8_t>(static_cast<int32_t>(value));
}

PL_INLINE void blend_with_constant_body(uint8_t* pixels, size_t count, float from, float factor) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i) pixels[i] = blend(from, pixels[i], factor);
}

#if defined(__x86_64__)
// Eight bytes to float, and 32 blended values back: truncated, then clipped by two saturating packs. |factor| <= 1e6
// keeps the values inside int32.
PL_TARGET_AVX2 inline __m256 floats_at(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
PL_TARGET_AVX2 inline __m256i blend_eight(__m256 from, __m256 to, __m256 factor) {
  return _mm256_cvttps_epi32(_mm256_add_ps(from, _mm256_mul_ps(factor, _mm256_sub_ps(to, from))));
}
PL_TARGET_AVX2 inline void store_bytes(const __m256i (&values)[4], uint8_t* p) {
  __m256i words[2] = {_mm256_packs_epi32(values[0], values[1]), _mm256_packs_epi32(values[2], values[3])};
  __m256i bytes = _mm256_packus_epi16(words[0], words[1]);
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(bytes, in_order));
}

PL_TARGET_AVX2 void blend_with_constant_avx2(uint8_t* pixels, size_t count, float from, float factor) {
  const __m256 all_from = _mm256_set1_ps(from), all_factor = _mm256_set1_ps(factor);
  for (size_t i = 0; i < count; i += 32) {
    __m256i values[4];
    for (int k = 0; k < 4; ++k) values[k] = blend_eight(all_from, floats_at(pixels + i + 8 * k), all_factor);
    store_bytes(values, pixels + i);
  }
}

PL_TARGET_AVX2 void saturate_avx2(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  const __m256 all_factor = _mm256_set1_ps(factor);
  for (size_t i = 0; i < count; i += 32) {
    alignas(32) float gray[32];
    for (int k = 0; k < 32; ++k) gray[k] = static_cast<float>(luma(r[i + k], g[i + k], b[i + k]));
    for (uint8_t* plane : {r + i, g + i, b + i}) {
      __m256i values[4];
      for (int k = 0; k < 4; ++k)
        values[k] = blend_eight(_mm256_load_ps(gray + 8 * k), floats_at(plane + 8 * k), all_factor);
      store_bytes(values, plane);
    }
  }
}

// The value depends on the byte alone: 256 values in four registers, two permutes of 128 and a choice by the high bit.
PL_TARGET_VBMI void blend_with_constant_avx512vbmi(uint8_t* pixels, size_t count, float from, float factor) {
  alignas(64) uint8_t table[256];
  for (int i = 0; i < 256; ++i) table[i] = blend(from, static_cast<float>(i), factor);
  const __m512i t0 = _mm512_load_si512(table), t1 = _mm512_load_si512(table + 64);
  const __m512i t2 = _mm512_load_si512(table + 128), t3 = _mm512_load_si512(table + 192);
  for (size_t i = 0; i < count; i += kLanes) {
    __m512i x = _mm512_loadu_si512(pixels + i);
    __m512i low = _mm512_permutex2var_epi8(t0, x, t1), high = _mm512_permutex2var_epi8(t2, x, t3);
    _mm512_storeu_si512(pixels + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high));
  }
}
#endif

PL_INLINE void sum_luma_body(const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count, uint64_t& sum) {
  constexpr size_t kChunk = size_t{1} << 24;  // 2^24 * 255 fits 32 bits
  for (size_t begin = 0; begin < count; begin += kChunk) {
    uint32_t part = 0;
    for (size_t i = begin; i < std::min(count, begin + kChunk); ++i) part += luma(r[i], g[i], b[i]);
    sum += part;
  }
}

PL_INLINE void saturate_body(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i) {
    float gray = static_cast<float>(luma(r[i], g[i], b[i]));
    r[i] = blend(gray, r[i], factor);
    g[i] = blend(gray, g[i], factor);
    b[i] = blend(gray, b[i], factor);
  }
}

PL_INLINE void to_gray_body(uint8_t* r, uint8_t* g, uint8_t* b, size_t count) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i)
    r[i] = g[i] = b[i] = static_cast<uint8_t>(luma(r[i], g[i], b[i]));
}

PL_INLINE void solarize_plane_body(uint8_t* pixels, size_t count, int threshold) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i) {
    int x = pixels[i];
    pixels[i] = static_cast<uint8_t>(x >= threshold ? 255 - x : x);
  }
}

// Hue. Pillow (Convert.c: rgb2hsv_row, hsv2rgb) mixes float and double. With c = max - min and an integer n that says
// how far round the circle the colour is (in sixths, times c), its bytes are these exact quotients:
//
//   hue byte        floor(85 n / 2c), but one less for some quotients that are whole (Pillow's roundings fall short)
//   saturation byte floor(255 c / max)
//   colour back     round(v (21675 - s w) / 21675), w in [0, 85] by channel and hue, 21675 = 85 * 255
//
// Each was compared with Pillow's arithmetic on all 2^24 inputs (tests/test_hue.py does it again through PIL).
// In float32 below: all integers stay under 2^24, a correctly rounded division of integers is whole only where the
// quotient is, and 1/21675 leaves no value near a half (2 v (21675 - s w) is even, 21675 is odd).

// Where 85 n / 2c is whole, Pillow gives the whole number or one less; which of them depends on it alone.
constexpr std::array<bool, 256> make_falls_short() {
  std::array<bool, 256> short_of{};
  for (int k = 1; k <= 31; ++k) short_of[k] = true;
  for (int k : {88, 92, 96, 100, 104}) short_of[k] = true;
  for (int k = 129; k <= 149; k += 2) short_of[k] = true;
  for (int k = 153; k <= 209; k += 4) short_of[k] = true;
  for (int k : {176, 184}) short_of[k] = true;
  return short_of;
}
constexpr std::array<bool, 256> kFallsShort = make_falls_short();

// Index: 2 * floor(quotient), plus 1 where the quotient is not whole. Value: the shifted hue byte.
struct HueTable {
  uint8_t shifted[512];
  uint8_t falls_short[256];
  uint8_t shift;
};

HueTable make_hue_table(int shift) {
  HueTable table;
  table.shift = static_cast<uint8_t>(shift);
  for (int i = 0; i < 512; ++i) {
    int hue = i / 2 - (i % 2 == 0 && kFallsShort[i / 2] ? 1 : 0);
    table.shifted[i] = static_cast<uint8_t>(hue + shift);
  }
  for (int i = 0; i < 256; ++i) table.falls_short[i] = kFallsShort[i];
  return table;
}

// `whole` is the quotient's floor, `exact` 255 where it is the quotient and 0 elsewhere.
PL_INLINE void rgb_to_hue_saturation(const uint8_t* red, const uint8_t* green, const uint8_t* blue, uint8_t* whole,
                                     uint8_t* exact, uint8_t* saturation, uint8_t* value) {
  for (int i = 0; i < kLanes; ++i) {
    int32_t r = red[i], g = green[i], b = blue[i];
    int32_t max = std::max(r, std::max(g, b)), chroma = max - std::min(r, std::min(g, b));
    int32_t n = r == max ? g - b : g == max ? 2 * chroma + b - r : 4 * chroma + r - g;
    n = n < 0 ? n + 6 * chroma : n;
    float quotient = static_cast<float>(85 * n) / static_cast<float>(std::max(2 * chroma, 1));
    int32_t floor = static_cast<int32_t>(quotient);
    whole[i] = static_cast<uint8_t>(floor);
    exact[i] = static_cast<float>(floor) == quotient ? 255 : 0;
    saturation[i] = static_cast<uint8_t>(
        static_cast<int32_t>(static_cast<float>(255 * chroma) / static_cast<float>(std::max(max, 1))));
    value[i] = static_cast<uint8_t>(max);
  }
}

// w of one channel: 0 where it keeps the value, 85 where it is at its lowest, a ramp between.
PL_INLINE uint8_t channel_byte(int32_t value, int32_t saturation, int32_t w) {
  w = std::clamp(w, 0, 85);
  float scaled = static_cast<float>(value * (21675 - saturation * w)) * (1.0f / 21675.0f);
  return static_cast<uint8_t>(static_cast<int32_t>(scaled + 0.5f));
}

PL_INLINE void hsv_to_rgb(const uint8_t* hue, const uint8_t* saturation, const uint8_t* value, uint8_t* r, uint8_t* g,
                          uint8_t* b) {
  for (int i = 0; i < kLanes; ++i) {
    int32_t x = 2 * hue[i], v = value[i], s = saturation[i];  // x: 85 to a sixth of the circle
    r[i] = channel_byte(v, s, std::min(x - 85, 425 - x));
    g[i] = channel_byte(v, s, std::abs(x - 170) - 85);
    b[i] = channel_byte(v, s, std::abs(x - 340) - 85);
  }
}

PL_INLINE void shift_hue_body(uint8_t* red, uint8_t* green, uint8_t* blue, size_t count, const HueTable& table) {
  for (size_t at = 0; at < count; at += kLanes) {
    uint8_t whole[kLanes], exact[kLanes], hue[kLanes], saturation[kLanes], value[kLanes];
    rgb_to_hue_saturation(red + at, green + at, blue + at, whole, exact, saturation, value);
    for (int i = 0; i < kLanes; ++i) hue[i] = table.shifted[2 * whole[i] + 1 - (exact[i] & 1)];
    hsv_to_rgb(hue, saturation, value, red + at, green + at, blue + at);
  }
}

#if defined(__x86_64__)
// The table's look-up as byte permutes: floor + shift, less one where the quotient is whole and falls short.
PL_TARGET_VBMI void shift_hue_avx512vbmi(uint8_t* red, uint8_t* green, uint8_t* blue, size_t count,
                                         const HueTable& table) {
  __m512i falls_short[4];
  for (int i = 0; i < 4; ++i) falls_short[i] = _mm512_loadu_si512(table.falls_short + 64 * i);
  const __m512i shift = _mm512_set1_epi8(static_cast<char>(table.shift));
  for (size_t at = 0; at < count; at += kLanes) {
    alignas(64) uint8_t whole[kLanes], exact[kLanes], hue[kLanes], saturation[kLanes], value[kLanes];
    rgb_to_hue_saturation(red + at, green + at, blue + at, whole, exact, saturation, value);
    __m512i floor = _mm512_load_si512(whole);
    __m512i low = _mm512_permutex2var_epi8(falls_short[0], floor, falls_short[1]);
    __m512i high = _mm512_permutex2var_epi8(falls_short[2], floor, falls_short[3]);
    __m512i less = _mm512_mask_blend_epi8(_mm512_movepi8_mask(floor), low, high);
    less = _mm512_and_si512(less, _mm512_load_si512(exact));
    _mm512_store_si512(hue, _mm512_sub_epi8(_mm512_add_epi8(floor, shift), less));
    hsv_to_rgb(hue, saturation, value, red + at, green + at, blue + at);
  }
}
#endif

void blend_with_constant_base(uint8_t* pixels, size_t count, float from, float factor) {
  blend_with_constant_body(pixels, count, from, factor);
}
void saturate_base(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  saturate_body(r, g, b, count, factor);
}
#if defined(__x86_64__)
PL_TARGET_AVX512 void blend_with_constant_avx512(uint8_t* pixels, size_t count, float from, float factor) {
  blend_with_constant_body(pixels, count, from, factor);
}
PL_TARGET_AVX512 void saturate_avx512(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  const __m512 all_factor = _mm512_set1_ps(factor);
  const __m512i weight[3] = {_mm512_set1_epi32(19595), _mm512_set1_epi32(38470), _mm512_set1_epi32(7471)};
  for (size_t i = 0; i < count; i += 16) {
    uint8_t* const planes[3] = {r + i, g + i, b + i};
    __m512i pixel[3], sum = _mm512_set1_epi32(32768);
    for (int c = 0; c < 3; ++c) {
      pixel[c] = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(planes[c])));
      sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(pixel[c], weight[c]));
    }
    const __m512 gray = _mm512_cvtepi32_ps(_mm512_srli_epi32(sum, 16));
    for (int c = 0; c < 3; ++c) {
      __m512 away = _mm512_mul_ps(all_factor, _mm512_sub_ps(_mm512_cvtepi32_ps(pixel[c]), gray));
      __m512i blended = _mm512_cvttps_epi32(_mm512_add_ps(gray, away));  // |factor| <= 1e6: inside int32
      blended = _mm512_max_epi32(blended, _mm512_setzero_si512());
      _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[c]), _mm512_cvtusepi32_epi8(blended));
    }
  }
}
#define saturate_avx512vbmi saturate_avx512
#endif
PL_DISPATCH(blend_with_constant, (uint8_t * pixels, size_t count, float from, float factor),
            (pixels, count, from, factor), blend_with_constant)
PL_DISPATCH(saturate, (uint8_t * r, uint8_t* g, uint8_t* b, size_t count, float factor), (r, g, b, count, factor),
            saturate)
PL_LEVELS(sum_luma, (const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count, uint64_t& sum),
          (r, g, b, count, sum))
PL_LEVELS(to_gray, (uint8_t * r, uint8_t* g, uint8_t* b, size_t count), (r, g, b, count))
PL_LEVELS(solarize_plane, (uint8_t * pixels, size_t count, int threshold), (pixels, count, threshold))
PL_LEVELS_WITH_VBMI(shift_hue, (uint8_t * r, uint8_t* g, uint8_t* b, size_t count, const HueTable& table),
          (r, g, b, count, table))

struct Channels {
  explicit Channels(const ViewPixels& view)
      : r(view.pixels), g(view.pixels + view.plane_stride), b(view.pixels + 2 * view.plane_stride) {}
  uint8_t *r, *g, *b;
};

void blend_all(const ViewPixels& view, float from, float factor) {
  for (int plane = 0; plane < 3; ++plane)
    blend_with_constant(view.pixels + plane * view.plane_stride, view.count, from, factor);
}

}  // namespace

void brightness(const ViewPixels& view, float factor) { blend_all(view, 0.0f, factor); }

void contrast(const ViewPixels& view, float factor) {
  Channels c(view);
  uint64_t sum = 0;
  sum_luma(c.r, c.g, c.b, view.count, sum);
  double mean = static_cast<double>(sum) / static_cast<double>(view.count);
  blend_all(view, static_cast<float>(static_cast<int>(mean + 0.5)), factor);
}

void saturation(const ViewPixels& view, float factor) {
  Channels c(view);
  saturate(c.r, c.g, c.b, view.count, factor);
}

void hue(const ViewPixels& view, float turns) {
  Channels c(view);
  shift_hue(c.r, c.g, c.b, view.count, make_hue_table(static_cast<int>(static_cast<double>(turns) * 255.0)));
}

void grayscale(const ViewPixels& view) {
  Channels c(view);
  to_gray(c.r, c.g, c.b, view.count);
}

void solarize(const ViewPixels& view, int threshold) {
  for (int plane = 0; plane < 3; ++plane)
    solarize_plane(view.pixels + plane * view.plane_stride, view.count, threshold);
}

}  // namespace pass_loader::cpu
