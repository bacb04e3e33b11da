#include "jpeg/decode.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "error.h"
#include "jpeg/baseline.h"
#include "jpeg/colour.h"
#include "jpeg/dct_codec.h"
#include "jpeg/describe.h"
#include "jpeg/forms.h"
#include "jpeg/header.h"
#include "jpeg/libjpeg.h"
#include "jpeg/progressive.h"

namespace pass_loader::jpeg {
namespace {

// How many scans a picture may have, and where that comes from.
struct ScanLimit {
  int scans;
  bool is_given;

  ScanLimit(int32_t height, int32_t width, int max_scans) : scans(max_scans), is_given(max_scans > 0) {
    if (!is_given) scans = static_cast<int>(std::min<int64_t>(kMaxScans, kMaxScannedPixels / height / width));
  }

  void describe(char* message, size_t room) const {
    std::snprintf(message, room, "more than %d scans, %s", scans,
                  is_given ? "which is max_scans"
                           : "the limit for its size unless max_scans (--max-scans) is given (a decompression bomb?)");
  }
};

struct ScanMonitor {
  jpeg_progress_mgr base;
  ScanLimit limit;
};

void limit_scans(j_common_ptr info) {
  auto* decompress = reinterpret_cast<j_decompress_ptr>(info);
  const ScanLimit& limit = reinterpret_cast<ScanMonitor*>(info->progress)->limit;
  if (decompress->input_scan_number <= limit.scans) return;
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  limit.describe(manager->message, sizeof manager->message);
  std::longjmp(manager->jump, 1);
}

enum class Outcome { complete, truncated, broken, resized };

}  // namespace

struct Decoder::State {
  jpeg_decompress_struct info;
  ErrorManager errors;
  jpeg_source_mgr source;
  ScanMonitor monitor{{}, {1, 1, 0}};
  Scratch<uint8_t> row, pixels;
  BaselineDecoder baseline;
  ProgressiveDecoder progressive;
  DctDecoder dct;
  FormWriter forms;
  BaselineScan scan;  // of the JPEG that read_scan has read, and the bytes after the scan's header
  std::span<const uint8_t> entropy;
  Assembly assembly;
  bool libjpeg_alone = false, by_baseline = false, by_progressive = false, from_points = false;
  const Part* part = nullptr;              // of the picture in work; null: all of it
  std::vector<uint8_t>* points = nullptr;  // where its entry points go; null: nobody wants them

  State();
  Planes planes_of(int32_t height, int32_t width, int components);
  // All functions that may longjmp. They hold no objects with destructors.
  Outcome run(std::span<const uint8_t> bytes, const Header& header, uint8_t* row_buffer, const Planes& planes);
  template <typename Looks>
  bool read_header_of(std::span<const uint8_t> bytes, const Looks& looks);
  bool is_plain(std::span<const uint8_t> bytes);
  bool read_scan(std::span<const uint8_t> bytes);
  Outcome decompress(const Header& header, uint8_t* row_buffer, const Planes& planes);
  Outcome read_rows(const Header& header, uint8_t* row_buffer, const Planes& planes);
  Outcome read_planes(const Planes& planes);
  bool decode_baseline(const Planes& planes);
  bool decode_progressive(const Planes& planes);
};

Decoder::State::State() : info{}, errors(make_error_manager()), source{} {
  monitor.base.progress_monitor = limit_scans;
}

void check_scans(std::span<const uint8_t> bytes, int32_t height, int32_t width, int max_scans) {
  const ScanLimit limit(height, width, max_scans);
  if (count_scans(bytes, limit.scans) <= limit.scans) return;
  char message[JMSG_LENGTH_MAX];
  limit.describe(message, sizeof message);
  fail(Fault::record, "JPEG: %s", message);
}

Decoder::Decoder(bool libjpeg_alone) : state_(std::make_unique<State>()) { state_->libjpeg_alone = libjpeg_alone; }
Decoder::~Decoder() = default;
bool Decoder::by_baseline() const { return state_->by_baseline; }
bool Decoder::by_progressive() const { return state_->by_progressive; }
bool Decoder::from_points() const { return state_->from_points; }
bool Decoder::is_plain(std::span<const uint8_t> bytes) { return state_->is_plain(bytes); }

size_t Decoder::form_bytes(std::span<const uint8_t> bytes, std::span<const uint8_t> points) {
  if (is_dct(bytes)) return jpeg::form_bytes(parse_dct(bytes));
  if (points.empty() || !state_->read_scan(bytes)) return 0;
  const Header header = read_header(bytes);
  const Frame& frame = state_->scan.frame;
  if (header.height != frame.height || header.width != frame.width || header.components != frame.components) return 0;
  return jpeg::form_bytes(state_->scan, state_->entropy, points);
}

bool Decoder::write_form(std::span<const uint8_t> bytes, std::span<const uint8_t> points, uint8_t* out) {
  if (is_dct(bytes)) return state_->forms.write(parse_dct(bytes), out);
  jpeg::write_form(state_->scan, state_->entropy, points, out);
  return true;
}

// Reads up to the scan. Returns what `looks`, which may not throw, says of `info`; false if there is no scan.
template <typename Looks>
bool Decoder::State::read_header_of(std::span<const uint8_t> bytes, const Looks& looks) {
  std::memset(&info, 0, sizeof info);
  info.err = &errors.base;
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  info.src = &source;
  source = make_source(bytes);
  const bool found = jpeg_read_header(&info, TRUE) == JPEG_HEADER_OK && looks();
  jpeg_destroy_decompress(&info);
  return found;
}

// Returns false if the scan is none that BaselineDecoder takes.
bool Decoder::State::read_scan(std::span<const uint8_t> bytes) {
  return read_header_of(bytes, [this] {
    entropy = unread(info);
    return describe_scan(info, &scan);
  });
}

bool Decoder::State::is_plain(std::span<const uint8_t> bytes) {
  return read_header_of(bytes, [this] { return is_plain_scan(info); });
}

Outcome Decoder::State::run(std::span<const uint8_t> bytes, const Header& header, uint8_t* row_buffer,
                            const Planes& planes) {
  std::memset(&info, 0, sizeof info);
  info.err = &errors.base;
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);  // harmless if creating it has failed
    return Outcome::broken;
  }
  jpeg_create_decompress(&info);
  info.src = &source;
  info.progress = &monitor.base;
  source = make_source(bytes);
  try {
    const Outcome outcome = decompress(header, row_buffer, planes);
    jpeg_destroy_decompress(&info);
    return outcome;
  } catch (...) {  // out of memory in our own code
    jpeg_destroy_decompress(&info);
    throw;
  }
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
  if (!libjpeg_alone && (decode_baseline(planes) || decode_progressive(planes))) return Outcome::complete;
  // Without subsampled colour there is nothing to upsample. Then libjpeg writes straight into our planes, which saves
  // making interleaved rows and splitting them again.
  bool full_colour = info.num_components == 3 && info.jpeg_color_space == JCS_YCbCr;
  for (int c = 0; full_colour && c < 3; ++c)
    full_colour = info.comp_info[c].h_samp_factor == 1 && info.comp_info[c].v_samp_factor == 1;
  Outcome outcome = full_colour ? read_planes(planes) : read_rows(header, row_buffer, planes);
  if (outcome != Outcome::complete) return outcome;
  // Reads on to the end marker. Pillow refuses a file with an error there, but not one without the marker. A second
  // frame that is cut off is such an error for libjpeg-turbo 3, which Pillow bundles; 2.1 asks for more bytes.
  if (!jpeg_finish_decompress(&info) && is_frame(info.unread_marker)) return Outcome::resized;
  return Outcome::complete;
}

