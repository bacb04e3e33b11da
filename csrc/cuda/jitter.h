// Colour steps on a group of pixels in registers, and the kernel that ends views without a blur.
#pragma once
#include "cuda/normalize.h"
#include "pixels.h"

namespace pass_loader::cuda {

PL_BOTH void blend_all(Pixels& p, float from, float factor) {
  PL_UNROLL
  for (int32_t c = 0; c < 3; ++c) {
    PL_UNROLL
    for (int32_t i = 0; i < kGroup; ++i) p.of[c][i] = blend(from, static_cast<float>(p.of[c][i]), factor);
  }
}

PL_BOTH int32_t luma_of(const Pixels& p, int32_t i) { return luma(p.of[0][i], p.of[1][i], p.of[2][i]); }

PL_BOTH void saturate(Pixels& p, float factor) {
  PL_UNROLL
  for (int32_t i = 0; i < kGroup; ++i) {
    const float gray = static_cast<float>(luma_of(p, i));
    PL_UNROLL
    for (int32_t c = 0; c < 3; ++c) p.of[c][i] = blend(gray, static_cast<float>(p.of[c][i]), factor);
  }
}

PL_BOTH void shift_hue(Pixels& p, int32_t shift) {
  PL_UNROLL
  for (int32_t i = 0; i < kGroup; ++i) {
    const HueQuotients q = hue_quotients_of(p.of[0][i], p.of[1][i], p.of[2][i]);
    const int32_t hue = q.floor - (q.exact && falls_short(q.floor) ? 1 : 0);
    const HueRamps w = hue_ramps_of((hue + shift) & 255);
    p.of[0][i] = channel_byte(q.value, q.saturation, w.r);
    p.of[1][i] = channel_byte(q.value, q.saturation, w.g);
    p.of[2][i] = channel_byte(q.value, q.saturation, w.b);
  }
}

PL_BOTH void to_gray(Pixels& p) {
  PL_UNROLL
  for (int32_t i = 0; i < kGroup; ++i) p.of[0][i] = p.of[1][i] = p.of[2][i] = luma_of(p, i);
}

// Runs steps [begin, end) of the view. mean: the value that contrast moves away from.
PL_BOTH void run_steps(const View& view, int32_t begin, int32_t end, float mean, Pixels& p) {
  for (int32_t k = begin; k < end; ++k) {
    const int32_t step = view.steps[k];
    if (step == 0) blend_all(p, 0.0f, view.factor[0]);
    if (step == 1) blend_all(p, mean, view.factor[1]);
    if (step == 2) saturate(p, view.factor[2]);
    if (step == 3) shift_hue(p, view.hue_shift);
  }
}

// Three of our own planes, one after another. Rows are padded to whole groups.
struct Rows {
  uint8_t* first;
  int32_t height, stride;

  PL_BOTH uint8_t* at(int32_t channel, int32_t y) const {
    return first + (static_cast<int64_t>(channel) * height + y) * stride;
  }
};
PL_BOTH Rows rows_of(const Batch& batch, const View& view) {
  return {batch.pixels + view.pixels, view.height, view.row};
}

PL_BOTH void load_pixels(const Rows& rows, const Group& at, Pixels& p) {
  PL_UNROLL
  for (int32_t c = 0; c < 3; ++c) {
    const uint32_t word = load_word(rows.at(c, at.y) + at.x);
    PL_UNROLL
    for (int32_t i = 0; i < kGroup; ++i) p.of[c][i] = byte_of(word, i);
  }
}

PL_BOTH void save_pixels(const Rows& rows, const Group& at, const Pixels& p) {
  PL_UNROLL
  for (int32_t c = 0; c < 3; ++c) {
    uint32_t word = 0;
    PL_UNROLL
    for (int32_t i = 0; i < kGroup; ++i) word |= static_cast<uint32_t>(p.of[c][i]) << (8 * i);
    store_word(rows.at(c, at.y) + at.x, word);
  }
}

// Runs contrast and the steps after it, and grayscale. Then it solarizes and normalises, or writes the pixels back if a
// blur comes first.
struct Finish {
  static constexpr int kPhases = 2;
  struct Shared {
    NormalizeTable table;
    float mean;
  };
  Batch batch;

  PL_BOTH void prepare(const View& view, int32_t item, int32_t thread, Shared& shared) const {
    load_table(batch, thread, shared.table);
    if (thread != 0 || view.contrast_at == view.step_count) return;
    const double count = static_cast<double>(static_cast<int64_t>(view.height) * view.width);
    const double mean = static_cast<double>(batch.luma_sums[item]) / count;
    shared.mean = static_cast<float>(static_cast<int32_t>(mean + 0.5));
  }

  PL_BOTH void run(int phase, int32_t block, int32_t thread, Shared& shared) const {
    const Tile tile = batch.second.tiles[block];
    const View& view = batch.views[tile.item];
    if (phase == 0) return prepare(view, tile.item, thread, shared);
    if (view.blur != Blur::none && view.contrast_at == view.step_count && !view.grayscale) return;
    for (int32_t k = thread; k < kGroupsPerTile; k += kThreads) {
      const Group at = group_of(view.height, view.width, tile.part * kGroupsPerTile + k);
      if (at.valid == 0) return;
      Pixels p;
      load_pixels(rows_of(batch, view), at, p);
      run_steps(view, view.contrast_at, view.step_count, shared.mean, p);
      if (view.grayscale) to_gray(p);
      if (view.blur != Blur::none) {
        save_pixels(rows_of(batch, view), at, p);
        continue;
      }
      PL_UNROLL
      for (int32_t c = 0; c < 3; ++c) {
        PL_UNROLL
        for (int32_t i = 0; i < kGroup; ++i) p.of[c][i] = solarized(p.of[c][i], view.solarize_threshold);
      }
      store_pixels(batch, view, shared.table, at, p);
    }
  }
};

}  // namespace pass_loader::cuda
