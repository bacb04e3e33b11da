#include "cpu/affine_pixels.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/interpolation.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

// at: the byte of a plane in the pixel at or before the place.
PL_INLINE uint8_t exact_linear(const uint8_t* at, ptrdiff_t pitch, double across, double down) {
  return cut(linear(linear(at[0], at[4], across), linear(at[pitch], at[pitch + 4], across), down));
}
PL_INLINE uint8_t exact_cubic(const uint8_t* at, ptrdiff_t pitch, double across, double down) {
  double rows[4];
  for (int k = 0; k < 4; ++k) {
    const uint8_t* row = at + (k - 1) * pitch;
    rows[k] = cubic(row[-4], row[0], row[4], row[8], across);
  }
  return cut(cubic(rows[0], rows[1], rows[2], rows[3], down));
}
PL_INLINE uint8_t exact(bool bilinear, const Mosaic& from, const Spots& spots, int32_t x, int plane) {
  const uint8_t* at = from.first + spots.offset[x] + plane;
  return bilinear ? exact_linear(at, from.pitch, spots.across[x], spots.down[x])
                  : exact_cubic(at, from.pitch, spots.across[x], spots.down[x]);
}

PL_INLINE void exact_pixels(bool bilinear, const Mosaic& from, const Spots& spots, int32_t count,
                            const uint8_t (&fill)[3], int planes, uint8_t* const (&out)[3]) {
  for (int c = 0; c < planes; ++c)
    for (int32_t x = 0; x < count; ++x) out[c][x] = spots.inside[x] ? exact(bilinear, from, spots, x, c) : fill[c];
}
void linear_pixels_base(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3], int planes,
                        uint8_t* const (&out)[3]) {
  exact_pixels(true, from, spots, count, fill, planes, out);
}
void cubic_pixels_base(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3], int planes,
                       uint8_t* const (&out)[3]) {
  exact_pixels(false, from, spots, count, fill, planes, out);
}

#if defined(__x86_64__)
// How far a float may be from the double. One axis errs by less than 0.0003 (affine_runs.cpp), which the weights of the
// other multiply by 1.5 at most; there the values are below 320, so that rounding differences, sums and the part adds
// less than 0.0006. Where all taps are equal or both parts are 0, both are exact.
constexpr float kDoubt = 0x1p-9f;

// Weights of four neighbouring bytes, the first in the lowest place: the four coefficients of a cubic, and the two of a
// line.
constexpr uint32_t weights_of(int8_t a, int8_t b, int8_t c, int8_t d) {
  return static_cast<uint8_t>(a) | static_cast<uint32_t>(static_cast<uint8_t>(b)) << 8 |
         static_cast<uint32_t>(static_cast<uint8_t>(c)) << 16 | static_cast<uint32_t>(static_cast<uint8_t>(d)) << 24;
}
constexpr uint32_t kCubic[4] = {weights_of(0, 1, 0, 0), weights_of(-1, 0, 1, 0), weights_of(2, -2, 1, -1),
                                weights_of(-1, 1, -1, 1)};
constexpr uint32_t kLinear[2] = {kCubic[0], weights_of(0, -1, 1, 0)};

// Writes the bytes of the pixels in doubt anew.
PL_INLINE void settle(bool bilinear, uint32_t doubts, const Mosaic& from, const Spots& spots, int32_t x, int plane,
                      uint8_t* bytes) {
  for (; doubts != 0; doubts &= doubts - 1) {
    const int at = std::countr_zero(doubts);
    bytes[at] = exact(bilinear, from, spots, x + at, plane);
  }
}

PL_INLINE __m128i load_four(const uint8_t* pixels) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels)); }

PL_TARGET_AVX2 PL_INLINE __m256 dots_avx2(__m256i words, uint32_t weights, __m256i& differs) {
  const __m256i pairs = _mm256_maddubs_epi16(words, _mm256_set1_epi32(static_cast<int>(weights)));
  const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  if (weights != kCubic[0]) differs = _mm256_or_si256(differs, sums);
  return _mm256_cvtepi32_ps(sums);
}

// Loads four neighbours of 8 pixels, and returns those of one plane a register: the bytes of pixel i in its lane i.
PL_TARGET_AVX2 PL_INLINE void take_avx2(const uint8_t* from, const int32_t* offset, __m256i (&plane)[3]) {
  const __m256i by_plane =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m256i four[4];
  for (int k = 0; k < 4; ++k)
    four[k] = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(load_four(from + offset[k])),
                                                          load_four(from + offset[4 + k]), 1),
                                  by_plane);
  const __m256i low[2] = {_mm256_unpacklo_epi32(four[0], four[1]), _mm256_unpacklo_epi32(four[2], four[3])};
  const __m256i high[2] = {_mm256_unpackhi_epi32(four[0], four[1]), _mm256_unpackhi_epi32(four[2], four[3])};
  plane[0] = _mm256_unpacklo_epi64(low[0], low[1]);
  plane[1] = _mm256_unpackhi_epi64(low[0], low[1]);
  plane[2] = _mm256_unpacklo_epi64(high[0], high[1]);
}

