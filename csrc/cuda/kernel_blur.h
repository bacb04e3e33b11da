// torchvision's GaussianBlur: one chain of fused multiply-adds for each value, over all taps in raster order; then
// solarize and normalise.
#pragma once
#include <cmath>

#include "cuda/jitter.h"

namespace pass_loader::cuda {

PL_BOTH int32_t reflected(int32_t i, int32_t size) { return i < 0 ? -i : i < size ? i : 2 * (size - 1) - i; }

PL_BOTH uint8_t round_half_even(float value) {  // in [0, 255.5)
  constexpr float kWhole = 12582912.0f;         // 1.5 * 2^23
  return static_cast<uint8_t>(static_cast<int32_t>(value + kWhole - kWhole));
}

struct KernelBlur {
  static constexpr int kPhases = 2;
  struct Shared {
    NormalizeTable table;
  };
  Batch batch;

  // Blurs one channel of a group, one row of the kernel after another. The sums of pixels past the view's edge are
  // undefined.
  PL_BOTH void blur(const View& view, int32_t channel, const Group& at, int32_t (&out)[kGroup]) const {
    const float* taps = batch.taps + view.taps_at;
    const int32_t radius = view.taps / 2;
    float sums[kGroup] = {};
    for (int32_t row = 0; row < view.taps; ++row) {
      const uint8_t* in = rows_of(batch, view).at(channel, reflected(at.y + row - radius, view.height));
      auto pixel = [&](int32_t x) {
        const int32_t inside = reflected(x, view.width);
        return static_cast<float>(in[inside < 0 ? 0 : inside]);  // below 0 only for pixels past the edge
      };
      float window[kGroup];  // the pixels under the current tap
      PL_UNROLL
      for (int32_t i = 0; i < kGroup - 1; ++i) window[i + 1] = pixel(at.x - radius + i);
      for (int32_t column = 0; column < view.taps; ++column) {
        PL_UNROLL
        for (int32_t i = 0; i < kGroup - 1; ++i) window[i] = window[i + 1];
        window[kGroup - 1] = pixel(at.x - radius + column + kGroup - 1);
        const float weight = taps[row] * taps[column];
        PL_UNROLL
        for (int32_t i = 0; i < kGroup; ++i) sums[i] = fmaf(window[i], weight, sums[i]);
      }
    }
    PL_UNROLL
    for (int32_t i = 0; i < kGroup; ++i) out[i] = solarized(round_half_even(sums[i]), view.solarize_threshold);
  }

  PL_BOTH void run(int phase, int32_t block, int32_t thread, Shared& shared) const {
    const Tile tile = batch.kernel.tiles[block];
    const View& view = batch.views[tile.item];
    if (phase == 0) return load_table(batch, thread, shared.table);
    for (int32_t k = thread; k < kGroupsPerTile; k += kThreads) {
      const Group at = group_of(view.height, view.width, tile.part * kGroupsPerTile + k);
      if (at.valid == 0) return;
      Pixels p;
      PL_UNROLL
      for (int32_t c = 0; c < 3; ++c) blur(view, c, at, p.of[c]);
      store_pixels(batch, view, shared.table, at, p);
    }
  }
};

}  // namespace pass_loader::cuda
