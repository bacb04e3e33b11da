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

// How the first pass reads its source: by loads that may be of any kind of memory, or by those of constant data.
enum class Read : uint8_t { bytes, constant_bytes, constant_words };

// Resizes from the crop to `between`, in one of the ways that benchmarks/gpu/first_pass.py compares. A tile is
// kLinesPerTile rows of any plane. Lines: rows that a warp makes at once. Parts: blocks that share a tile. Blocks: how
// many shall have room on a multiprocessor, which limits the registers of a thread. Unroll: taps, or words, that are
// loaded before they are used.
template <int Lines, int Parts, int Blocks, int Unroll, Read kRead>
struct FirstPassOf {
  static constexpr int kPhases = 1, kWarp = 32, kWarps = kThreads / kWarp, kParts = Parts, kBlocks = Blocks;
  static constexpr int kLinesPerWarp = kLinesPerTile / Parts / kWarps;
  static_assert(kLinesPerWarp * kWarps * Parts == kLinesPerTile && kLinesPerWarp % Lines == 0);
  struct Shared {};
  Batch batch;
  Tiles tiles;

  // Adds the taps of one output to the sums of all rows.
  PL_BOTH void add(const uint8_t* const (&in)[Lines], const Taps& taps, int32_t stride, int32_t (&sums)[Lines]) const {
    const int32_t* weight = taps.weight;
    PL_UNROLL_BY(Unroll)
    for (int32_t t = taps.first; t < taps.first + taps.count; ++t, weight += stride) {
      PL_UNROLL
      for (int32_t k = 0; k < Lines; ++k)
        sums[k] += (kRead == Read::bytes ? in[k][t] : load_constant(in[k] + t)) * *weight;
    }
  }
  PL_BOTH void add_words(const uint8_t* const (&in)[Lines], const Taps& taps, int32_t stride,
                         int32_t (&sums)[Lines]) const {
    WordReader readers[Lines];
    PL_UNROLL
    for (int32_t k = 0; k < Lines; ++k) readers[k].begin(in[k] + taps.first, taps.count);
    const int32_t* weight = taps.weight;
    PL_UNROLL_BY(Unroll)
    for (int32_t left = taps.count; left > 0; left -= 4) {
      uint32_t words[Lines];
      PL_UNROLL
      for (int32_t k = 0; k < Lines; ++k) words[k] = readers[k].next(left);
      PL_UNROLL
      for (int32_t i = 0; i < 4; ++i, weight += stride) {
        const int32_t w = i < left ? *weight : 0;
        PL_UNROLL
        for (int32_t k = 0; k < Lines; ++k) sums[k] += byte_of(words[k], i) * w;
      }
    }
  }

  // Makes the rows of [first, first + Lines) that are below `lines`.
  PL_BOTH void across(const Resize& resize, int32_t first, int32_t lines, int32_t lane) const {
    const uint8_t *source = source_of(batch, resize), *in[Lines];
    PL_UNROLL
    for (int32_t k = 0; k < Lines; ++k) {
      const int32_t line = first + k < lines ? first + k : lines - 1, plane = line / resize.between_height;
      in[k] = source + plane * resize.source_plane +
              (resize.begin + line - plane * resize.between_height) * resize.source_row;
    }
    uint8_t* out = batch.pixels + resize.between + static_cast<int64_t>(first) * resize.between_row;
    for (int32_t x = lane; x < resize.between_width; x += kWarp) {
      const Taps taps = taps_of(batch, resize.horizontal, x);
      int32_t sums[Lines];
      PL_UNROLL
      for (int32_t k = 0; k < Lines; ++k) sums[k] = kHalf;
      if constexpr (kRead == Read::constant_words)
        add_words(in, taps, resize.horizontal.out_size, sums);
      else
        add(in, taps, resize.horizontal.out_size, sums);
      PL_UNROLL
      for (int32_t k = 0; k < Lines; ++k)
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
    const Tile tile = tiles.tiles[block / kParts];
    const Resize& resize = batch.resizes[tile.item];
    const int32_t lines = 3 * resize.between_height, lane = thread % kWarp;
    const int32_t first = tile.part * kLinesPerTile + (block % kParts * kWarps + thread / kWarp) * kLinesPerWarp;
    if (resize.vertical_first) {
      for (int32_t line = first; line < first + kLinesPerWarp && line < lines; ++line) down(resize, line, lane);
      return;
    }
    PL_UNROLL
    for (int32_t k = 0; k < kLinesPerWarp; k += Lines)
      if (first + k < lines) across(resize, first + k, lines, lane);
  }
};

struct FirstPass : FirstPassOf<8, 1, 1, 4, Read::bytes> {};

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
