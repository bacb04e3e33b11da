// Unpacks one block row of a record of the codec "dct" (dct_codec.h) to coefficients.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::jpeg {

// A row's part of a stream: [next, end). kStreamPadding readable bytes follow every end.
constexpr size_t kStreamPadding = 128;
struct Stream {
  const uint8_t* next;
  const uint8_t* end;
};

struct RowStreams {
  const uint8_t* flags;  // a byte for each block: which of its 8 rows have coefficients other than the DC
  const uint8_t* dc;     // a byte for each block: difference to the block before; kEscape: see dc_wide
  Stream masks;          // a byte for each flagged row: which of its coefficients are not 0
  Stream signs, larger;  // a bit for each coefficient in row-major order: it is negative; its size is above 1
  Stream nibbles;  // 4 bits, low first, for each size above 1: size - 2; 15: see bytes. Whole bytes for each block
  Stream bytes;    // size - 17; kWide: see wide
  Stream dc_wide, wide;  // 16-bit little-endian: differences; sizes
};
constexpr uint8_t kEscape = 0x80, kWide = 110;  // 17 + 110 - 1 is the largest size that one byte holds

// Writes the coefficients of the first `wanted` of `blocks` blocks in groups of `lanes` (idct.h), every value of every
// group. Returns false if the streams do not hold them, or, where all are wanted, if they hold more.
bool unpack_row(RowStreams row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients);

}  // namespace pass_loader::jpeg
