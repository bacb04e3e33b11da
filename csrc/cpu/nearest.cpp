#include "cpu/nearest.h"

#include <algorithm>

namespace pass_loader::cpu {
namespace {

// One axis of a resize: finds which input each output takes. As in Pillow (Geometry.c: ImagingScaleAffine), positions
// are a running sum in double.
void fill_inputs(int32_t in_size, int32_t out_size, int32_t* inputs) {
  const double step = static_cast<double>(in_size) / out_size;
  double at = step * 0.5;
  for (int32_t i = 0; i < out_size; ++i, at += step) inputs[i] = std::min(static_cast<int32_t>(at), in_size - 1);
}

struct Axis {
  int32_t crop, crop_size, via, resize, offset, out;
  bool flip;
};

// Finds the picture's row or column for each row or column of the view.
const int32_t* inputs_of(const Axis& axis, Scratch<int32_t>& memory, Scratch<int32_t>& via_memory) {
  int32_t* inputs = memory.need(static_cast<size_t>(axis.resize));
  const int32_t from = axis.via > 0 ? axis.via : axis.crop_size;
  fill_inputs(from, axis.resize, inputs);
  const int32_t* of_via = nullptr;
  if (axis.via > 0) {
    int32_t* via = via_memory.need(static_cast<size_t>(axis.via));
    fill_inputs(axis.crop_size, axis.via, via);
    of_via = via;
  }
  inputs += axis.offset;
  for (int32_t i = 0; i < axis.out; ++i) inputs[i] = axis.crop + (of_via == nullptr ? inputs[i] : of_via[inputs[i]]);
  if (axis.flip) std::reverse(inputs, inputs + axis.out);
  return inputs;
}

template <typename Sample>
void copy_pixels(const ConstPlanes& picture, const ViewPlan& plan, const int32_t* rows, const int32_t* columns,
                 float* out) {
  constexpr float kMost = sizeof(Sample) == 2 ? 65535.0f : 255.0f;
  for (int32_t y = 0; y < plan.out_height; ++y, out += plan.out_width) {
    const auto* row = reinterpret_cast<const Sample*>(picture.row(0, rows[y]));
    for (int32_t x = 0; x < plan.out_width; ++x) out[x] = static_cast<float>(row[columns[x]]) / kMost;
  }
}

}  // namespace

void nearest(const ConstPlanes& picture, const ViewPlan& plan, NearestScratch& scratch, float* out) {
  const int32_t* rows = inputs_of(
      {plan.crop_y, plan.crop_height, plan.via_height, plan.resize_height, plan.offset_y, plan.out_height, false},
      scratch.rows, scratch.via);
  const int32_t* columns = inputs_of(
      {plan.crop_x, plan.crop_width, plan.via_width, plan.resize_width, plan.offset_x, plan.out_width, plan.flip},
      scratch.columns, scratch.via);
  (picture.deep ? copy_pixels<uint16_t> : copy_pixels<uint8_t>)(picture, plan, rows, columns, out);
}

}  // namespace pass_loader::cpu
