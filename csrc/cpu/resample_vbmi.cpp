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

// Combines the sums of the three digits to values 0..255 in int32 lanes.
PL_TARGET_VBMI inline __m512i to_byte(__m512i sum0, __m512i sum1, __m512i sum2) {
  __m512i sum = _mm512_add_epi32(_mm512_add_epi32(sum0, _mm512_slli_epi32(sum1, 8)), _mm512_slli_epi32(sum2, 16));
  sum = _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(kHalf)), kWeightBits);
  return _mm512_min_epi32(_mm512_max_epi32(sum, _mm512_setzero_si512()), _mm512_set1_epi32(255));
}

// Fills the group of outputs from `begin`. The last output is repeated past the end. Returns false if the inputs span
// more than 128 bytes.
PL_TARGET_VBMI bool fill_group(const AxisWeights& weights, int32_t begin, int32_t quads, HorizontalGroup& group) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  int32_t output[kGroup], least = INT32_MAX, most = 0;
  for (int i = 0; i < kGroup; ++i) {
    output[i] = std::min(begin + i, last);
    least = std::min(least, weights.first[output[i]]);
    most = std::max(most, weights.first[output[i]]);
  }
  group.base = least;
  if (most - least + 4 * quads > 128) return false;
  for (int32_t quad = 0; quad < quads; ++quad)
    for (int i = 0; i < kGroup; i += 4) {
      alignas(64) int32_t taps[16];
      for (int k = 0; k < 4; ++k) {
        const int32_t from = weights.first[output[i + k]] - least + 4 * quad;
        for (int t = 0; t < 4; ++t) group.index[quad][4 * (i + k) + t] = static_cast<uint8_t>(from + t);
        std::memcpy(taps + 4 * k, &weights.weight[static_cast<size_t>(output[i + k]) * weights.stride + 4 * quad], 16);
      }
      int8_t (*digit)[64] = group.digit[quad];
      split_digits(_mm512_load_si512(taps), digit[0] + 4 * i, digit[1] + 4 * i, digit[2] + 4 * i);
    }
  return true;
}

// Computes 16 outputs of one row.
template <int quads, bool wide>
PL_TARGET_VBMI inline __attribute__((always_inline)) __m512i horizontal_row(const uint8_t* in,
                                                                            const __m512i (&index)[quads],
                                                                            const __m512i (&digit)[quads][3]) {
  __m512i near = _mm512_loadu_si512(in), sum[3];
  __m512i far = wide ? _mm512_loadu_si512(in + 64) : near;
  for (int d = 0; d < 3; ++d) sum[d] = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int quad = 0; quad < quads; ++quad) {
    __m512i taps = wide ? _mm512_permutex2var_epi8(near, index[quad], far) : _mm512_permutexvar_epi8(index[quad], near);
    for (int d = 0; d < 3; ++d) sum[d] = _mm512_dpbusd_epi32(sum[d], taps, digit[quad][d]);
  }
  return to_byte(sum[0], sum[1], sum[2]);
}

// Computes one group of outputs for all rows, interleaved by four. The last row is repeated past the end.
template <int quads, bool wide>
PL_TARGET_VBMI void horizontal_columns(const HorizontalGroup& group, const ConstPlanes& in, int plane, uint8_t* between,
                                       size_t quad_stride) {
  __m512i index[quads], digit[quads][3];
  for (int quad = 0; quad < quads; ++quad) {
    index[quad] = _mm512_load_si512(group.index[quad]);
    for (int d = 0; d < 3; ++d) digit[quad][d] = _mm512_load_si512(group.digit[quad][d]);
  }
  for (int32_t y = 0; y < in.height; y += 4, between += quad_stride) {
    __m512i row[4];
    for (int k = 0; k < 4; ++k)
      row[k] = horizontal_row<quads, wide>(in.row(plane, std::min(y + k, in.height - 1)) + group.base, index, digit);
    __m512i low = _mm512_or_si512(row[0], _mm512_slli_epi32(row[1], 8));
    __m512i high = _mm512_or_si512(_mm512_slli_epi32(row[2], 16), _mm512_slli_epi32(row[3], 24));
    _mm512_store_si512(between, _mm512_or_si512(low, high));
  }
}

using HorizontalColumns = void (*)(const HorizontalGroup&, const ConstPlanes&, int, uint8_t*, size_t);
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

