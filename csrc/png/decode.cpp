#include "png/decode.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include <png.h>

#include "error.h"
#include "png/header.h"

namespace pass_loader::png {
namespace {

// What libpng reads: the file's own IHDR and PLTE, then its IDAT chunks with true lengths. Nothing else of the file
// reaches libpng. read_header checks CRCs; those of IDAT chunks are ignored, as by Pillow.
class Feed {
 public:
  void begin(std::span<const uint8_t> bytes, const Header& header) {
    bytes_ = bytes, palette_ = header.palette_chunk;
    next_data_ = header.first_data;
    piece_ = bytes.first(kBeforePalette);
    data_ = {};
    part_ = header.colour == ColourType::palette ? Part::palette : Part::head;
  }

  // Returns false if the file has no more.
  bool read(uint8_t* to, size_t count) {
    while (count > 0) {
      if (piece_.empty() && !next_piece()) return false;
      const size_t taken = std::min(count, piece_.size());
      std::memcpy(to, piece_.data(), taken);
      piece_ = piece_.subspan(taken);
      to += taken, count -= taken;
    }
    return true;
  }

  size_t end() const { return next_data_; }  // where the first chunk begins that has not been read

 private:
  static constexpr size_t kBeforePalette = 33;  // magic and IHDR
  enum class Part { palette, head, data, crc };

  bool next_piece() {
    switch (part_) {
      case Part::palette:
        piece_ = palette_, part_ = Part::head;
        return true;
      case Part::head: {
        do {
          const size_t at = next_data_;
          data_ = data_chunk(bytes_, &next_data_);
          if (next_data_ == at) return false;
        } while (data_.empty());
        const auto length = static_cast<uint32_t>(data_.size());
        for (int i = 0; i < 4; ++i) head_[i] = static_cast<uint8_t>(length >> (24 - 8 * i));
        std::memcpy(head_ + 4, "IDAT", 4);
        piece_ = head_, part_ = Part::data;
        return true;
      }
      case Part::data:
        piece_ = data_, part_ = Part::crc;
        return true;
      default:
        std::memset(head_, 0, 4);
        piece_ = std::span(head_, 4), part_ = Part::head;
        return true;
    }
  }

  std::span<const uint8_t> bytes_, palette_, data_, piece_;
  size_t next_data_ = 0;
  uint8_t head_[8];
  Part part_ = Part::head;
};

}  // namespace

struct Decoder::State {
  png_structp png = nullptr;
  png_infop info = nullptr;
  Feed feed;
  bool exhausted = false;
  char message[128];
  Scratch<uint8_t> rows, pixels;

  // These may longjmp. They hold no objects with destructors.
  bool run(const Header& header, uint8_t* rows_to, size_t row_stride);
  void read_rows(const Header& header, uint8_t* rows_to, size_t row_stride);
  bool is_complete(const Header& header) const;
};

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;

namespace {

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<char*>(png_get_error_ptr(png));
  std::snprintf(state, 128, "%s", message);
  png_longjmp(png, 1);
}

}  // namespace

// Returns true if all rows have been written: libpng has counted the last row of the last pass and looks for the end of
// the stream. Pillow does not need an end.
bool Decoder::State::is_complete(const Header& header) const {
  if (header.interlaced) return png_get_current_pass_number(png) >= 7;
  return png_get_current_row_number(png) >= png_get_image_height(png, info);
}

void Decoder::State::read_rows(const Header& header, uint8_t* rows_to, size_t row_stride) {
  png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(png, info);
  if (header.colour == ColourType::gray && header.bits < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (header.colour == ColourType::palette) png_set_packing(png);
  if (header.colour == ColourType::gray_alpha || header.colour == ColourType::rgb_alpha) png_set_strip_alpha(png);
  if (header.bits == 16 && std::endian::native == std::endian::little) png_set_swap(png);
  const int passes = png_set_interlace_handling(png);
  png_start_read_image(png);
  for (int pass = 0; pass < passes; ++pass)
    for (int32_t y = 0; y < header.height; ++y)
      png_read_row(png, rows_to + static_cast<size_t>(y) * row_stride, nullptr);
}

bool Decoder::State::run(const Header& header, uint8_t* rows_to, size_t row_stride) {
  message[0] = '\0', exhausted = false;
  png = png_create_read_struct(PNG_LIBPNG_VER_STRING, message, on_error, [](png_structp, png_const_charp) {});
  if (png == nullptr) throw std::bad_alloc();
  if (setjmp(png_jmpbuf(png)) != 0) {
    const bool complete = exhausted && is_complete(header);
    png_destroy_read_struct(&png, &info, nullptr);
    return complete;
  }
  info = png_create_info_struct(png);
  if (info == nullptr) png_error(png, "out of memory");
  png_set_read_fn(png, this, [](png_structp reader, png_bytep to, size_t count) {
    auto* state = static_cast<State*>(png_get_io_ptr(reader));
    if (state->feed.read(to, count)) return;
    state->exhausted = true;
    png_error(reader, "cut off: all bytes are read and the picture is not complete");
  });
  read_rows(header, rows_to, row_stride);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

namespace {

void split_rgb(const uint8_t* from, size_t row_stride, const Planes& to) {
  for (int32_t y = 0; y < to.height; ++y, from += row_stride) {
    uint8_t *r = to.row(0, y), *g = to.row(1, y), *b = to.row(2, y);
    for (int32_t x = 0; x < to.width; ++x) r[x] = from[3 * x], g[x] = from[3 * x + 1], b[x] = from[3 * x + 2];
  }
}

// Colours that are not in the palette are black, as in Pillow.
void look_up(const uint8_t* from, size_t row_stride, std::span<const uint8_t> chunk, const Planes& to) {
  uint8_t table[3][256];
  const size_t colours = (chunk.size() - 12) / 3;
  for (size_t i = 0; i < 256; ++i)
    for (size_t c = 0; c < 3; ++c) table[c][i] = i < colours ? chunk[8 + 3 * i + c] : uint8_t{0};
  for (int32_t y = 0; y < to.height; ++y, from += row_stride)
    for (int c = 0; c < 3; ++c)
      for (int32_t x = 0; x < to.width; ++x) to.row(c, y)[x] = table[c][from[x]];
}

}  // namespace

ConstPlanes Decoder::decode(std::span<const uint8_t> bytes) {
  State& s = *state_;
  const Header header = read_header(bytes);  // enforces the limit of pixels before anything is allocated
  const bool gray = header.is_gray(), deep = header.bits == 16;
  const size_t width = static_cast<size_t>(header.width), height = static_cast<size_t>(header.height);
  const size_t row_stride = round_up(width * (deep ? 2 : 1), kTile), plane_stride = row_stride * height;
  const int channels = gray ? 1 : 3;
  const Planes planes{
      s.pixels.need(channels * plane_stride), header.height, header.width, row_stride, plane_stride, channels, deep};
  s.feed.begin(bytes, header);
  const bool palette = header.colour == ColourType::palette;
  const size_t stride = gray ? row_stride : palette ? width : 3 * width;
  uint8_t* rows = gray ? planes.pixels : s.rows.need(stride * height);
  if (!s.run(header, rows, stride)) fail(Fault::record, "PNG: %s", s.message);
  check_rest(bytes, s.feed.end());
  if (palette) look_up(rows, stride, header.palette_chunk, planes);
  if (!gray && !palette) split_rgb(rows, stride, planes);
  return planes;
}

}  // namespace pass_loader::png
