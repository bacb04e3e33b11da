// What a JPEG says of itself before its pixels (ITU T.81 Annex B; JFIF; Exif), read the way Pillow reads it.
#pragma once
#include <cstdint>
#include <span>

namespace pass_loader::jpeg {

struct Header {
  int32_t height, width;
  int components;  // 1 gray, 3 colour, 4 CMYK or YCCK
  bool progressive;
  int exif_orientation;  // 1..8; 1 where there is none. Pillow does not apply it in convert("RGB"), nor do we
};

// Throws Error(record): no JPEG, cut off, not 8 bits, 2 or more than 4 components, more pixels than kMaxPixels.
Header read_header(std::span<const uint8_t> bytes);

// Markers without a segment: JPG, RSTn, SOI, EOI, JPGn.
bool stands_alone(int marker);

// The first segment of the bytes, from its FF on, where a whole one stands there; else empty.
std::span<const uint8_t> first_segment(std::span<const uint8_t> bytes);

// Orientation, 1..8, of an APP1 segment's payload; 1 where it is no Exif or anything is amiss.
int exif_orientation(std::span<const uint8_t> payload);

// Start of frame: C0..CF without DHT, JPG and DAC, and DHP (T.81 table B.1), which is what Pillow takes for one.
bool is_frame(int marker);

// Whether an end-of-image marker closes the bytes, up to 16 bytes of padding: a cheap sign that nothing was cut off.
bool ends_with_eoi(std::span<const uint8_t> bytes);

}  // namespace pass_loader::jpeg
