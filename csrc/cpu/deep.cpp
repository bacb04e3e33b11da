#include "cpu/deep.h"

#include <algorithm>
#include <cmath>

#include "cpu/halves.h"
#include "isa.h"

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = 8;  // outputs that are summed together; each lane adds its taps in Pillow's order

// Rounds as ROUND_UP in Resample.c, then clips.
PL_INLINE uint16_t to_word(double sum) {
  return static_cast<uint16_t>(std::clamp(static_cast<int32_t>(sum >= 0.0 ? sum + 0.5 : sum - 0.5), 0, 65535));
}

// Computes out[i] = sum over t of in[t * in_stride + i] * weight[t] for kLanes neighbours i.
template <typename Value>
PL_INLINE void weighted_sum(const Value* in, size_t in_stride, const double* weight, int32_t count, uint16_t* out) {
  double sum[kLanes] = {};
  for (int32_t t = 0; t < count; ++t)
    for (int i = 0; i < kLanes; ++i) sum[i] += static_cast<double>(in[t * in_stride + i]) * weight[t];
  for (int i = 0; i < kLanes; ++i) out[i] = to_word(sum[i]);
}

// Resizes up to kLanes rows. It makes their columns contiguous, so that a tap is one load for all rows. Strides are in
// values.
PL_INLINE void across_body(const uint16_t* in, size_t in_stride, int32_t rows, const AxisWeights& weights,
                           double* columns, uint16_t* out, size_t out_stride) {
  const int32_t in_width = weights.input_end - weights.input_begin;
  for (int32_t x = 0; x < in_width; ++x)
    for (int32_t y = 0; y < kLanes; ++y)
      columns[x * kLanes + y] = in[static_cast<size_t>(std::min(y, rows - 1)) * in_stride + weights.input_begin + x];
  for (size_t x = 0; x < weights.first.size(); ++x) {
    uint16_t summed[kLanes];
    weighted_sum(columns + static_cast<size_t>(weights.first[x] - weights.input_begin) * kLanes, kLanes,
                 &weights.exact[x * weights.stride], weights.count[x], summed);
    for (int32_t y = 0; y < rows; ++y) out[static_cast<size_t>(y) * out_stride + x] = summed[y];
  }
}

PL_INLINE void down_body(const uint16_t* in, size_t in_stride, const double* weight, int32_t count, uint16_t* out,
                         int32_t width) {
  int32_t x = 0;
  for (; x + kLanes <= width; x += kLanes) weighted_sum(in + x, in_stride, weight, count, out + x);
  for (; x < width; ++x) {
    double sum = 0.0;
    for (int32_t t = 0; t < count; ++t) sum += static_cast<double>(in[t * in_stride + x]) * weight[t];
    out[x] = to_word(sum);
  }
}

PL_LEVELS(across,
          (const uint16_t* in, size_t in_stride, int32_t rows, const AxisWeights& weights, double* columns,
           uint16_t* out, size_t out_stride),
          (in, in_stride, rows, weights, columns, out, out_stride))
PL_LEVELS(down,
          (const uint16_t* in, size_t in_stride, const double* weight, int32_t count, uint16_t* out, int32_t width),
          (in, in_stride, weight, count, out, width))

// Resizes columns of 16-bit values. Strides are in values.
struct Words {
  const uint16_t* at;
  size_t stride;
};

void horizontal_pass(const Words& in, int32_t rows, const AxisWeights& weights, Scratch<uint8_t>& memory, uint16_t* out,
                     size_t out_stride) {
  const size_t in_width = static_cast<size_t>(weights.input_end - weights.input_begin);
  auto* columns = reinterpret_cast<double*>(memory.need(in_width * kLanes * sizeof(double)));
  for (int32_t y = 0; y < rows; y += kLanes)
    across(in.at + static_cast<size_t>(y) * in.stride, in.stride, std::min(rows - y, kLanes), weights, columns,
           out + static_cast<size_t>(y) * out_stride, out_stride);
}

