// Converts bytes to the batch's elements by a table of 3 x 256.
#pragma once
#include "cuda/descriptors.h"
#include "cuda/memory.h"

namespace pass_loader::cuda {

// Three channels of a group of neighbouring pixels in a row. Only the first `valid` pixels belong to the view.
struct Pixels {
  int32_t of[3][kGroup];
};

struct Group {
  int32_t y, x, valid;
};

// Returns group number `index` of a view. valid is 0 past its end.
PL_BOTH Group group_of(int32_t height, int32_t width, int32_t index) {
  const int32_t across = (width + kGroup - 1) / kGroup, y = index / across, x = (index - y * across) * kGroup;
  if (y >= height) return {0, 0, 0};
  return {y, x, width - x < kGroup ? width - x : kGroup};
}

struct NormalizeTable {
  uint32_t of[3 * 256];
};
PL_BOTH void load_table(const Batch& batch, int32_t thread, NormalizeTable& table) {
  for (int32_t i = thread; i < 3 * 256; i += kThreads) table.of[i] = batch.normalize_table[i];
}

// Returns the element's index in its view.
PL_BOTH int64_t place_of(const View& view, bool channels_last, int32_t channel, int32_t y, int32_t x) {
  const int64_t pixel = static_cast<int64_t>(y) * view.width + x;
  return channels_last ? 3 * pixel + channel : static_cast<int64_t>(channel) * view.height * view.width + pixel;
}

PL_BOTH void store_pixels(const Batch& batch, const View& view, const NormalizeTable& table, const Group& at,
                          const Pixels& pixels) {
  auto* out = static_cast<uint8_t*>(view.out);
  const int32_t bytes = batch.form.element_bytes;
  const bool last = batch.form.channels_last;
  uint32_t v[3][kGroup];
  PL_UNROLL
  for (int32_t c = 0; c < 3; ++c) {
    PL_UNROLL
    for (int32_t i = 0; i < kGroup; ++i) v[c][i] = table.of[c * 256 + pixels.of[c][i]];
  }
  if (!view.aligned || at.valid < kGroup) {
    PL_UNROLL
    for (int32_t c = 0; c < 3; ++c) {
      PL_UNROLL
      for (int32_t i = 0; i < kGroup; ++i)
        if (i < at.valid) store_one(out + place_of(view, last, c, at.y, at.x + i) * bytes, v[c][i], bytes);
    }
    return;
  }
  if (last) {
    uint8_t* to = out + place_of(view, true, 0, at.y, at.x) * bytes;
    const uint32_t four[3][4] = {{v[0][0], v[1][0], v[2][0], v[0][1]},
                                 {v[1][1], v[2][1], v[0][2], v[1][2]},
                                 {v[2][2], v[0][3], v[1][3], v[2][3]}};
    PL_UNROLL
    for (int32_t k = 0; k < 3; ++k) store_four(to + 4 * k * bytes, four[k], bytes);
  } else {
    PL_UNROLL
    for (int32_t c = 0; c < 3; ++c) store_four(out + place_of(view, false, c, at.y, at.x) * bytes, v[c], bytes);
  }
}

}  // namespace pass_loader::cuda
