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

}  // namespace pass_loader
