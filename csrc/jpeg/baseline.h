// Decodes the common kind of JPEG without libjpeg: one Huffman-coded baseline scan of gray or YCbCr, without restart
// markers. The bytes equal libjpeg-turbo's. Anything unusual or broken is declined; then libjpeg decodes it, or says
// what is wrong.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "image.h"
#include "jpeg/huffman.h"

namespace pass_loader::jpeg {

// The frame is gray with factors 1 x 1, or YCbCr with factors up to 2 x 2 for luma and 1 x 1 for colour.
struct BaselineScan {
  Frame frame;
  HuffmanSpec dc[3], ac[3];
};

class BaselineDecoder {
 public:
  BaselineDecoder();
  ~BaselineDecoder();

  // Writes the blocks that the assembly needs, and reads no further than that. entropy: everything after the scan's
  // header. points: if not null, gets an EntryPoint for each row of MCUs that is read, or none if the scan is too long.
  // Returns false if the scan is declined; the assembly's components are then undefined.
  bool decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Assembly& assembly,
              std::vector<uint8_t>* points = nullptr);

  // Does the same from the entry points of the rows of MCUs that the assembly needs. They must be those of this very
  // scan: others are declined, or give other pixels.
  bool decode_from(std::span<const uint8_t> points, const BaselineScan& scan, std::span<const uint8_t> entropy,
                   const Assembly& assembly);

  // Calls take for every block row, those of each component from the top. entropy: as in decode. Returns false if the
  // scan is declined, or if take has returned false: what was taken is then worth nothing.
  bool read(const BaselineScan& scan, std::span<const uint8_t> entropy, const TakeRow& take);

 private:
  struct Tables;

  // A row of MCUs: its coefficients are those of its block rows, one after the other.
  struct Layout {
    McuRow mcu_row;
    int rows;  // of MCUs
    struct BlockRow {
      int component, index;  // index: the row's place among the component's rows of an MCU
      size_t first, groups;  // the first coefficient; groups of blocks
    } block_rows[4];
    int count;  // block rows
    size_t values;
    int16_t* coefficients;
  };
  // What an assembly needs of all rows of MCUs.
  struct Needed {
    int first_row, end_row, end_column;  // of MCUs
  };

  bool lay_out(const BaselineScan& scan, int lanes, Layout* layout);
  static Needed needed(const BaselineScan& scan, const Assembly& assembly);
  bool unstuff_all(std::span<const uint8_t> entropy, BitReader* reader);
  static bool transform(const Layout& layout, const BaselineScan& scan, const Assembly& assembly, int y);

  std::unique_ptr<Tables> tables_;  // kept from file to file: most have the standard's tables
  Scratch<uint8_t> bits_;
  Scratch<int16_t> coefficients_;
};

}  // namespace pass_loader::jpeg
