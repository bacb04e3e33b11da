#include "jpeg/decode.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "error.h"
#include "isa.h"
#include "jpeg/header.h"

namespace pass_loader::jpeg {
namespace {

struct ErrorManager {
  jpeg_error_mgr base;
  jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->message);
  std::longjmp(manager->jump, 1);
}

void ignore_message(j_common_ptr) {}

// The source has all its bytes at once and never invents an end: asking for more suspends libjpeg, and a decoder that
// suspends has been given a truncated file. Pillow's source (JpegDecode.c) behaves so when its file ends.
void source_stub(j_decompress_ptr) {}
boolean fill_nothing(j_decompress_ptr) { return FALSE; }

void skip_bytes(j_decompress_ptr info, long count) {
  if (count <= 0) return;
  size_t skipped = std::min(static_cast<size_t>(count), info->src->bytes_in_buffer);
  info->src->next_input_byte += skipped;
  info->src->bytes_in_buffer -= skipped;
}

void limit_scans(j_common_ptr info) {
  auto* decompress = reinterpret_cast<j_decompress_ptr>(info);
  if (decompress->input_scan_number <= kMaxScans) return;
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  std::snprintf(manager->message, sizeof manager->message, "more than %d scans", kMaxScans);
  std::longjmp(manager->jump, 1);
}

// JFIF's YCbCr to RGB in libjpeg's fixed point (jdcolor.c: 16-bit fractions, each rounded once), in place.
PL_INLINE void ycc_to_rgb_body(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count) {
  auto byte = [](int32_t v) { return static_cast<uint8_t>(std::clamp(v, 0, 255)); };
  for (size_t at = 0; at < count; at += kTile, luma += kTile, blue += kTile, red += kTile) {
    uint8_t r[kTile], g[kTile], b[kTile];
    for (size_t i = 0; i < kTile; ++i) {
      int32_t y = luma[i], cb = blue[i] - 128, cr = red[i] - 128;
      r[i] = byte(y + ((91881 * cr + 32768) >> 16));                // 1.40200
      g[i] = byte(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));  // 0.34414, 0.71414
      b[i] = byte(y + ((116130 * cb + 32768) >> 16));               // 1.77200
    }
    std::memcpy(luma, r, kTile);
    std::memcpy(blue, g, kTile);
    std::memcpy(red, b, kTile);
  }
}
PL_LEVELS(ycc_to_rgb, (uint8_t * luma, uint8_t* blue, uint8_t* red, size_t count), (luma, blue, red, count))

// Pillow, ImagingUtils.h: MULDIV255, a * b / 255 rounded.
PL_INLINE int multiply_255(int a, int b) {
  int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

PL_INLINE void split_rgb_body(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  for (int32_t x = 0; x < width; ++x) {
    r[x] = row[3 * x];
    g[x] = row[3 * x + 1];
    b[x] = row[3 * x + 2];
  }
}

// libjpeg hands out what the file holds, which Adobe's files hold inverted; Pillow assumes Adobe (raw mode "CMYK;I")
// and converts without a profile (Convert.c: cmyk2rgb).
PL_INLINE void split_cmyk_body(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  for (int32_t x = 0; x < width; ++x) {
    int light = row[4 * x + 3];
    r[x] = static_cast<uint8_t>(light - multiply_255(255 - row[4 * x], light));
    g[x] = static_cast<uint8_t>(light - multiply_255(255 - row[4 * x + 1], light));
    b[x] = static_cast<uint8_t>(light - multiply_255(255 - row[4 * x + 2], light));
  }
}

#if defined(__x86_64__)
// Channel c of 16 pixels lies at bytes 3 i + c of 48, in three registers: one shuffle of each, the others' places zeroed.
struct ShuffleIndices {
  alignas(16) uint8_t of[3][3][16];  // channel, register; 0x80 gives zero
};
constexpr ShuffleIndices kShuffle = [] {
  ShuffleIndices shuffle{};
  for (int c = 0; c < 3; ++c)
    for (int from = 0; from < 3; ++from)
      for (int i = 0; i < 16; ++i) {
        int place = 3 * i + c - 16 * from;
        shuffle.of[c][from][i] = place >= 0 && place < 16 ? static_cast<uint8_t>(place) : 0x80;
      }
  return shuffle;
}();

PL_TARGET_AVX2 void split_rgb_avx2(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  auto register_at = [](const uint8_t* p) PL_TARGET_AVX2 { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
  uint8_t* out[3] = {r, g, b};
  int32_t x = 0;
  for (; x + 16 <= width; x += 16) {
    const uint8_t* in = row + 3 * x;
    const __m128i v[3] = {register_at(in), register_at(in + 16), register_at(in + 32)};
    for (int c = 0; c < 3; ++c) {
      __m128i all = _mm_setzero_si128();
      for (int from = 0; from < 3; ++from)
        all = _mm_or_si128(all, _mm_shuffle_epi8(v[from], register_at(kShuffle.of[c][from])));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out[c] + x), all);
    }
  }
  split_rgb_body(row + 3 * x, width - x, r + x, g + x, b + x);
}
#define split_rgb_avx512 split_rgb_avx2

