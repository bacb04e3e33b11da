// All randomness of the project: sizes in, decided numbers out, no pixels.
#pragma once
#include <cstdint>
#include <span>
#include <type_traits>

#include "draws.h"
#include "recipe.h"

namespace pass_loader {

// Part of saved states: two builds with the same number draw the same plans.
constexpr int kPlanVersion = 1;

// The decided numbers of one view; executed verbatim by cpu/render and by pass_loader/reference.py (PIL).
struct ViewPlan {
  int32_t crop_x, crop_y, crop_width, crop_height;    // full-resolution pixels, inside the picture
  int32_t resize_height, resize_width;                // what the crop box is resized to, antialiased
  int32_t offset_x, offset_y, out_height, out_width;  // the window of the resized picture that is the view
  int32_t via_height, via_width;                      // a first resize on the way; 0: none
  float brightness, contrast, saturation;             // factors
  float hue;                                          // turns, [-0.5, 0.5]
  float blur_sigma;                                   // output pixels; 0: no blur
  int16_t solarize_threshold;                         // -1: none; else x >= threshold becomes 255 - x
  int8_t jitter_order[4];  // steps in their order: 0 brightness, 1 contrast, 2 saturation, 3 hue; -1: none
  uint8_t interpolation;   // PIL's Resampling value: 2 bilinear, 3 bicubic
  uint8_t blur_kernel;     // 0: PIL's GaussianBlur; odd: torchvision's, of so many taps
  uint8_t resize_order;    // of the two passes, whose 8-bit middle differs: 0 as Pillow 13, 1 as Pillow 12
  bool flip, grayscale;
};
static_assert(std::is_trivially_copyable_v<ViewPlan>);

constexpr int kMaxViews = 256;
constexpr int32_t kMaxOutPx = 16384;       // height or width of a view
constexpr int32_t kMaxResizePx = 1 << 30;  // of a resize of which a window is cut: that of a thin picture is long

// Throws Error(argument) that names the view and the field.
void check_recipe(std::span<const ViewSpec> recipe);

// Pure: the same on any thread and machine. recipe was checked; height, width >= 1; plans.size() == recipe.size().
void plan_views(std::span<const ViewSpec> recipe, const SampleKey& key, int32_t height, int32_t width,
                std::span<ViewPlan> plans);

// One of them alone, of a picture of another size than the others. The plan that it takes its box from is there
// already.
void plan_view(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key, int32_t height, int32_t width,
               std::span<ViewPlan> plans);

// Which view of a sample takes its pixels from a companion, and from which of them.
struct CompanionDraw {
  int32_t view;        // [0, views); -1: none does
  uint32_t companion;  // [0, companions)
};

CompanionDraw draw_companion(const SampleKey& key, uint32_t views, uint32_t companions, double probability);

// Which pass of a resize Pillow runs first. 12: the horizontal one, but for crops over 100 times as tall as wide (12.3,
// Image.resize). 13: the vertical one where it takes away more than twice as many rows as the other takes columns
// (python-pillow/Pillow#9549; tests/native/test_resample.py finds the rule again by experiment).
bool vertical_first(uint8_t resize_order, int32_t height, int32_t width, int32_t resize_height, int32_t resize_width);

// Throws Error(argument) that names the step where a recipe or a plan has one that pictures of 16 bits do not have,
// which is any but crop, resize and flip: Pillow has none for its mode "I;16".
void check_deep(std::span<const ViewSpec> recipe);
void check_deep(const ViewPlan& plan);

// Throws Error(argument) where a plan cannot be executed on a picture of this size.
void check_plan(const ViewPlan& plan, int32_t height, int32_t width);

}  // namespace pass_loader
