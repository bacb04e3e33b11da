// Colour steps, in place, on contiguous planes of `count` pixels each. The planes are RGB, or one plane of gray, for
// which every step does what it would do to three equal planes, and what Pillow does to an image of mode "L". Whole
// tiles are read and written.
#pragma once
#include <cstddef>
#include <cstdint>

#include "image.h"

namespace pass_loader::cpu {

// The planes lie plane_stride bytes apart; plane_stride >= count rounded up to kTile.
struct ViewPixels {
  uint8_t* pixels;
  size_t count;
  size_t plane_stride;
  int channels;
};

// Pillow's ImageEnhance, which uses Image.blend: in1 + factor * (in2 - in1) in float32, clipped and truncated.
void brightness(const ViewPixels& view, float factor);
void contrast(const ViewPixels& view, float factor);    // around mean_luma
void saturation(const ViewPixels& view, float factor);  // around each pixel's L

float mean_luma(const ViewPixels& view);  // int(mean of L + 0.5)

// torchvision's adjust_hue on PIL images: the hue byte of HSV is shifted by (int)((double)turns * 255) modulo 256.
void hue(const ViewPixels& view, float turns);

// Returns the picture itself if it is gray, else its luma in one plane, as convert("L"). `memory` owns that plane.
ConstPlanes to_gray(const ConstPlanes& picture, Scratch<uint8_t>& memory);

void grayscale(const ViewPixels& view);                // ITU-R 601: (19595 R + 38470 G + 7471 B + 32768) >> 16
void solarize(const ViewPixels& view, int threshold);  // x >= threshold becomes 255 - x

}  // namespace pass_loader::cpu