// From 192 interleaved bytes, channel c of 64 pixels: byte i lies at 3 i + c, in one of three registers.
struct SplitIndices {
  alignas(64) uint8_t of_two[3][64];  // for a permute of the first two registers
  alignas(64) uint8_t of_third[3][64];
  uint64_t in_third[3];
};
constexpr SplitIndices kSplit = [] {
  SplitIndices split{};
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < 64; ++i) {
      int place = 3 * i + c;
      split.of_two[c][i] = static_cast<uint8_t>(place & 127);
      split.of_third[c][i] = static_cast<uint8_t>(place & 63);
      if (place >= 128) split.in_third[c] |= uint64_t{1} << i;
    }
  return split;
}();

PL_TARGET_VBMI void split_rgb_avx512vbmi(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  uint8_t* out[3] = {r, g, b};
  int32_t x = 0;
  for (; x + 64 <= width; x += 64) {
    const uint8_t* in = row + 3 * x;
    __m512i v0 = _mm512_loadu_si512(in), v1 = _mm512_loadu_si512(in + 64), v2 = _mm512_loadu_si512(in + 128);
    for (int c = 0; c < 3; ++c) {
      __m512i two = _mm512_permutex2var_epi8(v0, _mm512_load_si512(kSplit.of_two[c]), v1);
      __m512i all = _mm512_mask_permutexvar_epi8(two, kSplit.in_third[c], _mm512_load_si512(kSplit.of_third[c]), v2);
      _mm512_storeu_si512(out[c] + x, all);
    }
  }
  split_rgb_body(row + 3 * x, width - x, r + x, g + x, b + x);
}
#endif

void split_rgb_base(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  split_rgb_body(row, width, r, g, b);
}
PL_DISPATCH(split_rgb, (const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b), (row, width, r, g, b),
            split_rgb)
PL_LEVELS(split_cmyk, (const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b), (row, width, r, g, b))

void split_row(const uint8_t* row, int components, const Planes& planes, int32_t y) {
  uint8_t *r = planes.row(0, y), *g = planes.row(1, y), *b = planes.row(2, y);
  if (components == 3) return split_rgb(row, planes.width, r, g, b);
  if (components == 4) return split_cmyk(row, planes.width, r, g, b);
  std::memcpy(r, row, planes.width);
  std::memcpy(g, row, planes.width);
  std::memcpy(b, row, planes.width);
}

enum class Outcome { complete, truncated, broken, resized };

}  // namespace

struct Decoder::State {
  jpeg_decompress_struct info;
  ErrorManager errors;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;
  Scratch<uint8_t> row, pixels;

  State();
  // Everything that may longjmp; they hold no object with a destructor.
  Outcome run(std::span<const uint8_t> bytes, const Header& header, uint8_t* row_buffer, const Planes& planes);
  Outcome decompress(const Header& header, uint8_t* row_buffer, const Planes& planes);
  Outcome read_rows(const Header& header, uint8_t* row_buffer, const Planes& planes);
  Outcome read_planes(const Planes& planes);
};

Decoder::State::State() : info{}, errors{}, source{}, progress{} {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.output_message = ignore_message;
  source.init_source = source.term_source = source_stub;
  source.fill_input_buffer = fill_nothing;
  source.skip_input_data = skip_bytes;
  source.resync_to_restart = jpeg_resync_to_restart;
  progress.progress_monitor = limit_scans;
}

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;

Outcome Decoder::State::run(std::span<const uint8_t> bytes, const Header& header, uint8_t* row_buffer,
                            const Planes& planes) {
  std::memset(&info, 0, sizeof info);
  info.err = &errors.base;
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);  // harmless where creating it failed
    return Outcome::broken;
  }
  jpeg_create_decompress(&info);
  info.src = &source;
  info.progress = &progress;
  source.next_input_byte = bytes.data();
  source.bytes_in_buffer = bytes.size();
  const Outcome outcome = decompress(header, row_buffer, planes);
  jpeg_destroy_decompress(&info);
  return outcome;
}

