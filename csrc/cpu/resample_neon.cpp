#include "cpu/resample_neon.h"

#include "isa.h"

#if defined(__aarch64__)
#include <algorithm>
#include <cstring>

#include <arm_neon.h>
#endif

namespace pass_loader::cpu {

#if defined(__aarch64__)
namespace {

// sdot adds four products of signed bytes to each int32. A 22-bit weight with its sign is three signed base-256 digits,
// w = d0 + 256 d1 + 65536 d2, so that three of them multiply four taps exactly. A byte is signed by taking 128 away
// from it; 128 times the sum of an output's weights comes back with the rounding.
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

// Writes d0, d1 and d2 of `count` weights, each `stride` bytes after the other. Returns the weights' sum.
int32_t split_digits(const int32_t* weight, int32_t count, int8_t* digits, size_t stride) {
  int32_t sum = 0;
  for (int32_t t = 0; t < count; ++t) {
    const int32_t w = weight[t], low = static_cast<int8_t>(w), rest = (w - low) >> 8;
    const int32_t middle = static_cast<int8_t>(rest);
    digits[t] = static_cast<int8_t>(low);
    digits[stride + t] = static_cast<int8_t>(middle);
    digits[2 * stride + t] = static_cast<int8_t>((rest - middle) >> 8);
    sum += w;
  }
  return sum;
}

constexpr int32_t start_of(int32_t sum_of_weights) { return 128 * sum_of_weights + (1 << (kWeightBits - 1)); }

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

// Fills the group of outputs from `begin`. The last output is repeated past the end.
void fill_group(const AxisWeights& weights, int32_t begin, int32_t quads, HorizontalGroup& group) {
  const int32_t last = static_cast<int32_t>(weights.first.size()) - 1;
  group.base = std::min(weights.first[begin], weights.first[std::min(begin + kGroup - 1, last)]);
  for (int32_t i = 0; i < kGroup; ++i) {
    const int32_t output = std::min(begin + i, last), from = weights.first[output] - group.base;
    const int32_t* weight = &weights.weight[static_cast<size_t>(output) * weights.stride];
    for (int32_t step = 0; step < 2; ++step)
      for (int32_t t = 0; t < 4; ++t) group.index[step][4 * i + t] = static_cast<uint8_t>(from + 4 * step + t);
    int32_t sum = 0;
    for (int32_t quad = 0; quad < quads; ++quad)
      sum += split_digits(weight + 4 * quad, 4, &group.digit[quad][0][4 * i], 16);
    group.start[i] = start_of(sum);
  }
}

struct Sums {
  int32x4_t of[3];
};

PL_TARGET_DOTS PL_INLINE Sums sums_from(int32x4_t start) { return {{start, vdupq_n_s32(0), vdupq_n_s32(0)}}; }
PL_TARGET_DOTS PL_INLINE void add(Sums& sums, int8x16_t taps, const int8x16_t (&digit)[3]) {
  for (int d = 0; d < 3; ++d) sums.of[d] = vdotq_s32(sums.of[d], taps, digit[d]);
}
// Combines the sums of the three digits. Clips below 0, and leaves kShift bits below the point.
PL_TARGET_DOTS PL_INLINE int32x4_t total(const Sums& sums) {
  return vmlaq_n_s32(vmlaq_n_s32(sums.of[0], sums.of[1], 1 << 8), sums.of[2], 1 << 16);
}

// Clips 16 totals to signed bytes.
PL_TARGET_DOTS PL_INLINE int8x16_t signed_bytes(const int32x4_t (&totals)[4]) {
  const uint16x8_t low = vqshrun_high_n_s32(vqshrun_n_s32(totals[0], 16), totals[1], 16);
  const uint16x8_t high = vqshrun_high_n_s32(vqshrun_n_s32(totals[2], 16), totals[3], 16);
  return vreinterpretq_s8_u8(vqshrn_high_n_u16(vqshrn_n_u16(low, kShift), high, kShift));
}

PL_TARGET_DOTS PL_INLINE int8x16_t toggled(int8x16_t bytes) { return veorq_s8(bytes, vdupq_n_s8(-128)); }

// Computes one group of outputs for all rows of a plane: interleaved by four, as the vertical pass wants them, or rows
// of bytes, as it is where this pass is the second. The last row is repeated past the end.
template <int quads, int step, bool interleaved>
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
  auto four_rows = [&](const uint8_t* from, size_t stride) PL_TARGET_DOTS {
    int32x4_t totals[4];
    for (int k = 0; k < 4; ++k, from += stride) {
      Sums sums = sums_from(start);
      int8x16_t window;
      for (int quad = 0; quad < quads; ++quad) {
        if (quad % step == 0) window = toggled(vreinterpretq_s8_u8(vld1q_u8(from + 4 * quad)));
        add(sums, vqtbl1q_s8(window, index[quad % step]), digit[quad]);
      }
      totals[k] = total(sums);
    }
    return signed_bytes(totals);
  };
  const uint8_t* from = in.row(plane, 0) + group.base;
  int32_t y = 0;
  for (; y + 4 <= in.height; y += 4, from += 4 * in.row_stride) {
    const int8x16_t bytes = four_rows(from, in.row_stride);
    if (interleaved) {
      vst1q_s8(reinterpret_cast<int8_t*>(out), vqtbl1q_s8(toggled(bytes), interleave));
      out += out_stride;
    } else {
      const int32x4_t rows = vreinterpretq_s32_s8(bytes);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out), rows, 0);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out + out_stride), rows, 1);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out + 2 * out_stride), rows, 2);
      vst1q_lane_s32(reinterpret_cast<int32_t*>(out + 3 * out_stride), rows, 3);
      out += 4 * out_stride;
    }
  }
  if (y == in.height) return;
  uint8_t last[4][16];  // by rows
  for (int k = 0; k < 4; ++k, from += y + k < in.height ? in.row_stride : 0)
    vst1q_s8(reinterpret_cast<int8_t*>(last[k]), four_rows(from, 0));
  for (int k = 0; k < 4; ++k) {
    if (interleaved)
      for (int x = 0; x < kGroup; ++x) out[4 * x + k] = last[k][x] ^ 0x80;
    else if (y + k < in.height)
      std::memcpy(out + k * out_stride, last[k], kGroup);
  }
}

