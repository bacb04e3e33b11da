// Decodes progressive JPEG without libjpeg (ITU T.81 Annex G): Huffman-coded scans of gray or YCbCr, without restart
// markers, in which every bit of every coefficient comes once. The bytes equal libjpeg-turbo's. Anything unusual or
// broken is declined; then libjpeg decodes it, or says what is wrong.
#pragma once
#include <cstdint>
#include <span>

#include "image.h"
#include "jpeg/frame.h"
#include "jpeg/huffman.h"

namespace pass_loader::jpeg {

constexpr int kTableSlots = 4;  // for Huffman tables of each kind (T.81 B.2.4.2)

// The frame is one that BaselineScan may have. ids: of its components. Tables are those before the first scan.
struct ProgressiveFrame {
  Frame frame;
  uint8_t ids[3];
  HuffmanSpec dc[kTableSlots], ac[kTableSlots];
  bool has_dc[kTableSlots], has_ac[kTableSlots];
};

struct ProgressiveScan;

class ProgressiveDecoder {
 public:
  // Writes the blocks that the assembly needs. scans: everything from the first scan's marker on. most_scans: a file
  // with more is declined. Returns false if it is declined; the assembly's components are then undefined.
  bool decode(const ProgressiveFrame& start, std::span<const uint8_t> scans, int most_scans, const Assembly& assembly);

  // Calls take for every block row of one component after the other, those of each from the top. Returns false if the
  // file is declined, or if take has returned false: what was taken is then worth nothing.
  bool read(const ProgressiveFrame& start, std::span<const uint8_t> scans, int most_scans, const TakeRow& take);

 private:
  // All coefficients of a component, in rows of whole groups of blocks (idct.h).
  struct Component {
    int16_t* coefficients;
    uint64_t* masks;  // of each block, which coefficients are not zero: from the lowest bit, in the zigzag order
    size_t row_values;
    int block_rows, block_columns;  // without the padding to whole MCUs
  };

  bool read_scans(const ProgressiveFrame& start, std::span<const uint8_t> scans, int most_scans, int lanes);
  void lay_out(const Frame& frame, int lanes);
  // Return false if the bits are not clean.
  bool read_ac_scan(const ProgressiveScan& scan, BitReader& reader);
  bool read_dc_scan(const ProgressiveScan& scan, const Frame& frame, BitReader& reader);
  bool transform(const Frame& frame, const Assembly& assembly) const;

  Component of_[3];
  int lanes_ = 1;
  Scratch<uint8_t> bits_;
  Scratch<int16_t> coefficients_;
  Scratch<uint64_t> masks_;
};

}  // namespace pass_loader::jpeg