Outcome Decoder::State::decompress(const Header& header, uint8_t* row_buffer, const Planes& planes) {
  int status;
  do status = jpeg_read_header(&info, FALSE);
  while (status == JPEG_HEADER_TABLES_ONLY);
  if (status == JPEG_SUSPENDED) return Outcome::truncated;
  if (info.image_height != static_cast<JDIMENSION>(header.height) ||
      info.image_width != static_cast<JDIMENSION>(header.width) || info.num_components != header.components)
    return Outcome::resized;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  // Without subsampled colour there is nothing to upsample: libjpeg's planes come straight into ours, which saves making
  // interleaved rows and splitting them again.
  bool full_colour = info.num_components == 3 && info.jpeg_color_space == JCS_YCbCr;
  for (int c = 0; full_colour && c < 3; ++c)
    full_colour = info.comp_info[c].h_samp_factor == 1 && info.comp_info[c].v_samp_factor == 1;
  Outcome outcome = full_colour ? read_planes(planes) : read_rows(header, row_buffer, planes);
  if (outcome != Outcome::complete) return outcome;
  // Reads on to the end marker. Pillow refuses an error there, but not that the marker is missing. A second frame that
  // is cut off is such an error to libjpeg-turbo 3, which Pillow bundles; 2.1 asks for more bytes.
  if (!jpeg_finish_decompress(&info) && is_frame(info.unread_marker)) return Outcome::resized;
  return Outcome::complete;
}

Outcome Decoder::State::read_planes(const Planes& planes) {
  info.out_color_space = JCS_YCbCr;
  info.raw_data_out = TRUE;
  if (!jpeg_start_decompress(&info)) return Outcome::truncated;
  while (info.output_scanline < info.output_height) {
    const int32_t y = static_cast<int32_t>(info.output_scanline);
    JSAMPROW rows[3][DCTSIZE];
    JSAMPARRAY components[3] = {rows[0], rows[1], rows[2]};
    for (int c = 0; c < 3; ++c)
      for (int k = 0; k < DCTSIZE; ++k) rows[c][k] = planes.row(c, y + k);
    if (jpeg_read_raw_data(&info, components, DCTSIZE) != DCTSIZE) return Outcome::truncated;
    ycc_to_rgb(rows[0][0], rows[1][0], rows[2][0], DCTSIZE * planes.row_stride);
  }
  return Outcome::complete;
}

Outcome Decoder::State::read_rows(const Header& header, uint8_t* row_buffer, const Planes& planes) {
  info.out_color_space = header.components == 1 ? JCS_GRAYSCALE : header.components == 3 ? JCS_RGB : JCS_CMYK;
  if (!jpeg_start_decompress(&info)) return Outcome::truncated;
  while (info.output_scanline < info.output_height) {
    int32_t y = static_cast<int32_t>(info.output_scanline);
    JSAMPROW rows[1] = {row_buffer};
    if (jpeg_read_scanlines(&info, rows, 1) != 1) return Outcome::truncated;
    split_row(row_buffer, header.components, planes, y);
  }
  return Outcome::complete;
}

ConstPlanes Decoder::decode(std::span<const uint8_t> bytes) {
  State& s = *state_;
  const Header header = read_header(bytes);  // enforces the limit on pixels before anything is allocated
  const size_t row_stride = round_up(header.width, kTile);
  const size_t plane_stride = row_stride * round_up(header.height, DCTSIZE);  // whole blocks, for read_planes
  Planes planes{s.pixels.need(3 * plane_stride), header.height, header.width, row_stride, plane_stride};
  uint8_t* row = s.row.need(static_cast<size_t>(header.width) * 4);
  Outcome outcome = s.run(bytes, header, row, planes);
  switch (outcome) {
    case Outcome::complete:
      return planes;
    case Outcome::truncated:
      fail(Fault::record, "JPEG: cut off: all %zu bytes are read and the picture is not complete", bytes.size());
    case Outcome::resized:
      fail(Fault::record, "JPEG: its frame headers contradict each other");
    default:
      fail(Fault::record, "JPEG: %s", s.errors.message);
  }
}

}  // namespace pass_loader::jpeg
