#include "cpu/resample_avx2.h"

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
// pass writes 8 columns of two rows as one register, and two taps of a column are one int32 for the vertical pass.
constexpr int kGroup = 8;      // outputs side by side in a register of int32
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

// Eight outputs, four for each of two windows. The windows move on by `step` pairs of taps.
struct HorizontalGroup {
  int32_t base[2];                             // each half's leftmost input
  alignas(32) uint8_t index[kWindow / 4][32];  // places in a window of each output's pair of bytes, widened to 16 bits
  alignas(32) int32_t high[kMaxPairs][kGroup], low[kMaxPairs][kGroup];
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
void fill_group(const AxisWeights& weights, int32_t begin, int32_t step, int32_t pairs, HorizontalGroup& group) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  for (int32_t i = 0; i < kGroup; ++i) {
    const int32_t output = std::min(begin + i, last), half = i / 4 * 4;
    const int32_t nearest = std::min(begin + half, last), furthest = std::min(begin + half + 3, last);
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

struct Sum {
  __m256i high, low;
};

PL_TARGET_AVX2 PL_INLINE void start(Sum& sum) {
  sum.high = _mm256_setzero_si256();
  sum.low = _mm256_set1_epi32(1 << (kWeightBits - 1));
}
PL_TARGET_AVX2 PL_INLINE void add(Sum& sum, __m256i taps, __m256i high, __m256i low) {
  sum.high = _mm256_add_epi32(sum.high, _mm256_madd_epi16(taps, high));
  sum.low = _mm256_add_epi32(sum.low, _mm256_madd_epi16(taps, low));
}
PL_TARGET_AVX2 PL_INLINE __m256i total(const Sum& sum) {
  return _mm256_add_epi32(_mm256_slli_epi32(sum.high, kLowBits), sum.low);
}

PL_TARGET_AVX2 PL_INLINE __m256i window(const uint8_t* left, const uint8_t* right) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(left))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(right)), 1);
}

PL_TARGET_AVX2 PL_INLINE __m256i load(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }

// Computes one group of outputs for pairs of rows of one plane. The usual numbers of pairs of taps are template
// arguments; 0 stands for any number.
template <int step, int usual_pairs>
PL_TARGET_AVX2 void horizontal_rows(const HorizontalGroup& group, int32_t any_pairs, const uint8_t* in,
                                    size_t in_stride, int32_t row_pairs, uint8_t* between, size_t pair_stride) {
  constexpr int kKept = usual_pairs > 0 ? usual_pairs : kMaxPairs;
  const int32_t pairs = usual_pairs > 0 ? usual_pairs : any_pairs;
  __m256i index[step], high[kKept], low[kKept];  // copies, which no store below can change
#pragma GCC unroll 4
  for (int32_t pair = 0; pair < step; ++pair) index[pair] = load(group.index[pair]);
#pragma GCC unroll 8
  for (int32_t pair = 0; pair < pairs; ++pair) high[pair] = load(group.high[pair]), low[pair] = load(group.low[pair]);
  const ptrdiff_t right = group.base[1] - group.base[0];
  in += group.base[0];
  for (; row_pairs > 0; --row_pairs, in += 2 * in_stride, between += pair_stride) {
    __m256i sums[2];
    for (int i = 0; i < 2; ++i) {
      const uint8_t* row = in + i * in_stride;
      __m256i bytes;
      Sum sum;
      start(sum);
#pragma GCC unroll 8
      for (int32_t pair = 0; pair < pairs; ++pair) {
        if (pair % step == 0) bytes = window(row + 2 * pair, row + right + 2 * pair);
        add(sum, _mm256_shuffle_epi8(bytes, index[pair % step]), high[pair], low[pair]);
      }
      sums[i] = total(sum);
    }
    // Moves the upper row's values to the lower halves of the lanes.
    __m256i both =
        _mm256_blend_epi16(_mm256_srai_epi32(sums[0], kWeightBits), _mm256_srai_epi32(sums[1], kWeightBits - 16), 0xaa);
    both = _mm256_min_epi16(_mm256_max_epi16(both, _mm256_setzero_si256()), _mm256_set1_epi16(255));
    _mm256_store_si256(reinterpret_cast<__m256i*>(between), both);
  }
}

using HorizontalRows = void (*)(const HorizontalGroup&, int32_t, const uint8_t*, size_t, int32_t, uint8_t*, size_t);

HorizontalRows horizontal_rows_of(int32_t step, int32_t pairs) {
  constexpr HorizontalRows four[] = {horizontal_rows<4, 0>, horizontal_rows<4, 1>, horizontal_rows<4, 2>,
                                     horizontal_rows<4, 3>, horizontal_rows<4, 4>, horizontal_rows<4, 5>,
                                     horizontal_rows<4, 6>};
  constexpr HorizontalRows two[] = {horizontal_rows<2, 0>, horizontal_rows<2, 6>, horizontal_rows<2, 7>,
                                    horizontal_rows<2, 8>};
  if (step == 4) return four[pairs <= 6 ? pairs : 0];
  return two[pairs >= 6 && pairs <= 8 ? pairs - 5 : 0];
}

