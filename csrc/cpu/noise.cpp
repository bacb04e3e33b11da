#include "cpu/noise.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "image.h"
#include "isa.h"
#include "portable_math.h"
#include "rng.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr uint32_t kErase = 0x45524153;  // keeps the counters apart from those of plans
constexpr size_t kBlocks = kNoiseRun / 2;
constexpr double kFarthest = 0x1p-36;  // what lies beyond is farther than kQuantileFar allows, or not much nearer

// The numbers that unit() (rng.h) makes of Philox blocks of neighbouring counters, at least 2^-54: of all blocks the
// first, then of all the second.
struct Uniforms {
  double p[kNoiseRun];
};

void uniforms_base(uint64_t key, uint64_t first, Uniforms& u) {
  for (size_t i = 0; i < kBlocks; ++i) {
    const uint64_t block = first + i;
    const Words words = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, kErase}, key);
    u.p[i] = std::max(unit(words[0], words[1]), 0x1p-54);
    u.p[kBlocks + i] = std::max(unit(words[2], words[3]), 0x1p-54);
  }
}

#if defined(__x86_64__)
// A word lies in the lower half of each lane of 64 bits; what is in the upper halves does not matter.
PL_TARGET_AVX2 PL_INLINE __m256d unit_avx2(__m256i high, __m256i low) {
  const __m256i bits = _mm256_srli_epi64(_mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xaa), 11);
  // Each half becomes the lowest bits of a large double, 2^84 and 2^52, which is taken away again.
  const __m256i upper = _mm256_or_si256(_mm256_srli_epi64(bits, 32), _mm256_set1_epi64x(0x4530000000000000));
  const __m256i lower = _mm256_blend_epi32(bits, _mm256_set1_epi64x(0x4330000000000000), 0xaa);
  const __m256d whole = _mm256_add_pd(_mm256_sub_pd(_mm256_castsi256_pd(upper), _mm256_set1_pd(0x1p84 + 0x1p52)),
                                      _mm256_castsi256_pd(lower));
  return _mm256_max_pd(_mm256_mul_pd(whole, _mm256_set1_pd(0x1p-53)), _mm256_set1_pd(0x1p-54));
}

PL_TARGET_AVX2 void uniforms_avx2(uint64_t key, uint64_t first, Uniforms& u) {
  const __m256i factor0 = _mm256_set1_epi64x(kPhiloxFactor0), factor2 = _mm256_set1_epi64x(kPhiloxFactor2);
  for (size_t i = 0; i < kBlocks; i += 4) {
    const __m256i block =
        _mm256_add_epi64(_mm256_set1_epi64x(static_cast<int64_t>(first + i)), _mm256_setr_epi64x(0, 1, 2, 3));
    __m256i word0 = block, word1 = _mm256_srli_epi64(block, 32), word2 = _mm256_setzero_si256(),
            word3 = _mm256_set1_epi64x(kErase);
    uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round, key0 += kPhiloxKey0, key1 += kPhiloxKey1) {
      const __m256i x = _mm256_mul_epu32(word0, factor0), y = _mm256_mul_epu32(word2, factor2);
      word0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(y, 32), word1), _mm256_set1_epi64x(key0));
      word2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(x, 32), word3), _mm256_set1_epi64x(key1));
      word1 = y, word3 = x;
    }
    _mm256_storeu_pd(u.p + i, unit_avx2(word0, word1));
    _mm256_storeu_pd(u.p + kBlocks + i, unit_avx2(word2, word3));
  }
}
#define uniforms_avx512 uniforms_avx2
#define uniforms_avx512vbmi uniforms_avx2
#endif
PL_DISPATCH_X86(uniforms, (uint64_t key, uint64_t first, Uniforms& u), (key, first, u), uniforms)

// portable_log of a normal number below 0.75, without its loops.
PL_INLINE double log_of(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1), halved = fraction >> 51;  // 1: from 1.5 on
  const auto power = static_cast<int32_t>(static_cast<uint32_t>(bits >> 52)) - 1023 + static_cast<int32_t>(halved);
  const double part = std::bit_cast<double>(fraction | (1023 - halved) << 52);  // in [0.75, 1.5)
  const double t = (part - 1.0) / (part + 1.0), t2 = t * t;
  double sum = 0.0;
  for (int i = 25; i >= 1; i -= 2) sum = sum * t2 + 1.0 / i;
  return 2.0 * t * sum + power * kLn2;
}

PL_INLINE double tail_of(double p) {
  const double q = p - 0.5, value = quantile_far(std::sqrt(-log_of(q < 0.0 ? p : 1.0 - p)));
  return q < 0.0 ? -value : value;
}

PL_INLINE void quantiles_body(const Uniforms& u, float* out) {
  const double* p = u.p;
  float value[kNoiseRun];
  for (size_t i = 0; i < kNoiseRun; ++i) value[i] = static_cast<float>(quantile_near(p[i] - 0.5));
  // Those in the tails are gathered, worked out together, and put back.
  size_t place[kNoiseRun + 1], tails = 0;
  for (size_t i = 0; i < kNoiseRun; ++i) {
    place[tails] = i;
    tails += std::fabs(p[i] - 0.5) > kQuantileNear;
  }
  double tail[kNoiseRun];
  for (size_t i = 0; i < tails; ++i) tail[i] = p[place[i]];
  const size_t whole = round_up(tails, 8);
  for (size_t i = tails; i < whole; ++i) tail[i] = 0.01;
  float far[kNoiseRun];
  for (size_t i = 0; i < whole; ++i) far[i] = static_cast<float>(tail_of(tail[i]));
  for (size_t i = 0; i < tails; ++i)
    value[place[i]] =
        std::fabs(tail[i] - 0.5) < 0.5 - kFarthest ? far[i] : static_cast<float>(normal_quantile(tail[i]));
  for (size_t i = 0; i < kBlocks; ++i) out[2 * i] = value[i], out[2 * i + 1] = value[kBlocks + i];
}
PL_LEVELS(quantiles, (const Uniforms& u, float* out), (u, out))

}  // namespace

void noise_run(uint64_t key, uint64_t run, float* out) {
  Uniforms u;
  uniforms(key, run * kBlocks, u);
  quantiles(u, out);
}

}  // namespace pass_loader::cpu
