#include "cpu/render.h"

#include <algorithm>
#include <cstring>

#include "cpu/deep.h"

namespace pass_loader::cpu {
namespace {

// Returns planes without gaps between rows, each rounded up to whole tiles.
Planes view_planes(Scratch<uint8_t>& scratch, int32_t height, int32_t width, const ConstPlanes& picture) {
  const size_t row_stride = static_cast<size_t>(width) * (picture.deep ? 2 : 1);
  const size_t plane_stride = round_up(row_stride * static_cast<size_t>(height), kTile);
  uint8_t* pixels = scratch.need(picture.channels * plane_stride);
  return {pixels, height, width, row_stride, plane_stride, picture.channels, picture.deep};
}

// Resizes the crop box to height x width. `out` is the window of that at offset_x, offset_y.
ResampleRequest request_of(const ViewPlan& plan, int32_t height, int32_t width) {
  ResampleRequest request{};
  request.crop_x = plan.crop_x, request.crop_y = plan.crop_y;
  request.crop_width = plan.crop_width, request.crop_height = plan.crop_height;
  request.resize_height = height, request.resize_width = width;
  request.interpolation = plan.interpolation;
  return request;
}

void run(const ConstPlanes& picture, ResampleRequest request, const ViewPlan& plan, const Planes& out,
         RenderScratch& scratch) {
  request.vertical_first = vertical_first(plan.resize_order, request.crop_height, request.crop_width,
                                          request.resize_height, request.resize_width);
  (picture.deep ? resample_deep : resample)(picture, request, out, scratch.resample);
}

// What a window shows where it leaves the picture, a byte a plane. Of a deep picture black.
struct Ground {
  uint8_t fill[3] = {};
};

Ground ground_of(std::span<const StepPlan> before) {
  Ground ground;
  for (const StepPlan& step : before)
    if (step.op == StepOp::ground) std::copy(std::begin(step.fill), std::end(step.fill), ground.fill);
  return ground;
}

void copy_planes(const ConstPlanes& from, const Places& places, const Ground& ground, const Planes& out) {
  for (int c = 0; c < out.channels; ++c) {
    if (out.deep)
      copy_places<uint16_t>(from, c, places, 0, out);
    else
      copy_places<uint8_t>(from, c, places, ground.fill[c], out);
  }
}

// Crops and resizes; the window is inside the resized picture.
Planes crop_and_resize(const ConstPlanes& picture, const ViewPlan& plan, Scratch<uint8_t>& memory,
                       RenderScratch& scratch) {
  Planes view = view_planes(memory, plan.out_height, plan.out_width, picture);
  ResampleRequest last = request_of(plan, plan.resize_height, plan.resize_width);
  last.offset_x = plan.offset_x, last.offset_y = plan.offset_y;
  last.flip = plan.flip;
  if (plan.via_height == 0) {
    run(picture, last, plan, view, scratch);
    return view;
  }
  Planes via = view_planes(scratch.via, plan.via_height, plan.via_width, picture);
  run(picture, request_of(plan, plan.via_height, plan.via_width), plan, via, scratch);
  last.crop_x = last.crop_y = 0;
  last.crop_width = plan.via_width, last.crop_height = plan.via_height;
  run(via, last, plan, view, scratch);
  return view;
}

// Narrows one axis of a window to the places that it shows, which then count from its begin. Returns false if there are
// none.
bool narrow(int32_t* places, int32_t& offset, int32_t& out) {
  int32_t least = INT32_MAX, most = -1;
  for (int32_t i = 0; i < out; ++i) {
    if (places[i] >= 0) least = std::min(least, places[i]);
    most = std::max(most, places[i]);
  }
  for (int32_t i = 0; i < out; ++i)
    if (places[i] >= 0) places[i] -= least;
  offset = least;
  out = most - least + 1;
  return most >= 0;
}

// A window that leaves the resized picture: what it shows of that is rendered, then its pixels are copied.
Planes padded_window(const ConstPlanes& picture, const ViewPlan& plan, const Ground& ground, RenderScratch& scratch) {
  const Planes view = view_planes(scratch.view, plan.out_height, plan.out_width, picture);
  const WindowPlaces places = window_places(plan, scratch.places);
  ViewPlan shown = plan;
  shown.flip = false;
  if (narrow(places.rows, shown.offset_y, shown.out_height) && narrow(places.columns, shown.offset_x, shown.out_width))
    copy_planes(crop_and_resize(picture, shown, scratch.inner, scratch), {places.rows, places.columns}, ground, view);
  else
    for (int c = 0; c < view.channels; ++c)
      std::memset(view.pixels + c * view.plane_stride, ground.fill[c], view.plane_stride);
  return view;
}

Planes placed(const ConstPlanes& picture, const ViewPlan& plan, const Ground& ground, RenderScratch& scratch) {
  if (plan.interpolation == 0) {
    const Planes view = view_planes(scratch.view, plan.out_height, plan.out_width, picture);
    copy_planes(picture, nearest_places(plan, picture.deep, scratch.places), ground, view);
    return view;
  }
  if (plan.padding != Padding::none) return padded_window(picture, plan, ground, scratch);
  return crop_and_resize(picture, plan, scratch.view, scratch);
}

void jitter(const ViewPixels& pixels, const ViewPlan& plan, StageClock& clock) {
  constexpr Stage kStageOf[] = {Stage::brightness_contrast, Stage::brightness_contrast, Stage::saturation, Stage::hue};
  for (int8_t step : plan.jitter_order) {
    if (step < 0) continue;
    if (step == 0) brightness(pixels, plan.brightness);
    if (step == 1) contrast(pixels, plan.contrast);
    if (step == 2) saturation(pixels, plan.saturation);
    if (step == 3) hue(pixels, plan.hue);
    clock.charge(kStageOf[step]);
  }
}

void blur(const ViewPixels& pixels, const Planes& view, const ViewPlan& plan, RenderScratch& scratch) {
  if (plan.blur_kernel == 0) return gaussian_blur(pixels, view.height, view.width, plan.blur_sigma, scratch.blur);
  kernel_blur(pixels, view.height, view.width, plan.blur_kernel, plan.blur_sigma, scratch.kernel_blur);
}

// Returns a copy of the picture after steps that stand before its crop, or the picture itself where they are a ground
// alone that it needs no further planes for.
ConstPlanes whole_picture(const ConstPlanes& picture, std::span<const StepPlan> steps, RenderScratch& scratch) {
  const Ground ground = ground_of(steps);
  const bool coloured = ground.fill[0] != ground.fill[1] || ground.fill[0] != ground.fill[2];
  auto is_ground = [](const StepPlan& step) { return step.op == StepOp::ground; };
  if (std::all_of(steps.begin(), steps.end(), is_ground) && (picture.channels == 3 || !coloured)) return picture;
  const Planes copy = view_planes(scratch.whole, picture.height, picture.width, picture);
  for (int c = 0; c < picture.channels; ++c)
    for (int32_t y = 0; y < picture.height; ++y) std::memcpy(copy.row(c, y), picture.row(c, y), copy.row_stride);
  return run_steps(copy, scratch.whole, steps, scratch.whole_steps);
}

// Runs a step and charges it to the clock if the plan asks for it.
template <typename Step>
void step_if(bool wanted, Stage stage, StageClock& clock, const Step& step) {
  if (!wanted) return;
  step();
  clock.charge(stage);
}

}  // namespace

Planes render_view(const ConstPlanes& picture, const ViewPlan& plan, std::span<const StepPlan> steps,
                   RenderScratch& scratch, StageClock& clock) {
  auto is_before = [](const StepPlan& step) { return step.before; };
  const auto first = std::find_if_not(steps.begin(), steps.end(), is_before);
  const std::span<const StepPlan> before(steps.begin(), first);
  steps = {first, steps.end()};
  ConstPlanes source = picture;
  step_if(!before.empty(), Stage::further, clock, [&] { source = whole_picture(picture, before, scratch); });
  Planes view = placed(source, plan, ground_of(before), scratch);
  clock.charge(Stage::resize);
  if (view.deep) return view;
  ViewPixels pixels{view.pixels, static_cast<size_t>(view.height) * view.width, view.plane_stride, view.channels};
  jitter(pixels, plan, clock);
  step_if(plan.grayscale, Stage::grayscale, clock, [&] { grayscale(pixels); });
  step_if(plan.blur_sigma > 0.0f, Stage::blur, clock, [&] { blur(pixels, view, plan, scratch); });
  step_if(plan.solarize_threshold >= 0, Stage::solarize, clock, [&] { solarize(pixels, plan.solarize_threshold); });
  step_if(!steps.empty(), Stage::further, clock, [&] { view = run_steps(view, scratch.view, steps, scratch.steps); });
  return view;
}

}  // namespace pass_loader::cpu
