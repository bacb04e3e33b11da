#include "cpu/sharpness.h"

#include <cstring>

#include "isa.h"
#include "pixels.h"

namespace pass_loader::cpu {
namespace {

// Pillow adds up the nine weighted bytes in float32 (Filter.c, ImagingFilter3x3, weights 1 and 5 of 13). The sum is no
// nearer to a half than 1/26, so (2 s + 13) / 26 is the same byte.
PL_INLINE void sharpen_row_body(const uint8_t* above, const uint8_t* row, const uint8_t* below, uint8_t* out,
                                int32_t width, float factor) {
  for (int32_t x = 1; x < width - 1; ++x) {
    const int32_t sum = above[x - 1] + above[x] + above[x + 1] + row[x - 1] + 5 * row[x] + row[x + 1] + below[x - 1] +
                        below[x] + below[x + 1];
    const int32_t smooth = (2 * sum + 13) / 26;
    out[x] = blend(static_cast<float>(smooth), row[x], factor);
  }
}
PL_LEVELS(sharpen_row,
          (const uint8_t* above, const uint8_t* row, const uint8_t* below, uint8_t* out, int32_t width, float factor),
          (above, row, below, out, width, factor))

}  // namespace

void sharpness(const ConstPlanes& view, float factor, const Planes& out) {
  const auto bytes = static_cast<size_t>(view.width);
  for (int c = 0; c < view.channels; ++c)
    for (int32_t y = 0; y < view.height; ++y) {  // the frame of one pixel is its own smooth one
      const uint8_t* row = view.row(c, y);
      uint8_t* to = out.row(c, y);
      if (y == 0 || y == view.height - 1 || view.width < 3) {
        std::memcpy(to, row, bytes);
        continue;
      }
      sharpen_row(view.row(c, y - 1), row, view.row(c, y + 1), to, view.width, factor);
      to[0] = row[0], to[bytes - 1] = row[bytes - 1];
    }
}

}  // namespace pass_loader::cpu
