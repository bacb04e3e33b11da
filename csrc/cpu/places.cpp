#include "cpu/places.h"

#include <algorithm>

namespace pass_loader::cpu {
namespace {

// The plan's numbers of one axis.
struct Axis {
  int32_t crop, crop_size, via, resize, offset, out;
  bool flip;
};

Axis rows_of(const ViewPlan& p) {
  return {p.crop_y, p.crop_height, p.via_height, p.resize_height, p.offset_y, p.out_height, false};
}

Axis columns_of(const ViewPlan& p) {
  return {p.crop_x, p.crop_width, p.via_width, p.resize_width, p.offset_x, p.out_width, p.flip};
}

// numpy.pad's modes, of which torchvision's pad takes these.
int32_t place_of(int32_t at, int32_t size, Padding padding) {
  if (at >= 0 && at < size) return at;
  auto wrapped = [at](int64_t period) { return static_cast<int32_t>(((at % period) + period) % period); };
  switch (padding) {
    case Padding::edge:
      return at < 0 ? 0 : size - 1;
    case Padding::reflect: {
      if (size == 1) return 0;
      const int32_t place = wrapped(2 * int64_t{size} - 2);
      return place < size ? place : 2 * size - 2 - place;
    }
    case Padding::symmetric: {
      const int32_t place = wrapped(2 * int64_t{size});
      return place < size ? place : 2 * size - 1 - place;
    }
    default:
      return -1;
  }
}

int32_t* axis_places(const Axis& axis, Padding padding, Scratch<int32_t>& memory) {
  int32_t* places = memory.need(static_cast<size_t>(axis.out));
  for (int32_t i = 0; i < axis.out; ++i) places[i] = place_of(axis.offset + i, axis.resize, padding);
  if (axis.flip) std::reverse(places, places + axis.out);
  return places;
}

// Replaces places after a resize by those before it. As in Pillow (Geometry.c), positions are a running sum in double
// (ImagingScaleAffine), or products for 16 bits (ImagingGenericTransform with affine_transform).
void before_resize(int32_t in_size, int32_t out_size, bool deep, int32_t* places, int32_t count,
                   Scratch<int32_t>& memory) {
  const double step = static_cast<double>(in_size) / out_size;
  auto input = [=](double at) { return std::min(static_cast<int32_t>(at), in_size - 1); };
  if (deep) {
    for (int32_t i = 0; i < count; ++i)
      if (places[i] >= 0) places[i] = input(step * (places[i] + 0.5));
    return;
  }
  int32_t least = out_size, most = -1;
  for (int32_t i = 0; i < count; ++i) {
    if (places[i] < 0) continue;
    least = std::min(least, places[i]);
    most = std::max(most, places[i]);
  }
  if (most < 0) return;
  int32_t* inputs = memory.need(static_cast<size_t>(most - least) + 1);
  double at = step * 0.5;
  for (int32_t i = 0; i <= most; ++i, at += step)
    if (i >= least) inputs[i - least] = input(at);
  for (int32_t i = 0; i < count; ++i)
    if (places[i] >= 0) places[i] = inputs[places[i] - least];
}

const int32_t* nearest_of(const Axis& axis, Padding padding, bool deep, Scratch<int32_t>& memory,
                          Scratch<int32_t>& inputs) {
  int32_t* places = axis_places(axis, padding, memory);
  before_resize(axis.via > 0 ? axis.via : axis.crop_size, axis.resize, deep, places, axis.out, inputs);
  if (axis.via > 0) before_resize(axis.crop_size, axis.via, deep, places, axis.out, inputs);
  for (int32_t i = 0; i < axis.out; ++i)
    if (places[i] >= 0) places[i] += axis.crop;
  return places;
}

}  // namespace

WindowPlaces window_places(const ViewPlan& plan, PlacesScratch& scratch) {
  return {axis_places(rows_of(plan), plan.padding, scratch.rows),
          axis_places(columns_of(plan), plan.padding, scratch.columns)};
}

Places nearest_places(const ViewPlan& plan, bool deep, PlacesScratch& scratch) {
  return {nearest_of(rows_of(plan), plan.padding, deep, scratch.rows, scratch.inputs),
          nearest_of(columns_of(plan), plan.padding, deep, scratch.columns, scratch.inputs)};
}

}  // namespace pass_loader::cpu
