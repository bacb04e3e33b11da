#include "cpu/resample_neon.h"

#include "isa.h"

#if defined(__aarch64__)
#include <algorithm>
#include <array>
#include <cstring>

#include <arm_neon.h>
#endif

namespace pass_loader::cpu {

#if defined(__aarch64__)
namespace {

// sdot adds four products of signed bytes to each int32. A 22-bit weight with its sign is three signed base-256 digits,
// w = d0 + 256 d1 + 65536 d2, so that three of them multiply four taps exactly. A sum begins with the products of d0;
// before the products of the next digit are added, its last 8 bits are shifted out, which changes no bit above them.
//
// A byte is signed by taking 128 away from it; 128 times the sum of an output's weights comes back with the rounding.
// usdot, where the processor has it, takes the horizontal pass's bytes as they are.
//
// Between the passes four rows are interleaved: column x of rows 4k..4k+3 is one int32, of signed bytes. So the
// horizontal pass writes 4 columns of four rows as one register, and four taps of a column are one int32 for the
// vertical pass.
#define PL_TARGET_DOTS __attribute__((target("arch=armv8.2-a+dotprod")))

constexpr int kGroup = 4;     // outputs side by side in a register of int32
constexpr int kColumns = 16;  // columns that the vertical pass takes together
constexpr int kWindow = 16;   // input bytes within the reach of a look-up
constexpr int kMaxQuads = 5;  // groups of four taps: 20 taps serve a bicubic reduction by 4.5
constexpr int kShift = kWeightBits - 16;

struct HorizontalGroup {
  int32_t base;                       // the leftmost input
  alignas(16) int32_t start[kGroup];  // what a sum begins with
  alignas(16) uint8_t index[2][16];   // places in a window of each output's four taps
  alignas(16) int8_t digit[kMaxQuads][3][16];
};

// Writes d0, d1 and d2 of 16 weights, each `stride` bytes after the other. The bytes of w + 0x808080 are d + 128.
void split_digits(const int32x4_t (&weight)[4], int8_t* digits, size_t stride) {
  uint16x8_t half[4];
  for (int i = 0; i < 4; ++i)
    half[i] = vreinterpretq_u16_s32(
        veorq_s32(vaddq_s32(weight[i], vdupq_n_s32(0x808080)), vdupq_n_s32(static_cast<int32_t>(0x80808080))));
  const uint8x16_t low[2] = {vreinterpretq_u8_u16(vuzp1q_u16(half[0], half[1])),
                             vreinterpretq_u8_u16(vuzp1q_u16(half[2], half[3]))};
  const uint8x16_t high[2] = {vreinterpretq_u8_u16(vuzp2q_u16(half[0], half[1])),
                              vreinterpretq_u8_u16(vuzp2q_u16(half[2], half[3]))};
  vst1q_s8(digits, vreinterpretq_s8_u8(vuzp1q_u8(low[0], low[1])));
  vst1q_s8(digits + stride, vreinterpretq_s8_u8(vuzp2q_u8(low[0], low[1])));
  vst1q_s8(digits + 2 * stride, vreinterpretq_s8_u8(vuzp1q_u8(high[0], high[1])));
}

// What a sum begins with whose result is a byte, or a signed one. Of signed bytes: and 128 times the weights' sum.
constexpr int32_t start_of(bool signed_result) { return (1 << (kWeightBits - 1)) - (signed_result ? 1 << 29 : 0); }
static_assert(1 << 29 == 128 << kWeightBits);

// Returns how many quads of taps of four neighbouring outputs fit into a window: 2, 1 or 0.
int32_t quads_a_window(const AxisWeights& weights) {
  const int32_t outputs = static_cast<int32_t>(weights.first.size());
  int32_t spread = 0;
  for (int32_t begin = 0; begin < outputs; begin += kGroup) {
    auto [least, most] = std::minmax(weights.first[begin], weights.first[std::min(begin + kGroup, outputs) - 1]);
    spread = std::max(spread, most - least);
  }
  return spread + 8 <= kWindow ? 2 : spread + 4 <= kWindow ? 1 : 0;
}

// Fills the group of outputs from `begin`. The last output is repeated past the end. mixed: the bytes are not signed.
void fill_group(const AxisWeights& weights, int32_t begin, int32_t quads, bool mixed, bool signed_result,
                HorizontalGroup& group) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  group.base = std::min(weights.first[begin], weights.first[std::min(begin + kGroup - 1, last)]);
  const int32_t* weight[kGroup];
  int32_t first[kGroup];
  for (int32_t i = 0; i < kGroup; ++i) {
    const int32_t output = std::min(begin + i, last);
    weight[i] = &weights.weight[static_cast<size_t>(output) * weights.stride];
    first[i] = (weights.first[output] - group.base) * 0x01010101 + 0x03020100;  // four places as one int32
  }
  vst1q_u8(group.index[0], vreinterpretq_u8_s32(vld1q_s32(first)));
  vst1q_u8(group.index[1], vaddq_u8(vreinterpretq_u8_s32(vld1q_s32(first)), vdupq_n_u8(4)));
  int32x4_t sum[kGroup] = {};
  for (int32_t quad = 0; quad < quads; ++quad) {
    int32x4_t four[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      four[i] = vld1q_s32(weight[i] + 4 * quad);
      sum[i] = vaddq_s32(sum[i], four[i]);
    }
    split_digits(four, group.digit[quad][0], sizeof group.digit[quad][0]);
  }
  const int32x4_t sums = vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
  vst1q_s32(group.start, vmlaq_n_s32(vdupq_n_s32(start_of(signed_result)), sums, mixed ? 0 : 128));
}

// Adds to each sum four products of bytes, unsigned if `mixed`, and signed bytes.
template <bool mixed>
PL_TARGET_DOTS PL_INLINE void add_products(int32x4_t& sum, int8x16_t bytes, int8x16_t digits) {
  if constexpr (mixed)  // no intrinsic: it is for functions that run on such processors alone
    asm(".arch_extension i8mm\n\tusdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(bytes), "w"(digits));
  else
    sum = vdotq_s32(sum, bytes, digits);
}

// Clips 16 sums, which have kShift bits below the point, to bytes: unsigned ones, or signed ones.
template <bool signed_result>
PL_TARGET_DOTS PL_INLINE int8x16_t clipped(const int32x4_t (&sums)[4]) {
  if constexpr (signed_result) {
    const int16x8_t low = vqshrn_high_n_s32(vqshrn_n_s32(sums[0], kShift), sums[1], kShift);
    const int16x8_t high = vqshrn_high_n_s32(vqshrn_n_s32(sums[2], kShift), sums[3], kShift);
    return vqmovn_high_s16(vqmovn_s16(low), high);
  } else {
    const uint16x8_t low = vqshrun_high_n_s32(vqshrun_n_s32(sums[0], kShift), sums[1], kShift);
    const uint16x8_t high = vqshrun_high_n_s32(vqshrun_n_s32(sums[2], kShift), sums[3], kShift);
    return vreinterpretq_s8_u8(vqmovn_high_u16(vqmovn_u16(low), high));
  }
}

// Computes one group of outputs for all rows of a plane: interleaved by four and signed, as the vertical pass wants
// them, or rows of bytes, as it is where this pass is the second. The last row is repeated past the end.
template <int quads, int step, bool mixed, bool interleaved>
PL_TARGET_DOTS void horizontal_columns(const HorizontalGroup& group, const ConstPlanes& in, int plane, uint8_t* out,
                                       size_t out_stride) {
  int8x16_t digit[quads][3];
  uint8x16_t index[step];
  for (int quad = 0; quad < quads; ++quad)
    for (int d = 0; d < 3; ++d) digit[quad][d] = vld1q_s8(group.digit[quad][d]);
  for (int i = 0; i < step; ++i) index[i] = vld1q_u8(group.index[i]);
  const int32x4_t start = vld1q_s32(group.start);
  alignas(16) static constexpr uint8_t kInterleave[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const uint8x16_t interleave = vld1q_u8(kInterleave);
  auto four_rows = [&](std::array<const uint8_t*, 4> row) PL_TARGET_DOTS {
    int32x4_t sums[4];
    for (int k = 0; k < 4; ++k) {
      int8x16_t window, taps[quads];
      for (int quad = 0; quad < quads; ++quad) {
        if (quad % step == 0) window = vreinterpretq_s8_u8(vld1q_u8(row[k] + 4 * quad));
        if (quad % step == 0 && !mixed) window = veorq_s8(window, vdupq_n_s8(-128));
        taps[quad] = vqtbl1q_s8(window, index[quad % step]);
      }
      sums[k] = start;
      for (int d = 0; d < 3; ++d) {
        if (d > 0) sums[k] = vshrq_n_s32(sums[k], 8);
        for (int quad = 0; quad < quads; ++quad) add_products<mixed>(sums[k], taps[quad], digit[quad][d]);
      }
    }
    return clipped<interleaved>(sums);
  };
  auto write = [&](int8x16_t bytes) PL_TARGET_DOTS {
    if (interleaved) {
      vst1q_s8(reinterpret_cast<int8_t*>(out), vqtbl1q_s8(bytes, interleave));
      out += out_stride;
    } else {
      const int32x4_t rows = vreinterpretq_s32_s8(bytes);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out), rows, 0);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out + out_stride), rows, 1);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out + 2 * out_stride), rows, 2);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out + 3 * out_stride), rows, 3);
      out += 4 * out_stride;
    }
  };
  const size_t stride = in.row_stride;
  const uint8_t* from = in.row(plane, 0) + group.base;
  int32_t left = in.height;
  for (; left >= 4; left -= 4, from += 4 * stride)
    write(four_rows({from, from + stride, from + 2 * stride, from + 3 * stride}));
  if (left > 0)
    write(four_rows({from, from + (left > 1 ? stride : 0), from + (left - 1) * stride, from + (left - 1) * stride}));
}

