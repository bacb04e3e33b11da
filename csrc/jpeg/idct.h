// Turns quantised coefficients into samples by libjpeg's accurate integer IDCT (jidctint.c; Loeffler, Ligtenberg and
// Moschytz, ICASSP 1989), in the 16-bit steps of libjpeg-turbo's SIMD code, which Pillow runs.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::jpeg {

// The transform of one level. Coefficients of `lanes` neighbouring blocks lie interleaved by rows: row r of block b at
// (r * lanes + b) * 8, aligned to 64 bytes.
struct Idct {
  int lanes;

  // Transforms `groups` groups of blocks, which lie side by side, to 8 rows of groups * lanes * 8 bytes at `out`.
  // quantization: 64 values in row-major order. clear: leaves zeros where the coefficients were. Returns false if a
  // value in a first row is 8192 or more in size: libjpeg-turbo's shortcut for empty rows wraps around there, and no
  // picture of 8 bits has such a value.
  bool (*run)(int16_t* coefficients, size_t groups, const int16_t* quantization, bool clear, uint8_t* out,
              size_t row_stride);
};

Idct current_idct();

}  // namespace pass_loader::jpeg
