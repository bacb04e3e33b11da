// Decodes the common kind of JPEG without libjpeg: one Huffman-coded baseline scan of gray or YCbCr, without restart
// markers. The bytes equal libjpeg-turbo's. Anything unusual or broken is declined; then libjpeg decodes it, or says
// what is wrong.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

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

  // entropy: everything after the scan's header. Returns false if the scan is declined; the assembly's components are
  // then undefined.
  bool decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Assembly& assembly);

  // Gives block row y of a component: block_columns(component) blocks of 64 quantised coefficients in row-major order.
  // Returns false to stop.
  using TakeRow = std::function<bool(int component, int32_t y, const int16_t* coefficients)>;

  // Calls take for every block row, those of each component from the top. entropy: as in decode. Returns false if the
  // scan is declined, or if take has returned false: what was taken is then worth nothing.
  bool read(const BaselineScan& scan, std::span<const uint8_t> entropy, const TakeRow& take);

 private:
  struct Tables;

  bool unstuff(std::span<const uint8_t> entropy, BitReader* reader);
  template <typename Use>
  bool decode_rows(const BaselineScan& scan, std::span<const uint8_t> entropy, int lanes, const Use& use);

  std::unique_ptr<Tables> tables_;  // kept from file to file: most have the standard's tables
  Scratch<uint8_t> bits_;
  Scratch<int16_t> coefficients_;
};

}  // namespace pass_loader::jpeg
