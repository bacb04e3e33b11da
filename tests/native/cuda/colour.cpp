// ToRgb on the CPU against Assembly, for equal components: every sampling and many sizes of noise, and all colours.
// Built with the sanitizers: what lies beyond the rows that may be read or written is poisoned.
#include "cuda/colour.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include <sanitizer/asan_interface.h>

#include "jpeg/frame.h"
#include "run_block.h"

using namespace pass_loader;

namespace {

constexpr size_t kWhole = 64, kMcu = 16;

jpeg::Frame frame_of(int32_t height, int32_t width, int wide, int tall, bool gray) {
  jpeg::Frame frame{};
  frame.height = height, frame.width = width;
  frame.components = gray ? 1 : 3;
  frame.colour = gray ? jpeg::Colour::gray : jpeg::Colour::ycc;
  for (int c = 0; c < frame.components; ++c) {
    frame.of[c].horizontal = c == 0 ? wide : 1;
    frame.of[c].vertical = c == 0 ? tall : 1;
  }
  return frame;
}

// One picture, in exact memory, with rows and planes apart.
struct Picture {
  explicit Picture(const jpeg::Frame& frame)
      : row(round_up(static_cast<size_t>(frame.width), kWhole)),
        plane(row * round_up(static_cast<size_t>(frame.height), kMcu)),
        out(3 * plane),
        rgb_row(round_up(static_cast<size_t>(frame.width), 4) + 4),
        rgb_plane(rgb_row * static_cast<size_t>(frame.height) + 8),
        rgb(3 * rgb_plane) {
    want = {out.data(), frame.height, frame.width, row, plane, frame.components};
    assembly.begin(frame, want, Window::whole(frame.height, frame.width));
  }

  cuda::Components components(const jpeg::Frame& frame) {
    cuda::Components c{};
    c.gray = frame.components == 1;
    for (int i = 0; i < frame.components; ++i) {
      const Planes& from = assembly.component(i);
      const size_t width = round_up(static_cast<size_t>(from.width), 4), step = round_up(width, 8) + 8;
      std::vector<uint8_t>& copy = planes[i];
      copy.assign(step * static_cast<size_t>(from.height - 1) + width, 0xA5);
      for (int32_t y = 0; y < from.height; ++y)
        std::copy_n(from.row(0, y), from.width, copy.data() + step * static_cast<size_t>(y));
      for (int32_t y = 0; y + 1 < from.height; ++y)
        ASAN_POISON_MEMORY_REGION(copy.data() + step * static_cast<size_t>(y) + width, step - width);
      c.planes[i] = copy.data(), c.rows[i] = static_cast<int64_t>(step);
      c.chroma_height = from.height, c.chroma_width = from.width;
    }
    c.height = frame.height, c.width = frame.width;
    c.wide = static_cast<int8_t>(frame.of[0].horizontal), c.tall = static_cast<int8_t>(frame.of[0].vertical);
    c.rgb = rgb.data(), c.rgb_row = static_cast<int64_t>(rgb_row), c.rgb_plane = static_cast<int64_t>(rgb_plane);
    return c;
  }

  ~Picture() {
    for (auto& p : planes) ASAN_UNPOISON_MEMORY_REGION(p.data(), p.size());
  }

  size_t row, plane;
  std::vector<uint8_t> out, planes[3];
  size_t rgb_row, rgb_plane;
  std::vector<uint8_t> rgb;
  Planes want{};
  jpeg::Assembly assembly;
};

void compare(std::vector<jpeg::Frame> frames, const auto& fill) {
  std::vector<std::unique_ptr<Picture>> pictures;
  std::vector<cuda::Components> components;
  std::vector<cuda::Tile> tiles;
  for (const jpeg::Frame& frame : frames) {
    Picture& picture = *pictures.emplace_back(std::make_unique<Picture>(frame));
    for (int c = 0; c < frame.components; ++c) fill(picture.assembly.component(c), c);
    const auto item = static_cast<int32_t>(components.size());
    components.push_back(picture.components(frame));
    const int32_t groups = (frame.width + cuda::kGroup - 1) / cuda::kGroup * frame.height;
    for (int32_t part = 0; part * cuda::kGroupsPerTile < groups; ++part) tiles.push_back({item, part});
    picture.assembly.finish();
  }
  for (const bool backwards : {false, true}) {
    for (auto& picture : pictures) std::fill(picture->rgb.begin(), picture->rgb.end(), uint8_t{0xA5});
    const auto count = static_cast<int32_t>(tiles.size());
    run_blocks(cuda::ToRgb{{components.data(), {tiles.data(), count}}}, count, backwards);
    for (size_t i = 0; i < frames.size(); ++i)
      for (int c = 0; c < 3; ++c)
        for (int32_t y = 0; y < frames[i].height; ++y) {
          const uint8_t* found = pictures[i]->rgb.data() + static_cast<size_t>(c) * pictures[i]->rgb_plane +
                                 static_cast<size_t>(y) * pictures[i]->rgb_row;
          const uint8_t* want = pictures[i]->want.row(frames[i].components == 1 ? 0 : c, y);
          if (std::equal(want, want + frames[i].width, found)) continue;
          std::fprintf(stderr, "%d x %d, factors %d x %d: plane %d, row %d\n", frames[i].height, frames[i].width,
                       frames[i].of[0].horizontal, frames[i].of[0].vertical, c, y);
          std::exit(1);
        }
  }
}

void fill_with_noise(const Planes& plane) {
  static std::mt19937 random(1);
  for (int32_t y = 0; y < plane.height; ++y)
    for (int32_t x = 0; x < plane.width; ++x) plane.row(0, y)[x] = static_cast<uint8_t>(random() >> 24);
}

}  // namespace

int main() {
  std::vector<jpeg::Frame> frames;
  constexpr int32_t kSides[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 65, 101};
  for (const int32_t height : kSides)
    for (const int32_t width : kSides)
      for (int kind = 0; kind < 5; ++kind)
        frames.push_back(frame_of(height, width, 1 + kind % 2, 1 + kind / 2 % 2, kind == 4));
  for (int kind = 0; kind < 5; ++kind) frames.push_back(frame_of(375, 500, 1 + kind % 2, 1 + kind / 2 % 2, kind == 4));
  compare(frames, [](const Planes& plane, int) { fill_with_noise(plane); });
  // All of a luma's colours: blue along a row, red down, so 256 pictures in all.
  for (int luma = 0; luma < 256; ++luma)
    compare({frame_of(256, 256, 1, 1, false)}, [&](const Planes& plane, int c) {
      for (int32_t y = 0; y < 256; ++y)
        for (int32_t x = 0; x < 256; ++x) plane.row(0, y)[x] = static_cast<uint8_t>(c == 0 ? luma : c == 1 ? x : y);
    });
  return 0;
}