// Computes `blocks` x 16 columns of one output row from `between`. digits: three rows of `quads` int32.
template <int blocks>
PL_TARGET_VBMI inline void vertical_columns(const uint8_t* between, size_t quad_stride, const int8_t* digits,
                                            int32_t quads, uint8_t* out, int32_t width) {
  __m512i sum[blocks][3];
  for (int b = 0; b < blocks; ++b)
    for (int d = 0; d < 3; ++d) sum[b][d] = _mm512_setzero_si512();
  for (int32_t quad = 0; quad < quads; ++quad) {
    __m512i weight[3];
    for (int d = 0; d < 3; ++d) {
      int32_t four;
      std::memcpy(&four, digits + 4 * (d * quads + quad), 4);
      weight[d] = _mm512_set1_epi32(four);
    }
    for (int b = 0; b < blocks; ++b) {
      __m512i taps = _mm512_load_si512(between + quad * quad_stride + 64 * b);
      for (int d = 0; d < 3; ++d) sum[b][d] = _mm512_dpbusd_epi32(sum[b][d], taps, weight[d]);
    }
  }
  for (int b = 0; b < blocks; ++b) {
    const int32_t left = width - kGroup * b;
    const __mmask16 inside = left >= kGroup ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
    _mm512_mask_cvtepi32_storeu_epi8(out + kGroup * b, inside, to_byte(sum[b][0], sum[b][1], sum[b][2]));
  }
}

// Writes the digits of one output row's taps, on the grid of four rows of `between`.
PL_TARGET_VBMI int32_t vertical_digits(const AxisWeights& weights, int32_t y, int32_t first_quad, int8_t* digits) {
  const int32_t from = weights.first[y] - weights.input_begin, count = weights.count[y];
  const int32_t quads = (from + count - 1) / 4 - first_quad + 1;
  alignas(64) int32_t taps[4 * (kMaxQuads + 1) + 16] = {};
  std::memcpy(taps + (from - 4 * first_quad), &weights.weight[static_cast<size_t>(y) * weights.stride], count * 4);
  alignas(64) int8_t wide[3][4 * (kMaxQuads + 1) + 16];
  for (int32_t t = 0; t < 4 * quads; t += 16)
    split_digits(_mm512_load_si512(taps + t), wide[0] + t, wide[1] + t, wide[2] + t);
  for (int d = 0; d < 3; ++d) std::memcpy(digits + d * 4 * quads, wide[d], 4 * quads);
  return quads;
}

PL_TARGET_VBMI void vertical_rows(const AxisWeights& weights, const uint8_t* between, size_t quad_stride,
                                  size_t plane_stride, const Planes& out) {
  for (int32_t y = 0; y < out.height; ++y) {
    int8_t digits[3 * 4 * (kMaxQuads + 1)];
    const int32_t first_quad = (weights.first[y] - weights.input_begin) / 4;
    const int32_t quads = vertical_digits(weights, y, first_quad, digits);
    for (int plane = 0; plane < out.channels; ++plane) {
      const uint8_t* from = between + plane * plane_stride + first_quad * quad_stride;
      uint8_t* to = out.row(plane, y);
      int32_t x = 0;
      for (; x + 4 * kGroup <= out.width; x += 4 * kGroup)
        vertical_columns<4>(from + 4 * x, quad_stride, digits, quads, to + x, 4 * kGroup);
      for (; x < out.width; x += kGroup)
        vertical_columns<1>(from + 4 * x, quad_stride, digits, quads, to + x, out.width - x);
    }
  }
}

}  // namespace

PL_TARGET_VBMI bool resample_avx512vbmi(const ConstPlanes& crop, const Planes& out, ResampleScratch& scratch) {
  const AxisWeights &horizontal = scratch.horizontal, &vertical = scratch.vertical;
  const int32_t quads = horizontal.stride / 4;
  if (quads > kMaxQuads || vertical.stride / 4 > kMaxQuads) return false;
  const int32_t rows = vertical.input_end - vertical.input_begin;
  const size_t quad_stride = round_up(out.width, kGroup) * 4, plane_stride = round_up(rows, 4) / 4 * quad_stride;
  uint8_t* between = scratch.between.need(out.channels * plane_stride);
  ConstPlanes in = crop;
  in.pixels += vertical.input_begin * crop.row_stride;
  in.height = rows;
  HorizontalGroup group;
  for (int32_t x = 0; x < out.width; x += kGroup) {
    if (!fill_group(horizontal, x, quads, group)) return false;
    const bool wide = *std::max_element(group.index[quads - 1], group.index[quads - 1] + 64) > 63;
    for (int plane = 0; plane < out.channels; ++plane)
      kHorizontal[quads - 1][wide](group, in, plane, between + plane * plane_stride + 4 * x, quad_stride);
  }
  vertical_rows(vertical, between, quad_stride, plane_stride, out);
  return true;
}

#else
bool resample_avx512vbmi(const ConstPlanes&, const Planes&, ResampleScratch&) { return false; }
#endif

}  // namespace pass_loader::cpu
