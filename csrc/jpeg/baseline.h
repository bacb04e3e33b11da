// The common JPEG, decoded without libjpeg: one baseline scan of gray or YCbCr, Huffman-coded, without restart markers.
// Bytes equal libjpeg-turbo's. Whatever is unusual or broken is declined: libjpeg then decodes it, or says what is
// wrong.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "image.h"
#include "jpeg/huffman.h"

namespace pass_loader::jpeg {

// The frame: gray with factors 1 x 1, or YCbCr whose luma has factors up to 2 x 2 and whose colour has 1 x 1.
struct BaselineScan {
  Frame frame;
  HuffmanSpec dc[3], ac[3];
};

class BaselineDecoder {
 public:
  BaselineDecoder();
  ~BaselineDecoder();

  // entropy: everything behind the scan's header. False: declined, and the assembly's components are undefined.
  bool decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Assembly& assembly);

 private:
  struct Tables;

  bool unstuff(std::span<const uint8_t> entropy, BitReader* reader);
  bool decode_rows(const Frame& frame, BitReader& reader, const Assembly& assembly);

  std::unique_ptr<Tables> tables_;  // kept: most files have the standard's
  Scratch<uint8_t> bits_;
  Scratch<int16_t> coefficients_;
};

}  // namespace pass_loader::jpeg
