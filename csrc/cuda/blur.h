// Pillow's GaussianBlur: three extended box blurs along each axis, with 8 bits between passes and edges repeated in
// each.
#pragma once
#include "cuda/jitter.h"

namespace pass_loader::cuda {

// Computes outputs [at, at + kGroup) of a line of `size` bytes that lie `step` apart.
PL_BOTH void box_blur(const uint8_t* in, uint8_t* out, int32_t step, int32_t size, int32_t at, const Box& box) {
  auto value = [&](int32_t i) -> uint32_t { return in[(i < 0 ? 0 : i < size ? i : size - 1) * step]; };
  uint32_t sum = 0, leaving = value(at - box.radius - 1);
  for (int32_t i = at - box.radius; i <= at + box.radius; ++i) sum += value(i);
  PL_UNROLL
  for (int32_t k = at; k < at + kGroup; ++k) {
    const uint32_t next = value(k + box.radius + 1), oldest = value(k - box.radius);
    if (k < size) out[k * step] = static_cast<uint8_t>((sum * box.ww + (leaving + next) * box.fw + (1u << 23)) >> 24);
    sum += next - oldest;
    leaving = oldest;
  }
}

struct TwoBuffers {
  alignas(16) uint8_t a[kLineBytes], b[kLineBytes];
};

// Runs phases 1 to kBoxPasses of both kernels on `lines` lines of `size` bytes. The result is in b.
PL_BOTH void box_pass(int phase, int32_t thread, int32_t lines, int32_t line_step, int32_t size, int32_t step,
                      const Box& box, TwoBuffers& buffers) {
  const uint8_t* in = phase % 2 == 1 ? buffers.a : buffers.b;
  uint8_t* out = phase % 2 == 1 ? buffers.b : buffers.a;
  const int32_t groups = (size + kGroup - 1) / kGroup;
  for (int32_t i = thread; i < lines * groups; i += kThreads) {
    // Neighbouring threads take neighbouring bytes or words: groups of a line, or lines if these are columns.
    const int32_t line = step == 1 ? i / groups : i % lines, group = step == 1 ? i % groups : i / lines;
    box_blur(in + line * line_step, out + line * line_step, step, size, group * kGroup, box);
  }
}

// Blurs along the rows, in place. A block takes whole rows of any plane.
struct BlurAcross {
  static constexpr int kPhases = kBoxPasses + 2;
  using Shared = TwoBuffers;
  Batch batch;

  PL_BOTH void run(int phase, int32_t block, int32_t thread, Shared& shared) const {
    const Tile tile = batch.across.tiles[block];
    const View& view = batch.views[tile.item];
    const int32_t first = tile.part * view.across_lines, left = 3 * view.height - first;
    const int32_t lines = left < view.across_lines ? left : view.across_lines;
    uint8_t* rows = rows_of(batch, view).first + static_cast<int64_t>(first) * view.row;
    if (phase >= 1 && phase <= kBoxPasses)
      return box_pass(phase, thread, lines, view.row, view.width, 1, view.box, shared);
    for (int32_t i = kGroup * thread; i < lines * view.row; i += kGroup * kThreads) {
      if (phase == 0)
        store_word(shared.a + i, load_word(rows + i));
      else
        store_word(rows + i, load_word(shared.b + i));
    }
  }
};

// Blurs down the columns, then solarizes and normalises. A block takes neighbouring columns of one plane.
struct BlurDown {
  static constexpr int kPhases = kBoxPasses + 2;
  struct Shared {
    TwoBuffers buffers;
    uint32_t table[256];
  };
  Batch batch;

  struct Strip {
    int32_t plane, x, columns, stride;
  };
  PL_BOTH static Strip strip_of(const View& view, int32_t part) {
    const int32_t strips = (view.width + view.down_columns - 1) / view.down_columns, plane = part / strips;
    const int32_t x = (part - plane * strips) * view.down_columns, left = view.width - x;
    return {plane, x, left < view.down_columns ? left : view.down_columns, view.down_columns};
  }

  PL_BOTH void load(const View& view, const Strip& strip, int32_t thread, Shared& shared) const {
    shared.table[thread] = batch.normalize_table[strip.plane * 256 + thread];
    const uint8_t* plane = rows_of(batch, view).at(strip.plane, 0) + strip.x;
    for (int32_t i = thread; i < view.height * strip.stride; i += kThreads) {
      const int32_t y = i / strip.stride, x = i - y * strip.stride;
      if (x < strip.columns) shared.buffers.a[i] = plane[static_cast<int64_t>(y) * view.row + x];
    }
  }

  PL_BOTH void store(const View& view, const Strip& strip, int32_t thread, const Shared& shared) const {
    const int32_t bytes = batch.form.element_bytes;
    for (int32_t i = thread; i < view.height * strip.stride; i += kThreads) {
      const int32_t y = i / strip.stride, x = i - y * strip.stride;
      if (x >= strip.columns) continue;
      const uint32_t element = shared.table[solarized(shared.buffers.b[i], view.solarize_threshold)];
      const int64_t place = place_of(view, batch.form.channels_last, strip.plane, y, strip.x + x);
      store_one(static_cast<uint8_t*>(view.out) + place * bytes, element, bytes);
    }
  }

  PL_BOTH void run(int phase, int32_t block, int32_t thread, Shared& shared) const {
    const Tile tile = batch.down.tiles[block];
    const View& view = batch.views[tile.item];
    const Strip strip = strip_of(view, tile.part);
    if (phase == 0) return load(view, strip, thread, shared);
    if (phase > kBoxPasses) return store(view, strip, thread, shared);
    box_pass(phase, thread, strip.columns, 1, view.height, strip.stride, view.box, shared.buffers);
  }
};
static_assert(kThreads == 256);  // each thread copies one entry of the table

}  // namespace pass_loader::cuda
