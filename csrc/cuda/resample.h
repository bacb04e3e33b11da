// Crop, antialiased resize and flip: Pillow's two passes with 8 bits between them.
#pragma once
#include "cuda/jitter.h"
#include "filters.h"

namespace pass_loader::cuda {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

PL_BOTH int32_t clipped(int32_t sum) {
  sum >>= kWeightBits;
  return sum < 0 ? 0 : sum < 255 ? sum : 255;
}

struct Taps {
  int32_t first, count;
  const int32_t* weight;  // the first tap's; the next ones lie `stride` words apart
};
PL_BOTH Taps taps_of(const Batch& batch, const Axis& axis, int32_t out) {
  const int32_t* table = batch.tables + axis.table;
  return {table[out], table[axis.out_size + out], table + int64_t{2} * axis.out_size + out};
}

PL_BOTH const uint8_t* source_of(const Batch& batch, const Resize& resize) {
  return resize.source != nullptr ? resize.source : batch.pixels + resize.source_at;
}

// Resizes from the crop to `between`. A tile is kLinesPerTile rows of any plane.
struct FirstPass {
  static constexpr int kPhases = 1, kWarp = 32, kLines = kLinesPerTile / (kThreads / kWarp);
  struct Shared {};
  Batch batch;
  Tiles tiles;

  // Makes the rows of [first, first + kLines) that are below `lines`.
  PL_BOTH void across(const Resize& resize, int32_t first, int32_t lines, int32_t lane) const {
    const uint8_t *source = source_of(batch, resize), *in[kLines];
    PL_UNROLL
    for (int32_t k = 0; k < kLines; ++k) {
      const int32_t line = first + k < lines ? first + k : lines - 1, plane = line / resize.between_height;
      in[k] = source + plane * resize.source_plane +
              (resize.begin + line - plane * resize.between_height) * resize.source_row;
    }
    uint8_t* out = batch.pixels + resize.between + static_cast<int64_t>(first) * resize.between_row;
    for (int32_t x = lane; x < resize.between_width; x += kWarp) {
      const Taps taps = taps_of(batch, resize.horizontal, x);
      const int32_t* weight = taps.weight;
      int32_t sums[kLines];
      PL_UNROLL
      for (int32_t k = 0; k < kLines; ++k) sums[k] = kHalf;
      for (int32_t t = taps.first; t < taps.first + taps.count; ++t, weight += resize.horizontal.out_size) {
        PL_UNROLL
        for (int32_t k = 0; k < kLines; ++k) sums[k] += in[k][t] * *weight;
      }
      PL_UNROLL
      for (int32_t k = 0; k < kLines; ++k)
        if (first + k < lines) out[int64_t{k} * resize.between_row + x] = static_cast<uint8_t>(clipped(sums[k]));
    }
  }

  // Makes one row.
  PL_BOTH void down(const Resize& resize, int32_t line, int32_t lane) const {
    const int32_t plane = line / resize.between_height;
    const Taps taps = taps_of(batch, resize.vertical, line - plane * resize.between_height);
    const uint8_t* in = source_of(batch, resize) + plane * resize.source_plane;
    in += taps.first * resize.source_row + resize.begin;
    uint8_t* out = batch.pixels + resize.between + static_cast<int64_t>(line) * resize.between_row;
    for (int32_t x = lane; x < resize.between_width; x += kWarp) {
      const int32_t* weight = taps.weight;
      int32_t sum = kHalf;
      for (int32_t t = 0; t < taps.count; ++t, weight += resize.vertical.out_size)
        sum += in[t * resize.source_row + x] * *weight;
      out[x] = static_cast<uint8_t>(clipped(sum));
    }
  }

  PL_BOTH void run(int, int32_t block, int32_t thread, Shared&) const {
    const Tile tile = tiles.tiles[block];
    const Resize& resize = batch.resizes[tile.item];
    const int32_t lines = 3 * resize.between_height, lane = thread % kWarp;
    const int32_t first = tile.part * kLinesPerTile + thread / kWarp * kLines;
    if (first >= lines) return;
    if (!resize.vertical_first) return across(resize, first, lines, lane);
    for (int32_t line = first; line < first + kLines && line < lines; ++line) down(resize, line, lane);
  }
};

// Resizes from `between` to the view and runs the steps before contrast. A tile is kGroupsPerTile groups of pixels.
struct SecondPass {
  static constexpr int kPhases = 3, kParts = 16;
  struct Shared {
    uint32_t luma[kThreads], part[kParts];
  };
  Batch batch;
  Tiles tiles;