using HorizontalColumns = void (*)(const HorizontalGroup&, const ConstPlanes&, int, uint8_t*, size_t);
template <bool interleaved>
HorizontalColumns horizontal_columns_of(int32_t quads, int32_t step) {
  constexpr HorizontalColumns by_quads[kMaxQuads][2] = {
      {horizontal_columns<1, 1, interleaved>, horizontal_columns<1, 2, interleaved>},
      {horizontal_columns<2, 1, interleaved>, horizontal_columns<2, 2, interleaved>},
      {horizontal_columns<3, 1, interleaved>, horizontal_columns<3, 2, interleaved>},
      {horizontal_columns<4, 1, interleaved>, horizontal_columns<4, 2, interleaved>},
      {horizontal_columns<5, 1, interleaved>, horizontal_columns<5, 2, interleaved>},
  };
  return by_quads[quads - 1][step - 1];
}

// The taps of one output row, on the grid of four rows of `between`.
constexpr int kMaxGridQuads = kMaxQuads + 1;
struct VerticalTaps {
  int32_t first_quad, quads, start;
  alignas(16) int8_t digit[3][32];  // four places for each quad
};

void fill_vertical(const AxisWeights& weights, int32_t y, int32_t first_row, VerticalTaps& taps) {
  const int32_t from = weights.first[y] - first_row, count = weights.count[y];
  taps.first_quad = from / 4;
  taps.quads = (from + count - 1) / 4 - taps.first_quad + 1;
  std::memset(taps.digit, 0, sizeof taps.digit);
  taps.start = start_of(split_digits(&weights.weight[static_cast<size_t>(y) * weights.stride], count,
                                     taps.digit[0] + from % 4, sizeof taps.digit[0]));
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
    Sums sums[4];
    for (Sums& s : sums) s = sums_from(start);
    const uint8_t* from = between;
#pragma GCC unroll 6
    for (int quad = 0; quad < quads; ++quad, from += quad_stride) {
      const int8x16x4_t columns = vld1q_s8_x4(reinterpret_cast<const int8_t*>(from));
      for (int i = 0; i < 4; ++i)
        for (int d = 0; d < 3; ++d) {
          const int8x16_t four = digit[d][quad / 4];
          int32x4_t& sum = sums[i].of[d];
          if (quad % 4 == 0) sum = vdotq_laneq_s32(sum, columns.val[i], four, 0);
          if (quad % 4 == 1) sum = vdotq_laneq_s32(sum, columns.val[i], four, 1);
          if (quad % 4 == 2) sum = vdotq_laneq_s32(sum, columns.val[i], four, 2);
          if (quad % 4 == 3) sum = vdotq_laneq_s32(sum, columns.val[i], four, 3);
        }
    }
    const int32x4_t totals[4] = {total(sums[0]), total(sums[1]), total(sums[2]), total(sums[3])};
    vst1q_s8(reinterpret_cast<int8_t*>(out), signed_bytes(totals));
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
  uint8_t* reduced = scratch.padded.need(out.height * (in_stride + out_stride));
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
  const int32_t groups = (out.width + kGroup - 1) / kGroup;
  auto* group = reinterpret_cast<HorizontalGroup*>(scratch.groups.need(groups * sizeof(HorizontalGroup)));
  for (int32_t g = 0; g < groups; ++g) fill_group(across, kGroup * g, quads, group[g]);
  auto* taps = reinterpret_cast<VerticalTaps*>(scratch.columns.need(out.height * sizeof(VerticalTaps)));
  for (int32_t y = 0; y < out.height; ++y) fill_vertical(down, y, down.input_begin, taps[y]);
  const auto columns = (vertical_first ? horizontal_columns_of<false> : horizontal_columns_of<true>)(quads, step);
  const auto run = vertical_first ? vertical_then_horizontal : horizontal_then_vertical;
  run(crop, {group, groups, columns}, taps, out, scratch);
  return true;
}

#else
bool resample_neon(const ConstPlanes&, const Planes&, bool, ResampleScratch&) { return false; }
#endif

}  // namespace pass_loader::cpu
