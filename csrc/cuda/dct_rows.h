// Records of the codec "dct": finds where each block's part of the streams begins, by counting alone, and its DC.
// Whatever ../jpeg/dct_unpack.cpp refuses gets a bad verdict; only the CPU says what is wrong.
#pragma once
#include "cuda/colour.h"
#include "cuda/descriptors.h"
#include "cuda/memory.h"
#include "gpu_form.h"

namespace pass_loader::cuda {

// A block's place in the streams, from their begin: bits of signs and larger, bytes of the others.
struct BlockPlace {
  uint32_t masks, bits, nibbles, bytes, wide;
  int32_t dc;
};

// One picture, on the device. Blocks are numbered component after component, row after row.
struct CodedPicture {
  const GpuForm* form;
  union {
    BlockPlace* places;     // of a record of the codec "dct": of all blocks
    int16_t* coefficients;  // of a JPEG: 64 of each block, in row-major order
  };
  uint8_t* planes[3];  // the components: rows of whole blocks, one after the other
  int32_t* verdict;    // 0 before; 1: not sound, its pixels are anything

  PL_BOTH const DctForm& dct() const { return *static_cast<const DctForm*>(form); }
  PL_BOTH const ScanForm& scan() const { return *static_cast<const ScanForm*>(form); }
};

// The pictures of one launch: tiles of kRowsPerTile block rows of records of the codec "dct" and of kThreads blocks of
// theirs, of kRowsPerTile rows of MCUs of JPEGs and of kThreads blocks of theirs, and ToRgb's.
struct Decoding {
  const CodedPicture* pictures;
  const Components* components;  // the same ones, for ToRgb
  Tiles rows, blocks, mcu_rows, scan_blocks, rgb;
};
static_assert(std::is_trivially_copyable_v<CodedPicture> && std::is_trivially_copyable_v<BlockPlace>);

constexpr int kRowsPerTile = 32;  // a warp's
constexpr int kRowTilesPerBlock = kThreads / kRowsPerTile;
constexpr uint32_t kDcEscape = 0x80, kLongest = 15, kWideFrom = 110;  // docs/dct-codec.md

// Returns how many blocks of threads take tiles of rows.
inline int32_t row_blocks(const Tiles& rows) { return (rows.count + kRowTilesPerBlock - 1) / kRowTilesPerBlock; }

// Returns 64 bits of a stream from bit `at`, low bits first. Reads up to 12 bytes after the last whole word before it.
PL_BOTH uint64_t bits_at(const uint8_t* stream, uint32_t at) {
  const uint8_t* from = stream + at / 32 * 4;
  const uint64_t low = load_word(from) | static_cast<uint64_t>(load_word(from + 4)) << 32;
  const uint32_t shift = at % 32;
  return shift == 0 ? low : low >> shift | static_cast<uint64_t>(load_word(from + 8)) << (64 - shift);
}

PL_BOTH uint64_t low_bits(int32_t count) { return count == 0 ? 0 : ~uint64_t{0} >> (64 - count); }
PL_BOTH int32_t load_i16(const uint8_t* from) { return static_cast<int16_t>(from[0] | from[1] << 8); }

// Returns how many of `count` nibbles from a byte on are kLongest.
PL_BOTH uint32_t longest_of(const uint8_t* nibbles, uint32_t byte, int32_t count) {
  uint32_t found = 0;
  for (int32_t i = 0; i < count; i += 16) {
    uint64_t all = bits_at(nibbles, 8 * byte + 4 * static_cast<uint32_t>(i));
    all &= low_bits(4 * (count - i < 16 ? count - i : 16));
    all &= all >> 1;
    all &= all >> 2;
    found += static_cast<uint32_t>(count_bits(all & 0x1111111111111111));
  }
  return found;
}

// Places the blocks of block row number `row`, counted through all components. Returns false if its streams do not
// hold exactly these blocks. Nothing is read beyond what the record's bounds allow.
PL_BOTH bool place_row(const DctForm& form, int32_t row, BlockPlace* places) {
  const auto* rows = reinterpret_cast<const RowPlaces*>(reinterpret_cast<const uint8_t*>(&form) + form.rows_at) + row;
  int32_t c = 0, block = 0;
  for (; row >= form.of[c].rows; ++c) {
    row -= form.of[c].rows;
    block += form.of[c].rows * form.of[c].columns;
  }
  block += row * form.of[c].columns;
  const RowPlaces end = rows[1];
  RowPlaces at = rows[0];
  const uint8_t *flags_of = form.stream(DctForm::kFlags), *dc_of = form.stream(DctForm::kDc),
                *masks_of = form.stream(DctForm::kMasks), *larger_of = form.stream(DctForm::kLarger),
                *nibbles_of = form.stream(DctForm::kNibbles), *bytes_of = form.stream(DctForm::kBytes),
                *dc_wide_of = form.stream(DctForm::kDcWide);
  uint32_t bit = 8 * at.bits;
  int32_t dc = 0;
  for (const int32_t end_block = block + form.of[c].columns; block < end_block; ++block) {
    const uint32_t flags = flags_of[block];
    const auto flagged = static_cast<uint32_t>(count_bits(flags));
    if (flagged > end.masks - at.masks) return false;
    const uint64_t masks = bits_at(masks_of, 8 * at.masks) & low_bits(static_cast<int32_t>(8 * flagged));
    if ((flags & 1) != 0 && (masks & 1) != 0) return false;  // the DC's bit
    const auto count = static_cast<uint32_t>(count_bits(masks));
    if (count > 8 * end.bits - bit) return false;
    const int32_t larger = count_bits(bits_at(larger_of, bit) & low_bits(static_cast<int32_t>(count)));
    const auto nibble_bytes = static_cast<uint32_t>(larger + 1) / 2;
    if (nibble_bytes > end.nibbles - at.nibbles) return false;
    const uint32_t longer = longest_of(nibbles_of, at.nibbles, larger);
    if (longer > end.bytes - at.bytes) return false;
    uint32_t wide = 0;  // bytes, of which none is read here
    for (uint32_t i = 0; i < longer; ++i) wide += bytes_of[at.bytes + i] >= kWideFrom ? 2 : 0;
    const uint32_t difference = dc_of[block];
    if (difference == kDcEscape) {
      if (end.dc_wide - at.dc_wide < 2) return false;
      dc += load_i16(dc_wide_of + at.dc_wide);
      at.dc_wide += 2;
    } else {
      dc += static_cast<int8_t>(difference);
    }
    if (dc < INT16_MIN || dc > INT16_MAX) return false;
    places[block] = {at.masks, bit, at.nibbles, at.bytes, at.wide, dc};
    at.masks += flagged, bit += count, at.nibbles += nibble_bytes, at.bytes += longer, at.wide += wide;
  }
  return at.masks == end.masks && (bit + 7) / 8 == end.bits && at.nibbles == end.nibbles && at.bytes == end.bytes &&
         at.dc_wide == end.dc_wide && at.wide == end.wide;
}

// A thread for each block row.
struct DctRows {
  static constexpr int kPhases = 1;
  struct Shared {};
  Decoding decoding;

  PL_BOTH void run(int, int32_t block, int32_t thread, Shared&) const {
    const int32_t number = block * kRowTilesPerBlock + thread / kRowsPerTile;
    if (number >= decoding.rows.count) return;
    const Tile tile = decoding.rows.tiles[number];
    const CodedPicture& picture = decoding.pictures[tile.item];
    const int32_t row = tile.part * kRowsPerTile + thread % kRowsPerTile;
    if (row < picture.form->rows() && !place_row(picture.dct(), row, picture.places)) *picture.verdict = 1;
  }
};

}  // namespace pass_loader::cuda
