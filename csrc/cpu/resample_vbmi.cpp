#include "cpu/resample_vbmi.h"

#include "isa.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#include <immintrin.h>
#endif

namespace pass_loader::cpu {

#if defined(__x86_64__)
namespace {

// vpdpbusd adds four products of unsigned and signed bytes to each int32. A 22-bit weight with its sign is three signed
// base-256 digits, w = d0 + 256 d1 + 65536 d2, so that three of them multiply four taps exactly.
//
// Between the passes four rows are interleaved: column x of rows 4k..4k+3 is one int32. So the horizontal pass writes
// 16 columns of four rows as one register, and four taps of a column are one int32 for the vertical pass.
constexpr int kGroup = 16;    // outputs side by side in a register of int32
constexpr int kColumns = 64;  // that a vertical pass takes together
constexpr int kMaxQuads = 8;  // groups of four taps: 32 taps serve a bicubic reduction by 7.5
constexpr int kHalf = 1 << (kWeightBits - 1);

struct HorizontalGroup {
  int32_t base;                              // the leftmost input
  alignas(64) uint8_t index[kMaxQuads][64];  // places, from base, of the input bytes of each output's four taps
  alignas(64) int8_t digit[kMaxQuads][3][64];
};

// Writes d0, d1 and d2 of 16 weights.
PL_TARGET_VBMI inline void split_digits(__m512i weight, int8_t* d0, int8_t* d1, int8_t* d2) {
  __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(weight, 24), 24);
  __m512i rest = _mm512_srai_epi32(_mm512_sub_epi32(weight, low), 8);
  __m512i middle = _mm512_srai_epi32(_mm512_slli_epi32(rest, 24), 24);
  __m512i high = _mm512_srai_epi32(_mm512_sub_epi32(rest, middle), 8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(d0), _mm512_cvtepi32_epi8(low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(d1), _mm512_cvtepi32_epi8(middle));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(d2), _mm512_cvtepi32_epi8(high));
}

// What the products of the three digits add up to.
struct Sums {
  __m512i of[3];
};

PL_TARGET_VBMI PL_INLINE void start(Sums& sums) {
  sums.of[0] = _mm512_set1_epi32(kHalf);
  sums.of[1] = sums.of[2] = _mm512_setzero_si512();
}
PL_TARGET_VBMI PL_INLINE void add(Sums& sums, __m512i taps, const __m512i (&digits)[3]) {
  for (int d = 0; d < 3; ++d) sums.of[d] = _mm512_dpbusd_epi32(sums.of[d], taps, digits[d]);
}
PL_TARGET_VBMI PL_INLINE __m512i total(const Sums& sums) {
  return _mm512_add_epi32(_mm512_add_epi32(sums.of[0], _mm512_slli_epi32(sums.of[1], 8)),
                          _mm512_slli_epi32(sums.of[2], 16));
}

// Clips 64 values in int32 lanes to bytes. Within 128 bits they are in the order that two rounds of unpacking bytes
// give.
PL_TARGET_VBMI PL_INLINE __m512i pack_columns(const __m512i (&values)[4]) {
  return _mm512_packus_epi16(_mm512_packs_epi32(values[0], values[1]), _mm512_packs_epi32(values[2], values[3]));
}

int32_t quads_of(const AxisWeights& weights) {
  return (*std::max_element(weights.count.begin(), weights.count.end()) + 3) / 4;
}

// Returns whether the inputs of every group of outputs lie within 128 bytes.
bool groups_are_near(const AxisWeights& weights, int32_t quads) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  for (int32_t begin = 0; begin <= last; begin += kGroup) {
    const int32_t span = weights.first[begin] - weights.first[std::min(begin + kGroup - 1, last)];
    if (std::abs(span) + 4 * quads > 128) return false;
  }
  return true;
}

// Fills the group of outputs from `begin`. The last output is repeated past the end.
PL_TARGET_VBMI void fill_group(const AxisWeights& weights, int32_t begin, int32_t quads, HorizontalGroup& group) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  group.base = std::min(weights.first[begin], weights.first[std::min(begin + kGroup - 1, last)]);
  for (int32_t quad = 0; quad < quads; ++quad)
    for (int32_t i = 0; i < kGroup; i += 4) {
      alignas(64) int32_t taps[16];
      for (int32_t k = 0; k < 4; ++k) {
        const int32_t output = std::min(begin + i + k, last);
        const int32_t from = weights.first[output] - group.base + 4 * quad;
        for (int t = 0; t < 4; ++t) group.index[quad][4 * (i + k) + t] = static_cast<uint8_t>(from + t);
        std::memcpy(taps + 4 * k, &weights.weight[static_cast<size_t>(output) * weights.stride + 4 * quad], 16);
      }
      int8_t (*digit)[64] = group.digit[quad];
      split_digits(_mm512_load_si512(taps), digit[0] + 4 * i, digit[1] + 4 * i, digit[2] + 4 * i);
    }
}

