#include "cpu/jitter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "cpu/look_up_neon.h"
#include "image.h"
#include "isa.h"
#include "pixels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = kTile;

PL_INLINE void blend_with_constant_body(uint8_t* pixels, size_t count, float from, float factor) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i) pixels[i] = blend(from, pixels[i], factor);
}

#if defined(__x86_64__)
// Converts eight bytes to float, and 32 blended values back: they are truncated, then clipped by two saturating packs.
// |factor| <= 1e6 keeps the values inside int32.
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

PL_TARGET_AVX2 void blend_tiles(uint8_t* pixels, size_t count, float from, float factor) {
  const __m256 all_from = _mm256_set1_ps(from), all_factor = _mm256_set1_ps(factor);
  for (size_t i = 0; i < count; i += 32) {
    __m256i values[4];
    for (int k = 0; k < 4; ++k) values[k] = blend_eight(all_from, floats_at(pixels + i + 8 * k), all_factor);
    store_bytes(values, pixels + i);
  }
}
PL_TARGET_AVX2 void scale_tiles(uint8_t* pixels, size_t count, float factor, float offset) {
  const __m256 all_factor = _mm256_set1_ps(factor), all_offset = _mm256_set1_ps(offset);
  for (size_t i = 0; i < count; i += 32) {
    __m256i values[4];
    for (int k = 0; k < 4; ++k)
      values[k] = _mm256_cvttps_epi32(_mm256_fmadd_ps(all_factor, floats_at(pixels + i + 8 * k), all_offset));
    store_bytes(values, pixels + i);
  }
}

// factor * pixel + offset, rounded once, truncates to the same byte as a blend, unless a value is all but whole. All
// bytes are tried first: for one pair in 2,500 of `from` and `factor` a byte differs.
PL_TARGET_AVX2 void blend_with_constant_avx2(uint8_t* pixels, size_t count, float from, float factor) {
  const float offset = __builtin_fmaf(-factor, from, from);
  alignas(32) uint8_t blended[256], scaled[256];
  for (int i = 0; i < 256; ++i) blended[i] = scaled[i] = static_cast<uint8_t>(i);
  blend_tiles(blended, sizeof blended, from, factor);
  scale_tiles(scaled, sizeof scaled, factor, offset);
  if (std::memcmp(blended, scaled, sizeof blended) == 0)
    scale_tiles(pixels, count, factor, offset);
  else
    blend_tiles(pixels, count, from, factor);
}

// Computes the luma of 16 pixels in 16-bit lanes: 19595 r + 19235 g and 7471 b + 19235 g, by pmaddwd.
PL_TARGET_AVX2 PL_INLINE void luma_avx2(__m256i r, __m256i g, __m256i b, __m256i (&luma)[2]) {
  const __m256i of_rg = _mm256_set1_epi32(19235 << 16 | 19595), of_bg = _mm256_set1_epi32(19235 << 16 | 7471);
  const __m256i rg[2] = {_mm256_unpacklo_epi16(r, g), _mm256_unpackhi_epi16(r, g)};
  const __m256i bg[2] = {_mm256_unpacklo_epi16(b, g), _mm256_unpackhi_epi16(b, g)};
  for (int i = 0; i < 2; ++i) {
    const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(rg[i], of_rg), _mm256_madd_epi16(bg[i], of_bg));
    luma[i] = _mm256_srli_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(32768)), 16);
  }
}

PL_TARGET_AVX2 void saturate_avx2(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  const __m256 all_factor = _mm256_set1_ps(factor);
  const __m256i zero = _mm256_setzero_si256();
  for (size_t i = 0; i < count; i += 32) {
    uint8_t* const planes[3] = {r + i, g + i, b + i};
    __m256i words[3][2], gray[2][2];
    for (int c = 0; c < 3; ++c) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(planes[c]));
      words[c][0] = _mm256_unpacklo_epi8(bytes, zero), words[c][1] = _mm256_unpackhi_epi8(bytes, zero);
    }
    for (int half = 0; half < 2; ++half) luma_avx2(words[0][half], words[1][half], words[2][half], gray[half]);
    for (int c = 0; c < 3; ++c) {
      __m256i blended[2];
      for (int half = 0; half < 2; ++half) {
        const __m256 low = _mm256_cvtepi32_ps(_mm256_unpacklo_epi16(words[c][half], zero));
        const __m256 high = _mm256_cvtepi32_ps(_mm256_unpackhi_epi16(words[c][half], zero));
        blended[half] = _mm256_packs_epi32(blend_eight(_mm256_cvtepi32_ps(gray[half][0]), low, all_factor),
                                           blend_eight(_mm256_cvtepi32_ps(gray[half][1]), high, all_factor));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(planes[c]), _mm256_packus_epi16(blended[0], blended[1]));
    }
  }
}

// The value depends on the byte alone, so a table of 256 values is kept in four registers and looked up by two permutes
// of 128 entries and a choice by the high bit.
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

