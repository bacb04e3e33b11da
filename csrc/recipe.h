// What the user asked for: ranges and probabilities, one row for each view. Python fills a structured array with them
// (pass_loader/recipes/recipe.py). plan_checks.cpp checks them, and plan.cpp draws from them.
#pragma once
#include <cstdint>
#include <type_traits>

namespace pass_loader {

struct ViewSpec {
  int32_t out_height, out_width;  // pixels
  double scale_min, scale_max;    // share of the picture's area
  double ratio_min, ratio_max;    // width / height of the crop box
  double flip_probability;
  double jitter_probability;
  double brightness_min, brightness_max;  // factors; max < min: this step is absent
  double contrast_min, contrast_max;
  double saturation_min, saturation_max;
  double hue_min, hue_max;  // turns
  double grayscale_probability;
  double blur_probability;
  double blur_sigma_min, blur_sigma_max;  // output pixels
  double solarize_probability;
  int16_t solarize_threshold;
  uint8_t interpolation;          // PIL's Resampling value: 2 bilinear, 3 bicubic
  uint8_t blur_kernel;            // 0: PIL's GaussianBlur; odd: torchvision's kernel with so many taps
  uint8_t resize_order;           // see ViewPlan
  int32_t resize_short;           // 0: a random crop; else the centre of the picture, resized to this short side
  int32_t via_height, via_width;  // an intermediate resize of the crop; 0: none
  int32_t box_of;                 // the earlier view from which this one takes crop box and flip; -1: its own
};
static_assert(std::is_trivially_copyable_v<ViewSpec>);

// The operations of a view's further steps, which follow the fixed ones. Numbers stand in plans that users keep, so
// they are never reused.
enum class StepOp : uint8_t {
  none = 0,
  autocontrast = 1,
  equalize = 2,
  invert = 3,
  posterize = 4,
  solarize = 5,
  solarize_add = 6,
  brightness = 7,
  contrast = 8,
  saturation = 9,
  sharpness = 10,
  hue = 11,
  grayscale = 12,
  blur = 13,
  kernel_blur = 14,
  flip = 15,
  vertical_flip = 16,
  quarter_turn = 17,
  affine = 18,
  // Of specs alone. A plan holds what becomes of them: affine or quarter_turn, saturation, blur.
  shear_x = 64,
  shear_y = 65,
  translate_x = 66,  // pixels
  translate_y = 67,
  translate_x_share = 68,  // of the view's width
  translate_y_share = 69,
  rotate = 70,         // degrees, counterclockwise
  random_affine = 71,  // torchvision's RandomAffine
  desaturate = 72,     // the saturation's factor is 1 - value
  blur_below = 73,     // sigma is uniform in [0.1, 2 value)
};

// How the value of a step is drawn.
enum class ValueKind : uint8_t {
  none = 0,
  one_of = 1,   // evenly one of values[0 .. count)
  uniform = 2,  // in [values[0], values[1])
  level = 3,    // timm's: see plan_steps.cpp
  affine = 4,   // ranges of the angle, the shares that it is moved by, scale and shear: see plan_steps.cpp
};

constexpr int kStepValues = 64;
constexpr uint8_t kAnyResample = 255;  // bilinear or bicubic, drawn

// A step that a view may take: a row of the steps' table. Rows are in the order of view, group, option and place. A
// view's groups are decided one after the other: whether it runs, and which one of its options. An option is a row of
// steps, each of which has its own probability.
struct StepSpec {
  int32_t view, group, option;
  int32_t count;             // of values that one_of chooses from
  double group_probability;  // the same in all rows of a group
  double option_below;  // the option is chosen by a number below this, and not below the option's before; at last 1
  double probability;
  double values[kStepValues];
  int16_t taps;  // of kernel_blur
  StepOp op;
  ValueKind kind;
  bool whole;        // of level: cut to a whole number
  int8_t sign;       // of level: 1, -1, or 0 for either
  uint8_t resample;  // PIL's Resampling value: 0 nearest, 2 bilinear, 3 bicubic; kAnyResample
  uint8_t fill[3];
};
static_assert(std::is_trivially_copyable_v<StepSpec>);

}  // namespace pass_loader
