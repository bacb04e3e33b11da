#include "jpeg/header.h"

#include <algorithm>
#include <cstring>

#include "error.h"
#include "image.h"

namespace pass_loader::jpeg {
namespace {

uint32_t big16(const uint8_t* p) { return static_cast<uint32_t>(p[0]) << 8 | p[1]; }

bool has_segment(int marker) { return marker >= 0xC0 && marker != 0xFF && !stands_alone(marker); }

void read_frame(int marker, std::span<const uint8_t> segment, Header& header) {
  PL_CHECK(segment.size() >= 6, Fault::record, "JPEG: frame header of %zu bytes, want at least 6 (T.81 B.2.2)",
           segment.size());
  PL_CHECK(segment[0] == 8, Fault::record, "JPEG: %d bits a sample, only 8 are decoded", segment[0]);
  header.height = static_cast<int32_t>(big16(&segment[1]));
  header.width = static_cast<int32_t>(big16(&segment[3]));
  header.components = segment[5];
  PL_CHECK(header.components == 1 || header.components == 3 || header.components == 4, Fault::record,
           "JPEG: %d components, want 1, 3 or 4", header.components);
  header.progressive = marker == 0xC2 || marker == 0xC6 || marker == 0xCA || marker == 0xCE;
}

void check_size(const Header& header) {
  PL_CHECK(header.height >= 1 && header.width >= 1, Fault::record, "JPEG: size is %d x %d (height x width)",
           header.height, header.width);
  int64_t pixels = int64_t{header.height} * header.width;
  PL_CHECK(pixels <= kMaxPixels, Fault::record,
           "JPEG: %d x %d (height x width) is %lld pixels, more than the limit of %lld (a decompression bomb?)",
           header.height, header.width, static_cast<long long>(pixels), static_cast<long long>(kMaxPixels));
}

}  // namespace

bool stands_alone(int marker) {
  return marker == 0xC8 || (marker >= 0xD0 && marker <= 0xD9) || (marker >= 0xF0 && marker <= 0xFD);
}

std::span<const uint8_t> first_segment(std::span<const uint8_t> bytes) {
  if (bytes.size() < 4 || bytes[0] != 0xFF) return {};
  const size_t length = 2 + big16(&bytes[2]);
  return length < 4 || length > bytes.size() ? std::span<const uint8_t>{} : bytes.first(length);
}

// Reads tag 0x0112 of the first image directory in an Exif segment's TIFF structure.
int exif_orientation(std::span<const uint8_t> segment) {
  if (segment.size() < 14 || std::memcmp(segment.data(), "Exif\0\0", 6) != 0) return 1;
  std::span<const uint8_t> tiff = segment.subspan(6);
  const bool little = tiff[0] == 'I';
  auto u16 = [&](size_t at) -> uint32_t { return little ? tiff[at] | tiff[at + 1] << 8 : big16(&tiff[at]); };
  auto u32 = [&](size_t at) -> uint64_t {
    return little ? u16(at) | static_cast<uint64_t>(u16(at + 2)) << 16
                  : static_cast<uint64_t>(u16(at)) << 16 | u16(at + 2);
  };
  uint64_t directory = u32(4);
  if (directory + 2 > tiff.size()) return 1;
  uint32_t entries = u16(directory);
  for (uint32_t i = 0; i < entries; ++i) {
    uint64_t entry = directory + 2 + uint64_t{12} * i;
    if (entry + 12 > tiff.size()) return 1;
    if (u16(entry) != 0x0112) continue;
    uint32_t value = u16(entry + 8);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

bool is_frame(int marker) {
  return (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) || marker == 0xDE;
}

// Walks the markers as Pillow's JpegImageFile._open does: it skips bytes between segments that are no marker.
Header read_header(std::span<const uint8_t> bytes) {
  PL_CHECK(!bytes.empty(), Fault::record, "JPEG: empty, 0 bytes");
  PL_CHECK(bytes.size() >= 3 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF, Fault::record,
           "not a JPEG: it does not begin with FF D8 FF");
  Header header{0, 0, 0, false, 1};
  size_t at = 2;
  while (at + 1 < bytes.size()) {
    if (bytes[at] != 0xFF) {
      ++at;
      continue;
    }
    const int marker = bytes[at + 1];
    if (marker == 0xFF) {  // fill byte
      ++at;
      continue;
    }
    at += 2;
    if (marker == 0 || stands_alone(marker)) continue;
    PL_CHECK(has_segment(marker), Fault::record, "JPEG: FF %02X at byte %zu is no marker", marker, at - 2);
    PL_CHECK(at + 2 <= bytes.size(), Fault::record, "JPEG: cut off in its header, at byte %zu", bytes.size());
    const size_t length = big16(&bytes[at]) < 2 ? 2 : big16(&bytes[at]);
    PL_CHECK(at + length <= bytes.size(), Fault::record,
             "JPEG: cut off in its header: segment FF %02X at byte %zu has %zu bytes, %zu are there", marker, at - 2,
             length, bytes.size() - at);
    std::span<const uint8_t> segment = bytes.subspan(at + 2, length - 2);
    if (is_frame(marker)) read_frame(marker, segment, header);
    if (marker == 0xE1 && header.exif_orientation == 1) header.exif_orientation = exif_orientation(segment);
    if (marker == 0xDA) {
      PL_CHECK(header.components != 0, Fault::record, "JPEG: a scan before any frame header");
      check_size(header);
      return header;
    }
    at += length;
  }
  fail(Fault::record, "JPEG: cut off in its header, at byte %zu, before any scan", bytes.size());
}

// Between markers lie entropy-coded data, in which FF is followed by 0, or padding.
int count_scans(std::span<const uint8_t> bytes, int most) {
  int scans = 0;
  size_t at = 2;
  while (scans <= most && at + 1 < bytes.size()) {
    const auto* found = static_cast<const uint8_t*>(std::memchr(&bytes[at], 0xFF, bytes.size() - at - 1));
    if (found == nullptr) break;
    at = static_cast<size_t>(found - bytes.data());
    const int marker = bytes[at + 1];
    if (marker == 0xFF) {  // fill byte
      ++at;
      continue;
    }
    at += 2;
    if (marker == 0xD9) break;
    if (!has_segment(marker) || at + 2 > bytes.size()) continue;
    scans += marker == 0xDA ? 1 : 0;
    at += std::max<size_t>(big16(&bytes[at]), 2);
  }
  return scans;
}

bool ends_with_eoi(std::span<const uint8_t> bytes) {
  for (size_t back = 2; back <= 18 && back <= bytes.size(); ++back) {
    const uint8_t* p = bytes.data() + bytes.size() - back;
    if (p[0] == 0xFF && p[1] == 0xD9) return true;
  }
  return false;
}

}  // namespace pass_loader::jpeg
