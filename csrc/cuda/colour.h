// Converts decoded components to planar RGB by libjpeg's smooth upsampling and JFIF's conversion. The bytes are those
// of ../jpeg/frame.cpp and ../jpeg/colour.cpp.
#pragma once
#include "cuda/descriptors.h"
#include "cuda/memory.h"

namespace pass_loader::cuda {

// One picture. Rows begin at multiples of 4. Up to a multiple of 4 bytes, they are readable, and those of rgb are
// writable.
struct Components {
  const uint8_t* planes[3];  // Y, Cb, Cr; a gray picture has the first alone
  int64_t rows[3];           // bytes from row to row
  int32_t height, width;
  int32_t chroma_height, chroma_width;
  uint8_t* rgb;  // three planes; three equal ones for a gray picture
  int64_t rgb_row, rgb_plane;
  int8_t wide, tall;  // pixels for each sample of chroma: 1 or 2
  bool gray;
};
static_assert(std::is_trivially_copyable_v<Components>);

// The pictures of one launch. A tile is kGroupsPerTile groups of a picture.
struct Conversion {
  const Components* pictures;
  Tiles tiles;
};

PL_BOTH int32_t clamped(int32_t v, int32_t least, int32_t most) { return v < least ? least : v > most ? most : v; }

// Returns the samples of plane c for four neighbouring pixels, from x, a multiple of 4.
PL_BOTH void upsample_four(const Components& p, int c, int32_t y, int32_t x, int32_t (&out)[kGroup]) {
  const uint8_t* plane = p.planes[c];
  if (c == 0 || (p.wide == 1 && p.tall == 1)) {
    const uint32_t word = load_word(plane + y * p.rows[c] + x);
    PL_UNROLL
    for (int i = 0; i < kGroup; ++i) out[i] = byte_of(word, i);
    return;
  }
  const bool lower = p.tall == 2 && y % 2 == 1;
  const int32_t near = y / p.tall;
  const int32_t far = p.tall == 1 ? near : clamped(lower ? near + 1 : near - 1, 0, p.chroma_height - 1);
  const uint8_t *near_row = plane + near * p.rows[c], *far_row = plane + far * p.rows[c];
  if (p.wide == 1) {
    PL_UNROLL
    for (int i = 0; i < kGroup; ++i) out[i] = (3 * near_row[x + i] + far_row[x + i] + (lower ? 2 : 1)) >> 2;
    return;
  }
  if (p.chroma_width <= 2) {  // jdsample.c: too narrow for the triangle filter, so samples are repeated both ways
    PL_UNROLL
    for (int i = 0; i < kGroup; ++i) out[i] = near_row[clamped((x + i) / 2, 0, p.chroma_width - 1)];
    return;
  }
  int32_t sums[4];  // columns x / 2 - 1 to x / 2 + 2
  PL_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int32_t at = clamped(x / 2 - 1 + i, 0, p.chroma_width - 1);
    sums[i] = p.tall == 2 ? 3 * near_row[at] + far_row[at] : near_row[at];
  }
  const int32_t shift = 2 * p.tall, even = p.tall == 2 ? 8 : 1, odd = p.tall == 2 ? 7 : 2;
  PL_UNROLL
  for (int i = 0; i < 2; ++i) {
    out[2 * i] = (3 * sums[i + 1] + sums[i] + even) >> shift;
    out[2 * i + 1] = (3 * sums[i + 1] + sums[i + 2] + odd) >> shift;
  }
}

struct Rgb {
  uint32_t of[3];
};

// Fractions have 16 bits, as in ../jpeg/colour.cpp.
PL_BOTH Rgb ycc_to_rgb(int32_t y, int32_t blue, int32_t red) {
  const int32_t cb = blue - 128, cr = red - 128;
  const int32_t r = y + cr + (((2 * cr * 26345 >> 16) + 1) >> 1);
  const int32_t g = y - cr + ((18734 * cr - 22554 * cb + 32768) >> 16);
  const int32_t b = y + 2 * cb + (((2 * cb * -14942 >> 16) + 1) >> 1);
  return {{static_cast<uint32_t>(clamped(r, 0, 255)), static_cast<uint32_t>(clamped(g, 0, 255)),
           static_cast<uint32_t>(clamped(b, 0, 255))}};
}

struct ToRgb {
  static constexpr int kPhases = 1;
  struct Shared {};
  Conversion conversion;

  PL_BOTH static void convert(const Components& p, int32_t y, int32_t x) {
    uint8_t* to = p.rgb + y * p.rgb_row + x;
    if (p.gray) {
      const uint32_t word = load_word(p.planes[0] + y * p.rows[0] + x);
      for (int c = 0; c < 3; ++c) store_word(to + c * p.rgb_plane, word);
      return;
    }
    int32_t samples[3][kGroup];
    PL_UNROLL
    for (int c = 0; c < 3; ++c) upsample_four(p, c, y, x, samples[c]);
    uint32_t words[3] = {0, 0, 0};
    PL_UNROLL
    for (int i = 0; i < kGroup; ++i) {
      const Rgb pixel = ycc_to_rgb(samples[0][i], samples[1][i], samples[2][i]);
      PL_UNROLL
      for (int c = 0; c < 3; ++c) words[c] |= pixel.of[c] << (8 * i);
    }
    PL_UNROLL
    for (int c = 0; c < 3; ++c) store_word(to + c * p.rgb_plane, words[c]);
  }

  PL_BOTH void run(int, int32_t block, int32_t thread, Shared&) const {
    const Tile tile = conversion.tiles.tiles[block];
    const Components& picture = conversion.pictures[tile.item];
    const int32_t across = (picture.width + kGroup - 1) / kGroup, groups = across * picture.height;
    for (int32_t i = thread; i < kGroupsPerTile; i += kThreads) {
      const int32_t at = tile.part * kGroupsPerTile + i;
      if (at < groups) convert(picture, at / across, kGroup * (at % across));
    }
  }
};

}  // namespace pass_loader::cuda
