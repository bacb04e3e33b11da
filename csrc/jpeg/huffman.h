// Entropy decoding of baseline JPEG (ITU T.81 Annex F.2): bits to quantised DCT coefficients, one block at a time.
// It declines what is not clean; it never repairs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "image.h"
#include "isa.h"
#include "jpeg/frame.h"

namespace pass_loader::jpeg {

// The zigzag order (T.81 figure A.6): the row-major index of the k-th coefficient.
inline constexpr uint8_t kZigzag[kBlockValues] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                                  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                                  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                                  58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// A table as a DHT segment gives it (T.81 B.2.4.2).
struct HuffmanSpec {
  uint8_t counts[17];  // counts[n]: codes of n bits; counts[0] is unused
  uint8_t symbols[256];
};

// The bits of a scan without stuffed zeros, most significant first. It reads 8 bytes at a time. kPadding readable bytes
// follow `end`: the longest MCU can consume so many beyond it before the caller's next check.
struct BitReader {
  static constexpr size_t kPadding = 2048;  // 6 blocks of 64 symbols of 31 bits, and 8

  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;
  uint64_t bits = 0;  // from the top; after `count` bits come zeros, or bits of the stream that belong there
  int count = 0;

  PL_INLINE void refill() {  // to at least 56 bits
    uint64_t word;
    std::memcpy(&word, next, sizeof word);
    bits |= __builtin_bswap64(word) >> count;
    next += (63 - count) >> 3;
    count |= 56;
  }
  PL_INLINE void skip(int n) { bits <<= n, count -= n; }
  bool past_end() const { return next > end + 8; }
  ptrdiff_t bits_left() const { return 8 * (end - next) + count; }  // negative if more was read than there is
};

// Copies the bytes without the zeros that are stuffed after FF bytes, and lets `reader` begin there. Stops before a
// marker, or at the end. Returns what is left.
std::span<const uint8_t> unstuff(std::span<const uint8_t> entropy, Scratch<uint8_t>& memory, BitReader* reader);

// The canonical code, one symbol at a time.
struct HuffmanCode {
  int32_t limits[18];  // [n]: the first code of n bits that is too large, left-aligned in 16 bits
  int32_t offsets[17];
  HuffmanSpec spec;

  bool build(const HuffmanSpec& spec);  // returns false for a table that libjpeg refuses
  // Returns symbol and length of the code at the top of `bits`; length 0 if there is none.
  int length_of(uint64_t bits, uint8_t* symbol) const;
};

// T.81 F.2.2.1, EXTEND: returns the value that the 63 - `below` bits at the top of `bits` stand for; 0 for no bits. The
// bits of a negative value are the complement of its size.
PL_INLINE int top_value(uint64_t bits, uint64_t below) {
  const uint64_t negative = ~static_cast<uint64_t>(static_cast<int64_t>(bits) >> 63);
  return static_cast<int>(((bits ^ negative) >> 1 >> (below & 63)) ^ negative) - static_cast<int>(negative);
}

// The same code by a look-up.
struct SymbolTable {
  static constexpr int kLookup = 9;
  HuffmanCode code;
  uint16_t entries[1 << kLookup];  // length << 8 | symbol; 0: a longer code

  // most: the largest symbol. libjpeg refuses tables with larger ones even where no bits name them.
  bool build(const HuffmanSpec& spec, int most);

  // Takes a symbol. Returns false if there is none. At least 16 bits must be there.
  PL_INLINE bool take(BitReader& r, uint8_t* symbol) const {
    const uint16_t entry = entries[r.bits >> (64 - kLookup)];
    int length = entry >> 8;
    *symbol = entry & 255;
    if (length == 0) [[unlikely]] {
      length = code.length_of(r.bits, symbol);
      if (length == 0) return false;
    }
    r.skip(length);
    return true;
  }
};

constexpr int kMostDcSize = 15;  // bits of a difference

// Adds a block's difference to the prediction.
PL_INLINE bool decode_dc(BitReader& reader, const SymbolTable& dc, int32_t& prediction) {
  reader.refill();
  uint8_t size;
  if (!dc.take(reader, &size)) return false;
  prediction += top_value(reader.bits, 63u - size);
  reader.skip(size);
  return prediction >= INT16_MIN && prediction <= INT16_MAX;
}

struct AcTable {
  static constexpr int kLookup = 10;
  HuffmanCode code;
  uint64_t entries[1 << kLookup];  // huffman.cpp: Entry

  bool build(const HuffmanSpec& spec);
};

// One block of an MCU. Consecutive blocks of a component lie in groups of `lanes`, whose rows of 8 coefficients are
// interleaved (idct.h).
struct McuBlock {
  const SymbolTable* dc;
  const AcTable* ac;
  int component;
  int16_t* coefficients;  // the component's block row, filled with zeros
  int column, columns;    // this block's column among the `columns` of its component in an MCU
};

// The MCUs of one row.
struct McuRow {
  int mcus, blocks, lanes;
  McuBlock block[6];
};

// Decodes mcu_row.mcus MCUs. `predictions` has one DC prediction for each component. Returns false if the bits are not
// clean; the coefficients are then undefined.
bool decode_mcus(BitReader& reader, const McuRow& mcu_row, int32_t* predictions);

}  // namespace pass_loader::jpeg
