#include "cpu/resample_pairs.h"

#include "isa.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#include <immintrin.h>
#endif

namespace pass_loader::cpu {

#if defined(__x86_64__)
namespace {

// pmaddwd adds two products of 16-bit numbers to an int32. A 22-bit weight is split as w = 2048 high + low, 0 <= low <
// 2048, so that two of them multiply two taps exactly. Partial sums may wrap around in 32 bits; the total does not.
//
// After the horizontal pass two rows are interleaved in 16 bits: column x of rows 2k and 2k + 1 is one int32. So the
// pass writes as many columns of two rows as one register has lanes, and two taps of a column are one int32 for the
// vertical pass.
constexpr int kColumns = 32;   // columns that the vertical pass takes together
constexpr int kRows = 16;      // rows that the horizontal pass takes together
constexpr int kWindow = 16;    // input bytes within the reach of a shuffle
constexpr int kMaxPairs = 12;  // pairs of taps: bounds what is read past a row's end
constexpr int kLowBits = 11;

// The weights of two taps of one output.
struct PairWeights {
  int32_t high, low;  // the second tap's in the upper half
};

PairWeights pair_weights(int32_t first, int32_t second) {
  auto both = [](int32_t a, int32_t b) { return (a & 0xffff) | static_cast<int32_t>(static_cast<uint32_t>(b) << 16); };
  constexpr int32_t kLow = (1 << kLowBits) - 1;
  return {both(first >> kLowBits, second >> kLowBits), both(first & kLow, second & kLow)};
}

// As many outputs as a register of int32 has lanes, four for each of its windows. The windows move on by `step` pairs
// of taps.
template <int outputs>
struct HorizontalGroup {
  int32_t base[outputs / 4];                            // each window's leftmost input
  alignas(64) uint8_t index[kWindow / 4][4 * outputs];  // places in a window of each output's pair, widened to 16 bits
  alignas(64) int32_t high[kMaxPairs][outputs], low[kMaxPairs][outputs];
};

// Returns how many pairs of taps of four neighbouring outputs fit into a window: 4, 2 or 0.
int32_t pairs_a_window(const AxisWeights& weights) {
  const int32_t outputs = static_cast<int32_t>(weights.first.size());
  int32_t spread = 0;
  for (int32_t begin = 0; begin < outputs; begin += 4) {
    auto [least, most] = std::minmax(weights.first[begin], weights.first[std::min(begin + 3, outputs - 1)]);
    spread = std::max(spread, most - least);
  }
  return spread + 8 <= kWindow ? 4 : spread + 4 <= kWindow ? 2 : 0;
}

// Fills the group of outputs from `begin`. The last output is repeated past the end.
template <int outputs>
void fill_group(const AxisWeights& weights, int32_t begin, int32_t step, int32_t pairs,
                HorizontalGroup<outputs>& group) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  for (int32_t i = 0; i < outputs; ++i) {
    const int32_t output = std::min(begin + i, last), window = i / 4 * 4;
    const int32_t nearest = std::min(begin + window, last), furthest = std::min(begin + window + 3, last);
    const int32_t base = std::min(weights.first[nearest], weights.first[furthest]);
    group.base[i / 4] = base;
    for (int32_t pair = 0; pair < step; ++pair) {
      const int32_t from = weights.first[output] - base + 2 * pair;
      const uint8_t bytes[4] = {static_cast<uint8_t>(from), 0x80, static_cast<uint8_t>(from + 1), 0x80};
      std::memcpy(group.index[pair] + 4 * i, bytes, 4);
    }
    const int32_t* weight = &weights.weight[static_cast<size_t>(output) * weights.stride];
    for (int32_t pair = 0; pair < pairs; ++pair) {
      const PairWeights w = pair_weights(weight[2 * pair], weight[2 * pair + 1]);
      group.high[pair][i] = w.high;
      group.low[pair][i] = w.low;
    }
  }
}

// Writes the taps of every output row on the grid of row pairs between the passes, `stride` pairs a row. An output has
// fewer taps than are reserved, so the weight after its last tap is 0.
void fill_vertical(const AxisWeights& weights, size_t stride, PairWeights* pairs) {
  for (size_t y = 0; y < weights.first.size(); ++y, pairs += stride) {
    const int32_t* weight = &weights.weight[y * weights.stride];
    const int32_t odd = (weights.first[y] - weights.input_begin) % 2;
    PairWeights* to = pairs;
    if (odd) *to++ = pair_weights(0, weight[0]);
    for (int32_t t = odd; t < weights.count[y]; t += 2) *to++ = pair_weights(weight[t], weight[t + 1]);
  }
}

PL_TARGET_AVX2 PL_INLINE __m128i window_at(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

#define PL_LEVEL avx2
#define PL_TARGET PL_TARGET_AVX2
#define PL_VECTOR __m256i
#define PL_OP(name) _mm256_##name
#define PL_LOAD(from) _mm256_load_si256(reinterpret_cast<const __m256i*>(from))
#define PL_LOADU(from) _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
#define PL_STORE(to, v) _mm256_store_si256(reinterpret_cast<__m256i*>(to), v)
#define PL_STOREU(to, v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v)
#define PL_ZERO _mm256_setzero_si256()
#define PL_LOWER_HALVES(v) _mm256_and_si256(v, _mm256_set1_epi32(0xffff))
#define PL_TWO_WORDS(lower, upper) _mm256_blend_epi16(lower, upper, 0xaa)
#define PL_WINDOWS(row, offset) \
  _mm256_inserti128_si256(_mm256_castsi128_si256(window_at(row)), window_at((row) + (offset)[1]), 1)
#define PL_STORE_COLUMNS(out, values)                                                                            \
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),                                                           \
                      _mm256_permutevar8x32_epi32(_mm256_packus_epi16(_mm256_packs_epi32(values[0], values[1]),  \
                                                                      _mm256_packs_epi32(values[2], values[3])), \
                                                  _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)))
