// Transposes bytes in blocks of 16 x 16, for passes that want neighbours side by side in memory.
#pragma once
#include <algorithm>
#include <cstring>

#include "isa.h"

namespace pass_loader::cpu {

typedef uint8_t Bytes __attribute__((vector_size(16)));

PL_INLINE Bytes zip_low(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
PL_INLINE Bytes zip_high(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// Four rounds of interleaving row i with row i + 8 exchange rows and columns.
PL_INLINE void transpose_block(const uint8_t* in, size_t in_stride, uint8_t* out, size_t out_stride) {
  Bytes a[16], b[16];
  for (int y = 0; y < 16; ++y) std::memcpy(&a[y], in + y * in_stride, 16);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = zip_low(a[i], a[i + 8]);
      b[2 * i + 1] = zip_high(a[i], a[i + 8]);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int x = 0; x < 16; ++x) std::memcpy(out + x * out_stride, &a[x], 16);
}

// Writes out[x][y] = in[y][x]. Reads only in[0..rows)[0..columns), but writes whole blocks: `out` has round_up(columns,
// 16) rows of at least round_up(rows, 16) bytes, and the values past columns and rows are undefined.
PL_INLINE void transpose(const uint8_t* in, size_t in_stride, int rows, int columns, uint8_t* out, size_t out_stride) {
  for (int y = 0; y < rows; y += 16)
    for (int x = 0; x < columns; x += 16) {
      const uint8_t* block = in + y * in_stride + x;
      size_t block_stride = in_stride;
      alignas(16) uint8_t edge[16 * 16];
      if (y + 16 > rows || x + 16 > columns) {
        for (int i = 0; i < 16; ++i)
          std::memcpy(edge + i * 16, block + std::min(i, rows - 1 - y) * in_stride, std::min(columns - x, 16));
        block = edge;
        block_stride = 16;
      }
      transpose_block(block, block_stride, out + x * out_stride + y, out_stride);
    }
}

}  // namespace pass_loader::cpu