PL_INLINE void to_three_equal_body(uint8_t* r, uint8_t* g, uint8_t* b, size_t count) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i)
    r[i] = g[i] = b[i] = static_cast<uint8_t>(luma(r[i], g[i], b[i]));
}

PL_INLINE void to_luma_body(const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count, uint8_t* out) {
  for (size_t at = 0; at < count; at += kLanes) {  // by tiles, so that no store can change the next load
    uint8_t tile[kLanes];
    for (size_t i = 0; i < kLanes; ++i) tile[i] = static_cast<uint8_t>(luma(r[at + i], g[at + i], b[at + i]));
    std::memcpy(out + at, tile, kLanes);
  }
}

PL_INLINE void sum_plane_body(const uint8_t* pixels, size_t count, uint64_t& sum) {
  constexpr size_t kChunk = size_t{1} << 24;  // 2^24 * 255 fits 32 bits
  for (size_t begin = 0; begin < count; begin += kChunk) {
    uint32_t part = 0;
    for (size_t i = begin; i < std::min(count, begin + kChunk); ++i) part += pixels[i];
    sum += part;
  }
}

PL_INLINE void solarize_plane_body(uint8_t* pixels, size_t count, int threshold) {
  for (size_t i = 0; i < round_up(count, kLanes); ++i)
    pixels[i] = static_cast<uint8_t>(solarized(pixels[i], threshold));
}

void blend_with_constant_base(uint8_t* pixels, size_t count, float from, float factor) {
  blend_with_constant_body(pixels, count, from, factor);
}
void saturate_base(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  saturate_body(r, g, b, count, factor);
}
#if defined(__x86_64__)
// As at avx512vbmi, with permutes of words: they look up a pair of bytes, of which a shift leaves the right one.
PL_TARGET_AVX512 void blend_with_constant_avx512(uint8_t* pixels, size_t count, float from, float factor) {
  alignas(64) uint8_t table[256];
  for (int i = 0; i < 256; ++i) table[i] = blend(from, static_cast<float>(i), factor);
  const __m512i t0 = _mm512_load_si512(table), t1 = _mm512_load_si512(table + 64);
  const __m512i t2 = _mm512_load_si512(table + 128), t3 = _mm512_load_si512(table + 192);
  const __m512i upper_half = _mm512_set1_epi16(128), odd = _mm512_set1_epi16(1);
  for (size_t i = 0; i < count; i += 32) {
    auto* const bytes = reinterpret_cast<__m256i*>(pixels + i);
    const __m512i x = _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes)), pair = _mm512_srli_epi16(x, 1);
    const __m512i low = _mm512_permutex2var_epi16(t0, pair, t1), high = _mm512_permutex2var_epi16(t2, pair, t3);
    const __m512i both = _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(x, upper_half), high);
    const __m512i shifted = _mm512_srlv_epi16(both, _mm512_slli_epi16(_mm512_and_si512(x, odd), 3));
    _mm256_storeu_si256(bytes, _mm512_cvtepi16_epi8(shifted));
  }
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
      __m512i blended = _mm512_cvttps_epi32(_mm512_add_ps(gray, away));  // |factor| <= 1e6 keeps it inside int32
      blended = _mm512_max_epi32(blended, _mm512_setzero_si512());
      _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[c]), _mm512_cvtusepi32_epi8(blended));
    }
  }
}
#define saturate_avx512vbmi saturate_avx512
#endif
#if defined(__aarch64__)
void blend_with_constant_neon(uint8_t* pixels, size_t count, float from, float factor) {
  alignas(16) uint8_t table[256];
  for (int i = 0; i < 256; ++i) table[i] = blend(from, static_cast<float>(i), factor);
  look_up_in_registers(pixels, count, table);
}

// Blends 16 pixels of a channel with their gray: truncates, then clips by two saturating narrowings. |factor| <= 1e6
// keeps the values inside int32.
PL_INLINE uint8x16_t blend_with_gray(uint8x16_t pixels, uint8x16_t gray, const float32x4_t (&gray_floats)[4],
                                     float32x4_t factor) {
  const int16x8_t away[2] = {vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(pixels), vget_low_u8(gray))),
                             vreinterpretq_s16_u16(vsubl_high_u8(pixels, gray))};
  int32x4_t values[4];
  for (int k = 0; k < 4; ++k) {
    const int32x4_t part = k % 2 ? vmovl_high_s16(away[k / 2]) : vmovl_s16(vget_low_s16(away[k / 2]));
    values[k] = vcvtq_s32_f32(vaddq_f32(gray_floats[k], vmulq_f32(factor, vcvtq_f32_s32(part))));
  }
  const int16x8_t low = vqmovn_high_s32(vqmovn_s32(values[0]), values[1]);
  const int16x8_t high = vqmovn_high_s32(vqmovn_s32(values[2]), values[3]);
  return vqmovun_high_s16(vqmovun_s16(low), high);
}

