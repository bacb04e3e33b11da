// Blurs as torchvision 0.28 (transforms/_functional_tensor.py: gaussian_blur) on x86 with FMA. There, an output is one
// chain of fused multiply-adds over taps x taps products in raster order (oneDNN's depthwise convolution), rounded half
// to even. A separable sum takes much less work, and its distance from the chain has a bound (`Doubt`). Only sums that
// are closer than that to a half need the chain.
#include "cpu/kernel_blur.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "blur_weights.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr int kRun = 32;         // neighbours that are summed together: whole registers at every level
constexpr int kMaxRadius = 127;  // from an 8-bit number of taps
constexpr int kChains = 8;       // chains that run side by side, because a fused multiply-add waits for the one before

// 1.5 * 2^23. Adding a number below 2^22 to it rounds that number to a whole one, half to even, and leaves it in the
// lowest bits.
constexpr float kWhole = 12582912.0f;

struct Taps {
  int radius;
  int reach;            // the separable sum goes this far, at least 1
  int span;             // products farther out along an axis are zero, and fma(x, 0, s) is s
  const float* weight;  // by distance, from 0
  const float* kernel;  // the products, as torch computes them
};

// A sum s that is farther than least + share * min(s, 128) from a half lies on the same side of it as the chain.
struct Doubt {
  float least, share;
};

// One plane in work: floats with reflected margins, and their sums along the rows.
struct Plane {
  int height, width;
  float *floats, *sums;  // at the first pixel of the first row
  size_t stride, sums_stride;
  const Taps& taps;

  int reflected(int y) const { return y < 0 ? -y : y < height ? y : 2 * (height - 1) - y; }
  float* row(int y) const { return floats + static_cast<size_t>(reflected(y)) * stride; }
  float* sums_of(int y) const { return sums + static_cast<size_t>(y) * sums_stride; }
};

// Returns half the distance between neighbouring floats at v.
double half_ulp(double v) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(v)) & 0x7f800000) * 0x1p-24;
}

// Bounds the distance between the chain and the separable sum.
//
// In the chain, the error of a step is at most half an ulp of its result. It is also at most the term that the step
// adds, as the sum before is a float. No term is negative, so a partial sum exceeds neither the last one nor 255 times
// the weights so far. For s in [v, 2v), the error is thus a sum of minima of v / 2^24 and constants. That is concave in
// v, so the line through its values at 64 and 128 is nowhere below it. The separable sum rounds once a step, by at most
// min(s, 128) / 2^24; 2 reach + 8 steps cover both axes, a sum of two rows, products that are rounded by themselves,
// and the chain's rounded weights. It also leaves out some taps.
Doubt doubt_of(const Taps& taps, double left_out) {
  const int side = 2 * taps.radius + 1;
  double sum = 0.0, at_64 = 0.0, at_128 = 0.0;
  for (int i = 0; i < side * side; ++i) {
    const double term = 255.0 * taps.kernel[i];
    sum += term;
    const double step = std::min(term, half_ulp(1.001 * sum));
    at_64 += std::min(step, 0x1p-18), at_128 += std::min(step, 0x1p-17);
  }
  const double share = (at_128 - at_64) / 64, least = at_128 - 128 * share + 255.0 * left_out + 0x1p-22;
  return {static_cast<float>(1.01 * least), static_cast<float>(1.01 * (share + (2 * taps.reach + 8) * 0x1p-24))};
}

// Shortens the reach as long as the taps beyond it, along both axes, weigh at most `most`. Returns their weight.
double set_reach(Taps& taps, double most) {
  double left_out = 0.0;
  taps.reach = taps.radius;
  for (; taps.reach > 1 && left_out + 4.0 * taps.weight[taps.reach] <= most; --taps.reach)
    left_out += 4.0 * taps.weight[taps.reach];
  return left_out;
}

typedef float FourFloats __attribute__((vector_size(16)));