// Clips kColumns values in int32 lanes to bytes. Within 128 bits they are in the order that two rounds of unpacking
// bytes give.
PL_TARGET_AVX2 PL_INLINE __m256i pack_columns(const __m256i (&values)[4]) {
  return _mm256_packus_epi16(_mm256_packs_epi32(values[0], values[1]), _mm256_packs_epi32(values[2], values[3]));
}

PL_TARGET_AVX2 PL_INLINE void store_columns(const __m256i (&values)[4], uint8_t* out) {
  const __m256i in_order = _mm256_permutevar8x32_epi32(pack_columns(values), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), in_order);
}

// Computes kColumns values of one output row.
PL_TARGET_AVX2 PL_INLINE void vertical_columns(const uint8_t* between, size_t pair_stride, const PairWeights* weights,
                                               int32_t pairs, uint8_t* out) {
  Sum sum[4];
  for (Sum& s : sum) start(s);
  for (int32_t pair = 0; pair < pairs; ++pair) {
    const __m256i high = _mm256_set1_epi32(weights[pair].high), low = _mm256_set1_epi32(weights[pair].low);
    for (int i = 0; i < 4; ++i) add(sum[i], load(between + pair * pair_stride + 32 * i), high, low);
  }
  __m256i values[4];
  for (int i = 0; i < 4; ++i) values[i] = _mm256_srai_epi32(total(sum[i]), kWeightBits);
  store_columns(values, out);
}

// Writes the taps of every output row on the grid of row pairs of `between`, `stride` pairs a row. An output has fewer
// taps than are reserved, so the weight after its last tap is 0.
void fill_vertical(const AxisWeights& weights, size_t stride, PairWeights* pairs) {
  for (size_t y = 0; y < weights.first.size(); ++y, pairs += stride) {
    const int32_t* weight = &weights.weight[y * weights.stride];
    const int32_t odd = (weights.first[y] - weights.input_begin) % 2;
    PairWeights* to = pairs;
    if (odd) *to++ = pair_weights(0, weight[0]);
    for (int32_t t = odd; t < weights.count[y]; t += 2) *to++ = pair_weights(weight[t], weight[t + 1]);
  }
}

PL_TARGET_AVX2 void vertical_rows(const AxisWeights& weights, const uint8_t* between, size_t pair_stride,
                                  const PairWeights* taps, size_t taps_stride, const Planes& out, int plane) {
  for (int32_t y = 0; y < out.height; ++y, taps += taps_stride) {
    const int32_t first = weights.first[y] - weights.input_begin;
    const int32_t pairs = (first % 2 + weights.count[y] + 1) / 2;
    const uint8_t* from = between + first / 2 * pair_stride;
    // The tail of a row runs over into the next row, which is written later.
    for (int32_t x = 0; x < out.width; x += kColumns)
      vertical_columns(from + 4 * x, pair_stride, taps, pairs, out.row(plane, y) + x);
  }
}

// Runs the vertical pass where it is the first: makes kColumns bytes of one row from `rows` rows of bytes at `in`. The
// weight after the last is 0.
PL_TARGET_AVX2 PL_INLINE void vertical_bytes(const uint8_t* in, size_t in_stride, const int32_t* weight, int32_t rows,
                                             uint8_t* out) {
  const __m256i zero = _mm256_setzero_si256();
  Sum sum[4];
  for (Sum& s : sum) start(s);
  for (int32_t y = 0; y < rows; y += 2) {
    const PairWeights w = pair_weights(weight[y], weight[y + 1]);
    const __m256i high = _mm256_set1_epi32(w.high), low = _mm256_set1_epi32(w.low);
    const __m256i upper = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + y * in_stride));
    const __m256i lower = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + (y + (y + 1 < rows)) * in_stride));
    const __m256i left = _mm256_unpacklo_epi8(upper, lower), right = _mm256_unpackhi_epi8(upper, lower);
    add(sum[0], _mm256_unpacklo_epi8(left, zero), high, low);
    add(sum[1], _mm256_unpackhi_epi8(left, zero), high, low);
    add(sum[2], _mm256_unpacklo_epi8(right, zero), high, low);
    add(sum[3], _mm256_unpackhi_epi8(right, zero), high, low);
  }
  __m256i values[4];
  for (int i = 0; i < 4; ++i) values[i] = _mm256_srai_epi32(total(sum[i]), kWeightBits);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), pack_columns(values));
}