bool Decoder::State::decode_baseline(const Planes& planes) {
  BaselineScan scan;
  if (!describe_scan(info, &scan)) return false;
  const std::span<const uint8_t> entropy = unread(info);
  if (part != nullptr) {
    assembly.begin(scan.frame, planes, part->window);
    from_points = !part->points.empty() && baseline.decode_from(part->points, scan, entropy, assembly);
    by_baseline = from_points || baseline.decode(scan, entropy, assembly);
  } else {
    assembly.begin(scan.frame, planes, Window::whole(planes.height, planes.width));
    by_baseline = baseline.decode(scan, entropy, assembly, points);
    if (points != nullptr && !by_baseline) points->clear();
  }
  if (by_baseline) assembly.finish();
  return by_baseline;
}

bool Decoder::State::decode_progressive(const Planes& planes) {
  ProgressiveFrame start;
  if (!describe_progressive(info, &start)) return false;
  assembly.begin(start.frame, planes, part != nullptr ? part->window : Window::whole(planes.height, planes.width));
  by_progressive = progressive.decode(start, scans_of(info), monitor.limit.scans, assembly);
  if (by_progressive) assembly.finish();
  return by_progressive;
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

Planes Decoder::State::planes_of(int32_t height, int32_t width, int components) {
  const int channels = components == 1 ? 1 : 3;
  const size_t row_stride = round_up(static_cast<size_t>(width), kTile);
  const size_t plane_stride = row_stride * round_up(static_cast<size_t>(height), 2 * DCTSIZE);  // whole MCUs
  return {pixels.need(channels * plane_stride), height, width, row_stride, plane_stride, channels};
}

static_assert(kStreamPadding <= 2 * kTile, "what a Scratch has after its bytes");

bool Decoder::prove(std::span<const uint8_t> bytes, int max_scans, std::vector<uint8_t>* points) {
  State& s = *state_;
  points->clear();
  s.points = points;
  s.errors.base.num_warnings = 0;
  try {
    decode(bytes, max_scans);
    s.points = nullptr;
  } catch (...) {
    s.points = nullptr;
    points->clear();
    throw;
  }
  return s.errors.base.num_warnings == 0;
}

ConstPlanes Decoder::decode(std::span<const uint8_t> bytes, int max_scans, const Part* part) {
  State& s = *state_;
  s.by_baseline = s.by_progressive = s.from_points = false;
  const auto check_part = [part](int32_t height, int32_t width) {
    if (part == nullptr) return;
    const Window& w = part->window;
    PL_CHECK(
        0 <= w.top && w.top < w.bottom && w.bottom <= height && 0 <= w.left && w.left < w.right && w.right <= width,
        Fault::argument, "rows %d to %d and columns %d to %d are no part of a picture of %d x %d (height x width)",
        w.top, w.bottom, w.left, w.right, height, width);
  };
  if (is_dct(bytes)) {
    const DctRecord record = parse_dct(bytes);
    const Planes planes = s.planes_of(record.frame.height, record.frame.width, record.frame.components);
    check_part(planes.height, planes.width);
    s.assembly.begin(record.frame, planes, part != nullptr ? part->window : Window::whole(planes.height, planes.width));
    s.dct.decode(record, s.assembly);
    s.assembly.finish();
    return planes;
  }
  const Header header = read_header(bytes);  // enforces the limit of pixels before anything is allocated
  const Planes planes = s.planes_of(header.height, header.width, header.components);
  uint8_t* row = s.row.need(static_cast<size_t>(header.width) * 4);
  check_part(header.height, header.width);
  s.part = part;
  s.monitor.limit = {header.height, header.width, max_scans};
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
