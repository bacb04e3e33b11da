#include "cpu/blur.h"

#include <algorithm>
#include <cmath>

#include "cpu/transpose.h"
#include "isa.h"

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = 32;
constexpr int kPasses = 3;

// A box of real-valued radius: 2 * radius + 1 pixels of weight ww and one on each side of weight fw, in 1 / 2^24.
struct Box {
  int radius;
  uint32_t ww, fw;
};

// Pillow, BoxBlur.c: _gaussian_blur_radius and ImagingHorizontalBoxBlur. float where Pillow has float: a radius in
// double gives other weights and then other pixels.
Box box_of(float sigma) {
  float sigma2 = sigma * sigma / kPasses;
  float length = static_cast<float>(std::sqrt(12.0 * sigma2 + 1.0));
  float whole = static_cast<float>(std::floor((length - 1.0) / 2.0));
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * sigma2);
  part /= 6 * (sigma2 - (whole + 1) * (whole + 1));
  float radius = whole + part;
  Box box;
  box.radius = static_cast<int>(radius);
  box.ww = static_cast<uint32_t>(16777216.0f / (radius * 2 + 1));
  box.fw = ((1u << 24) - static_cast<uint32_t>(box.radius * 2 + 1) * box.ww) / 2;
  return box;
}

// One pass down kLanes columns: a running sum over the box, edges repeated.
PL_INLINE void blur_columns(const uint8_t* in, uint8_t* out, int height, size_t stride, const Box& box) {
  auto row = [&](int y) { return in + static_cast<size_t>(std::clamp(y, 0, height - 1)) * stride; };
  uint32_t sum[kLanes];
  for (int i = 0; i < kLanes; ++i) sum[i] = in[i] * static_cast<uint32_t>(box.radius + 1);
  for (int y = 0; y < box.radius; ++y)
    for (int i = 0; i < kLanes; ++i) sum[i] += row(y)[i];
  for (int y = 0; y < height; ++y) {
    const uint8_t *leaving = row(y - box.radius - 1), *entering = row(y + box.radius), *next = row(y + box.radius + 1);
    uint8_t* to = out + static_cast<size_t>(y) * stride;
    for (int i = 0; i < kLanes; ++i) {
      sum[i] += static_cast<uint32_t>(entering[i]) - leaving[i];
      uint32_t far_pair = static_cast<uint32_t>(leaving[i]) + next[i];
      to[i] = static_cast<uint8_t>((sum[i] * box.ww + far_pair * box.fw + (1u << 23)) >> 24);
    }
  }
}

// Three passes down the columns of `a`, whose rows are padded to kLanes; the result is in `b`.
PL_INLINE void blur_down(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box) {
  for (size_t x = 0; x < stride; x += kLanes) {
    blur_columns(a + x, b + x, height, stride, box);
    blur_columns(b + x, a + x, height, stride, box);
    blur_columns(a + x, b + x, height, stride, box);
  }
}

PL_INLINE void blur_plane_body(uint8_t* plane, int height, int width, const Box& box, uint8_t* a, uint8_t* b) {
  const size_t down = round_up(height, kLanes), across = round_up(width, kLanes);
  transpose(plane, width, height, width, a, down);
  blur_down(a, b, width, down, box);
  transpose(b, down, width, height, a, across);
  blur_down(a, b, height, across, box);
  for (int y = 0; y < height; ++y) std::memcpy(plane + static_cast<size_t>(y) * width, b + y * across, width);
}

PL_LEVELS(blur_plane, (uint8_t * plane, int height, int width, const Box& box, uint8_t* a, uint8_t* b),
          (plane, height, width, box, a, b))

}  // namespace

void gaussian_blur(const ViewPixels& view, int height, int width, float sigma, BlurScratch& scratch) {
  const Box box = box_of(sigma);
  const size_t plane_bytes = round_up(height, kLanes) * round_up(width, kLanes);
  uint8_t* a = scratch.planes.need(2 * plane_bytes);
  for (int plane = 0; plane < 3; ++plane)
    blur_plane(view.pixels + plane * view.plane_stride, height, width, box, a, a + plane_bytes);
}

}  // namespace pass_loader::cpu
