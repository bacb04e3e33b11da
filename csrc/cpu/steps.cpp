#include "cpu/steps.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/jitter.h"
#include "cpu/points.h"
#include "cpu/sharpness.h"

namespace pass_loader::cpu {
namespace {

ViewPixels pixels_of(const Planes& view) {
  return {view.pixels, static_cast<size_t>(view.height) * view.width, view.plane_stride, view.channels};
}

bool has_colour(const StepPlan& step) {
  return (step.op == StepOp::affine || step.op == StepOp::perspective || step.op == StepOp::ground) &&
         (step.fill[0] != step.fill[1] || step.fill[0] != step.fill[2]);
}

void mirror_rows(const Planes& view) {
  for (int c = 0; c < view.channels; ++c)
    for (int32_t y = 0; y < view.height; ++y) std::reverse(view.row(c, y), view.row(c, y) + view.width);
}

void mirror_columns(const Planes& view) {
  for (int c = 0; c < view.channels; ++c)
    for (int32_t y = 0; y < view.height / 2; ++y)
      std::swap_ranges(view.row(c, y), view.row(c, y) + view.width, view.row(c, view.height - 1 - y));
}

// The view is a square unless it is turned by two.
void turn(const ConstPlanes& view, int quarters, const Planes& out) {
  const int32_t last_x = view.width - 1, last_y = view.height - 1;
  for (int c = 0; c < view.channels; ++c)
    for (int32_t y = 0; y < view.height; ++y) {
      uint8_t* to = out.row(c, y);
      for (int32_t x = 0; x < view.width; ++x)
        to[x] = quarters == 1   ? view.row(c, x)[last_x - y]
                : quarters == 2 ? view.row(c, last_y - y)[last_x - x]
                                : view.row(c, last_y - x)[y];
    }
}

// Runs the steps on two views, of which one holds the pixels.
class Program {
 public:
  Program(const Planes& view, const Planes& other, StepsScratch& scratch)
      : view_(view), other_(other), scratch_(scratch), points_(pixels_of(view)) {}

  void run(const StepPlan& step) {
    if (!run_point(step)) {
      points_.apply();
      run_place(step);
      points_.look_at(pixels_of(view_));
    }
  }

  Planes end() {
    points_.apply();
    return view_;
  }

 private:
  bool run_point(const StepPlan& step) {
    switch (step.op) {
      case StepOp::autocontrast:
        points_.autocontrast();
        return true;
      case StepOp::equalize:
        points_.equalize();
        return true;
      case StepOp::invert:
        points_.invert();
        return true;
      case StepOp::posterize:
        points_.posterize(step.level);
        return true;
      case StepOp::solarize:
        points_.solarize(step.level);
        return true;
      case StepOp::solarize_add:
        points_.solarize_add(step.level);
        return true;
      case StepOp::brightness:
        points_.brightness(step.factor);
        return true;
      case StepOp::contrast:
        points_.contrast(step.factor);
        return true;
      default:
        return false;
    }
  }

  void run_place(const StepPlan& step) {
    const ViewPixels pixels = pixels_of(view_);
    switch (step.op) {
      case StepOp::saturation:
        saturation(pixels, step.factor);
        break;
      case StepOp::hue:
        hue(pixels, step.factor);
        break;
      case StepOp::grayscale:
        grayscale(pixels);
        break;
      case StepOp::blur:
        if (step.factor > 0.0f) gaussian_blur(pixels, view_.height, view_.width, step.factor, scratch_.blur);
        break;
      case StepOp::kernel_blur:
        if (step.factor > 0.0f)
          kernel_blur(pixels, view_.height, view_.width, step.level, step.factor, scratch_.kernel_blur);
        break;
      case StepOp::flip:
        mirror_rows(view_);
        break;
      case StepOp::vertical_flip:
        mirror_columns(view_);
        break;
      case StepOp::sharpness:
        sharpness(view_, step.factor, other_);
        swap();
        break;
      case StepOp::quarter_turn:
        turn(view_, step.level, other_);
        swap();
        break;
      case StepOp::affine:
      case StepOp::perspective:
        affine(view_, step, other_, scratch_.affine);
        swap();
        break;
      default:
        break;
    }
  }

  void swap() { std::swap(view_, other_); }

  Planes view_, other_;
  StepsScratch& scratch_;
  Points points_;
};

Planes planes_at(uint8_t* pixels, const Planes& like, int channels) {
  return {pixels, like.height, like.width, like.row_stride, like.plane_stride, channels};
}

}  // namespace

Planes run_steps(Planes view, Scratch<uint8_t>& memory, std::span<const StepPlan> steps, StepsScratch& scratch) {
  auto ends = [](const StepPlan& step) { return step.op == StepOp::none || step.op == StepOp::erase; };
  if (steps.empty() || ends(steps.front())) return view;
  const bool becomes_rgb = view.channels == 1 && std::any_of(steps.begin(), steps.end(), has_colour);
  const int channels = becomes_rgb ? 3 : view.channels;
  Planes other = planes_at(scratch.other.need(static_cast<size_t>(channels) * view.plane_stride), view, channels);
  if (becomes_rgb) {
    for (size_t c = 0; c < 3; ++c) std::memcpy(other.pixels + c * view.plane_stride, view.pixels, view.plane_stride);
    view = planes_at(memory.need(3 * view.plane_stride), view, 3);
    std::swap(view, other);
  }
  Program program(view, other, scratch);
  for (const StepPlan& step : steps) {
    if (ends(step)) break;
    program.run(step);
  }
  return program.end();
}

}  // namespace pass_loader::cpu
