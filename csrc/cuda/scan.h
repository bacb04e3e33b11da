// JPEGs of one baseline scan: Huffman codes to coefficients, a thread for each row of MCUs, which begins at an entry
// point. Whatever ../jpeg/baseline.cpp declines gets a bad verdict, and so do entry points that are not those of the
// scan; the CPU then decodes the file, or says what is wrong.
#pragma once
#include "cuda/dct_rows.h"
#include "cuda/memory.h"

namespace pass_loader::cuda {

// The bits of a scan, most significant first, without stuffed zeros. Behind a marker, or the end, come zeros.
struct ScanBits {
  const uint8_t *next, *end;
  uint64_t bits = 0;               // from the top
  int32_t count = 0, missing = 0;  // bits that are there, and how many of them are zeros that the scan does not have

  PL_BOTH void refill() {  // to at least 57 bits
    while (count <= 56) {
      uint64_t byte = 0;
      if (next < end && (*next != 0xff || (next + 1 < end && next[1] == 0))) {
        byte = *next;
        next += byte == 0xff ? 2 : 1;
      } else {
        missing += 8;
      }
      bits |= byte << (56 - count);
      count += 8;
    }
  }
  PL_BOTH void skip(int32_t n) { bits <<= n, count -= n; }
  PL_BOTH int32_t left() const { return count - missing; }  // negative if more was read than there is

  // Takes the next symbol; returns false if there is none. Needs 16 bits.
  PL_BOTH bool take(const ScanForm::Huffman& code, int32_t* symbol) {
    const uint32_t entry = code.lookup[bits >> (64 - ScanForm::Huffman::kLookup)];
    *symbol = static_cast<int32_t>(entry & 255);
    if (entry != 0) return skip(static_cast<int32_t>(entry >> 8)), true;
    const auto top = static_cast<int32_t>(bits >> 48);
    for (int32_t length = ScanForm::Huffman::kLookup + 1; length <= 16; ++length) {
      if (top >= code.limits[length]) continue;
      *symbol = code.symbols[(top >> (16 - length)) + code.offsets[length]];
      return skip(length), true;
    }
    return false;
  }

  // Takes a value of so many bits, at most 15 (T.81 F.2.2.1, EXTEND).
  PL_BOTH int32_t take_value(int32_t size) {
    if (size == 0) return 0;
    const auto value = static_cast<int32_t>(bits >> (64 - size));
    skip(size);
    return value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
  }
};

// Decodes a block. values: its 64 coefficients, all 0 before; null: nobody wants them. Returns false for what is no
// code.
PL_BOTH bool decode_block(const ScanForm& form, int32_t tables, ScanBits& bits, int32_t* dc, int16_t* values) {
  int32_t symbol = 0;
  bits.refill();
  if (!bits.take(form.dc[tables], &symbol)) return false;
  *dc += bits.take_value(symbol);
  if (*dc < INT16_MIN || *dc > INT16_MAX) return false;
  if (values != nullptr) values[0] = static_cast<int16_t>(*dc);
  for (int32_t k = 0; k < 63;) {
    bits.refill();
    if (!bits.take(form.ac[tables], &symbol)) return false;
    const int32_t run = symbol >> 4, size = symbol & 15;
    if (size == 0 && run != 15) return true;
    k += run + 1;
    if (k > 63) return false;
    const int32_t value = bits.take_value(size);
    if (values != nullptr && size != 0) values[form.zigzag[k]] = static_cast<int16_t>(value);
  }
  return true;
}

// Decodes row y of MCUs from its entry point. Returns false unless it is sound and ends where the next entry point is,
// the last one where the image ends. So if all rows are sound and the first one's point is the scan's begin, all points
// are right.
PL_BOTH bool decode_mcus(const ScanForm& form, int32_t y, int16_t* coefficients) {
  const auto* point = reinterpret_cast<const ScanPoint*>(form.at(form.points_at)) + y;
  const uint8_t* entropy = form.at(form.entropy_at);
  if (y == 0 && (point->bit != 0 || point->dc[0] != 0 || point->dc[1] != 0 || point->dc[2] != 0)) return false;
  if (point->bit / 8 >= form.entropy_bytes) return false;
  ScanBits bits{entropy + point->bit / 8, entropy + form.entropy_bytes};
  const uint8_t* begin = bits.next;
  bits.refill();
  bits.skip(static_cast<int32_t>(point->bit % 8));
  int32_t dc[3] = {point->dc[0], point->dc[1], point->dc[2]};
  for (int32_t x = 0; x < form.mcu_columns; ++x) {
    int16_t* first = coefficients;  // of the component
    for (int32_t c = 0; c < form.components; ++c) {
      const GpuForm::Component& of = form.of[c];
      for (int32_t v = 0; v < form.vertical[c]; ++v)
        for (int32_t h = 0; h < form.horizontal[c]; ++h) {
          const int32_t row = y * form.vertical[c] + v, column = x * form.horizontal[c] + h;
          int16_t* values = nullptr;  // padding to whole MCUs
          if (row < of.rows && column < of.columns) {
            values = first + (int64_t{row} * of.columns + column) * GpuForm::kBlockValues;
            for (int32_t i = 0; i < GpuForm::kBlockValues; i += 4)
              store_two(reinterpret_cast<uint8_t*>(values + i), 0, 0);
          }
          if (!decode_block(form, c > 0 ? 1 : 0, bits, &dc[c], values)) return false;
        }
      first += int64_t{of.rows} * of.columns * GpuForm::kBlockValues;
    }
    if (bits.left() < 0) return false;
  }
  bits.refill();
  const int32_t left = bits.left();
  if (left < 0) return false;
  if (y + 1 == form.mcu_rows)
    return left < 8 && bits.next + 2 <= bits.end && bits.next[0] == 0xff && bits.next[1] == 0xd9;
  const uint8_t* at = bits.next;  // back to the byte that holds the next bit, over stuffed zeros
  for (int32_t bytes = (left + 7) / 8; bytes > 0; --bytes)
    at -= at - begin >= 2 && at[-1] == 0 && at[-2] == 0xff ? 2 : 1;
  const auto bit = static_cast<uint32_t>(8 * (at - entropy) + (8 - left % 8) % 8);
  ++point;
  return bit == point->bit && dc[0] == point->dc[0] && dc[1] == point->dc[1] && dc[2] == point->dc[2];
}

// A thread for each row of MCUs.
struct Scans {
  static constexpr int kPhases = 1;
  struct Shared {};
  Decoding decoding;

  PL_BOTH void run(int, int32_t block, int32_t thread, Shared&) const {
    const int32_t number = block * kRowTilesPerBlock + thread / kRowsPerTile;
    if (number >= decoding.mcu_rows.count) return;
    const Tile tile = decoding.mcu_rows.tiles[number];
    const CodedPicture& picture = decoding.pictures[tile.item];
    const ScanForm& form = picture.scan();
    const int32_t y = tile.part * kRowsPerTile + thread % kRowsPerTile;
    if (y < form.mcu_rows && !decode_mcus(form, y, picture.coefficients)) *picture.verdict = 1;
  }
};

}  // namespace pass_loader::cuda
