#include "cpu/resample.h"

#include <algorithm>
#include <cstring>

#include "cpu/resample_neon.h"
#include "cpu/resample_pairs.h"
#include "cpu/resample_vbmi.h"
#include "cpu/transpose.h"
#include "isa.h"

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = 32;  // outputs that are summed together: 2 AVX-512 or 4 AVX2 registers of int32
constexpr int32_t kHalf = 1 << (kWeightBits - 1);

// Computes out[i] = sum over t of in[t * in_stride + i] * weight[t] for kLanes neighbours i.
PL_INLINE void weighted_sum(const uint8_t* in, size_t in_stride, const int32_t* weight, int32_t count, uint8_t* out) {
  int32_t sum[kLanes];
  for (int i = 0; i < kLanes; ++i) sum[i] = kHalf;
  for (int32_t t = 0; t < count; ++t)
    for (int i = 0; i < kLanes; ++i) sum[i] += in[t * in_stride + i] * weight[t];
  for (int i = 0; i < kLanes; ++i) out[i] = static_cast<uint8_t>(std::clamp(sum[i] >> kWeightBits, 0, 255));
}

// Resizes one tile of up to kLanes rows of one plane. It makes the columns contiguous, so that a tap is one load for
// all rows. `columns` holds the tile's input and output, both transposed. `out` has room for whole blocks of 16 x 16.
PL_INLINE void horizontal_tile_body(const uint8_t* in, size_t in_stride, int32_t rows, const AxisWeights& weights,
                                    uint8_t* columns, uint8_t* out, size_t out_stride) {
  const int32_t in_width = weights.input_end - weights.input_begin;
  const int32_t out_width = static_cast<int32_t>(weights.first.size());
  uint8_t* summed = columns + round_up(in_width, 16) * kLanes;
  transpose(in + weights.input_begin, in_stride, rows, in_width, columns, kLanes);
  for (int32_t x = 0; x < out_width; ++x)
    weighted_sum(columns + static_cast<size_t>(weights.first[x] - weights.input_begin) * kLanes, kLanes,
                 &weights.weight[static_cast<size_t>(x) * weights.stride], weights.count[x],
                 summed + static_cast<size_t>(x) * kLanes);
  transpose(summed, kLanes, out_width, kLanes, out, out_stride);
}

PL_INLINE void vertical_row_body(const uint8_t* in, size_t in_stride, const int32_t* weight, int32_t count,
                                 uint8_t* out, int32_t width) {
  int32_t x = 0;
  for (; x + kLanes <= width; x += kLanes) weighted_sum(in + x, in_stride, weight, count, out + x);
  if (x < width) {
    uint8_t tail[kLanes];
    weighted_sum(in + x, in_stride, weight, count, tail);
    std::memcpy(out + x, tail, width - x);
  }
}

PL_LEVELS(horizontal_tile,
          (const uint8_t* in, size_t in_stride, int32_t rows, const AxisWeights& weights, uint8_t* columns,
           uint8_t* out, size_t out_stride),
          (in, in_stride, rows, weights, columns, out, out_stride))
PL_LEVELS(vertical_row,
          (const uint8_t* in, size_t in_stride, const int32_t* weight, int32_t count, uint8_t* out, int32_t width),
          (in, in_stride, weight, count, out, width))

// The rows of `out` are padded to whole blocks, and there are whole tiles of them.
void horizontal_pass(const ConstPlanes& in, const Planes& out, ResampleScratch& scratch) {
  const AxisWeights& weights = scratch.horizontal;
  const size_t in_width = round_up(weights.input_end - weights.input_begin, 16);
  uint8_t* columns = scratch.columns.need((in_width + round_up(out.width, 16)) * kLanes);
  for (int plane = 0; plane < out.channels; ++plane)
    for (int32_t y = 0; y < out.height; y += kLanes)
      horizontal_tile(in.row(plane, y), in.row_stride, std::min(out.height - y, kLanes), weights, columns,
                      out.row(plane, y), out.row_stride);
}

void vertical_pass(const ConstPlanes& in, const Planes& out, const AxisWeights& weights) {
  for (int plane = 0; plane < out.channels; ++plane)
    for (int32_t y = 0; y < out.height; ++y)
      vertical_row(in.row(plane, weights.first[y]), in.row_stride,
                   &weights.weight[static_cast<size_t>(y) * weights.stride], weights.count[y], out.row(plane, y),
                   out.width);
}

Planes padded_planes(Scratch<uint8_t>& memory, int32_t height, int32_t width, int channels) {
  const size_t row_stride = round_up(width, kTile), plane_stride = round_up(height, kLanes) * row_stride;
  return {memory.need(channels * plane_stride), height, width, row_stride, plane_stride, channels};
}

template <typename Byte>
PlanesOf<Byte> from_row(PlanesOf<Byte> planes, int32_t y, int32_t height) {
  planes.pixels += y * static_cast<std::ptrdiff_t>(planes.row_stride);
  planes.height = height;
  return planes;
}

void horizontal_then_vertical(const ConstPlanes& crop, const Planes& out, ResampleScratch& scratch) {
  const AxisWeights& vertical = scratch.vertical;
  const int32_t rows = vertical.input_end - vertical.input_begin;
  Planes between = padded_planes(scratch.between, rows, out.width, out.channels);
  horizontal_pass(from_row(crop, vertical.input_begin, rows), between, scratch);
  vertical_pass(from_row(between, -vertical.input_begin, rows), out, vertical);
}

void vertical_then_horizontal(const ConstPlanes& crop, const Planes& out, ResampleScratch& scratch) {
  Planes between = padded_planes(scratch.between, out.height, crop.width, out.channels);
  vertical_pass(crop, between, scratch.vertical);
  Planes padded = padded_planes(scratch.padded, out.height, out.width, out.channels);
  horizontal_pass(between, padded, scratch);
  for (int plane = 0; plane < out.channels; ++plane)
    for (int32_t y = 0; y < out.height; ++y) std::memcpy(out.row(plane, y), padded.row(plane, y), out.width);
}

}  // namespace

void resample(const ConstPlanes& picture, const ResampleRequest& request, const Planes& out, ResampleScratch& scratch) {
  make_weights(
      {request.crop_width, request.resize_width, request.offset_x, out.width, request.interpolation, request.flip},
      scratch.horizontal);
  make_weights({request.crop_height, request.resize_height, request.offset_y, out.height, request.interpolation, false},
               scratch.vertical);
  ConstPlanes crop = from_row(picture, request.crop_y, request.crop_height);
  crop.pixels += request.crop_x;
  crop.width = request.crop_width;
#if defined(__aarch64__)
  if (current_isa() == Isa::neon && resample_neon(crop, out, request.vertical_first, scratch)) return;
#elif defined(__x86_64__)
  const bool vertical_first = request.vertical_first;
  if (current_isa() == Isa::avx512vbmi && resample_avx512vbmi(crop, out, vertical_first, scratch)) return;
  if (current_isa() >= Isa::avx512 && resample_pairs_avx512(crop, out, vertical_first, scratch)) return;
  if (current_isa() == Isa::avx2 && resample_pairs_avx2(crop, out, vertical_first, scratch)) return;
#endif
  if (request.vertical_first) {
    vertical_then_horizontal(crop, out, scratch);
  } else {
    horizontal_then_vertical(crop, out, scratch);
  }
}

}  // namespace pass_loader::cpu
