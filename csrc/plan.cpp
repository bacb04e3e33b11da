#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "error.h"
#include "portable_math.h"

namespace pass_loader {
namespace {

// A decision's place in the counter. Numbers are never reused or shifted, so that changing one probability changes no
// other decision.
enum Slot : uint32_t {
  kCropTry = 0,  // 10 tries: area, log ratio
  kCropTries = 10,
  kCropPlace = 16,
  kFlip = 17,
  kJitter = 18,
  kJitterOrder = 19,
  kBrightnessContrast = 20,
  kSaturationHue = 21,
  kGrayscale = 22,
  kBlur = 23,
  kSolarize = 24,
  kCompanion = 25,  // of the whole sample, with view 0: if there is one (two words), in which view, and which
  kWindow = 26,     // where a window lies: row, column
  kFilter = 27,
  kRow = 28,  // which of a view's rows decides it
};

struct Box {
  int32_t x, y, width, height;
};

// What torchvision's RandomResizedCrop takes after ten failed tries: the central crop, clamped to the range of ratios.
Box central_crop(const ViewSpec& spec, int32_t height, int32_t width) {
  double ratio = static_cast<double>(width) / height;
  int64_t w = width, h = height;
  if (ratio < spec.ratio_min) {
    h = round_half_even(width / spec.ratio_min);
  } else if (ratio > spec.ratio_max) {
    w = round_half_even(height * spec.ratio_max);
  }
  w = std::min<int64_t>(std::max<int64_t>(w, 1), width);
  h = std::min<int64_t>(std::max<int64_t>(h, 1), height);
  return {static_cast<int32_t>((width - w) / 2), static_cast<int32_t>((height - h) / 2), static_cast<int32_t>(w),
          static_cast<int32_t>(h)};
}

// torchvision 0.28, transforms.RandomResizedCrop.get_params.
Box random_resized_crop(const ViewSpec& spec, const Draws& draws, int32_t height, int32_t width) {
  double area = static_cast<double>(height) * width;
  double log_min = portable_log(spec.ratio_min), log_max = portable_log(spec.ratio_max);
  for (uint32_t attempt = 0; attempt < kCropTries; ++attempt) {
    Words words = draws.words(kCropTry + attempt);
    double target = area * uniform(unit(words[0], words[1]), spec.scale_min, spec.scale_max);
    double ratio = portable_exp(uniform(unit(words[2], words[3]), log_min, log_max));
    double w = std::sqrt(target * ratio), h = std::sqrt(target / ratio);
    if (w > width + 1.0 || h > height + 1.0) continue;
    int32_t crop_width = static_cast<int32_t>(round_half_even(w));
    int32_t crop_height = static_cast<int32_t>(round_half_even(h));
    if (crop_width < 1 || crop_width > width || crop_height < 1 || crop_height > height) continue;
    Words place = draws.words(kCropPlace);
    return {static_cast<int32_t>(below(place[1], static_cast<uint32_t>(width - crop_width) + 1)),
            static_cast<int32_t>(below(place[0], static_cast<uint32_t>(height - crop_height) + 1)), crop_width,
            crop_height};
  }
  return central_crop(spec, height, width);
}

// The word chooses one of the 24 orders of four steps. Absent steps are left out, and -1 fills the end.
void draw_jitter_order(uint32_t word, const bool (&present)[4], int8_t (&order)[4]) {
  int8_t steps[4] = {0, 1, 2, 3};
  uint32_t rank = below(word, 24);
  for (uint32_t left = 4; left > 1; --left) {  // Fisher-Yates, whose choices are read from the rank
    std::swap(steps[left - 1], steps[rank % left]);
    rank /= left;
  }
  int count = 0;
  for (int8_t step : steps)
    if (present[step]) order[count++] = step;
  while (count < 4) order[count++] = -1;
}

void plan_jitter(const ViewSpec& spec, const Draws& draws, ViewPlan& plan) {
  for (int8_t& step : plan.jitter_order) step = -1;
  plan.brightness = plan.contrast = plan.saturation = 1.0f;
  plan.hue = 0.0f;
  if (!(draws.first(kJitter) < spec.jitter_probability)) return;
  const bool present[4] = {spec.brightness_max >= spec.brightness_min, spec.contrast_max >= spec.contrast_min,
                           spec.saturation_max >= spec.saturation_min, spec.hue_max >= spec.hue_min};
  draw_jitter_order(draws.words(kJitterOrder)[0], present, plan.jitter_order);
  Words a = draws.words(kBrightnessContrast), b = draws.words(kSaturationHue);
  auto factor = [](uint32_t high, uint32_t low, double min, double max) {
    return static_cast<float>(uniform(unit(high, low), min, max));
  };
  if (present[0]) plan.brightness = factor(a[0], a[1], spec.brightness_min, spec.brightness_max);
  if (present[1]) plan.contrast = factor(a[2], a[3], spec.contrast_min, spec.contrast_max);
  if (present[2]) plan.saturation = factor(b[0], b[1], spec.saturation_min, spec.saturation_max);
  if (present[3]) plan.hue = factor(b[2], b[3], spec.hue_min, spec.hue_max);
}

// One axis of a window: the picture's side after its resize, what is added before and after it, and the view's side.
struct WindowAxis {
  int32_t side, before, after, out;
};

// Returns where the window begins, counted from the resized picture's first pixel: torchvision's CenterCrop
// (transforms/functional.py: center_crop), which adds what a small picture lacks.
int32_t centre_of_axis(const WindowAxis& axis) {
  const int32_t padded = axis.before + axis.side + axis.after, lacking = std::max(axis.out - padded, 0);
  const double middle = (padded + lacking - axis.out) / 2.0;
  return static_cast<int32_t>(round_half_even(middle)) - lacking / 2 - axis.before;
}

// The same for a drawn window: torchvision's RandomCrop (transforms/transforms.py), whose pad_if_needed adds what is
// lacking on both sides. Returns false if the window does not fit.
bool draw_on_axis(WindowAxis axis, bool pad_if_needed, uint32_t word, int32_t& begin) {
  int32_t padded = axis.before + axis.side + axis.after;
  const int32_t lacking = axis.out - padded;
  if (lacking > 0) {
    if (!pad_if_needed) return false;
    axis.before += lacking;
    padded += 2 * lacking;
  }
  begin = static_cast<int32_t>(below(word, static_cast<uint32_t>(padded - axis.out) + 1)) - axis.before;
  return true;
}

// A window of the picture after a resize, or of the picture as it is. A short side is resized as torchvision's Resize
// does (transforms/functional.py: _compute_resized_output_size).
void plan_window(const ViewSpec& spec, const Draws& draws, int32_t height, int32_t width, ViewPlan& plan) {
  auto side = [&](int32_t own, int32_t other, int32_t fixed) {
    if (fixed > 0) return fixed;
    if (spec.resize_short == 0) return own;
    if (own <= other) return spec.resize_short;
    return static_cast<int32_t>(static_cast<double>(int64_t{spec.resize_short} * own) / other);
  };
  plan.crop_width = width, plan.crop_height = height;
  plan.resize_height = side(height, width, spec.resize_height);
  plan.resize_width = side(width, height, spec.resize_width);
  const WindowAxis down{plan.resize_height, spec.pad_top, spec.pad_bottom, spec.out_height};
  const WindowAxis across{plan.resize_width, spec.pad_left, spec.pad_right, spec.out_width};
  if (spec.place != Place::drawn) {
    plan.offset_y = centre_of_axis(down);
    plan.offset_x = centre_of_axis(across);
  } else {
    const Words words = draws.words(kWindow);
    const bool fits = draw_on_axis(down, spec.pad_if_needed, words[0], plan.offset_y) &&
                      draw_on_axis(across, spec.pad_if_needed, words[1], plan.offset_x);
    PL_CHECK(
        fits, Fault::record,
        "the view is a window of %d x %d (height x width), and the picture is %d x %d before its padding: give the "
        "Window pad_if_needed=True, or a resize",
        spec.out_height, spec.out_width, plan.resize_height, plan.resize_width);
  }
  const bool inside = plan.offset_y >= 0 && plan.offset_y <= plan.resize_height - spec.out_height &&
                      plan.offset_x >= 0 && plan.offset_x <= plan.resize_width - spec.out_width;
  plan.padding = inside ? Padding::none : spec.padding;
}

void plan_geometry(const ViewSpec& spec, const Draws& draws, int32_t height, int32_t width, ViewPlan& plan) {
  plan.out_height = plan.resize_height = spec.out_height;
  plan.out_width = plan.resize_width = spec.out_width;
  plan.via_height = spec.via_height, plan.via_width = spec.via_width;
  plan.interpolation = spec.interpolation;
  if (spec.interpolation == kAnyResample) plan.interpolation = draws.words(kFilter)[0] >> 31 != 0 ? 3 : 2;
  plan.resize_order = spec.resize_order;
  plan.flip = draws.first(kFlip) < spec.flip_probability;
  if (spec.resize_short > 0 || spec.place != Place::random_resized)
    return plan_window(spec, draws, height, width, plan);
  Box box = random_resized_crop(spec, draws, height, width);
  plan.crop_x = box.x, plan.crop_y = box.y, plan.crop_width = box.width, plan.crop_height = box.height;
}

// `box_of`: the plan whose crop box and flip this one takes, or null.
ViewPlan drawn_view(const ViewSpec& spec, const Draws& draws, int32_t height, int32_t width, const ViewPlan* box_of) {
  ViewPlan plan{};
  plan_geometry(spec, draws, height, width, plan);
  if (box_of != nullptr) {
    plan.crop_x = box_of->crop_x, plan.crop_y = box_of->crop_y;
    plan.crop_width = box_of->crop_width, plan.crop_height = box_of->crop_height;
    plan.flip = box_of->flip;
  }
  plan_jitter(spec, draws, plan);
  plan.grayscale = draws.first(kGrayscale) < spec.grayscale_probability;
  Words blur = draws.words(kBlur);
  plan.blur_kernel = spec.blur_kernel;
  if (unit(blur[0], blur[1]) < spec.blur_probability)
    plan.blur_sigma = static_cast<float>(uniform(unit(blur[2], blur[3]), spec.blur_sigma_min, spec.blur_sigma_max));
  bool solarize = draws.first(kSolarize) < spec.solarize_probability;
  plan.solarize_threshold = solarize ? spec.solarize_threshold : int16_t{-1};
  return plan;
}

}  // namespace

bool vertical_first(uint8_t resize_order, int32_t height, int32_t width, int32_t resize_height, int32_t resize_width) {
  if (height <= resize_height) return false;
  if (resize_order == 1) return int64_t{height} > int64_t{100} * width;
  return height - resize_height > 2 * (int64_t{width} - resize_width);
}

size_t view_count(std::span<const ViewSpec> recipe) {
  size_t views = recipe.size();
  while (views > 0 && recipe[views - 1].instead_of > 0) --views;
  return views;
}

size_t drawn_row(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key) {
  const size_t views = view_count(recipe);
  if (views == recipe.size()) return view;
  const int32_t with = recipe[view].decided_with;
  const double chance =
      draws_of(key, with > 0 ? static_cast<uint32_t>(with - 1) : static_cast<uint32_t>(view)).first(kRow);
  for (size_t row = views; row < recipe.size(); ++row)
    if (recipe[row].instead_of == static_cast<int32_t>(view) + 1 && chance < recipe[row].instead_below) return row;
  return view;
}

void plan_views(std::span<const ViewSpec> recipe, const SampleKey& key, int32_t height, int32_t width,
                std::span<ViewPlan> plans) {
  for (size_t view = 0; view < plans.size(); ++view) plan_view(recipe, view, key, height, width, plans);
}

void plan_view(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key, int32_t height, int32_t width,
               std::span<ViewPlan> plans) {
  const ViewSpec& spec = recipe[drawn_row(recipe, view, key)];
  const ViewPlan* box_of = spec.box_of < 0 ? nullptr : &plans[spec.box_of];
  plans[view] = drawn_view(spec, draws_of(key, static_cast<uint32_t>(view)), height, width, box_of);
}

void PlanRows::write(size_t row, const ViewPlan& plan, std::span<const StepPlan> further) const {
  uint8_t* to = memory + row * bytes(steps);
  std::memcpy(to, &plan, sizeof plan);
  if (steps > 0) std::memcpy(to + sizeof plan, further.data(), steps * sizeof(StepPlan));
}

void PlanRows::clear(size_t row, size_t count) const {
  std::memset(memory + row * bytes(steps), 0, count * bytes(steps));
}

CompanionDraw draw_companion(const SampleKey& key, uint32_t views, uint32_t companions, double probability) {
  const Words words = draws_of(key, 0).words(kCompanion);
  if (companions == 0 || !(unit(words[0], words[1]) < probability)) return {-1, 0};
  return {static_cast<int32_t>(below(words[2], views)), below(words[3], companions)};
}

}  // namespace pass_loader
