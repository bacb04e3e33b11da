// PNG bytes to planes, the pixels that Pillow's Image.open(...).convert("RGB") gives: gray to one plane of 8 or 16
// bits, colour and palettes to planar RGB, alpha dropped, no gamma and no Exif rotation. By libpng.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "image.h"

namespace pass_loader::png {

// One a thread: owns the decoded picture. libpng's reader is made anew for each.
class Decoder {
 public:
  Decoder();
  ~Decoder();

  // Valid until the next call. Throws Error(record) where Pillow refuses, and for what read_header refuses.
  ConstPlanes decode(std::span<const uint8_t> bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pass_loader::png