void vertical_pass(const Words& in, const AxisWeights& weights, int32_t width, uint16_t* out, size_t out_stride) {
  for (size_t y = 0; y < weights.first.size(); ++y)
    down(in.at + static_cast<size_t>(weights.first[y]) * in.stride, in.stride, &weights.exact[y * weights.stride],
         weights.count[y], out + y * out_stride, width);
}

PL_INLINE float normalized(uint16_t value, float mean, float std) {
  return (static_cast<float>(value) / 65535.0f - mean) / std;
}

// Normalizes one channel of `count` values, which lie `step` apart in the output.
PL_INLINE void normalize_words_body(const uint16_t* in, size_t count, Element element, float mean, float std,
                                    size_t step, void* out) {
  if (element == Element::float32) {
    auto* to = static_cast<float*>(out);
    for (size_t i = 0; i < count; ++i) to[i * step] = normalized(in[i], mean, std);
    return;
  }
  auto* to = static_cast<uint16_t*>(out);
  if (element == Element::float16)
    for (size_t i = 0; i < count; ++i) to[i * step] = to_float16(normalized(in[i], mean, std));
  if (element == Element::bfloat16)
    for (size_t i = 0; i < count; ++i) to[i * step] = to_bfloat16(normalized(in[i], mean, std));
}
PL_LEVELS(normalize_words,
          (const uint16_t* in, size_t count, Element element, float mean, float std, size_t step, void* out),
          (in, count, element, mean, std, step, out))

}  // namespace

void resample_deep(const ConstPlanes& picture, const ResampleRequest& request, const Planes& out,
                   ResampleScratch& scratch) {
  make_weights({request.crop_width, request.resize_width, request.offset_x, out.width, request.interpolation,
                request.flip, true},
               scratch.horizontal);
  make_weights(
      {request.crop_height, request.resize_height, request.offset_y, out.height, request.interpolation, false, true},
      scratch.vertical);
  const AxisWeights& vertical = scratch.vertical;
  const size_t stride = picture.row_stride / sizeof(uint16_t);
  const Words crop{reinterpret_cast<const uint16_t*>(picture.row(0, request.crop_y)) + request.crop_x, stride};
  auto* to = reinterpret_cast<uint16_t*>(out.pixels);
  const size_t out_stride = out.row_stride / sizeof(uint16_t);
  const auto width = static_cast<size_t>(request.vertical_first ? request.crop_width : out.width);
  const int32_t rows = request.vertical_first ? out.height : vertical.input_end - vertical.input_begin;
  auto* between = reinterpret_cast<uint16_t*>(scratch.between.need(width * rows * sizeof(uint16_t)));
  if (request.vertical_first) {
    vertical_pass(crop, vertical, request.crop_width, between, width);
    horizontal_pass({between, width}, rows, scratch.horizontal, scratch.columns, to, out_stride);
  } else {
    const size_t above = static_cast<size_t>(vertical.input_begin);
    horizontal_pass({crop.at + above * stride, stride}, rows, scratch.horizontal, scratch.columns, between, width);
    for (int32_t& first : scratch.vertical.first) first -= vertical.input_begin;
    vertical_pass({between, width}, vertical, out.width, to, out_stride);
  }
}

void normalize_deep(const ConstPlanes& view, const Normalization& normalization, void* out) {
  const OutputForm& form = normalization.form;
  const size_t count = static_cast<size_t>(view.height) * view.width, bytes = bytes_of(form.element);
  const size_t step = form.channels_last ? form.channels : 1, apart = form.channels_last ? 1 : count;
  for (int c = 0; c < form.channels; ++c)
    normalize_words(reinterpret_cast<const uint16_t*>(view.pixels), count, form.element, normalization.mean[c],
                    normalization.std[c], step, static_cast<uint8_t*>(out) + c * apart * bytes);
}

}  // namespace pass_loader::cpu
