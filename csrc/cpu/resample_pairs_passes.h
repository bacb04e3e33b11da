// The two passes of a resize by pairs of taps. resample_pairs.cpp includes this file once for each instruction-set
// level and defines
//   PL_LEVEL       a namespace for what is here
//   PL_TARGET      its target attribute
//   PL_VECTOR      the register: __m256i or __m512i
//   PL_OP(name)    an intrinsic of that width: _mm256_##name or _mm512_##name
//   PL_LOAD(from), PL_LOADU(from), PL_STORE(to, v), PL_STOREU(to, v)   a register; U: at any address
//   PL_ZERO
//   PL_LOWER_HALVES(v)            each int32 without its upper 16 bits
//   PL_TWO_WORDS(lower, upper)    the lower 16 bits of each int32 of one, the upper ones of the other
//   PL_WINDOWS(row, offset)       16 bytes from row, row + offset[1], ... side by side
//   PL_STORE_COLUMNS(out, values) kColumns values of int32 in order, clipped to bytes

namespace PL_LEVEL {

constexpr int kGroup = sizeof(PL_VECTOR) / 4;  // outputs side by side in a register of int32
constexpr int kRegisters = kColumns / kGroup;  // of kColumns values
using Group = HorizontalGroup<kGroup>;

struct Sum {
  PL_VECTOR high, low;
};

PL_TARGET PL_INLINE void start(Sum& sum) {
  sum.high = PL_ZERO;
  sum.low = PL_OP(set1_epi32)(1 << (kWeightBits - 1));
}
PL_TARGET PL_INLINE void add(Sum& sum, PL_VECTOR taps, PL_VECTOR high, PL_VECTOR low) {
  sum.high = PL_OP(add_epi32)(sum.high, PL_OP(madd_epi16)(taps, high));
  sum.low = PL_OP(add_epi32)(sum.low, PL_OP(madd_epi16)(taps, low));
}
PL_TARGET PL_INLINE PL_VECTOR total(const Sum& sum) {
  return PL_OP(add_epi32)(PL_OP(slli_epi32)(sum.high, kLowBits), sum.low);
}

// Computes one group of outputs for pairs of rows of one plane. The usual numbers of pairs of taps are template
// arguments; 0 stands for any number.
template <int step, int usual_pairs>
PL_TARGET void horizontal_rows(const Group& group, int32_t any_pairs, const uint8_t* in, size_t in_stride,
                               int32_t row_pairs, uint8_t* between, size_t pair_stride) {
  constexpr int kKept = usual_pairs > 0 ? usual_pairs : kMaxPairs;
  const int32_t pairs = usual_pairs > 0 ? usual_pairs : any_pairs;
  PL_VECTOR index[step], high[kKept], low[kKept];  // copies, which no store below can change
#pragma GCC unroll 4
  for (int32_t pair = 0; pair < step; ++pair) index[pair] = PL_LOAD(group.index[pair]);
#pragma GCC unroll 8
  for (int32_t pair = 0; pair < pairs; ++pair)
    high[pair] = PL_LOAD(group.high[pair]), low[pair] = PL_LOAD(group.low[pair]);
  ptrdiff_t offset[kGroup / 4];
  for (int i = 0; i < kGroup / 4; ++i) offset[i] = group.base[i] - group.base[0];
  in += group.base[0];
  for (; row_pairs > 0; --row_pairs, in += 2 * in_stride, between += pair_stride) {
    PL_VECTOR sums[2];
    for (int i = 0; i < 2; ++i) {
      const uint8_t* row = in + i * in_stride;
      PL_VECTOR bytes;
      Sum sum;
      start(sum);
#pragma GCC unroll 8
      for (int32_t pair = 0; pair < pairs; ++pair) {
        if (pair % step == 0) bytes = PL_WINDOWS(row + 2 * pair, offset);
        add(sum, PL_OP(shuffle_epi8)(bytes, index[pair % step]), high[pair], low[pair]);
      }
      sums[i] = total(sum);
    }
    // Moves the upper row's values to the lower halves of the lanes.
    PL_VECTOR both =
        PL_TWO_WORDS(PL_OP(srai_epi32)(sums[0], kWeightBits), PL_OP(srai_epi32)(sums[1], kWeightBits - 16));
    both = PL_OP(min_epi16)(PL_OP(max_epi16)(both, PL_ZERO), PL_OP(set1_epi16)(255));
    PL_STORE(reinterpret_cast<PL_VECTOR*>(between), both);
  }
}

using HorizontalRows = void (*)(const Group&, int32_t, const uint8_t*, size_t, int32_t, uint8_t*, size_t);

inline HorizontalRows horizontal_rows_of(int32_t step, int32_t pairs) {
  constexpr HorizontalRows four[] = {horizontal_rows<4, 0>, horizontal_rows<4, 1>, horizontal_rows<4, 2>,
                                     horizontal_rows<4, 3>, horizontal_rows<4, 4>, horizontal_rows<4, 5>,
                                     horizontal_rows<4, 6>};
  constexpr HorizontalRows two[] = {horizontal_rows<2, 0>, horizontal_rows<2, 6>, horizontal_rows<2, 7>,
                                    horizontal_rows<2, 8>};
  if (step == 4) return four[pairs <= 6 ? pairs : 0];
  return two[pairs >= 6 && pairs <= 8 ? pairs - 5 : 0];
}

// Computes kColumns values of one output row.
PL_TARGET PL_INLINE void vertical_columns(const uint8_t* between, size_t pair_stride, const PairWeights* weights,
                                          int32_t pairs, uint8_t* out) {
  Sum sum[kRegisters];
  for (Sum& s : sum) start(s);
  for (int32_t pair = 0; pair < pairs; ++pair) {
    const PL_VECTOR high = PL_OP(set1_epi32)(weights[pair].high), low = PL_OP(set1_epi32)(weights[pair].low);
    for (int i = 0; i < kRegisters; ++i)
      add(sum[i], PL_LOAD(reinterpret_cast<const PL_VECTOR*>(between + pair * pair_stride) + i), high, low);
  }
  PL_VECTOR values[kRegisters];
  for (int i = 0; i < kRegisters; ++i) values[i] = PL_OP(srai_epi32)(total(sum[i]), kWeightBits);
  PL_STORE_COLUMNS(out, values);
}

PL_TARGET static void vertical_rows(const AxisWeights& weights, const uint8_t* between, size_t pair_stride,
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

// Runs the vertical pass where it is the first: makes a register's bytes of one row from `rows` rows of bytes at `in`.
// The weight after the last is 0.
PL_TARGET PL_INLINE void vertical_bytes(const uint8_t* in, size_t in_stride, const int32_t* weight, int32_t rows,
                                        uint8_t* out) {
  const PL_VECTOR zero = PL_ZERO;
  Sum sum[4];
  for (Sum& s : sum) start(s);
  for (int32_t y = 0; y < rows; y += 2) {
    const PairWeights w = pair_weights(weight[y], weight[y + 1]);
    const PL_VECTOR high = PL_OP(set1_epi32)(w.high), low = PL_OP(set1_epi32)(w.low);
    const PL_VECTOR upper = PL_LOADU(reinterpret_cast<const PL_VECTOR*>(in + y * in_stride));
    const PL_VECTOR lower = PL_LOADU(reinterpret_cast<const PL_VECTOR*>(in + (y + (y + 1 < rows)) * in_stride));
    const PL_VECTOR left = PL_OP(unpacklo_epi8)(upper, lower), right = PL_OP(unpackhi_epi8)(upper, lower);
    add(sum[0], PL_OP(unpacklo_epi8)(left, zero), high, low);
    add(sum[1], PL_OP(unpackhi_epi8)(left, zero), high, low);
    add(sum[2], PL_OP(unpacklo_epi8)(right, zero), high, low);
    add(sum[3], PL_OP(unpackhi_epi8)(right, zero), high, low);
  }
  PL_VECTOR values[4];
  for (int i = 0; i < 4; ++i) values[i] = PL_OP(srai_epi32)(total(sum[i]), kWeightBits);
  PL_STOREU(reinterpret_cast<PL_VECTOR*>(out),
            PL_OP(packus_epi16)(PL_OP(packs_epi32)(values[0], values[1]), PL_OP(packs_epi32)(values[2], values[3])));
}

// Converts what a horizontal pass that runs second has written to rows of bytes.
PL_TARGET static void split_rows(const uint8_t* between, size_t pair_stride, const Planes& out, int plane) {
  for (int32_t y = 0; y < out.height; ++y)
    for (int32_t x = 0; x < out.width; x += kColumns) {
      const auto* from = reinterpret_cast<const PL_VECTOR*>(between + y / 2 * pair_stride + 4 * x);
      PL_VECTOR values[kRegisters];
      for (int i = 0; i < kRegisters; ++i) {
        const PL_VECTOR both = PL_LOAD(from + i);
        values[i] = y % 2 == 0 ? PL_LOWER_HALVES(both) : PL_OP(srli_epi32)(both, 16);
      }
      PL_STORE_COLUMNS(out.row(plane, y) + x, values);
    }
}

struct HorizontalPass {
  const Group* group;
  int32_t groups, pairs;
  HorizontalRows rows;
  size_t pair_stride;  // bytes of two interleaved rows

  // Resizes all rows of one plane, from the first input column that is used.
  void run(const uint8_t* in, size_t in_stride, int32_t height, uint8_t* between) const {
    auto rows_from = [&](int32_t y, size_t row_stride, int32_t row_pairs) {
      for (int32_t g = 0; g < groups; ++g)
        rows(group[g], pairs, in + y * in_stride, row_stride, row_pairs,
             between + y / 2 * pair_stride + sizeof(PL_VECTOR) * g, pair_stride);
    };
    for (int32_t y = 0; y + 1 < height; y += kRows) rows_from(y, in_stride, std::min(kRows, height - y) / 2);
    if (height % 2 == 1) rows_from(height - 1, 0, 1);  // the last row is paired with itself
  }
};

inline void horizontal_then_vertical(const ConstPlanes& crop, const HorizontalPass& horizontal, const Planes& out,
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

PL_TARGET static void vertical_then_horizontal(const ConstPlanes& crop, const HorizontalPass& horizontal,
                                               const Planes& out, ResampleScratch& scratch) {
  constexpr int32_t kBytes = sizeof(PL_VECTOR);
  const AxisWeights& vertical = scratch.vertical;
  const size_t stride = round_up(crop.width, kBytes);
  uint8_t* rows = scratch.padded.need(out.height * stride);
  uint8_t* between = scratch.between.need((out.height + 1) / 2 * horizontal.pair_stride);
  for (int plane = 0; plane < out.channels; ++plane) {
    for (int32_t y = 0; y < out.height; ++y)
      for (int32_t x = 0; x < crop.width; x += kBytes)
        vertical_bytes(crop.row(plane, vertical.first[y]) + x, crop.row_stride,
                       &vertical.weight[static_cast<size_t>(y) * vertical.stride], vertical.count[y],
                       rows + y * stride + x);
    horizontal.run(rows, stride, out.height, between);
    split_rows(between, horizontal.pair_stride, out, plane);
  }
}

inline bool resample(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch) {
  const AxisWeights& weights = scratch.horizontal;
  const int32_t step = pairs_a_window(weights);
  const int32_t pairs = (*std::max_element(weights.count.begin(), weights.count.end()) + 1) / 2;
  if (step == 0 || pairs > kMaxPairs) return false;
  const int32_t groups = static_cast<int32_t>(round_up(out.width, kColumns)) / kGroup;
  auto* group = reinterpret_cast<Group*>(scratch.groups.need(groups * sizeof(Group)));
  for (int32_t g = 0; g < groups; ++g) fill_group(weights, kGroup * g, step, pairs, group[g]);
  const size_t pair_stride = static_cast<size_t>(groups) * sizeof(PL_VECTOR);
  const HorizontalPass horizontal{group, groups, pairs, horizontal_rows_of(step, pairs), pair_stride};
  (vertical_first ? vertical_then_horizontal : horizontal_then_vertical)(crop, horizontal, out, scratch);
  return true;
}

}  // namespace PL_LEVEL

#undef PL_LEVEL
#undef PL_TARGET
#undef PL_VECTOR
#undef PL_OP
#undef PL_LOAD
#undef PL_LOADU
#undef PL_STORE
#undef PL_STOREU
#undef PL_ZERO
#undef PL_LOWER_HALVES
#undef PL_TWO_WORDS
#undef PL_WINDOWS
#undef PL_STORE_COLUMNS