using HorizontalColumns = void (*)(const HorizontalGroup&, const ConstPlanes&, int, uint8_t*, size_t);
template <int quads, bool interleaved>
HorizontalColumns columns_with(int32_t step, bool mixed) {
  if (step == 1)
    return mixed ? horizontal_columns<quads, 1, true, interleaved> : horizontal_columns<quads, 1, false, interleaved>;
  return mixed ? horizontal_columns<quads, 2, true, interleaved> : horizontal_columns<quads, 2, false, interleaved>;
}
template <bool interleaved>
HorizontalColumns horizontal_columns_of(int32_t quads, int32_t step, bool mixed) {
  constexpr HorizontalColumns (*by_quads[kMaxQuads])(int32_t, bool) = {
      columns_with<1, interleaved>, columns_with<2, interleaved>, columns_with<3, interleaved>,
      columns_with<4, interleaved>, columns_with<5, interleaved>};
  return by_quads[quads - 1](step, mixed);
}

// The taps of one output row, on the grid of four rows of `between`.
constexpr int kMaxGridQuads = kMaxQuads + 1;
struct VerticalTaps {
  int32_t first_quad, quads, start;
  alignas(16) int8_t digit[3][32];  // four places for each quad
};

void fill_vertical(const AxisWeights& weights, int32_t y, int32_t first_row, VerticalTaps& taps) {
  const int32_t from = weights.first[y] - first_row, count = weights.count[y];
  const int32_t* weight = &weights.weight[static_cast<size_t>(y) * weights.stride];
  taps.first_quad = from / 4;
  taps.quads = (from + count - 1) / 4 - taps.first_quad + 1;
  int32_t on_grid[32] = {};
  int32x4_t sum = vdupq_n_s32(0);
  for (int32_t t = 0; t < count; t += 4) {  // past `count` there are zeros
    const int32x4_t four = vld1q_s32(weight + t);
    sum = vaddq_s32(sum, four);
    vst1q_s32(on_grid + from % 4 + t, four);
  }
  for (int32_t t = 0; t < 4 * taps.quads; t += 16)
    split_digits(
        {vld1q_s32(on_grid + t), vld1q_s32(on_grid + t + 4), vld1q_s32(on_grid + t + 8), vld1q_s32(on_grid + t + 12)},
        taps.digit[0] + t, sizeof taps.digit[0]);
  taps.start = start_of(false) + 128 * vaddvq_s32(sum);
}

