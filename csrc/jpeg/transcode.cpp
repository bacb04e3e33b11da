#include "jpeg/transcode.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <jerror.h>

#include "error.h"
#include "jpeg/baseline.h"
#include "jpeg/dct_codec.h"
#include "jpeg/decode.h"
#include "jpeg/describe.h"
#include "jpeg/header.h"
#include "jpeg/libjpeg.h"
#include "jpeg/progressive.h"

namespace pass_loader::jpeg {
namespace {

// Returns the APPn and COM segments before the first scan, unchanged. read_header must have accepted the file.
std::vector<uint8_t> markers_of(std::span<const uint8_t> file) {
  std::vector<uint8_t> markers;
  size_t at = 2;
  while (at + 1 < file.size() && file[at] == 0xff && file[at + 1] != 0xda) {
    const int marker = file[at + 1];
    if (marker == 0xff || stands_alone(marker)) {
      at += marker == 0xff ? 1 : 2;  // a fill byte
      continue;
    }
    const std::span<const uint8_t> segment = first_segment(file.subspan(at));
    if (segment.empty()) break;
    if ((marker >= 0xe0 && marker <= 0xef) || marker == 0xfe)
      markers.insert(markers.end(), segment.begin(), segment.end());
    at += segment.size();
  }
  return markers;
}

// Owns a decompressor. Errors of libjpeg are returned as false. Nothing that libjpeg may jump over has a destructor.
class CoefficientReader {
 public:
  explicit CoefficientReader(std::span<const uint8_t> file)
      : errors_(make_error_manager()), source_(make_source(file)) {
    info_.err = &errors_.base;
    created_ = guarded([&] { jpeg_create_decompress(&info_); });
    info_.src = &source_;
  }
  ~CoefficientReader() { jpeg_destroy_decompress(&info_); }

  bool read_header() {
    bool found = false;
    return created_ && guarded([&] { found = jpeg_read_header(&info_, TRUE) == JPEG_HEADER_OK; }) && found &&
           errors_.base.num_warnings == 0;
  }

  // After read_header.
  bool read_coefficients() {
    const bool quiet = guarded([&] { arrays_ = jpeg_read_coefficients(&info_); });
    return quiet && arrays_ != nullptr && errors_.base.num_warnings == 0;
  }

  bool reads_as(Colour colour) { return read_header() && info_.jpeg_color_space == kSpaces[static_cast<int>(colour)]; }

  const jpeg_decompress_struct& info() const { return info_; }

  // Returns a block row, or null if libjpeg fails.
  const int16_t* row(int c, int32_t y) {
    JBLOCKARRAY rows = nullptr;
    const bool fine = guarded([&] {
      rows = info_.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&info_), arrays_[c],
                                           static_cast<JDIMENSION>(y), 1, FALSE);
    });
    return fine ? &rows[0][0][0] : nullptr;
  }

 private:
  template <typename Call>
  bool guarded(const Call& call) {
    if (setjmp(errors_.jump) != 0) return false;
    call();
    return true;
  }

  ErrorManager errors_;
  jpeg_source_mgr source_;
  jpeg_decompress_struct info_{};
  jvirt_barray_ptr* arrays_ = nullptr;
  bool created_ = false;
};

bool same_pixels(const ConstPlanes& a, const ConstPlanes& b) {
  if (a.height != b.height || a.width != b.width || a.channels != b.channels) return false;
  for (int c = 0; c < a.channels; ++c)
    for (int32_t y = 0; y < a.height; ++y)
      if (std::memcmp(a.row(c, y), b.row(c, y), static_cast<size_t>(a.width)) != 0) return false;
  return true;
}

constexpr int kAnyNumber = INT_MAX;  // of scans: libjpeg has decoded the file within the limit

// What a thread keeps from file to file.
struct TranscodeMemory {
  Decoder of_file{true}, of_record;
  BaselineDecoder baseline;
  ProgressiveDecoder progressive;
};

// Returns the record of a file that libjpeg has decoded, by our own decoders, or nothing if they decline it. reader:
// has read the header.
std::vector<uint8_t> encode_without_libjpeg(const CoefficientReader& reader, std::span<const uint8_t> markers,
                                            TranscodeMemory& memory, bool zstd) {
  const auto encode = [&](const Frame& frame, const auto& read) -> std::vector<uint8_t> {
    DctEncoder encoder(frame, markers);
    const TakeRow take = [&](int c, int32_t, const int16_t* coefficients) { return encoder.add_row(c, coefficients); };
    return read(take) ? encoder.finish(zstd) : std::vector<uint8_t>{};
  };
  const jpeg_decompress_struct& info = reader.info();
  if (BaselineScan scan{}; describe_scan(info, &scan))
    return encode(scan.frame, [&](const TakeRow& take) { return memory.baseline.read(scan, unread(info), take); });
  if (ProgressiveFrame start{}; describe_progressive(info, &start))
    return encode(start.frame, [&](const TakeRow& take) {
      return memory.progressive.read(start, scans_of(info), kAnyNumber, take);
    });
  return {};
}

