// A picture's components, each of its own size, and their upsampling and conversion to planar RGB.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

#include "image.h"

namespace pass_loader::jpeg {

constexpr int kBlockValues = 64;
constexpr int kMaxComponents = 4;

enum class Colour : uint8_t { gray, ycc, rgb, cmyk, ycck };  // the meaning of the components

struct Frame {
  int32_t height, width;
  int components;  // as many as the colour needs
  Colour colour;
  struct Component {
    int horizontal, vertical;            // sampling factors, 1..4 (T.81 A.1.1)
    int16_t quantization[kBlockValues];  // row-major
  } of[kMaxComponents];

  int max_horizontal() const;
  int max_vertical() const;
  // The size of component c, in samples and in blocks, without the padding to whole MCUs.
  int32_t height_of(int c) const;
  int32_t width_of(int c) const;
  int32_t block_rows(int c) const { return (height_of(c) + 7) / 8; }
  int32_t block_columns(int c) const { return (width_of(c) + 7) / 8; }
  int32_t mcu_rows() const;
  int32_t mcu_columns() const;
  // Returns true if the number of components fits the colour and the factors, and every factor divides the largest.
  // libjpeg refuses other frames.
  bool is_sound() const;
};

// Blocks of a component: rows and columns, from the first one to before the end.
struct Blocks {
  int32_t first_row, end_row, first_column, end_column;
};

// Gives block row y of a component: block_columns(component) blocks of 64 quantised coefficients in row-major order.
// Returns false to stop.
using TakeRow = std::function<bool(int component, int32_t y, const int16_t* coefficients)>;

// Memory for components, and their conversion to RGB. Each thread has its own and reuses it.
class Assembly {
 public:
  // out: three planes, or one for a gray frame, with rows of whole tiles and whole MCUs of 16 x 16. The memory of every
  // component covers whole MCUs and rows of whole tiles. window: the pixels that are wanted, at least one; the others
  // are undefined.
  void begin(const Frame& frame, const Planes& out, const Window& window);
  const Planes& component(int c) const { return of_[c]; }  // one plane
  // Returns which blocks the window needs: its own samples and those that upsampling mixes in. Padding to whole MCUs is
  // never among them.
  Blocks needed(int c) const;
  // To be called when the needed blocks of all components are written. Upsamples as libjpeg does with "fancy"
  // upsampling and converts as Pillow's convert("RGB").
  void finish();

 private:
  bool is_direct(int c) const;  // its samples are written to the output's plane itself
  void upsample_row(int c, int32_t y, uint8_t* to);

  Frame frame_;
  Window window_;
  size_t first_byte_, bytes_;  // of a row: the window's columns, in whole tiles
  Planes out_, of_[kMaxComponents];
  Scratch<uint8_t> samples_, fourth_;
  Scratch<uint16_t> sums_;
};

}  // namespace pass_loader::jpeg