// Computes one output row. Its tail runs over to a whole number of kColumns.
template <int quads>
PL_TARGET_DOTS void vertical_row(const uint8_t* between, size_t quad_stride, const VerticalTaps& taps, uint8_t* out,
                                 int32_t width) {
  const int32x4_t start = vdupq_n_s32(taps.start);
  int8x16_t digit[3][2];
  for (int d = 0; d < 3; ++d)
    for (int half = 0; half < 2; ++half) digit[d][half] = vld1q_s8(taps.digit[d] + 16 * half);
  for (int32_t x = 0; x < width; x += kColumns, between += 4 * kColumns, out += kColumns) {
    int32x4_t sums[4];
    for (int pair = 0; pair < 4; pair += 2) {  // all taps of more columns do not fit into the registers
      int8x16_t taps[quads][2];
      const uint8_t* from = between + 16 * pair;
      for (int quad = 0; quad < quads; ++quad, from += quad_stride)
        for (int i = 0; i < 2; ++i) taps[quad][i] = vreinterpretq_s8_u8(vld1q_u8(from + 16 * i));
      for (int i = 0; i < 2; ++i) {
        int32x4_t sum = start;
        for (int d = 0; d < 3; ++d) {
          if (d > 0) sum = vshrq_n_s32(sum, 8);
#pragma GCC unroll 6
          for (int quad = 0; quad < quads; ++quad) {
            const int8x16_t four = digit[d][quad / 4];
            if (quad % 4 == 0) sum = vdotq_laneq_s32(sum, taps[quad][i], four, 0);
            if (quad % 4 == 1) sum = vdotq_laneq_s32(sum, taps[quad][i], four, 1);
            if (quad % 4 == 2) sum = vdotq_laneq_s32(sum, taps[quad][i], four, 2);
            if (quad % 4 == 3) sum = vdotq_laneq_s32(sum, taps[quad][i], four, 3);
          }
        }
        sums[pair + i] = sum;
      }
    }
    vst1q_s8(reinterpret_cast<int8_t*>(out), clipped<false>(sums));
  }
}

