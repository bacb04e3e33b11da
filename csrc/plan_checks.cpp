// The limits of recipes and plans. Errors name the field. plan.cpp only draws.
#include <algorithm>
#include <cmath>

#include "error.h"
#include "plan.h"

namespace pass_loader {
namespace {

void check_range(size_t view, const char* name, double min, double max, double lowest, double highest) {
  PL_CHECK(std::isfinite(min) && std::isfinite(max) && min >= lowest && max <= highest && min <= max, Fault::argument,
           "recipe, view %zu: %s is (%g, %g), want lowest <= highest within [%g, %g]", view, name, min, max, lowest,
           highest);
}

void check_jitter(size_t view, const char* name, double min, double max, double lowest, double highest) {
  if (std::isfinite(min) && std::isfinite(max) && max < min) return;  // absent
  check_range(view, name, min, max, lowest, highest);
}

void check_probability(size_t view, const char* name, double p) {
  PL_CHECK(p >= 0.0 && p <= 1.0, Fault::argument, "recipe, view %zu: %s is %g, want a probability", view, name, p);
}

void check_interpolation(uint8_t interpolation) {
  PL_CHECK(interpolation <= 5, Fault::argument, "interpolation is %d, want 0 to 5, PIL's Resampling values",
           interpolation);
}

// Edges are reflected, so the kernel reaches over no more pixels than the view has beside its edge.
void check_blur_kernel(uint8_t kernel, int32_t height, int32_t width) {
  PL_CHECK(kernel == 0 || (kernel % 2 == 1 && kernel >= 3), Fault::argument,
           "blur_kernel is %d, want 0 (PIL's GaussianBlur) or an odd number of taps from 3 (torchvision's)", kernel);
  PL_CHECK(std::min(height, width) > kernel / 2, Fault::argument,
           "blur_kernel is %d: a view of %d x %d is too small for so many taps", kernel, height, width);
}

bool is_length(int32_t pixels) { return pixels >= 0 && pixels <= kMaxOutPx; }

// Checks a view that is a window of the picture.
void check_window(const ViewSpec& v, size_t i) {
  PL_CHECK(v.place <= Place::drawn && v.padding >= Padding::black && v.padding <= Padding::symmetric, Fault::argument,
           "recipe, view %zu: a window's place is %d and its padding %d, want 1 or 2 and 1 to 4", i,
           static_cast<int>(v.place), static_cast<int>(v.padding));
  PL_CHECK(is_length(v.resize_short) && is_length(v.resize_height) && is_length(v.resize_width) &&
               (v.resize_height == 0) == (v.resize_width == 0) && (v.resize_short == 0 || v.resize_height == 0),
           Fault::argument, "recipe, view %zu: a window's resize is %d, or %d x %d, want one of them in [1, %d]", i,
           v.resize_short, v.resize_height, v.resize_width, kMaxOutPx);
  const int32_t pads[] = {v.pad_left, v.pad_top, v.pad_right, v.pad_bottom};
  PL_CHECK(std::all_of(std::begin(pads), std::end(pads), is_length), Fault::argument,
           "recipe, view %zu: a window's padding is %d, %d, %d, %d, want [0, %d]", i, pads[0], pads[1], pads[2],
           pads[3], kMaxOutPx);
  const bool padded = std::any_of(std::begin(pads), std::end(pads), [](int32_t pad) { return pad > 0; });
  PL_CHECK(
      !v.pad_if_needed || (v.place == Place::drawn && !(padded && v.padding >= Padding::reflect)), Fault::argument,
      "recipe, view %zu: pad_if_needed is of a drawn window, and a picture that is mirrored at its edges is padded "
      "once: give padding or pad_if_needed",
      i);
  PL_CHECK(v.via_height == 0 && v.via_width == 0 && v.box_of < 0, Fault::argument,
           "recipe, view %zu: a window has no crop box: leave via and box_of out", i);
}

// Checks where the pixels of one view come from.
void check_geometry(std::span<const ViewSpec> recipe, size_t i) {
  const ViewSpec& v = recipe[i];
  if (v.place != Place::random_resized) return check_window(v, i);
  PL_CHECK(v.padding == Padding::none && !v.pad_if_needed && v.resize_height == 0 && v.resize_width == 0 &&
               v.pad_left == 0 && v.pad_top == 0 && v.pad_right == 0 && v.pad_bottom == 0,
           Fault::argument, "recipe, view %zu: padding and a resize to two sides are of a window", i);
  const int32_t side = std::max(v.out_height, v.out_width);
  PL_CHECK(v.resize_short == 0 || (v.resize_short >= side && v.resize_short <= kMaxOutPx), Fault::argument,
           "recipe, view %zu: resize_short is %d, want [%d, %d]: at least the view's sides", i, v.resize_short, side,
           kMaxOutPx);
  PL_CHECK((v.via_height == 0 && v.via_width == 0) ||
               (v.via_height >= 1 && v.via_height <= kMaxOutPx && v.via_width >= 1 && v.via_width <= kMaxOutPx),
           Fault::argument, "recipe, view %zu: via is %d x %d, want [1, %d]", i, v.via_height, v.via_width, kMaxOutPx);
  PL_CHECK(v.resize_short == 0 || v.via_height == 0, Fault::argument,
           "recipe, view %zu: resize_short takes the whole picture, and via a crop: give one of them", i);
  PL_CHECK(v.box_of >= -1 && v.box_of < static_cast<int64_t>(i), Fault::argument,
           "recipe, view %zu: box_of is %d, want the number of an earlier view", i, v.box_of);
  if (v.box_of < 0) return;
  const ViewSpec& other = recipe[v.box_of];
  PL_CHECK(v.resize_short == 0 && other.resize_short == 0 && other.place == Place::random_resized, Fault::argument,
           "recipe, view %zu: box_of shares a crop box, and with resize_short or a window there is none", i);
}

// Checks what a row says of alternatives.
void check_alternative(std::span<const ViewSpec> recipe, size_t views, size_t i) {
  const ViewSpec& v = recipe[i];
  auto alternatives = [&](size_t view) {
    return std::count_if(recipe.begin() + views, recipe.end(),
                         [&](const ViewSpec& row) { return row.instead_of == static_cast<int32_t>(view) + 1; });
  };
  if (i < views) {
    const auto count = alternatives(i);
    PL_CHECK(v.instead_below == 0.0 && v.decided_with >= 0 && v.decided_with <= static_cast<int64_t>(i) &&
                 (v.decided_with == 0 || (count > 0 && alternatives(static_cast<size_t>(v.decided_with) - 1) == count)),
             Fault::argument,
             "recipe, view %zu: decided_with wants an earlier view with as many alternatives, %lld or more", i,
             static_cast<long long>(std::max<int64_t>(count, 1)));
    PL_CHECK(v.box_of < 0 || (count == 0 && alternatives(static_cast<size_t>(v.box_of)) == 0), Fault::argument,
             "recipe, view %zu: box_of shares a crop box, and neither view may have alternatives", i);
    return;
  }
  const bool in_order = v.instead_of >= 1 && static_cast<size_t>(v.instead_of) <= views && v.decided_with == 0 &&
                        (i == views || v.instead_of >= recipe[i - 1].instead_of);
  const bool first = i == views || v.instead_of != recipe[i - 1].instead_of;
  PL_CHECK(in_order && v.instead_below <= 1.0 && v.instead_below >= (first ? 0.0 : recipe[i - 1].instead_below),
           Fault::argument, "recipe, row %zu: an alternative of view %d, taken below %g, does not follow", i,
           v.instead_of - 1, v.instead_below);
  const ViewSpec& own = recipe[static_cast<size_t>(v.instead_of) - 1];
  PL_CHECK(v.out_height == own.out_height && v.out_width == own.out_width && v.box_of < 0, Fault::argument,
           "recipe, view %d: an alternative is %d x %d, the view %d x %d; both want one size, and no box_of",
           v.instead_of - 1, v.out_height, v.out_width, own.out_height, own.out_width);
}

void check_resize_order(uint8_t order) {
  PL_CHECK(order <= 1, Fault::argument, "resize_order is %d, want 0 (Pillow 13) or 1 (Pillow 12)", order);
}

void check_sides(const char* what, int32_t height, int32_t width) {
  PL_CHECK(height >= 1 && width >= 1 && height <= kMaxOutPx && width <= kMaxOutPx, Fault::argument,
           "plan: %s is %d x %d, want height and width in [1, %d]", what, height, width, kMaxOutPx);
}

void check_window(const ViewPlan& plan) {
  PL_CHECK(plan.padding <= Padding::symmetric, Fault::argument, "plan: padding is %d, want 0 to 4",
           static_cast<int>(plan.padding));
  if (plan.padding == Padding::none) {
    PL_CHECK(plan.offset_x >= 0 && plan.offset_y >= 0 && plan.offset_x <= plan.resize_width - plan.out_width &&
                 plan.offset_y <= plan.resize_height - plan.out_height,
             Fault::argument, "plan: window x %d, y %d, width %d, height %d leaves the resized picture of %d x %d",
             plan.offset_x, plan.offset_y, plan.out_width, plan.out_height, plan.resize_width, plan.resize_height);
    return;
  }
  PL_CHECK(plan.offset_x >= -kMaxResizePx && plan.offset_x <= kMaxResizePx && plan.offset_y >= -kMaxResizePx &&
               plan.offset_y <= kMaxResizePx,
           Fault::argument, "plan: window x %d, y %d is further than %d from the picture", plan.offset_x, plan.offset_y,
           kMaxResizePx);
}

void check_jitter_plan(const ViewPlan& plan) {
  bool seen[4] = {};
  for (int8_t step : plan.jitter_order) {
    PL_CHECK(step >= -1 && step <= 3 && (step < 0 || !seen[step]), Fault::argument,
             "plan: jitter_order holds %d, want each of 0..3 at most once, -1 for none", step);
    if (step >= 0) seen[step] = true;
  }
  for (float factor : {plan.brightness, plan.contrast, plan.saturation})
    PL_CHECK(std::isfinite(factor) && std::abs(factor) <= 1e6f, Fault::argument,
             "plan: a jitter factor is %g, want a finite one within 1e6", factor);
  PL_CHECK(plan.hue >= -0.5f && plan.hue <= 0.5f, Fault::argument, "plan: hue is %g turns, want [-0.5, 0.5]", plan.hue);
}

}  // namespace

void check_recipe(std::span<const ViewSpec> recipe) {
  const size_t views = view_count(recipe);
  PL_CHECK(views >= 1 && views <= kMaxViews && recipe.size() - views <= kMaxAlternatives, Fault::argument,
           "recipe has %zu views and %zu alternatives, want 1 to %d and at most %d", views, recipe.size() - views,
           kMaxViews, kMaxAlternatives);
  for (size_t i = 0; i < recipe.size(); ++i) {
    const ViewSpec& v = recipe[i];
    PL_CHECK(v.out_height >= 1 && v.out_width >= 1 && v.out_height <= kMaxOutPx && v.out_width <= kMaxOutPx,
             Fault::argument, "recipe, view %zu: size is %d x %d, want [1, %d]", i, v.out_height, v.out_width,
             kMaxOutPx);
    check_range(i, "scale", v.scale_min, v.scale_max, 1e-9, 1e3);
    check_range(i, "ratio", v.ratio_min, v.ratio_max, 1e-3, 1e3);
    check_jitter(i, "brightness", v.brightness_min, v.brightness_max, 0.0, 1e6);
    check_jitter(i, "contrast", v.contrast_min, v.contrast_max, 0.0, 1e6);
    check_jitter(i, "saturation", v.saturation_min, v.saturation_max, 0.0, 1e6);
    check_jitter(i, "hue", v.hue_min, v.hue_max, -0.5, 0.5);
    check_probability(i, "flip probability", v.flip_probability);
    check_probability(i, "jitter probability", v.jitter_probability);
    check_probability(i, "grayscale probability", v.grayscale_probability);
    check_probability(i, "blur probability", v.blur_probability);
    check_range(i, "blur sigma", v.blur_sigma_min, v.blur_sigma_max, 0.0, 1000.0);
    check_probability(i, "solarize probability", v.solarize_probability);
    PL_CHECK(v.solarize_threshold >= 0 && v.solarize_threshold <= 256, Fault::argument,
             "recipe, view %zu: solarize threshold is %d, want [0, 256]", i, v.solarize_threshold);
    if (v.interpolation != kAnyResample) check_interpolation(v.interpolation);
    if (v.blur_probability > 0.0) check_blur_kernel(v.blur_kernel, v.out_height, v.out_width);
    check_alternative(recipe, views, i);
    check_geometry(recipe, i);
    check_resize_order(v.resize_order);
  }
}

void check_deep(std::span<const ViewSpec> recipe, const StepRecipe& steps) {
  PL_CHECK(
      steps.count() == 0, Fault::argument,
      "a gray picture of 16 bits can be cropped, resized and flipped alone, and the recipe has further steps: give "
      "recipe.override(then=()), or pack the picture with 8 bits");
  for (size_t i = 0; i < recipe.size(); ++i) {
    const ViewSpec& v = recipe[i];
    const char* step = v.jitter_probability > 0.0      ? "jitter"
                       : v.grayscale_probability > 0.0 ? "grayscale"
                       : v.blur_probability > 0.0      ? "blur"
                       : v.solarize_probability > 0.0  ? "solarize"
                                                       : nullptr;
    PL_CHECK(step == nullptr, Fault::argument,
             "a gray picture of 16 bits can be cropped, resized and flipped alone, and view %zu has %s: give "
             "recipe.override(%s=0.0), or pack the picture with 8 bits",
             i, step, step);
  }
}

void check_deep(const ViewPlan& plan, std::span<const StepPlan> steps) {
  const bool still =
      std::all_of(std::begin(plan.jitter_order), std::end(plan.jitter_order), [](int8_t step) { return step < 0; });
  PL_CHECK(steps.empty() && still && !plan.grayscale && plan.blur_sigma == 0.0f && plan.solarize_threshold < 0,
           Fault::argument,
           "plan: a gray picture of 16 bits can be cropped, resized and flipped alone, without jitter, grayscale, blur "
           "and solarize");
}

void check_plan(const ViewPlan& plan, int32_t height, int32_t width) {
  PL_CHECK(plan.crop_width >= 1 && plan.crop_height >= 1 && plan.crop_x >= 0 && plan.crop_y >= 0 &&
               plan.crop_x <= width - plan.crop_width && plan.crop_y <= height - plan.crop_height,
           Fault::argument,
           "plan: crop box x %d, y %d, width %d, height %d leaves the picture of %d x %d (width x height)", plan.crop_x,
           plan.crop_y, plan.crop_width, plan.crop_height, width, height);
  PL_CHECK(plan.resize_height >= 1 && plan.resize_width >= 1 && plan.resize_height <= kMaxResizePx &&
               plan.resize_width <= kMaxResizePx,
           Fault::argument, "plan: the resize is %d x %d, want height and width in [1, %d]", plan.resize_height,
           plan.resize_width, kMaxResizePx);
  check_sides("the view", plan.out_height, plan.out_width);
  check_window(plan);
  if (plan.via_height != 0 || plan.via_width != 0)
    check_sides("the first resize (via)", plan.via_height, plan.via_width);
  check_interpolation(plan.interpolation);
  check_resize_order(plan.resize_order);
  check_jitter_plan(plan);
  PL_CHECK(plan.blur_sigma >= 0.0f && plan.blur_sigma <= 1000.0f, Fault::argument,
           "plan: blur_sigma is %g, want [0, 1000] pixels", plan.blur_sigma);
  if (plan.blur_sigma > 0.0f) check_blur_kernel(plan.blur_kernel, plan.out_height, plan.out_width);
  PL_CHECK(plan.solarize_threshold >= -1 && plan.solarize_threshold <= 256, Fault::argument,
           "plan: solarize_threshold is %d, want [-1, 256]", plan.solarize_threshold);
}

}  // namespace pass_loader
