// One block row of a record of the codec "dct" (dct_codec.h) to coefficients.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::jpeg {

// A stream of a row: [next, end), with kStreamPadding readable bytes behind every end.
constexpr size_t kStreamPadding = 128;
struct Stream {
  const uint8_t* next;
  const uint8_t* end;
};

struct RowStreams {
  const uint8_t* flags;  // a byte a block: which of its 8 rows have coefficients besides the DC
  const uint8_t* dc;     // a byte a block: difference to the block before; kEscape: in dc_wide
  Stream masks;          // a byte a flagged row: which of its coefficients are not 0
  Stream signs, larger;  // a bit a coefficient in row-major order: it is negative; its size is above 1
  Stream nibbles;        // 4 bits, low first, a coefficient above 1, whole bytes a block: its size less 2; 15: in bytes
  Stream bytes;          // its size less 17; kWide: in wide
  Stream dc_wide, wide;  // 16-bit little-endian: differences; sizes
};
constexpr uint8_t kEscape = 0x80, kWide = 110;  // 17 + 110 - 1 is the largest size of one byte

// Coefficients of `blocks` blocks in groups of `lanes` (idct.h), every value of every group written. False where the
// streams do not hold exactly these blocks.
bool unpack_row(RowStreams row, size_t blocks, int lanes, int16_t* coefficients);

}  // namespace pass_loader::jpeg
