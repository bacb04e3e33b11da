// What the user asked for: ranges and probabilities, one row for each view. Python fills a structured array with them
// (pass_loader/recipes/recipe.py). plan_checks.cpp checks them, and plan.cpp draws from them.
#pragma once
#include <cstdint>
#include <type_traits>

namespace pass_loader {

constexpr uint8_t kAnyResample = 255;  // bilinear or bicubic, drawn

// Where a view lies.
enum class Place : uint8_t {
  random_resized = 0,  // a random crop box, resized to the view's size; with resize_short alone the centre
  centre = 1,          // a window of the view's size in the middle of the picture
  drawn = 2,           // a window of the view's size anywhere in the picture
};

// What a window shows outside the picture. Numbers stand in plans that users keep.
enum class Padding : uint8_t {
  none = 0,       // nothing: the window is inside
  black = 1,      // zeros
  edge = 2,       // the nearest pixel
  reflect = 3,    // mirrored, without repeating the edge
  symmetric = 4,  // mirrored, repeating the edge
};

// A row is a view's own, or one of its alternatives: those of all views follow after all views' own rows, in the order
// of their views. An alternative that is drawn stands in for the view's own row, under the view's keys.
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
  uint8_t interpolation;                // PIL's Resampling value, 0 to 5; kAnyResample
  uint8_t blur_kernel;                  // 0: PIL's GaussianBlur; odd: torchvision's kernel with so many taps
  uint8_t resize_order;                 // see ViewPlan
  Place place;                          // not random_resized: the view is a window of the picture
  Padding padding;                      // of a window: what lies outside the picture
  bool pad_if_needed;                   // of a drawn window: a picture that is smaller is padded
  int32_t resize_short;                 // the picture is resized to this short side; 0: it is not
  int32_t via_height, via_width;        // an intermediate resize of the crop; 0: none
  int32_t box_of;                       // the earlier view from which this one takes crop box and flip; -1: its own
  int32_t resize_height, resize_width;  // of a window: the picture is resized to this; 0: it is not
  int32_t pad_left, pad_top, pad_right, pad_bottom;  // of a window: what is added to the resized picture
  int32_t instead_of;    // of an alternative: 1 + the view that it may stand in for; 0: a view's own row
  int32_t decided_with;  // 1 + the earlier view whose choice among alternatives is this view's too; 0: its own
  double instead_below;  // of an alternative: taken by a number below this, and not below that of the one before it
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
  erase = 19,  // after normalisation; only others of its kind follow
  perspective = 20,
  ground = 21,  // before the crop alone: the colour of what a window shows outside the picture where that is black
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
  random_perspective = 74,
};

// How the value of a step is drawn.
enum class ValueKind : uint8_t {
  none = 0,
  one_of = 1,   // evenly one of values[0 .. count)
  uniform = 2,  // in [values[0], values[1])
  level = 3,    // timm's: see plan_steps.cpp
  affine = 4,   // ranges of the angle, the shares that it is moved by, scale and shear: see plan_steps.cpp
  erase = 5,    // ranges of the share of the area and of the aspect, an EraseMode, three values: see plan_steps.cpp
};

// What a rectangle is erased with.
enum class EraseMode : int16_t {
  values = 0,  // one a channel
  colour = 1,  // one normal number a channel
  noise = 2,   // normal numbers
};

constexpr int kStepValues = 64;

// A step that a view may take: a row of the steps' table. Rows are in the order of view, group, option and place; those
// before the crop come first, with groups of their own. `view` is a row of ViewSpecs. A view's groups are decided one
// after the other: whether it runs, and which one of its options. An option is a row of steps, each of which has its
// own probability.
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
  bool before;  // it works on the whole picture, before the crop
};
static_assert(std::is_trivially_copyable_v<StepSpec>);

}  // namespace pass_loader
