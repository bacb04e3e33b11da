// What a PNG says of itself before its pixels (W3C PNG, third edition), read the way Pillow reads it.
#pragma once
#include <cstdint>
#include <span>

namespace pass_loader::png {

enum class ColourType : uint8_t { gray = 0, rgb = 2, palette = 3, gray_alpha = 4, rgb_alpha = 6 };

struct Header {
  int32_t height, width;
  int bits;  // a sample: 1, 2, 4, 8, 16
  ColourType colour;
  bool interlaced;
  std::span<const uint8_t> palette_chunk;  // the whole PLTE chunk, empty where there is none
  size_t first_data;                       // where the first IDAT chunk begins

  bool is_gray() const { return colour == ColourType::gray || colour == ColourType::gray_alpha; }
};

bool is_png(std::span<const uint8_t> bytes);

// Throws Error(record): cut off, a wrong CRC before the pixels, more pixels than kMaxPixels, a side over 65535,
// animated, or 16 bits a sample but for plain gray: as RGB they would lose 8 of them.
Header read_header(std::span<const uint8_t> bytes);

// What stands behind the pixels, chunk by chunk: throws Error(record) where Pillow refuses it, which is a chunk that is
// cut off. A missing end is none.
void check_rest(std::span<const uint8_t> bytes, size_t at);

// Whether an IEND chunk closes the bytes: a cheap sign that nothing was cut off.
bool ends_with_iend(std::span<const uint8_t> bytes);

// The data of the IDAT chunk at `at`, as much as is there of it, and where the next chunk begins; empty and the same
// place where no such chunk stands there.
std::span<const uint8_t> data_chunk(std::span<const uint8_t> bytes, size_t* at);

}  // namespace pass_loader::png
