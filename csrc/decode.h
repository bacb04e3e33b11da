// A record's bytes, of any codec, to planes: JPEG, "dct" and PNG, told apart by how they begin.
#pragma once
#include <cstdint>
#include <span>

#include "image.h"
#include "jpeg/decode.h"
#include "png/decode.h"

namespace pass_loader {

// One a thread: owns the decoded picture.
class Decoder {
 public:
  // libjpeg_alone: see jpeg::Decoder.
  explicit Decoder(bool libjpeg_alone = false) : jpeg_(libjpeg_alone) {}

  // Valid until the next call. kStreamPadding readable bytes must follow. Throws Error(record) where the bytes cannot
  // be decoded, and where they are neither JPEG nor PNG.
  ConstPlanes decode(std::span<const uint8_t> bytes);

  // Whether the bytes are a JPEG as GPUs decode them: jpeg::Decoder::is_plain. Says nothing of the pixels' codes.
  bool is_plain_jpeg(std::span<const uint8_t> bytes);

  bool without_libjpeg() const { return jpeg_.without_libjpeg(); }

 private:
  jpeg::Decoder jpeg_;
  png::Decoder png_;
};

// What the bytes say of themselves before the pixels.
struct PictureHeader {
  int32_t height, width;
  int components;        // 1 gray, 3 colour, 4 CMYK or YCCK; of a PNG without alpha
  int bits;              // a component: 8 or 16
  bool progressive;      // or interlaced
  int exif_orientation;  // 1..8; 1 where there is none, and of a PNG
  bool ends;             // the bytes end as their format ends: nothing was cut off
};

// Throws Error(record).
PictureHeader read_header(std::span<const uint8_t> bytes);

}  // namespace pass_loader
