#include "decode.h"

#include "jpeg/dct_codec.h"
#include "jpeg/header.h"
#include "png/header.h"

namespace pass_loader {

ConstPlanes Decoder::decode(std::span<const uint8_t> bytes) {
  return png::is_png(bytes) ? png_.decode(bytes) : jpeg_.decode(bytes);
}

bool Decoder::is_plain_jpeg(std::span<const uint8_t> bytes) {
  return !png::is_png(bytes) && !jpeg::is_dct(bytes) && jpeg_.is_plain(bytes);
}

PictureHeader read_header(std::span<const uint8_t> bytes) {
  if (png::is_png(bytes)) {
    const png::Header h = png::read_header(bytes);
    return {h.height, h.width, h.is_gray() ? 1 : 3, h.bits == 16 ? 16 : 8, h.interlaced, 1, png::ends_with_iend(bytes)};
  }
  const bool is_dct = jpeg::is_dct(bytes);
  const jpeg::Header h = is_dct ? jpeg::header_of(jpeg::parse_dct(bytes)) : jpeg::read_header(bytes);
  return {h.height, h.width, h.components, 8, h.progressive, h.exif_orientation, is_dct || jpeg::ends_with_eoi(bytes)};
}

}  // namespace pass_loader