using VerticalRow = void (*)(const uint8_t*, size_t, const VerticalTaps&, uint8_t*, int32_t);
constexpr VerticalRow kVertical[kMaxGridQuads] = {vertical_row<1>, vertical_row<2>, vertical_row<3>,
                                                  vertical_row<4>, vertical_row<5>, vertical_row<6>};

// Runs the vertical pass of one plane. Each row's tail runs over into the next row, which is written later.
void vertical_rows(const VerticalTaps* taps, const uint8_t* between, size_t quad_stride, int32_t height, int32_t width,
                   uint8_t* out, size_t out_stride) {
  for (int32_t y = 0; y < height; ++y, ++taps, out += out_stride)
    kVertical[taps->quads - 1](between + taps->first_quad * quad_stride, quad_stride, *taps, out, width);
}

// Interleaves rows by four, as the horizontal pass does. The last row is repeated past the end.
void interleave_rows(const uint8_t* in, size_t in_stride, int32_t height, int32_t width, uint8_t* between,
                     size_t quad_stride) {
  for (int32_t y = 0; y < height; y += 4, between += quad_stride) {
    const uint8_t* row[4];
    for (int k = 0; k < 4; ++k) row[k] = in + std::min(y + k, height - 1) * in_stride;
    for (int32_t x = 0; x < width; x += kColumns) {
      uint8x16x4_t four;
      for (int k = 0; k < 4; ++k) four.val[k] = veorq_u8(vld1q_u8(row[k] + x), vdupq_n_u8(0x80));
      vst4q_u8(between + 4 * x, four);
    }
  }
}