  PL_BOTH void down(const Resize& resize, const Group& at, Pixels& p) const {
    const Taps taps = taps_of(batch, resize.vertical, at.y);
    const int32_t *weight = taps.weight, row = resize.between_row;
    const int64_t plane = static_cast<int64_t>(resize.between_height) * row;
    const uint8_t* in = batch.pixels + resize.between + static_cast<int64_t>(taps.first - resize.begin) * row + at.x;
    PL_UNROLL
    for (int32_t c = 0; c < 3; ++c) {
      PL_UNROLL
      for (int32_t i = 0; i < kGroup; ++i) p.of[c][i] = kHalf;
    }
    for (int32_t t = 0; t < taps.count; ++t, weight += resize.vertical.out_size, in += row) {
      PL_UNROLL
      for (int32_t c = 0; c < 3; ++c) {
        const uint32_t word = load_word(in + c * plane);
        PL_UNROLL
        for (int32_t i = 0; i < kGroup; ++i) p.of[c][i] += byte_of(word, i) * *weight;
      }
    }
  }

  PL_BOTH void across(const Resize& resize, const Group& at, Pixels& p) const {
    const int64_t plane = static_cast<int64_t>(resize.between_height) * resize.between_row;
    const uint8_t* row = batch.pixels + resize.between + static_cast<int64_t>(at.y) * resize.between_row - resize.begin;
    PL_UNROLL
    for (int32_t i = 0; i < kGroup; ++i) {
      const Taps taps = taps_of(batch, resize.horizontal, at.x + (i < at.valid ? i : 0));
      const int32_t* weight = taps.weight;
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      for (int32_t t = taps.first; t < taps.first + taps.count; ++t, weight += resize.horizontal.out_size) {
        PL_UNROLL
        for (int32_t c = 0; c < 3; ++c) sums[c] += row[c * plane + t] * *weight;
      }
      PL_UNROLL
      for (int32_t c = 0; c < 3; ++c) p.of[c][i] = sums[c];
    }
  }

  // Sums luma over the thread's pixels, in case contrast needs it.
  PL_BOTH uint32_t render(const Tile& tile, int32_t thread) const {
    const Resize& resize = batch.resizes[tile.item];
    const View* view = tile.item < batch.view_count ? &batch.views[tile.item] : nullptr;
    const Rows rows{batch.pixels + resize.out, resize.vertical.out_size, resize.out_row};
    uint32_t sum = 0;
    for (int32_t k = thread; k < kGroupsPerTile; k += kThreads) {
      const Group at = group_of(rows.height, resize.horizontal.out_size, tile.part * kGroupsPerTile + k);
      if (at.valid == 0) break;
      Pixels p;
      if (resize.vertical_first)
        across(resize, at, p);
      else
        down(resize, at, p);
      PL_UNROLL
      for (int32_t c = 0; c < 3; ++c) {
        PL_UNROLL
        for (int32_t i = 0; i < kGroup; ++i) p.of[c][i] = clipped(p.of[c][i]);
      }
      if (view != nullptr) run_steps(*view, 0, view->contrast_at, 0.0f, p);
      PL_UNROLL
      for (int32_t i = 0; i < kGroup; ++i) sum += i < at.valid ? static_cast<uint32_t>(luma_of(p, i)) : 0u;
      save_pixels(rows, at, p);
    }
    return sum;
  }

  PL_BOTH void run(int phase, int32_t block, int32_t thread, Shared& shared) const {
    const Tile tile = tiles.tiles[block];
    if (phase == 0) {
      shared.luma[thread] = render(tile, thread);
      return;
    }
    if (tile.item >= batch.view_count) return;
    if (batch.views[tile.item].contrast_at == batch.views[tile.item].step_count) return;
    uint32_t sum = 0;
    if (phase == 1 && thread < kParts) {
      for (int32_t i = thread; i < kThreads; i += kParts) sum += shared.luma[i];
      shared.part[thread] = sum;
    }
    if (phase == 2 && thread == 0) {
      for (int32_t i = 0; i < kParts; ++i) sum += shared.part[i];
      add_to(&batch.luma_sums[tile.item], sum);
    }
  }
};

}  // namespace pass_loader::cuda