template <bool bilinear>
PL_TARGET_AVX2 PL_INLINE void pixels_avx2(const Mosaic& from, const Spots& spots, int32_t count,
                                          const uint8_t (&fill)[3], int planes, uint8_t* const (&out)[3]) {
  constexpr int kRows = bilinear ? 2 : 4, kEight = 8;
  for (int32_t x = 0; x < count; x += kEight) {
    __m256i words[kRows][3];
    for (int k = 0; k < kRows; ++k)
      take_avx2(from.first + (bilinear ? k : k - 1) * from.pitch - 4, spots.offset + x, words[k]);
    const __m256 across = _mm256_loadu_ps(spots.nearly_across + x), down = _mm256_loadu_ps(spots.nearly_down + x);
    const __m256i flags = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(spots.inside + x)));
    const __m256i inside = _mm256_cmpgt_epi32(flags, _mm256_setzero_si256());
    const __m256 moved = _mm256_and_ps(_mm256_cmp_ps(_mm256_max_ps(across, down), _mm256_setzero_ps(), _CMP_NEQ_OQ),
                                       _mm256_castsi256_ps(inside));
    const uint32_t there = 0xffu >> std::max(0, kEight - (count - x));
    for (int c = 0; c < planes; ++c) {
      __m256i differs = _mm256_setzero_si256();
      __m256 v[kRows], value;
      for (int k = 0; k < kRows; ++k) {
        const __m256i w = words[k][c];
        if constexpr (bilinear) {
          const __m256 a = dots_avx2(w, kLinear[0], differs), d = dots_avx2(w, kLinear[1], differs);
          v[k] = _mm256_fmadd_ps(d, across, a);
        } else {
          const __m256 p1 = dots_avx2(w, kCubic[0], differs), p2 = dots_avx2(w, kCubic[1], differs),
                       p3 = dots_avx2(w, kCubic[2], differs), p4 = dots_avx2(w, kCubic[3], differs);
          v[k] = _mm256_fmadd_ps(_mm256_fmadd_ps(_mm256_fmadd_ps(p4, across, p3), across, p2), across, p1);
        }
      }
      if constexpr (bilinear) {
        const __m256 d = _mm256_sub_ps(v[1], v[0]);
        differs = _mm256_or_si256(differs, _mm256_castps_si256(d));
        value = _mm256_fmadd_ps(d, down, v[0]);
      } else {
        const __m256 a_b = _mm256_sub_ps(v[0], v[1]), c_d = _mm256_sub_ps(v[2], v[3]), c_a = _mm256_sub_ps(v[2], v[0]);
        const __m256 sum = _mm256_add_ps(a_b, c_d);
        differs = _mm256_or_si256(differs, _mm256_castps_si256(_mm256_or_ps(_mm256_or_ps(a_b, c_d), c_a)));
        value = _mm256_fnmadd_ps(sum, down, _mm256_add_ps(a_b, sum));
        value = _mm256_fmadd_ps(_mm256_fmadd_ps(value, down, c_a), down, v[1]);
      }
      const __m256 rest = _mm256_sub_ps(value, _mm256_round_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
      const __m256 near =
          _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), rest), _mm256_set1_ps(kDoubt), _CMP_LE_OQ);
      const __m256 flat = _mm256_castsi256_ps(_mm256_cmpeq_epi32(differs, _mm256_setzero_si256()));
      const uint32_t doubts =
          static_cast<uint32_t>(_mm256_movemask_ps(_mm256_andnot_ps(flat, _mm256_and_ps(near, moved)))) & there;
      const __m256i chosen = _mm256_blendv_epi8(_mm256_set1_epi32(fill[c]), _mm256_cvttps_epi32(value), inside);
      const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1));
      alignas(16) uint8_t bytes[16];
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm_packus_epi16(shorts, shorts));
      if (doubts != 0) settle(bilinear, doubts, from, spots, x, c, bytes);
      std::memcpy(out[c] + x, bytes, static_cast<size_t>(std::min(count - x, kEight)));
    }
  }
}
PL_TARGET_AVX2 void linear_pixels_avx2(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3],
                                       int planes, uint8_t* const (&out)[3]) {
  pixels_avx2<true>(from, spots, count, fill, planes, out);
}
PL_TARGET_AVX2 void cubic_pixels_avx2(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3],
                                      int planes, uint8_t* const (&out)[3]) {
  pixels_avx2<false>(from, spots, count, fill, planes, out);
}
#define linear_pixels_avx512 linear_pixels_avx2
#define linear_pixels_avx512vbmi linear_pixels_avx2
#define cubic_pixels_avx512 cubic_pixels_avx2
#define cubic_pixels_avx512vbmi cubic_pixels_avx2
#endif

}  // namespace

PL_DISPATCH_X86(linear_pixels,
                (const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3], int planes,
                 uint8_t* const (&out)[3]),
                (from, spots, count, fill, planes, out), linear_pixels)
PL_DISPATCH_X86(cubic_pixels,
                (const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3], int planes,
                 uint8_t* const (&out)[3]),
                (from, spots, count, fill, planes, out), cubic_pixels)

}  // namespace pass_loader::cpu
