// All randomness of the project: takes sizes, returns decided numbers, and never sees pixels.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "draws.h"
#include "recipe.h"

namespace pass_loader {

// Part of saved states. Two builds with the same number draw the same plans.
constexpr int kPlanVersion = 1;

// The decided numbers of the fixed steps of one view. cpu/render, cuda/render and pass_loader/recipes/reference.py
// (PIL) execute them.
struct ViewPlan {
  int32_t crop_x, crop_y, crop_width, crop_height;    // full-resolution pixels, inside the picture
  int32_t resize_height, resize_width;                // what the crop box is resized to, antialiased
  int32_t offset_x, offset_y, out_height, out_width;  // the window of the resized picture that is the view
  int32_t via_height, via_width;                      // an intermediate resize; 0: none
  float brightness, contrast, saturation;             // factors
  float hue;                                          // turns, [-0.5, 0.5]
  float blur_sigma;                                   // output pixels; 0: no blur
  int16_t solarize_threshold;                         // -1: none; else x >= threshold becomes 255 - x
  int8_t jitter_order[4];  // the steps in their order: 0 brightness, 1 contrast, 2 saturation, 3 hue; -1: none
  uint8_t interpolation;   // PIL's Resampling value: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming
  uint8_t blur_kernel;     // 0: PIL's GaussianBlur; odd: torchvision's kernel with so many taps
  uint8_t resize_order;    // the order of the two passes, which have 8 bits in between: 0 as Pillow 13, 1 as Pillow 12
  bool flip, grayscale;
  Padding padding;  // what the window shows where it leaves the resized picture; none: it does not
};
static_assert(std::is_trivially_copyable_v<ViewPlan> && sizeof(ViewPlan) == 80);

// One decided step that follows those of the ViewPlan, or precedes them. It keeps the size of what it works on.
struct StepPlan {
  double matrix[8];  // affine: the first six, output pixel -> place in the view, as PIL's Image.transform;
                     // perspective: all eight; erase: left, top, width and height of the rectangle, then a value a
                     // channel, or the two words from which the noise is drawn
  float factor;      // brightness, contrast, saturation, sharpness; hue: turns; blur, kernel_blur: sigma
  int16_t level;     // posterize: bits that stay; solarize: threshold; solarize_add: what is added below 128;
                     // kernel_blur: taps; quarter_turn: 1, 2 or 3, counterclockwise; erase: an EraseMode
  StepOp op;         // one that a plan may hold; none: the program is over
  uint8_t resample;  // affine, perspective: PIL's Resampling value, 0 nearest, 2 bilinear, 3 bicubic
  uint8_t fill[3];   // affine, perspective, ground: the colour of what lies outside
  bool before;       // it works on the whole picture, before the crop; such steps come first
  uint8_t unused[4];
};
static_assert(std::is_trivially_copyable_v<StepPlan> && sizeof(StepPlan) == 80);

constexpr int kMaxViews = 256;
constexpr int kMaxAlternatives = 4096;     // of all views
constexpr int32_t kMaxOutPx = 16384;       // height or width of a view
constexpr int32_t kMaxResizePx = 1 << 30;  // height or width of a resize: of a thin picture, only a window is used

// Throws Error(argument), which names the view and the field.
void check_recipe(std::span<const ViewSpec> recipe);

// Returns the number of views: of the rows that are no alternatives. recipe has been checked.
size_t view_count(std::span<const ViewSpec> recipe);

// Returns the row that decides a view of this sample: its own, or one of its alternatives.
size_t drawn_row(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key);

// A pure function: the plans are the same on any thread and machine. recipe has been checked, height and width are at
// least 1, and plans.size() == view_count(recipe). Throws Error(record) if a window of a view does not fit into the
// picture.
void plan_views(std::span<const ViewSpec> recipe, const SampleKey& key, int32_t height, int32_t width,
                std::span<ViewPlan> plans);

// Plans one view alone, for a picture of another size than the others. The plan from which it takes its crop box is
// already there.
void plan_view(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key, int32_t height, int32_t width,
               std::span<ViewPlan> plans);

// The further steps of all views of a recipe. Made from checked rows; empty: no view has any.
class StepRecipe {
 public:
  StepRecipe() = default;
  // Throws Error(argument), which names the view and the step. recipe has been checked.
  StepRecipe(std::span<const StepSpec> rows, std::span<const ViewSpec> recipe);

  size_t count() const { return count_; }  // StepPlans that each view has room for
  bool has_colour() const;                 // a step fills with what is no gray
  bool erases() const;                     // a step runs after normalisation
  bool before_crop() const {               // a step works on the whole picture
    return std::any_of(rows_.begin(), rows_.end(), [](const StepSpec& row) { return row.before; });
  }

  // Fills the `count` plans of one view of a picture of this size. recipe is the one that this was made for. Throws
  // Error(record) if a step before the crop runs on a picture that is too large for it.
  void plan(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key, int32_t height, int32_t width,
            std::span<StepPlan> steps) const;

 private:
  std::span<const StepSpec> rows_of(size_t view) const;

  std::vector<StepSpec> rows_;
  std::vector<size_t> first_;  // row of each view, and the end
  size_t count_ = 0;
};

// Plans as Python holds them: each row is a ViewPlan and the recipe's number of StepPlans after it.
struct PlanRows {
  uint8_t* memory = nullptr;  // borrowed; null: nobody wants them
  size_t steps = 0;           // of each row

  static size_t bytes(size_t steps) { return sizeof(ViewPlan) + steps * sizeof(StepPlan); }
  void write(size_t row, const ViewPlan& plan, std::span<const StepPlan> further) const;
  void clear(size_t row, size_t count) const;
};

// Throws Error(argument) if steps cannot be executed on a view of this plan of a picture of this size.
void check_steps(std::span<const StepPlan> steps, const ViewPlan& plan, int32_t height, int32_t width, int channels);

// Which view of a sample takes its pixels from a companion, and from which one.
struct CompanionDraw {
  int32_t view;        // [0, views); -1: none does
  uint32_t companion;  // [0, companions)
};

CompanionDraw draw_companion(const SampleKey& key, uint32_t views, uint32_t companions, double probability);

// Returns true if Pillow runs the vertical pass of a resize first. Pillow 12 runs the horizontal one first, except for
// crops more than 100 times as tall as wide (12.3, Image.resize). Pillow 13 runs the vertical one first if it removes
// more than twice as many rows as the other removes columns (python-pillow/Pillow#9549; tests/native/test_resample.py
// finds the rule again by experiment).
bool vertical_first(uint8_t resize_order, int32_t height, int32_t width, int32_t resize_height, int32_t resize_width);

// Throws Error(argument), which names the step, if a recipe or a plan has a step that is not possible for pictures of
// 16 bits: any but crop, resize and flip. Pillow has no others for its mode "I;16".
void check_deep(std::span<const ViewSpec> recipe, const StepRecipe& steps);
void check_deep(const ViewPlan& plan, std::span<const StepPlan> steps);

// Throws Error(argument) if a plan cannot be executed on a picture of this size.
void check_plan(const ViewPlan& plan, int32_t height, int32_t width);

}  // namespace pass_loader
