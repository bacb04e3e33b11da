// Decodes a record of any codec to planes: JPEG, "dct" or PNG, recognised by the first bytes.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "entry_points.h"
#include "image.h"
#include "jpeg/decode.h"
#include "png/decode.h"

namespace pass_loader {

// Each thread has its own. It owns the decoded picture.
class Decoder {
 public:
  // libjpeg_alone: see jpeg::Decoder.
  explicit Decoder(bool libjpeg_alone = false) : jpeg_(libjpeg_alone) {}

  // The result is valid until the next call. kStreamPadding readable bytes must follow the record. Throws Error(record)
  // if the bytes cannot be decoded, are of no known format, or exceed a limit. part: see jpeg::Decoder; a PNG is
  // decoded whole.
  ConstPlanes decode(std::span<const uint8_t> bytes, const Limits& limits = {}, const Part* part = nullptr);

  // See jpeg::Decoder. A PNG has no warnings and no entry points.
  bool prove(std::span<const uint8_t> bytes, const Limits& limits, std::vector<uint8_t>* points);

  // Returns true if the bytes are a JPEG that GPUs decode, see jpeg::Decoder::is_plain. Does not look at the
  // entropy-coded data.
  bool is_plain_jpeg(std::span<const uint8_t> bytes);

  // See jpeg::Decoder.
  size_t form_bytes(std::span<const uint8_t> bytes, std::span<const uint8_t> points);
  bool write_form(std::span<const uint8_t> bytes, std::span<const uint8_t> points, uint8_t* out) {
    return jpeg_.write_form(bytes, points, out);
  }

  bool by_baseline() const { return jpeg_.by_baseline(); }
  bool by_progressive() const { return jpeg_.by_progressive(); }
  bool from_points() const { return jpeg_.from_points(); }

 private:
  jpeg::Decoder jpeg_;
  png::Decoder png_;
};

// What a record says about its picture before the pixels.
struct PictureHeader {
  int32_t height, width;
  int components;        // 1 gray, 3 colour, 4 CMYK or YCCK; a PNG's alpha does not count
  int bits;              // of a component: 8 or 16
  bool progressive;      // or interlaced
  int exif_orientation;  // 1..8; 1 if there is none, and for a PNG
  bool ends;             // the bytes end as their format ends: nothing was cut off
};

// Throws Error(record), for too many pixels too. Does not look for scans.
PictureHeader read_header(std::span<const uint8_t> bytes, const Limits& limits = {});

// Throws Error(record) if the record is a JPEG with more scans than the limits allow. Reads all of it.
void check_scans(std::span<const uint8_t> bytes, const Limits& limits);

}  // namespace pass_loader
