// JPEG bytes to planar RGB, the bytes that Pillow's Image.open(...).convert("RGB") gives, or of a gray file to the one
// plane of mode "L": libjpeg-turbo with its accurate integer IDCT and smooth upsampling, Pillow's own CMYK conversion,
// no Exif rotation.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "image.h"

namespace pass_loader::jpeg {

// A progressive file may repeat scans without end in few bytes; no encoder writes nearly so many.
constexpr int kMaxScans = 500;

// One a thread: owns the decoded picture. libjpeg's decompressor is made anew for each: a reused one keeps the previous
// file's tables, and a file that lacks some would be decoded with them.
class Decoder {
 public:
  // libjpeg_alone: never by BaselineDecoder. For tests, which compare the two.
  explicit Decoder(bool libjpeg_alone = false);
  ~Decoder();

  // A JPEG file, or a record of the codec "dct", which kStreamPadding readable bytes must follow. Valid until the next
  // call. Throws Error(record) where Pillow refuses: broken, cut off, too many pixels.
  ConstPlanes decode(std::span<const uint8_t> bytes);

  // Whether a JPEG file, read up to its first scan, is one baseline scan of gray or YCbCr, luma with factors up to 2 x
  // 2, colour with 1 x 1.
  bool is_plain(std::span<const uint8_t> bytes);

  // Whether BaselineDecoder took the last picture. For tests.
  bool without_libjpeg() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pass_loader::jpeg
