// The codec "dct": a JPEG's quantised coefficients without Huffman codes, laid out for SIMD and for a GPU's warps. The
// format is specified in docs/dct-codec.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "image.h"
#include "jpeg/dct_unpack.h"
#include "jpeg/frame.h"
#include "jpeg/header.h"
#include "jpeg/idct.h"

namespace pass_loader::jpeg {

constexpr uint8_t kDctMagic[4] = {'P', 'L', 'D', 'C'};
constexpr uint8_t kDctVersion = 1;

bool is_dct(std::span<const uint8_t> record);

// A record's parts, all inside it.
struct DctRecord {
  Frame frame;
  std::span<const uint8_t> markers;      // APPn and COM segments of the file, as they were
  std::span<const uint8_t> row_lengths;  // u32 little-endian, a block row, component after component
  std::span<const uint8_t> rows;
};

// Throws Error(record) where the bytes are no such record, or more than kMaxPixels.
DctRecord parse_dct(std::span<const uint8_t> record);

// The same facts that read_header tells of the JPEG that the record was.
Header header_of(const DctRecord& record);

// Takes a record's rows, component after component. Throws Error(record).
class RowReader {
 public:
  explicit RowReader(const DctRecord& record) : lengths_(record.row_lengths), rows_(record.rows) {}
  // `lanes` as of unpack_row; component and y name the row in errors.
  void next(size_t blocks, int lanes, int16_t* coefficients, int component, int32_t y);
  void finish() const;  // nothing is left

 private:
  std::span<const uint8_t> lengths_, rows_;
};

// One a thread, reused.
class DctDecoder {
 public:
  // kStreamPadding readable bytes must follow the record. Throws Error(record).
  void decode(const DctRecord& record, const Assembly& assembly);

 private:
  Scratch<int16_t> coefficients_;
};

// Builds a record from coefficients, added a block row at a time: component after component, rows from the top.
class DctEncoder {
 public:
  DctEncoder(const Frame& frame, std::span<const uint8_t> markers);
  // blocks x 64 values in row-major order. False where a value does not fit (-32768, or beyond 16 bits).
  bool add_row(std::span<const int16_t> blocks);
  std::vector<uint8_t> finish();

 private:
  std::vector<uint8_t> header_, lengths_, rows_;
};

}  // namespace pass_loader::jpeg
