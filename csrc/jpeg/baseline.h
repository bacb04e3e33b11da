// The common JPEG, decoded without libjpeg: one baseline scan of gray or YCbCr, Huffman-coded, without restart markers.
// Bytes equal libjpeg-turbo's. Whatever is unusual or broken is declined: libjpeg then decodes it, or says what is wrong.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "image.h"
#include "jpeg/huffman.h"

namespace pass_loader::jpeg {

struct BaselineScan {
  int32_t height, width;
  int components;            // 1 or 3
  int horizontal, vertical;  // 1 or 2: pixels that share a colour sample
  struct Component {
    int16_t quantization[kBlockValues];  // row-major
    HuffmanSpec dc, ac;
  } of[3];
};

class BaselineDecoder {
 public:
  BaselineDecoder();
  ~BaselineDecoder();

  // entropy: everything behind the scan's header. The planes hold whole MCUs of 16 x 16 and rows of whole tiles. False:
  // declined, and the planes are undefined.
  bool decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Planes& planes);

 private:
  struct Tables;

  bool unstuff(std::span<const uint8_t> entropy, BitReader* reader);
  bool decode_rows(const BaselineScan& scan, BitReader& reader, const Planes* components);

  std::unique_ptr<Tables> tables_;  // kept: most files have the standard's
  Scratch<uint8_t> bits_, colour_;
  Scratch<int16_t> coefficients_;
  Scratch<uint16_t> sums_;
};

}  // namespace pass_loader::jpeg