// Returns the record of a file that libjpeg has decoded, or nothing if it cannot represent the file.
std::vector<uint8_t> encode(std::span<const uint8_t> file, TranscodeMemory& memory, bool zstd) {
  CoefficientReader reader(file);
  if (!reader.read_header()) return {};
  const std::vector<uint8_t> markers = markers_of(file);
  if (std::vector<uint8_t> record = encode_without_libjpeg(reader, markers, memory, zstd); !record.empty())
    return record;
  Frame frame{};
  if (!reader.read_coefficients() || !describe_frame(reader.info(), &frame)) return {};
  DctEncoder encoder(frame, markers);
  for (int c = 0; c < frame.components; ++c)
    for (int32_t y = 0; y < frame.block_rows(c); ++y) {
      const int16_t* coefficients = reader.row(c, y);
      if (coefficients == nullptr || !encoder.add_row(c, coefficients)) return {};
    }
  return encoder.finish(zstd);
}

}  // namespace

bool is_read_without_libjpeg(std::span<const uint8_t> file) {
  TranscodeMemory memory;
  memory.of_file.decode(file);
  CoefficientReader reader(file);
  return reader.read_header() && !encode_without_libjpeg(reader, {}, memory, false).empty();
}

std::vector<uint8_t> jpeg_to_dct(std::span<const uint8_t> file, bool zstd, int max_scans) {
  thread_local std::unique_ptr<TranscodeMemory> memory;
  if (!memory) memory = std::make_unique<TranscodeMemory>();
  const ConstPlanes wanted = memory->of_file.decode(file, max_scans);
  std::vector<uint8_t> record = encode(file, *memory, zstd);
  const size_t size = record.size();
  bool proven = false;
  if (size > 0) {
    record.resize(size + kStreamPadding);
    try {
      proven = same_pixels(memory->of_record.decode({record.data(), size}), wanted);
    } catch (const Error&) {
    }
    record.resize(size);
  }
  if (int64_t{wanted.height} * wanted.width > kLargePicturePx) memory.reset();
  return proven ? record : std::vector<uint8_t>{};
}

namespace {

// libjpeg's jpeg_mem_dest loses its memory when an error jumps out of it.
struct Destination {
  jpeg_destination_mgr base{};
  uint8_t* bytes = nullptr;
  size_t room = 0;

  void begin() {
    base.init_destination = [](j_compress_ptr info) { grow(info); };
    base.empty_output_buffer = grow;
    base.term_destination = [](j_compress_ptr) {};
  }
  size_t size() const { return room - base.free_in_buffer; }

  static boolean grow(j_compress_ptr info) {
    auto* to = reinterpret_cast<Destination*>(info->dest);
    const size_t before = to->room, room = std::max<size_t>(2 * before, 1 << 16);
    auto* larger = static_cast<uint8_t*>(std::realloc(to->bytes, room));
    if (larger == nullptr) ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
    to->bytes = larger, to->room = room;
    to->base.next_output_byte = larger + before, to->base.free_in_buffer = room - before;
    return TRUE;
  }
};

// Owns a compressor and its output.
class CoefficientWriter {
 public:
  CoefficientWriter() : errors_(make_error_manager()) { info_.err = &errors_.base; }
  ~CoefficientWriter() {
    jpeg_destroy_compress(&info_);
    std::free(file_.bytes);
  }

  // fill(c, y, blocks) writes a block row of `block_columns(c)` blocks.
  template <typename Fill>
  void write(const DctRecord& record, const Fill& fill) {
    PL_CHECK(run(record, fill), Fault::record, "dct: libjpeg cannot write it: %s", errors_.message);
  }

  std::vector<uint8_t> take() const { return {file_.bytes, file_.bytes + file_.size()}; }

