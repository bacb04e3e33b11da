// Packs one block row of coefficients into the streams of the codec "dct" (dct_codec.h).
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::jpeg {

// Where a row's part of each stream is written, see RowStreams. pack_row moves the pointers to the ends, and may write
// up to kPackPadding bytes beyond them.
struct RowTargets {
  uint8_t *flags, *dc, *masks, *signs, *larger, *nibbles, *bytes, *dc_wide, *wide;
};
constexpr size_t kPackPadding = 32;

// Packs `blocks` blocks of 64 values in row-major order. Returns false if a value is beyond what the Huffman codes of
// 8-bit samples can hold (T.81 F.1.2: differences of DC have up to 11 bits, other values up to 10).
bool pack_row(const int16_t* coefficients, size_t blocks, RowTargets* to);

}  // namespace pass_loader::jpeg