struct Horizontal {
  const HorizontalGroup* group;
  int32_t groups;
  HorizontalColumns columns;

  // group_stride: bytes of `out` between two groups.
  void run(const ConstPlanes& in, int plane, uint8_t* out, size_t out_stride, int32_t group_stride) const {
    for (int32_t g = 0; g < groups; ++g) columns(group[g], in, plane, out + g * group_stride, out_stride);
  }
};

void horizontal_then_vertical(const ConstPlanes& crop, const Horizontal& horizontal, const VerticalTaps* taps,
                              const Planes& out, ResampleScratch& scratch) {
  ConstPlanes in = crop;
  in.pixels += scratch.vertical.input_begin * crop.row_stride;
  in.height = scratch.vertical.input_end - scratch.vertical.input_begin;
  const size_t quad_stride = round_up(out.width, kColumns) * 4;
  uint8_t* between = scratch.between.need(round_up(in.height, 4) / 4 * quad_stride);
  for (int plane = 0; plane < out.channels; ++plane) {
    horizontal.run(in, plane, between, quad_stride, 4 * kGroup);
    vertical_rows(taps, between, quad_stride, out.height, out.width, out.row(plane, 0), out.row_stride);
  }
}

void vertical_then_horizontal(const ConstPlanes& crop, const Horizontal& horizontal, const VerticalTaps* taps,
                              const Planes& out, ResampleScratch& scratch) {
  const AxisWeights& vertical = scratch.vertical;
  const int32_t rows = vertical.input_end - vertical.input_begin;
  const size_t in_stride = round_up(crop.width, kColumns), out_stride = round_up(out.width, kColumns);
  uint8_t* between = scratch.between.need(round_up(rows, 4) * in_stride);
  uint8_t* reduced = scratch.padded.need(out.height * in_stride + round_up(out.height, 4) * out_stride);
  uint8_t* padded = reduced + out.height * in_stride;
  for (int plane = 0; plane < out.channels; ++plane) {
    interleave_rows(crop.row(plane, vertical.input_begin), crop.row_stride, rows, crop.width, between, 4 * in_stride);
    vertical_rows(taps, between, 4 * in_stride, out.height, crop.width, reduced, in_stride);
    horizontal.run({reduced, out.height, crop.width, in_stride, 0}, 0, padded, out_stride, kGroup);
    for (int32_t y = 0; y < out.height; ++y) std::memcpy(out.row(plane, y), padded + y * out_stride, out.width);
  }
}

}  // namespace

bool resample_neon(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch) {
  const AxisWeights &across = scratch.horizontal, &down = scratch.vertical;
  const int32_t step = quads_a_window(across);
  const int32_t quads = (*std::max_element(across.count.begin(), across.count.end()) + 3) / 4;
  if (!has_byte_dots() || step == 0 || quads > kMaxQuads || down.stride / 4 > kMaxQuads) return false;
  const bool mixed = has_mixed_dots();
  const int32_t groups = (out.width + kGroup - 1) / kGroup;
  auto* group = reinterpret_cast<HorizontalGroup*>(scratch.groups.need(groups * sizeof(HorizontalGroup)));
  for (int32_t g = 0; g < groups; ++g) fill_group(across, kGroup * g, quads, mixed, !vertical_first, group[g]);
  auto* taps = reinterpret_cast<VerticalTaps*>(scratch.columns.need(out.height * sizeof(VerticalTaps)));
  for (int32_t y = 0; y < out.height; ++y) fill_vertical(down, y, down.input_begin, taps[y]);
  const auto columns =
      (vertical_first ? horizontal_columns_of<false> : horizontal_columns_of<true>)(quads, step, mixed);
  const auto run = vertical_first ? vertical_then_horizontal : horizontal_then_vertical;
  run(crop, {group, groups, columns}, taps, out, scratch);
  return true;
}

#else
bool resample_neon(const ConstPlanes&, const Planes&, bool, ResampleScratch&) { return false; }
#endif

}  // namespace pass_loader::cpu