 private:
  template <typename Fill>
  bool run(const DctRecord& record, const Fill& fill) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_compress(&info_);
    file_.begin();
    info_.dest = &file_.base;
    describe(record.frame);
    jvirt_barray_ptr arrays[kMaxComponents];
    for (int c = 0; c < record.frame.components; ++c) {
      auto padded = [](int32_t blocks, int factor) {
        return static_cast<JDIMENSION>((blocks + factor - 1) / factor * factor);
      };
      const Frame::Component& component = record.frame.of[c];
      arrays[c] = info_.mem->request_virt_barray(reinterpret_cast<j_common_ptr>(&info_), JPOOL_IMAGE, TRUE,
                                                 padded(record.frame.block_columns(c), component.horizontal),
                                                 padded(record.frame.block_rows(c), component.vertical),
                                                 static_cast<JDIMENSION>(component.vertical));
    }
    jpeg_write_coefficients(&info_, arrays);
    for (std::span<const uint8_t> left = record.markers; !left.empty();) {
      const std::span<const uint8_t> segment = first_segment(left);
      jpeg_write_marker(&info_, segment[1], segment.data() + 4, static_cast<unsigned>(segment.size() - 4));
      left = left.subspan(segment.size());
    }
    for (int c = 0; c < record.frame.components; ++c)
      for (int32_t y = 0; y < record.frame.block_rows(c); ++y)
        fill(c, y,
             &info_.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&info_), arrays[c],
                                            static_cast<JDIMENSION>(y), 1, TRUE)[0][0][0]);
    jpeg_finish_compress(&info_);
    return true;
  }

  void describe(const Frame& frame) {
    info_.image_height = static_cast<JDIMENSION>(frame.height),
    info_.image_width = static_cast<JDIMENSION>(frame.width);
    info_.input_components = frame.components;
    info_.in_color_space = kSpaces[static_cast<int>(frame.colour)];
    jpeg_set_defaults(&info_);
    jpeg_set_colorspace(&info_, info_.in_color_space);
    info_.optimize_coding = TRUE;
    info_.write_JFIF_header = info_.write_Adobe_marker = FALSE;  // the file's own ones are among its markers
    for (int c = 0; c < frame.components; ++c) {
      jpeg_component_info& component = info_.comp_info[c];
      component.h_samp_factor = frame.of[c].horizontal, component.v_samp_factor = frame.of[c].vertical;
      component.quant_tbl_no = c;
      JQUANT_TBL*& table = info_.quant_tbl_ptrs[c];
      if (table == nullptr) table = jpeg_alloc_quant_table(reinterpret_cast<j_common_ptr>(&info_));
      for (int i = 0; i < kBlockValues; ++i) table->quantval[i] = static_cast<uint16_t>(frame.of[c].quantization[i]);
      table->sent_table = FALSE;
    }
    separate_scans(frame);
  }

  // An MCU has at most 10 blocks (T.81 B.2.3). Components with more are written one after another.
  void separate_scans(const Frame& frame) {
    int blocks = 0;
    for (int c = 0; c < frame.components; ++c) blocks += frame.of[c].horizontal * frame.of[c].vertical;
    if (frame.components == 1 || blocks <= C_MAX_BLOCKS_IN_MCU) return;
    for (int c = 0; c < frame.components; ++c) scans_[c] = {1, {c, 0, 0, 0}, 0, kBlockValues - 1, 0, 0};
    info_.scan_info = scans_;
    info_.num_scans = frame.components;
  }

  ErrorManager errors_;
  jpeg_compress_struct info_{};
  jpeg_scan_info scans_[kMaxComponents];
  Destination file_;
};

}  // namespace

std::vector<uint8_t> dct_to_jpeg(std::span<const uint8_t> bytes) {
  const DctRecord record = parse_dct(bytes);
  // Everything is checked and unpacked before libjpeg runs, so that its errors jump over nothing with a destructor.
  std::vector<std::vector<int16_t>> components;
  RowReader reader;
  reader.open(record);
  for (int c = 0; c < record.frame.components; ++c) {
    const auto blocks = static_cast<size_t>(record.frame.block_columns(c)),
               rows = static_cast<size_t>(record.frame.block_rows(c));
    std::vector<int16_t>& values = components.emplace_back(rows * blocks * kBlockValues);
    for (size_t y = 0; y < rows; ++y)
      reader.next(blocks, blocks, 1, values.data() + y * blocks * kBlockValues, c, static_cast<int32_t>(y));
  }
  reader.finish();
  CoefficientWriter writer;
  writer.write(record, [&](int c, int32_t y, int16_t* to) {
    const size_t row = static_cast<size_t>(record.frame.block_columns(c)) * kBlockValues;
    std::memcpy(to, components[static_cast<size_t>(c)].data() + static_cast<size_t>(y) * row, row * sizeof *to);
  });
  std::vector<uint8_t> file = writer.take();
  PL_CHECK(CoefficientReader(file).reads_as(record.frame.colour), Fault::record,
           "dct: its markers speak of another colour than its header");
  return file;
}

}  // namespace pass_loader::jpeg
