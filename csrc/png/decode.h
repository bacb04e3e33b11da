// Decodes PNG by libpng, with the pixels of Pillow's Image.open(...).convert("RGB"): gray to one plane of 8 or 16 bits,
// colour and palettes to planar RGB, without alpha, gamma and Exif rotation.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "image.h"

namespace pass_loader::png {

// Each thread has its own. It owns the decoded picture. libpng's reader is made anew for each picture.
class Decoder {
 public:
  Decoder();
  ~Decoder();

  // The result is valid until the next call. Throws Error(record) for what Pillow refuses and for what read_header
  // refuses.
  ConstPlanes decode(std::span<const uint8_t> bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pass_loader::png
