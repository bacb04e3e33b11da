#include "cpu/affine_runs.h"

#include <algorithm>
#include <cstring>

#include "cpu/interpolation.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

PL_INLINE void exact_linear(const Run& run, int32_t first, int32_t count, uint8_t* out) {
  const uint8_t *a = run.tap[1] + first, *b = run.tap[2] + first;
  const double* part = run.part + first;
  for (int32_t x = 0; x < count; ++x) out[x] = cut(linear(a[x], b[x], part[x]));
}
PL_INLINE void exact_cubic(const Run& run, int32_t first, int32_t count, uint8_t* out) {
  const uint8_t *a = run.tap[0] + first, *b = run.tap[1] + first, *c = run.tap[2] + first, *d = run.tap[3] + first;
  const double* part = run.part + first;
  for (int32_t x = 0; x < count; ++x) out[x] = cut(cubic(a[x], b[x], c[x], d[x], part[x]));
}

void linear_run_base(const Run& run) { exact_linear(run, 0, run.count, run.out); }
void cubic_run_base(const Run& run) { exact_cubic(run, 0, run.count, run.out); }

#if defined(__x86_64__)
// How far a float may be from the double. A cubic's derivative by its part is below 3315, so that rounding the part to
// float moves it by at most 3315 * 2^-25; its three sums are below 2048 and rounded once each. That is less than 0.0003
// together. Where all taps are equal or the part is 0, both are exact.
constexpr float kDoubt = 0.0003f;

PL_TARGET_AVX2 __attribute__((noinline)) void exact_linear_avx2(const Run& run, int32_t first, uint8_t* out) {
  exact_linear(run, first, kRunGroup, out);
}
PL_TARGET_AVX2 __attribute__((noinline)) void exact_cubic_avx2(const Run& run, int32_t first, uint8_t* out) {
  exact_cubic(run, first, kRunGroup, out);
}

PL_TARGET_AVX2 PL_INLINE __m256i ints_avx2(const uint8_t* bytes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
}
// Returns all ones in the lanes of eight values that are in doubt.
PL_TARGET_AVX2 PL_INLINE __m256 doubts_avx2(__m256 value, __m256 part, __m256i differs) {
  const __m256 rest = _mm256_sub_ps(value, _mm256_round_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  const __m256 near = _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), rest), _mm256_set1_ps(kDoubt), _CMP_LE_OQ);
  const __m256 flat = _mm256_castsi256_ps(_mm256_cmpeq_epi32(differs, _mm256_setzero_si256()));
  return _mm256_and_ps(_mm256_andnot_ps(flat, near), _mm256_cmp_ps(part, _mm256_setzero_ps(), _CMP_NEQ_OQ));
}
// Stores sixteen values: truncated, then clipped by two saturating packs.
PL_TARGET_AVX2 PL_INLINE void store_avx2(const __m256 (&value)[2], uint8_t* out) {
  const __m256i words =
      _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvttps_epi32(value[0]), _mm256_cvttps_epi32(value[1])), 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
}

PL_TARGET_AVX2 void linear_run_avx2(const Run& run) {
  for (int32_t x = 0; x < run.count; x += kRunGroup) {
    __m256 value[2], doubts[2];
    for (int k = 0; k < 2; ++k) {
      const int32_t at = x + 8 * k;
      const __m256i a = ints_avx2(run.tap[1] + at), d = _mm256_sub_epi32(ints_avx2(run.tap[2] + at), a);
      const __m256 part = _mm256_loadu_ps(run.nearly + at);
      value[k] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(d), part, _mm256_cvtepi32_ps(a));
      doubts[k] = doubts_avx2(value[k], part, d);
    }
    uint8_t last[kRunGroup];
    const bool whole = run.count - x >= kRunGroup;
    uint8_t* out = whole ? run.out + x : last;
    if (_mm256_movemask_ps(_mm256_or_ps(doubts[0], doubts[1])) != 0) [[unlikely]]
      exact_linear_avx2(run, x, out);
    else
      store_avx2(value, out);
    if (!whole) std::memcpy(run.out + x, last, static_cast<size_t>(run.count - x));
  }
}

PL_TARGET_AVX2 void cubic_run_avx2(const Run& run) {
  for (int32_t x = 0; x < run.count; x += kRunGroup) {
    __m256 value[2], doubts[2];
    for (int k = 0; k < 2; ++k) {
      const int32_t at = x + 8 * k;
      const __m256i a = ints_avx2(run.tap[0] + at), b = ints_avx2(run.tap[1] + at), c = ints_avx2(run.tap[2] + at),
                    d = ints_avx2(run.tap[3] + at);
      const __m256i a_b = _mm256_sub_epi32(a, b), c_d = _mm256_sub_epi32(c, d), c_a = _mm256_sub_epi32(c, a);
      const __m256i p4 = _mm256_add_epi32(a_b, c_d), p3 = _mm256_add_epi32(a_b, p4);  // of p4 the negative
      const __m256 part = _mm256_loadu_ps(run.nearly + at);
      value[k] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(p4), part, _mm256_cvtepi32_ps(p3));
      value[k] = _mm256_fmadd_ps(value[k], part, _mm256_cvtepi32_ps(c_a));
      value[k] = _mm256_fmadd_ps(value[k], part, _mm256_cvtepi32_ps(b));
      doubts[k] = doubts_avx2(value[k], part, _mm256_or_si256(_mm256_or_si256(a_b, c_d), c_a));
    }
    uint8_t last[kRunGroup];
    const bool whole = run.count - x >= kRunGroup;
    uint8_t* out = whole ? run.out + x : last;
    if (_mm256_movemask_ps(_mm256_or_ps(doubts[0], doubts[1])) != 0) [[unlikely]]
      exact_cubic_avx2(run, x, out);
    else
      store_avx2(value, out);
    if (!whole) std::memcpy(run.out + x, last, static_cast<size_t>(run.count - x));
  }
}
#define linear_run_avx512 linear_run_avx2
#define linear_run_avx512vbmi linear_run_avx2
#define cubic_run_avx512 cubic_run_avx2
#define cubic_run_avx512vbmi cubic_run_avx2
#endif

}  // namespace

PL_DISPATCH_X86(linear_run, (const Run& run), (run), linear_run)
PL_DISPATCH_X86(cubic_run, (const Run& run), (run), cubic_run)

}  // namespace pass_loader::cpu