PL_INLINE FourFloats fused(FourFloats a, FourFloats b, FourFloats c) {
  for (int i = 0; i < 4; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
}

PL_INLINE bool any_sign(FourFloats v) {
  uint64_t signs[2];
  std::memcpy(signs, &v, sizeof signs);
  return ((signs[0] | signs[1]) & 0x8000000080000000) != 0;
}

PL_INLINE FourFloats widen_four(const uint8_t* from) {
  return FourFloats{static_cast<float>(from[0]), static_cast<float>(from[1]), static_cast<float>(from[2]),
                    static_cast<float>(from[3])};
}

PL_INLINE void narrow_four(FourFloats v, uint8_t* to) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(v[i]));
}

#define PL_PART(name) name##_base
#define PL_TARGET
#define PL_FLOATS FourFloats
#define PL_FMA(a, b, c) ((a) * (b) + (c))
#define PL_FUSED(a, b, c) fused(a, b, c)
#define PL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define PL_ANY_SIGN(v) any_sign(v)
#define PL_WIDEN(from) widen_four(from)
#define PL_NARROW(v, to) narrow_four(v, to)
#include "cpu/kernel_blur_rows.h"

#if defined(__x86_64__)
PL_TARGET_AVX2 static inline void narrow_eight(__m256 v, uint8_t* to) {
  const __m256i low = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(255));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
}

#define PL_PART(name) name##_avx2
#define PL_TARGET PL_TARGET_AVX2
#define PL_FLOATS __m256
#define PL_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define PL_FUSED(a, b, c) _mm256_fmadd_ps(a, b, c)
#define PL_MIN(a, b) _mm256_min_ps(a, b)
#define PL_ANY_SIGN(v) (_mm256_movemask_ps(v) != 0)
#define PL_WIDEN(from) _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))))
#define PL_NARROW(v, to) narrow_eight(v, to)
#include "cpu/kernel_blur_rows.h"

#define PL_PART(name) name##_avx512
#define PL_TARGET PL_TARGET_AVX512
#define PL_FLOATS __m512
#define PL_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define PL_FUSED(a, b, c) _mm512_fmadd_ps(a, b, c)
#define PL_MIN(a, b) _mm512_min_ps(a, b)
#define PL_ANY_SIGN(v) (_mm512_movepi32_mask(_mm512_castps_si512(v)) != 0)
#define PL_WIDEN(from) _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))
#define PL_NARROW(v, to) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_castps_si512(v)))
#include "cpu/kernel_blur_rows.h"
#define plane_avx512vbmi plane_avx512
#endif
PL_DISPATCH_X86(blur_plane, (const Plane& plane, Doubt doubt, uint32_t* doubtful, uint8_t* pixels),
                (plane, doubt, doubtful, pixels), plane)

}  // namespace

void kernel_blur(const ViewPixels& view, int height, int width, int count, float sigma, KernelBlurScratch& scratch) {
  const size_t n = static_cast<size_t>(count), margin = round_up(n / 2, kRun), sums_stride = round_up(width, kRun);
  const size_t stride = sums_stride + 2 * margin;
  float* weight = scratch.kernel.need(n * n + n);
  float* kernel = weight + n;
  gaussian_taps(count, sigma, weight);
  for (size_t i = 0; i < n * n; ++i) kernel[i] = weight[i / n] * weight[i % n];
  Taps taps{count / 2, 0, count / 2, weight + count / 2, kernel};
  while (taps.span > 0 && taps.weight[taps.span] * taps.weight[0] == 0.0f) --taps.span;
  const Doubt doubt = doubt_of(taps, set_reach(taps, 0x1p-21));
  float *floats = scratch.floats.need(stride * height) + margin, *sums = scratch.sums.need(sums_stride * height);
  const Plane plane{height, width, floats, sums, stride, sums_stride, taps};
  for (int y = 0; y < height; ++y) std::fill(plane.row(y) + width, plane.row(y) + sums_stride + margin, 0.0f);
  uint32_t* doubtful = scratch.doubtful.need(sums_stride / 4 * height + 1);
  for (int c = 0; c < view.channels; ++c) blur_plane(plane, doubt, doubtful, view.pixels + c * view.plane_stride);
}

}  // namespace pass_loader::cpu