void saturate_neon(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor) {
  const float32x4_t all_factor = vdupq_n_f32(factor);
  const uint16x8_t weight[3] = {vdupq_n_u16(19595), vdupq_n_u16(38470), vdupq_n_u16(7471)};
  for (size_t i = 0; i < count; i += 16) {
    uint8_t* const planes[3] = {r + i, g + i, b + i};
    uint8x16_t pixels[3];
    uint32x4_t sums[4];
    for (int c = 0; c < 3; ++c) {
      pixels[c] = vld1q_u8(planes[c]);
      for (int half = 0; half < 2; ++half) {
        const uint16x8_t words = half ? vmovl_high_u8(pixels[c]) : vmovl_u8(vget_low_u8(pixels[c]));
        const uint16x4_t low = vget_low_u16(words), of_low = vget_low_u16(weight[c]);
        sums[2 * half] = c == 0 ? vmull_u16(low, of_low) : vmlal_u16(sums[2 * half], low, of_low);
        sums[2 * half + 1] =
            c == 0 ? vmull_high_u16(words, weight[c]) : vmlal_high_u16(sums[2 * half + 1], words, weight[c]);
      }
    }
    float32x4_t gray_floats[4];
    for (int k = 0; k < 4; ++k) sums[k] = vrshrq_n_u32(sums[k], 16);
    for (int k = 0; k < 4; ++k) gray_floats[k] = vcvtq_f32_u32(sums[k]);
    const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(sums[0]), vreinterpretq_u16_u32(sums[1]));
    const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(sums[2]), vreinterpretq_u16_u32(sums[3]));
    const uint8x16_t gray = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    for (int c = 0; c < 3; ++c) vst1q_u8(planes[c], blend_with_gray(pixels[c], gray, gray_floats, all_factor));
  }
}
#endif
PL_DISPATCH(blend_with_constant, (uint8_t* pixels, size_t count, float from, float factor),
            (pixels, count, from, factor), blend_with_constant)
PL_DISPATCH(saturate, (uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor), (r, g, b, count, factor),
            saturate)
PL_LEVELS(sum_luma, (const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count, uint64_t& sum),
          (r, g, b, count, sum))
PL_LEVELS(sum_plane, (const uint8_t* pixels, size_t count, uint64_t& sum), (pixels, count, sum))
PL_LEVELS(to_three_equal, (uint8_t* r, uint8_t* g, uint8_t* b, size_t count), (r, g, b, count))
PL_LEVELS(to_luma, (const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count, uint8_t* out),
          (r, g, b, count, out))
PL_LEVELS(solarize_plane, (uint8_t* pixels, size_t count, int threshold), (pixels, count, threshold))

struct Channels {
  explicit Channels(const ViewPixels& view)
      : r(view.pixels), g(view.pixels + view.plane_stride), b(view.pixels + 2 * view.plane_stride) {}
  uint8_t *r, *g, *b;
};

void blend_all(const ViewPixels& view, float from, float factor) {
  for (int plane = 0; plane < view.channels; ++plane)
    blend_with_constant(view.pixels + plane * view.plane_stride, view.count, from, factor);
}

}  // namespace

void brightness(const ViewPixels& view, float factor) { blend_all(view, 0.0f, factor); }

float mean_luma(const ViewPixels& view) {
  uint64_t sum = 0;
  if (view.channels == 1) {
    sum_plane(view.pixels, view.count, sum);
  } else {
    Channels c(view);
    sum_luma(c.r, c.g, c.b, view.count, sum);
  }
  double mean = static_cast<double>(sum) / static_cast<double>(view.count);
  return static_cast<float>(static_cast<int>(mean + 0.5));
}

void contrast(const ViewPixels& view, float factor) { blend_all(view, mean_luma(view), factor); }

void saturation(const ViewPixels& view, float factor) {
  if (view.channels == 1) return;  // each pixel equals its L
  Channels c(view);
  saturate(c.r, c.g, c.b, view.count, factor);
}

void grayscale(const ViewPixels& view) {
  if (view.channels == 1) return;
  Channels c(view);
  to_three_equal(c.r, c.g, c.b, view.count);
}

ConstPlanes to_gray(const ConstPlanes& picture, Scratch<uint8_t>& memory) {
  if (picture.channels == 1) return picture;
  const size_t bytes = picture.row_stride * static_cast<size_t>(picture.height);
  uint8_t* out = memory.need(bytes);
  to_luma(picture.row(0, 0), picture.row(1, 0), picture.row(2, 0), bytes, out);
  return {out, picture.height, picture.width, picture.row_stride, bytes, 1};
}

void solarize(const ViewPixels& view, int threshold) {
  for (int plane = 0; plane < view.channels; ++plane)
    solarize_plane(view.pixels + plane * view.plane_stride, view.count, threshold);
}

}  // namespace pass_loader::cpu