// Sums 16 outputs of one row.
template <int quads, bool wide>
PL_TARGET_VBMI PL_INLINE __m512i horizontal_row(const uint8_t* in, const __m512i (&index)[quads],
                                                const __m512i (&digit)[quads][3]) {
  const __m512i near = _mm512_loadu_si512(in), far = wide ? _mm512_loadu_si512(in + 64) : near;
  Sums sums;
  start(sums);
#pragma GCC unroll 8
  for (int quad = 0; quad < quads; ++quad)
    add(sums, wide ? _mm512_permutex2var_epi8(near, index[quad], far) : _mm512_permutexvar_epi8(index[quad], near),
        digit[quad]);
  return total(sums);
}

// Computes 16 outputs of four rows. Within 128 bits come two rows of four columns, then the other two rows.
template <int quads, bool wide>
PL_TARGET_VBMI PL_INLINE __m512i horizontal_rows(const uint8_t* (&row)[4], const __m512i (&index)[quads],
                                                 const __m512i (&digit)[quads][3]) {
  __m512i two[2];
  for (int i = 0; i < 2; ++i) {
    const __m512i lower = horizontal_row<quads, wide>(row[2 * i], index, digit);
    const __m512i upper = horizontal_row<quads, wide>(row[2 * i + 1], index, digit);
    two[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srai_epi32(lower, kWeightBits),
                                     _mm512_srai_epi32(upper, kWeightBits - 16));
  }
  return _mm512_packus_epi16(two[0], two[1]);
}

// Where a horizontal pass writes to.
struct HorizontalOutput {
  uint8_t* to;
  size_t stride;    // bytes from four rows to the next four where they are interleaved, else from row to row
  __mmask16 whole;  // the columns that exist, of rows side by side; 0: interleaved
};

PL_TARGET_VBMI PL_INLINE void store_rows(__m512i rows, int32_t count, const HorizontalOutput& out, uint8_t* to) {
  const __m128i interleaved = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
  const __m128i apart = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  if (out.whole == 0) {
    _mm512_store_si512(to, _mm512_shuffle_epi8(rows, _mm512_broadcast_i32x4(interleaved)));
    return;
  }
  alignas(64) uint8_t side_by_side[64];
  const __m512i four = _mm512_shuffle_epi8(rows, _mm512_broadcast_i32x4(apart));
  const __m512i row_after_row = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_store_si512(side_by_side, _mm512_permutexvar_epi32(row_after_row, four));
  for (int32_t k = 0; k < std::min(count, 4); ++k)
    _mm_mask_storeu_epi8(to + k * out.stride, out.whole,
                         _mm_load_si128(reinterpret_cast<const __m128i*>(side_by_side + 16 * k)));
}

// Computes one group of outputs for all rows. The last row is repeated past the end.
template <int quads, bool wide>
PL_TARGET_VBMI void horizontal_columns(const HorizontalGroup& group, const uint8_t* in, size_t in_stride, int32_t rows,
                                       const HorizontalOutput& out) {
  __m512i index[quads], digit[quads][3];
  for (int quad = 0; quad < quads; ++quad) {
    index[quad] = _mm512_load_si512(group.index[quad]);
    for (int d = 0; d < 3; ++d) digit[quad][d] = _mm512_load_si512(group.digit[quad][d]);
  }
  in += group.base;
  uint8_t* to = out.to;
  const size_t step = out.whole == 0 ? out.stride : 4 * out.stride;
  for (; rows >= 4; rows -= 4, in += 4 * in_stride, to += step) {
    const uint8_t* row[4] = {in, in + in_stride, in + 2 * in_stride, in + 3 * in_stride};
    store_rows(horizontal_rows<quads, wide>(row, index, digit), 4, out, to);
  }
  if (rows == 0) return;
  const uint8_t* row[4];
  for (int32_t k = 0; k < 4; ++k) row[k] = in + std::min(k, rows - 1) * in_stride;
  store_rows(horizontal_rows<quads, wide>(row, index, digit), rows, out, to);
}

