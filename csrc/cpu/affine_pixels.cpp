#include "cpu/affine_pixels.h"

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
constexpr float kDoubt = 0.0011f;

// Writes the bytes of the pixels in doubt anew.
PL_INLINE void settle(bool bilinear, uint32_t doubts, const Mosaic& from, const Spots& spots, int32_t x, int plane,
                      uint8_t* bytes) {
  for (; doubts != 0; doubts &= doubts - 1) {
    const int at = std::countr_zero(doubts);
    bytes[at] = exact(bilinear, from, spots, x + at, plane);
  }
}

PL_INLINE __m128i load_four(const uint8_t* pixels) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels)); }

// Returns the value between b and c of four neighbours a, b, c, d, the bytes of each lane. differs: bits are set in the
// lanes of those that are not all equal.
PL_TARGET_AVX2 PL_INLINE __m256 cubic_across_avx2(__m256i bytes, __m256 part, __m256i& differs) {
  const __m256i b = _mm256_and_si256(_mm256_srli_epi32(bytes, 8), _mm256_set1_epi32(255));
  const __m256i a_and_c = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
  const __m256i steps = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(-255));  // times 1, -1: words of a - b and c - d
  const __m256i p2 = _mm256_madd_epi16(a_and_c, _mm256_set1_epi32(0x1ffff));   // -a + c
  const __m256i p3 = _mm256_madd_epi16(steps, _mm256_set1_epi32(0x10002));     // 2 (a - b) + c - d
  const __m256i p4 = _mm256_madd_epi16(steps, _mm256_set1_epi16(-1));          // -(a - b) - (c - d)
  differs = _mm256_or_si256(differs, _mm256_or_si256(steps, p2));
  __m256 value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(p4), part, _mm256_cvtepi32_ps(p3));
  value = _mm256_fmadd_ps(value, part, _mm256_cvtepi32_ps(p2));
  return _mm256_fmadd_ps(value, part, _mm256_cvtepi32_ps(b));
}
PL_TARGET_AVX2 PL_INLINE __m256 linear_across_avx2(__m256i bytes, __m256 part, __m256i& differs) {
  const __m256i b = _mm256_and_si256(_mm256_srli_epi32(bytes, 8), _mm256_set1_epi32(255));
  const __m256i c = _mm256_and_si256(_mm256_srli_epi32(bytes, 16), _mm256_set1_epi32(255));
  const __m256i step = _mm256_sub_epi32(c, b);
  differs = _mm256_or_si256(differs, step);
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(step), part, _mm256_cvtepi32_ps(b));
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

// Returns the value between two rows, of their values at the place across, or between the middle two of four.
PL_TARGET_AVX2 PL_INLINE __m256 down_avx2(const __m256 (&v)[2], __m256 part, __m256i& differs) {
  const __m256 step = _mm256_sub_ps(v[1], v[0]);
  differs = _mm256_or_si256(differs, _mm256_castps_si256(step));
  return _mm256_fmadd_ps(step, part, v[0]);
}
PL_TARGET_AVX2 PL_INLINE __m256 down_avx2(const __m256 (&v)[4], __m256 part, __m256i& differs) {
  const __m256 a_b = _mm256_sub_ps(v[0], v[1]), c_d = _mm256_sub_ps(v[2], v[3]), c_a = _mm256_sub_ps(v[2], v[0]);
  const __m256 sum = _mm256_add_ps(a_b, c_d);
  differs = _mm256_or_si256(differs, _mm256_castps_si256(_mm256_or_ps(_mm256_or_ps(a_b, c_d), c_a)));
  const __m256 value = _mm256_fnmadd_ps(sum, part, _mm256_add_ps(a_b, sum));
  return _mm256_fmadd_ps(_mm256_fmadd_ps(value, part, c_a), part, v[1]);
}

// Returns all ones in the lanes whose value is in doubt, unless their taps are all equal.
PL_TARGET_AVX2 PL_INLINE __m256 doubts_avx2(__m256 value, __m256i differs) {
  const __m256 rest = _mm256_sub_ps(value, _mm256_round_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  const __m256 near = _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), rest), _mm256_set1_ps(kDoubt), _CMP_LE_OQ);
  return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(differs, _mm256_setzero_si256())), near);
}

template <bool bilinear, int planes>
PL_TARGET_AVX2 void pixels_avx2(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3],
                                uint8_t* const (&out)[3]) {
  constexpr int kRows = bilinear ? 2 : 4, kEight = 8;
  for (int32_t x = 0; x < count; x += kEight) {
    const bool whole = count - x >= kEight;
    int64_t flags;
    std::memcpy(&flags, spots.inside + x, sizeof flags);
    if (flags == 0) {
      for (int c = 0; c < planes; ++c)
        std::memset(out[c] + x, fill[c], static_cast<size_t>(whole ? kEight : count - x));
      continue;
    }
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(flags)), _mm256_setzero_si256());
    const __m256 across = _mm256_loadu_ps(spots.nearly_across + x), down = _mm256_loadu_ps(spots.nearly_down + x);
    const __m256 moved = _mm256_and_ps(_mm256_cmp_ps(_mm256_max_ps(across, down), _mm256_setzero_ps(), _CMP_NEQ_OQ),
                                       _mm256_castsi256_ps(inside));
    __m256i differs[planes] = {};
    __m256 rows[planes][kRows];
    for (int k = 0; k < kRows; ++k) {
      __m256i bytes[3];
      take_avx2(from.first + (bilinear ? k : k - 1) * from.pitch - 4, spots.offset + x, bytes);
      for (int c = 0; c < planes; ++c)
        rows[c][k] = (bilinear ? linear_across_avx2 : cubic_across_avx2)(bytes[c], across, differs[c]);
    }
    for (int c = 0; c < planes; ++c) {
      const __m256 value = down_avx2(rows[c], down, differs[c]);
      uint32_t doubts = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_and_ps(doubts_avx2(value, differs[c]), moved)));
      const __m256i chosen = _mm256_blendv_epi8(_mm256_set1_epi32(fill[c]), _mm256_cvttps_epi32(value), inside);
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1));
      uint8_t last[kEight];
      uint8_t* to = whole ? out[c] + x : last;
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
      if (!whole) doubts &= 0xffu >> (kEight - (count - x));
      if (doubts != 0) [[unlikely]]
        settle(bilinear, doubts, from, spots, x, c, to);
      if (!whole) [[unlikely]]
        std::memcpy(out[c] + x, last, static_cast<size_t>(count - x));
    }
  }
}
PL_TARGET_AVX2 void linear_pixels_avx2(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3],
                                       int planes, uint8_t* const (&out)[3]) {
  (planes == 1 ? pixels_avx2<true, 1> : pixels_avx2<true, 3>)(from, spots, count, fill, out);
}
PL_TARGET_AVX2 void cubic_pixels_avx2(const Mosaic& from, const Spots& spots, int32_t count, const uint8_t (&fill)[3],
                                      int planes, uint8_t* const (&out)[3]) {
  (planes == 1 ? pixels_avx2<false, 1> : pixels_avx2<false, 3>)(from, spots, count, fill, out);
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
