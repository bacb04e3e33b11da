// Windows of pictures, for the fuzzers.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "image.h"

namespace pass_loader {

// A window that follows from the input, so that a finding repeats.
inline Window window_of(const ConstPlanes& picture, uint32_t dice) {
  const auto draw = [&dice](int32_t size, int32_t* begin, int32_t* end) {
    dice = dice * 1664525 + 1013904223;
    *begin = static_cast<int32_t>((dice >> 8) % static_cast<uint32_t>(size));
    dice = dice * 1664525 + 1013904223;
    *end = *begin + 1 + static_cast<int32_t>((dice >> 8) % static_cast<uint32_t>(size - *begin));
  };
  Window window{};
  draw(picture.height, &window.top, &window.bottom);
  draw(picture.width, &window.left, &window.right);
  return window;
}

// Prints the first row that differs.
inline bool same_window(const ConstPlanes& part, const ConstPlanes& whole, const Window& window) {
  const auto [top, bottom, left, right] = window;
  for (int c = 0; c < whole.channels; ++c)
    for (int32_t y = top; y < bottom; ++y)
      if (std::memcmp(part.row(c, y) + left, whole.row(c, y) + left, static_cast<size_t>(right - left)) != 0) {
        std::fprintf(stderr, "plane %d, y %d of the window %d %d %d %d\n", c, y, top, bottom, left, right);
        return false;
      }
  return true;
}

}  // namespace pass_loader
