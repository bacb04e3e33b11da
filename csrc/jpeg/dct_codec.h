// The codec "dct": a JPEG's quantised coefficients without Huffman codes, in a layout for SIMD and for a GPU's warps.
// docs/dct-codec.md specifies the format.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "image.h"
#include "jpeg/dct_unpack.h"
#include "jpeg/frame.h"
#include "jpeg/header.h"
#include "jpeg/idct.h"
#include "jpeg/zstd_stream.h"

namespace pass_loader::jpeg {

constexpr uint8_t kDctMagic[4] = {'P', 'L', 'D', 'C'};
constexpr uint8_t kDctVersion = 2;

bool is_dct(std::span<const uint8_t> record);

// A record's streams, in their order. Each holds its part of every block row, component after component, from the top.
enum StreamKind : size_t {
  kLengths,
  kFlags,
  kDc,
  kMasks,
  kSigns,
  kLarger,
  kNibbles,
  kBytes,
  kDcWide,
  kWideSizes,
  kStreams
};

// A record's parts. They point into the record.
struct DctRecord {
  Frame frame;
  std::span<const uint8_t> header;   // everything before the streams' sizes
  std::span<const uint8_t> markers;  // the header's end: the file's APPn and COM segments, unchanged
  struct {
    std::span<const uint8_t> stored;  // the content, or a zstd frame of it if that is smaller
    size_t content;                   // bytes
    bool is_compressed() const { return stored.size() != content; }
  } streams[kStreams];
};

// Throws Error(record) if the bytes are no such record, or if it has more than kMaxPixels.
DctRecord parse_dct(std::span<const uint8_t> record);

// How many bytes of each stream are one block row's.
struct RowLengths {
  size_t masks, bits, nibbles, bytes, dc_wide, wide;  // bits: of signs, and of larger
};

// Takes the next row's from what is left of the stream of lengths. Throws Error(record).
RowLengths take_lengths(std::span<const uint8_t>* left);

// Returns what read_header returns for the JPEG that the record was made from.
Header header_of(const DctRecord& record);

// Reads a record's rows, component after component. Each thread has its own and reuses it. All functions throw
// Error(record).
class RowReader {
 public:
  void open(const DctRecord& record);
  // wanted, lanes: see unpack_row; a row of which no block is wanted is passed over. component and y name the row in
  // errors.
  void next(size_t blocks, size_t wanted, int lanes, int16_t* coefficients, int component, int32_t y);
  void finish() const;  // checks that nothing is left

  std::span<const uint8_t> left(StreamKind kind) const { return left_[kind]; }

 private:
  std::span<const uint8_t> left_[kStreams];
  Scratch<uint8_t> contents_;
  ZstdReader zstd_;
};

// Each thread has its own and reuses it.
class DctDecoder {
 public:
  // Writes the blocks that the assembly needs. kStreamPadding readable bytes must follow the record. Throws
  // Error(record); whether it does may depend on what is needed.
  void decode(const DctRecord& record, const Assembly& assembly);

 private:
  RowReader rows_;
  Scratch<int16_t> coefficients_;
};

// Builds a record from coefficients. The rows of a component are added from the top, those of several components in any
// order.
class DctEncoder {
 public:
  DctEncoder(const Frame& frame, std::span<const uint8_t> markers);
  // Adds a block row: block_columns(component) blocks of 64 values in row-major order. Returns false if a value is
  // beyond what a JPEG of 8-bit samples can hold, see pack_row.
  bool add_row(int component, const int16_t* coefficients);
  // zstd: wraps each stream that gets smaller by it into a zstd frame.
  std::vector<uint8_t> finish(bool zstd) const;

 private:
  Frame frame_;
  std::vector<uint8_t> header_, streams_[kMaxComponents][kStreams];
  Scratch<uint8_t> row_;
};

// Returns the same record with zstd frames or without. kStreamPadding readable bytes must follow the record. Throws
// Error(record).
std::vector<uint8_t> layer_dct(std::span<const uint8_t> record, bool zstd);

}  // namespace pass_loader::jpeg