using HorizontalColumns = void (*)(const HorizontalGroup&, const uint8_t*, size_t, int32_t, const HorizontalOutput&);
constexpr HorizontalColumns kHorizontal[kMaxQuads][2] = {
    {horizontal_columns<1, false>, horizontal_columns<1, true>},
    {horizontal_columns<2, false>, horizontal_columns<2, true>},
    {horizontal_columns<3, false>, horizontal_columns<3, true>},
    {horizontal_columns<4, false>, horizontal_columns<4, true>},
    {horizontal_columns<5, false>, horizontal_columns<5, true>},
    {horizontal_columns<6, false>, horizontal_columns<6, true>},
    {horizontal_columns<7, false>, horizontal_columns<7, true>},
    {horizontal_columns<8, false>, horizontal_columns<8, true>},
};

// The digits of one output row's taps.
struct VerticalDigits {
  int32_t quads;
  alignas(16) int8_t of[3][round_up(4 * (kMaxQuads + 1), 16)];

  // The first tap is tap `place` of its four.
  PL_TARGET_VBMI VerticalDigits(const AxisWeights& weights, int32_t y, int32_t place)
      : quads((place + weights.count[y] - 1) / 4 + 1) {
    alignas(64) int32_t taps[sizeof of[0]] = {};
    const int32_t* weight = &weights.weight[static_cast<size_t>(y) * weights.stride];
    for (int32_t t = 0; t < weights.count[y]; t += 4) std::memcpy(taps + place + t, weight + t, 16);
    for (int32_t t = 0; t < 4 * quads; t += 16)
      split_digits(_mm512_load_si512(taps + t), of[0] + t, of[1] + t, of[2] + t);
  }

  // Repeats each digit of four taps.
  PL_TARGET_VBMI PL_INLINE void load(int32_t quad, __m512i (&weight)[3]) const {
    for (int d = 0; d < 3; ++d) {
      int32_t four;
      std::memcpy(&four, of[d] + 4 * quad, 4);
      weight[d] = _mm512_set1_epi32(four);
    }
  }
};

// Computes 64 columns of one output row from four rows that are interleaved, or 32 if `half`; `width` of them exist.
template <bool half>
PL_TARGET_VBMI PL_INLINE void vertical_columns(const uint8_t* between, size_t quad_stride, const VerticalDigits& digits,
                                               uint8_t* out, int32_t width) {
  constexpr int kBlocks = half ? 2 : 4;
  Sums sums[kBlocks];
  for (Sums& s : sums) start(s);
  for (int32_t quad = 0; quad < digits.quads; ++quad) {
    __m512i weight[3];
    digits.load(quad, weight);
    for (int b = 0; b < kBlocks; ++b) add(sums[b], _mm512_load_si512(between + quad * quad_stride + 64 * b), weight);
  }
  __m512i values[4];
  for (int b = 0; b < 4; ++b) values[b] = _mm512_srai_epi32(total(sums[b % kBlocks]), kWeightBits);
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_permutexvar_epi32(in_order, pack_columns(values));
  if (width >= kGroup * kBlocks && half)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(bytes));
  else if (width >= kGroup * kBlocks)
    _mm512_storeu_si512(out, bytes);
  else
    _mm512_mask_storeu_epi8(out, (uint64_t{1} << width) - 1, bytes);
}

PL_TARGET_VBMI void vertical_rows(const AxisWeights& weights, const uint8_t* between, size_t quad_stride,
                                  size_t plane_stride, const Planes& out) {
  for (int32_t y = 0; y < out.height; ++y) {
    const int32_t first = weights.first[y] - weights.input_begin;
    const VerticalDigits digits(weights, y, first % 4);
    for (int plane = 0; plane < out.channels; ++plane) {
      const uint8_t* from = between + plane * plane_stride + first / 4 * quad_stride;
      for (int32_t x = 0; x < out.width; x += kColumns) {
        const int32_t left = out.width - x;
        uint8_t* to = out.row(plane, y) + x;
        if (left > kColumns / 2)
          vertical_columns<false>(from + 4 * x, quad_stride, digits, to, left);
        else
          vertical_columns<true>(from + 4 * x, quad_stride, digits, to, left);
      }
    }
  }
}

