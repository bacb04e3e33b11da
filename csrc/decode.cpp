#include "decode.h"

#include "error.h"
#include "jpeg/dct_codec.h"
#include "jpeg/header.h"
#include "png/header.h"

namespace pass_loader {

namespace {

void check_pixels(const PictureHeader& header, const Limits& limits) {
  const int64_t pixels = int64_t{header.height} * header.width;
  PL_CHECK(pixels <= limits.max_pixels, Fault::record,
           "%d x %d (height x width) is %lld pixels, more than max_pixels (--max-pixels), which is %lld", header.height,
           header.width, static_cast<long long>(pixels), static_cast<long long>(limits.max_pixels));
}

PictureHeader header_of(std::span<const uint8_t> bytes) {
  if (png::is_png(bytes)) {
    const png::Header h = png::read_header(bytes);
    return {h.height, h.width, h.is_gray() ? 1 : 3, h.bits == 16 ? 16 : 8, h.interlaced, 1, png::ends_with_iend(bytes)};
  }
  const bool is_dct = jpeg::is_dct(bytes);
  const jpeg::Header h = is_dct ? jpeg::header_of(jpeg::parse_dct(bytes)) : jpeg::read_header(bytes);
  return {h.height, h.width, h.components, 8, h.progressive, h.exif_orientation, is_dct || jpeg::ends_with_eoi(bytes)};
}

}  // namespace

ConstPlanes Decoder::decode(std::span<const uint8_t> bytes, const Limits& limits, const Part* part) {
  if (limits.max_pixels < kMaxPixels) read_header(bytes, limits);  // the decoders themselves enforce kMaxPixels
  return png::is_png(bytes) ? png_.decode(bytes) : jpeg_.decode(bytes, limits.max_scans, part);
}

bool Decoder::prove(std::span<const uint8_t> bytes, const Limits& limits, std::vector<uint8_t>* points) {
  points->clear();
  if (limits.max_pixels < kMaxPixels) read_header(bytes, limits);
  if (!png::is_png(bytes)) return jpeg_.prove(bytes, limits.max_scans, points);
  png_.decode(bytes);
  return true;
}

size_t Decoder::form_bytes(std::span<const uint8_t> bytes, std::span<const uint8_t> points) {
  return png::is_png(bytes) ? 0 : jpeg_.form_bytes(bytes, points);
}

bool Decoder::is_plain_jpeg(std::span<const uint8_t> bytes) {
  return !png::is_png(bytes) && !jpeg::is_dct(bytes) && jpeg_.is_plain(bytes);
}

PictureHeader read_header(std::span<const uint8_t> bytes, const Limits& limits) {
  const PictureHeader header = header_of(bytes);
  check_pixels(header, limits);
  return header;
}

void check_scans(std::span<const uint8_t> bytes, const Limits& limits) {
  if (png::is_png(bytes) || jpeg::is_dct(bytes)) return;
  const jpeg::Header header = jpeg::read_header(bytes);
  jpeg::check_scans(bytes, header.height, header.width, limits.max_scans);
}

}  // namespace pass_loader
