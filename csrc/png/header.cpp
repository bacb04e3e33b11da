#include "png/header.h"

#include <algorithm>
#include <cstring>

#include <zlib.h>

#include "error.h"
#include "image.h"

namespace pass_loader::png {
namespace {

constexpr uint8_t kMagic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
constexpr size_t kFrame = 12;  // bytes of a chunk: length, type and CRC
constexpr uint32_t kMaxSide = 65535;

uint32_t big32(const uint8_t* p) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | p[i];
  return value;
}

struct Chunk {
  const uint8_t* type;
  std::span<const uint8_t> data;  // as much as is there
  uint32_t length;                // as the chunk says

  bool is(const char* name) const { return std::memcmp(type, name, 4) == 0; }
  bool whole() const { return data.size() == length; }
};

// Pillow's pattern for a type is \w{4}.
bool is_type(const uint8_t* type) {
  return std::all_of(type, type + 4, [](uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

// Returns false if there is no chunk's head at `at`.
bool chunk_at(std::span<const uint8_t> bytes, size_t at, Chunk* chunk) {
  if (at > bytes.size() || bytes.size() - at < 8 || !is_type(&bytes[at + 4])) return false;
  chunk->length = big32(&bytes[at]);
  chunk->type = &bytes[at + 4];
  chunk->data = bytes.subspan(at + 8, std::min<size_t>(chunk->length, bytes.size() - at - 8));
  return true;
}

void check_crc(std::span<const uint8_t> bytes, size_t at, const Chunk& chunk) {
  PL_CHECK(chunk.whole() && bytes.size() - at >= kFrame + chunk.length, Fault::record,
           "PNG: cut off in its header: chunk %.4s at byte %zu has %u bytes", chunk.type, at, chunk.length);
  const auto crc = static_cast<uint32_t>(crc32_z(0, chunk.type, size_t{4} + chunk.length));
  PL_CHECK(crc == big32(chunk.data.data() + chunk.length), Fault::record, "PNG: chunk %.4s at byte %zu has a wrong CRC",
           chunk.type, at);
}

void check_size(uint32_t height, uint32_t width) {
  const uint64_t pixels = uint64_t{height} * width;
  PL_CHECK(pixels <= kMaxPixels, Fault::record,
           "PNG: %u x %u (height x width) is %llu pixels, more than the limit of %lld (a decompression bomb?)", height,
           width, static_cast<unsigned long long>(pixels), static_cast<long long>(kMaxPixels));
  PL_CHECK(height >= 1 && width >= 1 && height <= kMaxSide && width <= kMaxSide, Fault::record,
           "PNG: size is %u x %u (height x width), want sides in [1, %u]", height, width, kMaxSide);
}

void read_frame(const Chunk& chunk, Header* header) {
  PL_CHECK(chunk.length == 13, Fault::record, "PNG: IHDR of %u bytes, want 13", chunk.length);
  const uint8_t* p = chunk.data.data();
  check_size(big32(p + 4), big32(p));
  header->width = static_cast<int32_t>(big32(p)), header->height = static_cast<int32_t>(big32(p + 4));
  header->bits = p[8];
  const int colour = p[9], bits = p[8];
  const bool small = bits == 1 || bits == 2 || bits == 4;
  const bool known = (colour == 0 && (small || bits == 8 || bits == 16)) || (colour == 3 && (small || bits == 8)) ||
                     ((colour == 2 || colour == 4 || colour == 6) && (bits == 8 || bits == 16));
  PL_CHECK(known, Fault::record, "PNG: %d bits of colour type %d are no PNG", bits, colour);
  PL_CHECK(bits <= 8 || colour == 0, Fault::record,
           "PNG: %s of 16 bits a sample is not decoded, since RGB would lose 8 of them; 16-bit gray without alpha is",
           colour == 4 ? "gray and alpha" : "colour");
  header->colour = static_cast<ColourType>(colour);
  PL_CHECK(p[10] == 0 && p[11] == 0 && p[12] <= 1, Fault::record,
           "PNG: compression %d, filter %d, interlace %d are unknown", p[10], p[11], p[12]);
  header->interlaced = p[12] != 0;
}

}  // namespace

bool is_png(std::span<const uint8_t> bytes) {
  return bytes.size() >= sizeof kMagic && std::memcmp(bytes.data(), kMagic, sizeof kMagic) == 0;
}

// Walks the chunks as Pillow's PngImageFile._open does.
Header read_header(std::span<const uint8_t> bytes) {
  PL_CHECK(is_png(bytes), Fault::record, "not a PNG: it does not begin with 89 50 4E 47 0D 0A 1A 0A");
  Header header{};
  for (size_t at = sizeof kMagic;;) {
    Chunk chunk;
    PL_CHECK(chunk_at(bytes, at, &chunk), Fault::record, "PNG: no chunk at byte %zu of %zu, before the pixels", at,
             bytes.size());
    if (at == sizeof kMagic) PL_CHECK(chunk.is("IHDR"), Fault::record, "PNG: begins with %.4s, want IHDR", chunk.type);
    if (chunk.is("IDAT")) {
      PL_CHECK(header.colour != ColourType::palette || !header.palette_chunk.empty(), Fault::record,
               "PNG: a picture of palette colours without a palette");
      header.first_data = at;
      return header;
    }
    check_crc(bytes, at, chunk);
    PL_CHECK(!chunk.is("acTL"), Fault::record, "PNG: it is animated");
    if (chunk.is("IHDR")) {
      PL_CHECK(header.height == 0, Fault::record, "PNG: two IHDR chunks");
      read_frame(chunk, &header);
    }
    if (chunk.is("PLTE")) {
      PL_CHECK(chunk.length % 3 == 0 && chunk.length >= 3 && chunk.length <= 768, Fault::record,
               "PNG: a palette of %u bytes, want 3 a colour and at most 256 colours", chunk.length);
      header.palette_chunk = bytes.subspan(at, kFrame + chunk.length);
    }
    PL_CHECK(!chunk.is("IEND"), Fault::record, "PNG: it ends without pixels");
    at += kFrame + chunk.length;
  }
}

std::span<const uint8_t> data_chunk(std::span<const uint8_t> bytes, size_t* at) {
  Chunk chunk;
  if (!chunk_at(bytes, *at, &chunk) || !chunk.is("IDAT")) return {};
  *at += kFrame + chunk.length;
  return chunk.data;
}

void check_rest(std::span<const uint8_t> bytes, size_t at) {
  for (Chunk chunk; chunk_at(bytes, at, &chunk) && !chunk.is("IEND"); at += kFrame + chunk.length)
    PL_CHECK(chunk.whole(), Fault::record, "PNG: cut off: chunk %.4s at byte %zu has %u bytes, %zu are there",
             chunk.type, at, chunk.length, chunk.data.size());
}

bool ends_with_iend(std::span<const uint8_t> bytes) {
  constexpr uint8_t kEnd[] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};
  return bytes.size() >= sizeof kEnd && std::memcmp(bytes.data() + bytes.size() - sizeof kEnd, kEnd, sizeof kEnd) == 0;
}

}  // namespace pass_loader::png
