#include "jpeg/frame.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "jpeg/colour.h"

namespace pass_loader::jpeg {
namespace {

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

}  // namespace

int Frame::max_horizontal() const {
  int most = 1;
  for (int c = 0; c < components; ++c) most = std::max(most, of[c].horizontal);
  return most;
}

int Frame::max_vertical() const {
  int most = 1;
  for (int c = 0; c < components; ++c) most = std::max(most, of[c].vertical);
  return most;
}

int32_t Frame::height_of(int c) const { return divide_up(height * of[c].vertical, max_vertical()); }
int32_t Frame::width_of(int c) const { return divide_up(width * of[c].horizontal, max_horizontal()); }
int32_t Frame::mcu_rows() const { return divide_up(height, 8 * max_vertical()); }
int32_t Frame::mcu_columns() const { return divide_up(width, 8 * max_horizontal()); }

bool Frame::is_sound() const {
  const int wanted = colour == Colour::gray ? 1 : colour == Colour::ycc || colour == Colour::rgb ? 3 : 4;
  if (components != wanted || height < 1 || width < 1 || height > 65535 || width > 65535) return false;
  for (int c = 0; c < components; ++c) {
    const Component& component = of[c];
    if (component.horizontal < 1 || component.horizontal > 4 || component.vertical < 1 || component.vertical > 4)
      return false;
  }
  for (int c = 0; c < components; ++c)
    if (max_horizontal() % of[c].horizontal != 0 || max_vertical() % of[c].vertical != 0) return false;
  return true;
}

bool Assembly::is_direct(int c) const { return c < 3 && of_[c].pixels == out_.row(c, 0); }

void Assembly::begin(const Frame& frame, const Planes& out, const Window& window) {
  frame_ = frame, out_ = out, window_ = window;
  first_byte_ = static_cast<size_t>(window.left) / kTile * kTile;
  bytes_ = round_up(static_cast<size_t>(window.right), kTile) - first_byte_;
  const int32_t mcu_rows = frame.mcu_rows(), mcu_columns = frame.mcu_columns();
  size_t bytes = 0, begins[kMaxComponents];
  for (int c = 0; c < frame.components; ++c) {
    const Frame::Component& component = frame.of[c];
    const size_t row_stride = round_up(size_t{8} * mcu_columns * component.horizontal, kTile);
    const bool whole = component.horizontal == frame.max_horizontal() && component.vertical == frame.max_vertical();
    begins[c] = bytes;
    of_[c] = {nullptr, frame.height_of(c), frame.width_of(c), row_stride, 0};
    if (whole && c < 3 && component.vertical <= 2 && row_stride == out.row_stride) {
      of_[c].pixels = out.row(c, 0);
    } else {
      bytes += row_stride * 8 * mcu_rows * component.vertical;
    }
  }
  uint8_t* samples = samples_.need(bytes);
  for (int c = 0; c < frame.components; ++c)
    if (of_[c].pixels == nullptr) of_[c].pixels = samples + begins[c];
}

Blocks Assembly::needed(int c) const {
  // Smooth upsampling by 2 mixes in one sample on either side.
  const auto samples = [](int32_t begin, int32_t end, int factor, int32_t size) {
    const int32_t margin = factor == 2 ? 1 : 0;
    return std::pair{std::max(begin / factor - margin, 0), std::min((end - 1) / factor + 1 + margin, size)};
  };
  const auto [top, bottom] =
      samples(window_.top, window_.bottom, frame_.max_vertical() / frame_.of[c].vertical, frame_.height_of(c));
  const auto [left, right] =
      samples(window_.left, window_.right, frame_.max_horizontal() / frame_.of[c].horizontal, frame_.width_of(c));
  return {top / 8, divide_up(bottom, 8), left / 8, divide_up(right, 8)};
}

// Writes the window's part of row y, and more of it up to whole tiles. As jinit_upsampler in jdsample.c: smooth
// upsampling by 2 in width (with more than two columns), height or both; otherwise samples are repeated.
void Assembly::upsample_row(int c, int32_t y, uint8_t* to) {
  const Planes& from = of_[c];
  const int wide = frame_.max_horizontal() / frame_.of[c].horizontal,
            tall = frame_.max_vertical() / frame_.of[c].vertical;
  const int32_t near = y / tall;
  const uint8_t* row = from.row(0, near);
  const bool smooth = tall <= 2 && ((wide == 2 && from.width > 2) || (wide == 1 && tall == 2));
  if (smooth) {
    const bool lower = tall == 2 && y % 2 == 1;
    const int32_t far = tall == 1 ? near : std::clamp(lower ? near + 1 : near - 1, 0, from.height - 1);
    // A sample more than the window needs on either side: the outermost two have no neighbour.
    constexpr auto tile = static_cast<int32_t>(kTile);
    const int32_t first = std::max(window_.left / wide - 1, 0) * wide / tile * tile / wide;
    const auto count = static_cast<size_t>(std::min((window_.right - 1) / wide + 2, from.width) - first);
    uint16_t* sums = sums_.need(count + 2 * kTile);
    return Upsampling{wide, tall}.run(row + first, from.row(0, far) + first, lower, count, sums, to + wide * first);
  }
  if (wide == 1) {
    std::memcpy(to + first_byte_, row + first_byte_, bytes_);
    return;
  }
  for (int32_t x = window_.left; x < window_.right; ++x) to[x] = row[x / wide];
}

void Assembly::finish() {
  bool all_direct = frame_.components == 3;
  for (int c = 0; c < frame_.components; ++c) all_direct &= is_direct(c);
  if (all_direct) {
    if (frame_.colour != Colour::ycc) return;
    const auto at = [this](int c, int32_t y) { return out_.row(c, y) + first_byte_; };
    if (bytes_ == out_.row_stride) {  // the rows are one
      const size_t count = static_cast<size_t>(window_.bottom - window_.top) * bytes_;
      return ycc_to_rgb(at(0, window_.top), at(1, window_.top), at(2, window_.top), count);
    }
    for (int32_t y = window_.top; y < window_.bottom; ++y) ycc_to_rgb(at(0, y), at(1, y), at(2, y), bytes_);
    return;
  }
  if (frame_.colour == Colour::gray) {
    for (int32_t y = window_.top; y < window_.bottom && !is_direct(0); ++y) upsample_row(0, y, out_.row(0, y));
    return;
  }
  uint8_t* fourth = fourth_.need(out_.row_stride);
  for (int32_t y = window_.top; y < window_.bottom; ++y) {
    uint8_t *r = out_.row(0, y) + first_byte_, *g = out_.row(1, y) + first_byte_, *b = out_.row(2, y) + first_byte_;
    for (int c = 0; c < frame_.components; ++c)
      if (!is_direct(c)) upsample_row(c, y, c < 3 ? out_.row(c, y) : fourth);
    if (frame_.colour == Colour::ycc || frame_.colour == Colour::ycck) ycc_to_rgb(r, g, b, bytes_);
    if (frame_.components == 4) cmyk_to_rgb(fourth + first_byte_, frame_.colour == Colour::ycck, bytes_, r, g, b);
  }
}

}  // namespace pass_loader::jpeg
