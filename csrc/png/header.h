// Reads what a PNG says about its picture before the pixels (W3C PNG, third edition), in the way Pillow does.
#pragma once
#include <cstdint>
#include <span>

namespace pass_loader::png {

enum class ColourType : uint8_t { gray = 0, rgb = 2, palette = 3, gray_alpha = 4, rgb_alpha = 6 };

struct Header {
  int32_t height, width;
  int bits;  // of a sample: 1, 2, 4, 8, 16
  ColourType colour;
  bool interlaced;
  std::span<const uint8_t> palette_chunk;  // the whole PLTE chunk; empty if there is none
  size_t first_data;                       // where the first IDAT chunk begins

  bool is_gray() const { return colour == ColourType::gray || colour == ColourType::gray_alpha; }
};

bool is_png(std::span<const uint8_t> bytes);

// Throws Error(record) for a file that is cut off or animated, has a wrong CRC before the pixels, more pixels than
// kMaxPixels or a side over 65535, and for samples of 16 bits other than plain gray, which would lose 8 of them as RGB.
Header read_header(std::span<const uint8_t> bytes);

// Walks the chunks after the pixels. Throws Error(record) for what Pillow refuses: a chunk that is cut off. A missing
// end is accepted.
void check_rest(std::span<const uint8_t> bytes, size_t at);

// Returns true if the bytes end with an IEND chunk: a cheap sign that nothing was cut off.
bool ends_with_iend(std::span<const uint8_t> bytes);

// Returns the data of the IDAT chunk at `at`, as much as is there, and where the next chunk begins; or nothing and `at`
// if there is no such chunk.
std::span<const uint8_t> data_chunk(std::span<const uint8_t> bytes, size_t* at);

}  // namespace pass_loader::png