#include "cpu/resample_pairs_passes.h"

#define PL_LEVEL avx512
#define PL_TARGET PL_TARGET_AVX512
#define PL_VECTOR __m512i
#define PL_OP(name) _mm512_##name
#define PL_LOAD(from) _mm512_load_si512(from)
#define PL_LOADU(from) _mm512_loadu_si512(from)
#define PL_STORE(to, v) _mm512_store_si512(to, v)
#define PL_STOREU(to, v) _mm512_storeu_si512(to, v)
#define PL_ZERO _mm512_setzero_si512()
#define PL_LOWER_HALVES(v) _mm512_and_si512(v, _mm512_set1_epi32(0xffff))
#define PL_TWO_WORDS(lower, upper) _mm512_mask_blend_epi16(0xaaaaaaaa, lower, upper)
#define PL_WINDOWS(row, offset)                                                                    \
  _mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(window_at(row)), \
                                                           window_at((row) + (offset)[1]), 1),     \
                                        window_at((row) + (offset)[2]), 2),                        \
                     window_at((row) + (offset)[3]), 3)
#define PL_STORE_COLUMNS(out, values)                                                          \
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),                                         \
                      _mm512_castsi512_si256(_mm512_permutexvar_epi32(                         \
                          _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0), \
                          _mm512_packus_epi16(_mm512_packs_epi32(values[0], values[1]), _mm512_setzero_si512()))))
#include "cpu/resample_pairs_passes.h"

}  // namespace

bool resample_pairs_avx2(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch) {
  return avx2::resample(crop, out, vertical_first, scratch);
}
bool resample_pairs_avx512(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch) {
  return avx512::resample(crop, out, vertical_first, scratch);
}

#else
bool resample_pairs_avx2(const ConstPlanes&, const Planes&, bool, ResampleScratch&) { return false; }
bool resample_pairs_avx512(const ConstPlanes&, const Planes&, bool, ResampleScratch&) { return false; }
#endif

}  // namespace pass_loader::cpu