// Runs the vertical pass where it is the first: makes 64 bytes of one row from `rows` rows of bytes at `in`.
PL_TARGET_VBMI PL_INLINE void vertical_bytes(const uint8_t* in, size_t in_stride, const VerticalDigits& digits,
                                             int32_t rows, uint8_t* out) {
  Sums sums[4];
  for (Sums& s : sums) start(s);
  for (int32_t quad = 0; quad < digits.quads; ++quad) {
    __m512i row[4], weight[3];
    for (int32_t k = 0; k < 4; ++k) row[k] = _mm512_loadu_si512(in + std::min(4 * quad + k, rows - 1) * in_stride);
    digits.load(quad, weight);
    const __m512i left[2] = {_mm512_unpacklo_epi8(row[0], row[1]), _mm512_unpacklo_epi8(row[2], row[3])};
    const __m512i right[2] = {_mm512_unpackhi_epi8(row[0], row[1]), _mm512_unpackhi_epi8(row[2], row[3])};
    add(sums[0], _mm512_unpacklo_epi16(left[0], left[1]), weight);
    add(sums[1], _mm512_unpackhi_epi16(left[0], left[1]), weight);
    add(sums[2], _mm512_unpacklo_epi16(right[0], right[1]), weight);
    add(sums[3], _mm512_unpackhi_epi16(right[0], right[1]), weight);
  }
  __m512i values[4];
  for (int i = 0; i < 4; ++i) values[i] = _mm512_srai_epi32(total(sums[i]), kWeightBits);
  _mm512_storeu_si512(out, pack_columns(values));
}

PL_TARGET_VBMI void vertical_rows_of_bytes(const AxisWeights& weights, const ConstPlanes& crop, uint8_t* to,
                                           size_t row_stride, const Planes& out) {
  for (int32_t y = 0; y < out.height; ++y, to += row_stride) {
    const VerticalDigits digits(weights, y, 0);
    for (int plane = 0; plane < out.channels; ++plane)
      for (int32_t x = 0; x < crop.width; x += kColumns)
        vertical_bytes(crop.row(plane, weights.first[y]) + x, crop.row_stride, digits, weights.count[y],
                       to + plane * out.height * row_stride + x);
  }
}

// Calls run(columns, group, x) for each group of outputs, from output x.
template <typename Run>
void for_each_group(const AxisWeights& weights, const Run& run) {
  const int32_t width = static_cast<int32_t>(weights.first.size()), quads = quads_of(weights);
  HorizontalGroup group;
  for (int32_t x = 0; x < width; x += kGroup) {
    fill_group(weights, x, quads, group);
    const bool wide = *std::max_element(group.index[quads - 1], group.index[quads - 1] + 64) > 63;
    run(kHorizontal[quads - 1][wide], group, x);
  }
}

void horizontal_then_vertical(const ConstPlanes& crop, const Planes& out, ResampleScratch& scratch) {
  const AxisWeights& vertical = scratch.vertical;
  const int32_t rows = vertical.input_end - vertical.input_begin;
  const size_t quad_stride = round_up(out.width, kColumns) * 4, plane_stride = round_up(rows, 4) / 4 * quad_stride;
  uint8_t* between = scratch.between.need(out.channels * plane_stride);
  const auto columns = [&](HorizontalColumns run, const HorizontalGroup& group, int32_t x) {
    for (int plane = 0; plane < out.channels; ++plane)
      run(group, crop.row(plane, vertical.input_begin), crop.row_stride, rows,
          {between + plane * plane_stride + 4 * x, quad_stride, 0});
  };
  for_each_group(scratch.horizontal, columns);
  vertical_rows(vertical, between, quad_stride, plane_stride, out);
}

void vertical_then_horizontal(const ConstPlanes& crop, const Planes& out, ResampleScratch& scratch) {
  const size_t row_stride = round_up(crop.width, kColumns);
  uint8_t* rows = scratch.padded.need(out.channels * out.height * row_stride);
  vertical_rows_of_bytes(scratch.vertical, crop, rows, row_stride, out);
  const auto columns = [&](HorizontalColumns run, const HorizontalGroup& group, int32_t x) {
    const int32_t whole = (1 << std::min(kGroup, out.width - x)) - 1;
    for (int plane = 0; plane < out.channels; ++plane)
      run(group, rows + plane * out.height * row_stride, row_stride, out.height,
          {out.row(plane, 0) + x, out.row_stride, static_cast<__mmask16>(whole)});
  };
  for_each_group(scratch.horizontal, columns);
}

}  // namespace

bool resample_avx512vbmi(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch) {
  const int32_t across = quads_of(scratch.horizontal), down = quads_of(scratch.vertical);
  if (std::max(across, down) > kMaxQuads || !groups_are_near(scratch.horizontal, across)) return false;
  (vertical_first ? vertical_then_horizontal : horizontal_then_vertical)(crop, out, scratch);
  return true;
}

#else
bool resample_avx512vbmi(const ConstPlanes&, const Planes&, bool, ResampleScratch&) { return false; }
#endif

}  // namespace pass_loader::cpu
