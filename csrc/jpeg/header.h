// Reads what a JPEG says about its picture before the pixels (ITU T.81 Annex B; JFIF; Exif), in the way Pillow does.
#pragma once
#include <cstdint>
#include <span>

namespace pass_loader::jpeg {

struct Header {
  int32_t height, width;
  int components;  // 1 gray, 3 colour, 4 CMYK or YCCK
  bool progressive;
  int exif_orientation;  // 1..8; 1 if there is none. Neither Pillow's convert("RGB") nor we apply it
};

// Throws Error(record) if the bytes are no JPEG, are cut off, do not have 8 bits, have 2 or more than 4 components, or
// more pixels than kMaxPixels.
Header read_header(std::span<const uint8_t> bytes);

// Markers without a segment: JPG, RSTn, SOI, EOI, JPGn.
bool stands_alone(int marker);

// Returns the segment at the beginning of the bytes, from its FF, or nothing if there is no whole one.
std::span<const uint8_t> first_segment(std::span<const uint8_t> bytes);

// Returns the orientation, 1..8, from an APP1 segment's payload, or 1 if it is no Exif or anything is wrong.
int exif_orientation(std::span<const uint8_t> payload);

// Returns true for a start of frame: C0..CF without DHT, JPG and DAC, and DHP (T.81 table B.1), as Pillow has it.
bool is_frame(int marker);

// Returns how many scans a file has, or most + 1 if there are more. read_header must have accepted the file.
int count_scans(std::span<const uint8_t> bytes, int most);

// Returns true if the bytes end with an end-of-image marker and at most 16 bytes of padding: a cheap sign that nothing
// was cut off.
bool ends_with_eoi(std::span<const uint8_t> bytes);

}  // namespace pass_loader::jpeg