// Converts what a horizontal pass that runs second has written to rows of bytes.
PL_TARGET_AVX2 void split_rows(const uint8_t* between, size_t pair_stride, const Planes& out, int plane) {
  for (int32_t y = 0; y < out.height; ++y)
    for (int32_t x = 0; x < out.width; x += kColumns) {
      const uint8_t* from = between + y / 2 * pair_stride + 4 * x;
      __m256i values[4];
      for (int i = 0; i < 4; ++i) {
        const __m256i both = load(from + 32 * i);
        values[i] = y % 2 == 0 ? _mm256_and_si256(both, _mm256_set1_epi32(0xffff)) : _mm256_srli_epi32(both, 16);
      }
      store_columns(values, out.row(plane, y) + x);
    }
}

struct HorizontalPass {
  const HorizontalGroup* group;
  int32_t groups, pairs;
  HorizontalRows rows;
  size_t pair_stride;  // bytes of two interleaved rows

  // Resizes all rows of one plane, from the first input column that is used.
  void run(const uint8_t* in, size_t in_stride, int32_t height, uint8_t* between) const {
    auto rows_from = [&](int32_t y, size_t row_stride, int32_t row_pairs) {
      for (int32_t g = 0; g < groups; ++g)
        rows(group[g], pairs, in + y * in_stride, row_stride, row_pairs, between + y / 2 * pair_stride + 32 * g,
             pair_stride);
    };
    for (int32_t y = 0; y + 1 < height; y += kRows) rows_from(y, in_stride, std::min(kRows, height - y) / 2);
    if (height % 2 == 1) rows_from(height - 1, 0, 1);  // the last row is paired with itself
  }
};

void horizontal_then_vertical(const ConstPlanes& crop, const HorizontalPass& horizontal, const Planes& out,
                              ResampleScratch& scratch) {
  const AxisWeights& vertical = scratch.vertical;
  const int32_t rows = vertical.input_end - vertical.input_begin;
  const size_t stride = vertical.stride / 2 + 1;
  auto* taps = reinterpret_cast<PairWeights*>(scratch.columns.need(out.height * stride * sizeof(PairWeights)));
  fill_vertical(vertical, stride, taps);
  uint8_t* between = scratch.between.need((rows + 1) / 2 * horizontal.pair_stride);
  for (int plane = 0; plane < out.channels; ++plane) {
    horizontal.run(crop.row(plane, vertical.input_begin), crop.row_stride, rows, between);
    vertical_rows(vertical, between, horizontal.pair_stride, taps, stride, out, plane);
  }
}

PL_TARGET_AVX2 void vertical_then_horizontal(const ConstPlanes& crop, const HorizontalPass& horizontal,
                                             const Planes& out, ResampleScratch& scratch) {
  const AxisWeights& vertical = scratch.vertical;
  const size_t stride = round_up(crop.width, kColumns);
  uint8_t* rows = scratch.padded.need(out.height * stride);
  uint8_t* between = scratch.between.need((out.height + 1) / 2 * horizontal.pair_stride);
  for (int plane = 0; plane < out.channels; ++plane) {
    for (int32_t y = 0; y < out.height; ++y)
      for (int32_t x = 0; x < crop.width; x += kColumns)
        vertical_bytes(crop.row(plane, vertical.first[y]) + x, crop.row_stride,
                       &vertical.weight[static_cast<size_t>(y) * vertical.stride], vertical.count[y],
                       rows + y * stride + x);
    horizontal.run(rows, stride, out.height, between);
    split_rows(between, horizontal.pair_stride, out, plane);
  }
}

}  // namespace

bool resample_avx2(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch) {
  const AxisWeights& weights = scratch.horizontal;
  const int32_t step = pairs_a_window(weights);
  const int32_t pairs = (*std::max_element(weights.count.begin(), weights.count.end()) + 1) / 2;
  if (step == 0 || pairs > kMaxPairs) return false;
  const int32_t groups = static_cast<int32_t>(round_up(out.width, kColumns)) / kGroup;
  auto* group = reinterpret_cast<HorizontalGroup*>(scratch.groups.need(groups * sizeof(HorizontalGroup)));
  for (int32_t g = 0; g < groups; ++g) fill_group(weights, kGroup * g, step, pairs, group[g]);
  const size_t pair_stride = static_cast<size_t>(groups) * 32;
  const HorizontalPass horizontal{group, groups, pairs, horizontal_rows_of(step, pairs), pair_stride};
  (vertical_first ? vertical_then_horizontal : horizontal_then_vertical)(crop, horizontal, out, scratch);
  return true;
}

#else
bool resample_avx2(const ConstPlanes&, const Planes&, bool, ResampleScratch&) { return false; }
#endif

}  // namespace pass_loader::cpu
