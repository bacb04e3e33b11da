#include "jpeg/forms.h"

#include <algorithm>
#include <cstring>

#include "entry_points.h"
#include "error.h"

namespace pass_loader::jpeg {
namespace {

constexpr StreamKind kKinds[] = {kFlags, kDc, kMasks, kSigns, kLarger, kNibbles, kBytes, kDcWide, kWideSizes};
static_assert(std::size(kKinds) == DctForm::kStreams);

bool is_taken(const Frame& frame) {
  if (frame.colour == Colour::gray) return true;
  const Frame::Component &luma = frame.of[0], &blue = frame.of[1], &red = frame.of[2];
  return frame.colour == Colour::ycc && luma.horizontal == frame.max_horizontal() &&
         luma.vertical == frame.max_vertical() && luma.horizontal <= 2 * blue.horizontal &&
         luma.vertical <= 2 * blue.vertical && blue.horizontal == red.horizontal && blue.vertical == red.vertical;
}

GpuForm head_of(const Frame& frame, GpuForm::Kind kind) {
  GpuForm form{};
  form.kind = kind;
  form.height = frame.height, form.width = frame.width, form.components = frame.components;
  form.wide = form.tall = 1;
  for (int c = 0; c < frame.components; ++c) {
    GpuForm::Component& of = form.of[c];
    of.height = frame.height_of(c), of.width = frame.width_of(c);
    of.rows = frame.block_rows(c), of.columns = frame.block_columns(c);
    std::memcpy(of.quantization, frame.of[c].quantization, sizeof of.quantization);
    form.wide = frame.max_horizontal() / frame.of[c].horizontal;
    form.tall = frame.max_vertical() / frame.of[c].vertical;
  }
  return form;
}

// Returns the form without its rows and streams, and *bytes of it all.
DctForm describe(const DctRecord& record, size_t* bytes) {
  DctForm form{};
  static_cast<GpuForm&>(form) = head_of(record.frame, GpuForm::Kind::dct);
  size_t at = round_up(sizeof form, GpuForm::kAlign);
  form.rows_at = static_cast<uint32_t>(at);
  at += round_up((static_cast<size_t>(form.rows()) + 1) * sizeof(RowPlaces), GpuForm::kAlign);
  for (size_t i = 0; i < std::size(kKinds); ++i) {
    form.streams_at[i] = static_cast<uint32_t>(at);
    at += round_up(record.streams[kKinds[i]].content + DctForm::kPadding, GpuForm::kAlign);
  }
  *bytes = at;
  return form;
}

// Returns true if the rows use up all streams.
bool write_rows(const DctRecord& record, std::span<const uint8_t> lengths, int32_t rows, uint8_t* out) {
  const auto content = [&](StreamKind kind) { return record.streams[kind].content; };
  RowPlaces at{};
  for (int32_t row = 0; row < rows; ++row, out += sizeof at) {
    std::memcpy(out, &at, sizeof at);
    const RowLengths row_lengths = take_lengths(&lengths);
    const auto add = [&](uint32_t RowPlaces::* place, size_t length, StreamKind kind) {
      const bool fits = length <= content(kind) - at.*place;
      if (fits) at.*place += static_cast<uint32_t>(length);
      return fits;
    };
    if (!add(&RowPlaces::masks, row_lengths.masks, kMasks) || !add(&RowPlaces::bits, row_lengths.bits, kSigns) ||
        !add(&RowPlaces::nibbles, row_lengths.nibbles, kNibbles) ||
        !add(&RowPlaces::bytes, row_lengths.bytes, kBytes) || !add(&RowPlaces::dc_wide, row_lengths.dc_wide, kDcWide) ||
        !add(&RowPlaces::wide, row_lengths.wide, kWideSizes))
      return false;
  }
  std::memcpy(out, &at, sizeof at);
  return lengths.empty() && at.masks == content(kMasks) && at.bits == content(kSigns) && at.bits == content(kLarger) &&
         at.nibbles == content(kNibbles) && at.bytes == content(kBytes) && at.dc_wide == content(kDcWide) &&
         at.wide == content(kWideSizes);
}

// Returns false for a table that BaselineDecoder does not take. most: the largest symbol.
bool make_table(const HuffmanSpec& spec, int most, ScanForm::Huffman* out) {
  HuffmanCode code;
  if (!code.build(spec)) return false;
  *out = {};
  std::copy_n(code.limits + 1, 16, out->limits + 1);
  std::copy_n(code.offsets + 1, 16, out->offsets + 1);
  std::copy_n(spec.symbols, 256, out->symbols);
  constexpr int kLookup = ScanForm::Huffman::kLookup;
  int at = 0, symbol = 0;
  for (int length = 1; length <= 16; ++length)
    for (int i = 0; i < spec.counts[length]; ++i, ++symbol) {
      if (spec.symbols[symbol] > most) return false;
      if (length > kLookup) continue;
      const int span = 1 << (kLookup - length);
      std::fill_n(out->lookup + at, span, static_cast<uint16_t>(length << 8 | spec.symbols[symbol]));
      at += span;
    }
  return true;
}

// Returns the form without its points and bytes, and *bytes of it all.
bool describe(const BaselineScan& scan, size_t entropy_bytes, size_t points_bytes, ScanForm* form, size_t* bytes) {
  const Frame& frame = scan.frame;
  static_cast<GpuForm&>(*form) = head_of(frame, GpuForm::Kind::scan);
  form->mcu_rows = frame.mcu_rows();
  form->mcu_columns = frame.mcu_columns();
  if (points_bytes != static_cast<size_t>(form->mcu_rows) * EntryPoint::kBytes || entropy_bytes > UINT32_MAX / 8)
    return false;
  for (int c = 0; c < frame.components; ++c)
    form->horizontal[c] = frame.of[c].horizontal, form->vertical[c] = frame.of[c].vertical;
  std::copy_n(kZigzag, kBlockValues, form->zigzag);
  for (int i = 0; i < std::min(frame.components, 2); ++i)
    if (!make_table(scan.dc[i], 15, &form->dc[i]) || !make_table(scan.ac[i], 255, &form->ac[i])) return false;
  if (frame.components == 3 && (std::memcmp(&scan.dc[2], &scan.dc[1], sizeof(HuffmanSpec)) != 0 ||
                                std::memcmp(&scan.ac[2], &scan.ac[1], sizeof(HuffmanSpec)) != 0))
    return false;
  form->points_at = static_cast<uint32_t>(round_up(sizeof *form, GpuForm::kAlign));
  const size_t points = static_cast<size_t>(form->mcu_rows) * sizeof(ScanPoint);
  form->entropy_at = form->points_at + static_cast<uint32_t>(round_up(points, GpuForm::kAlign));
  form->entropy_bytes = static_cast<uint32_t>(entropy_bytes);
  *bytes = round_up(form->entropy_at + entropy_bytes, GpuForm::kAlign);
  return true;
}

}  // namespace

size_t form_bytes(const DctRecord& record) {
  size_t bytes = 0;
  if (is_taken(record.frame)) describe(record, &bytes);
  return bytes;
}

bool FormWriter::write(const DctRecord& record, uint8_t* out) try {
  size_t bytes = 0;
  const DctForm form = describe(record, &bytes);
  const auto blocks = static_cast<size_t>(form.blocks());
  if (record.streams[kFlags].content != blocks || record.streams[kDc].content != blocks) return false;
  std::memcpy(out, &form, sizeof form);
  for (size_t i = 0; i < std::size(kKinds); ++i) {
    const auto& stream = record.streams[kKinds[i]];
    uint8_t* to = out + form.streams_at[i];
    if (stream.is_compressed())
      zstd_.read(stream.stored, stream.content, to);
    else if (stream.content > 0)
      std::memcpy(to, stream.stored.data(), stream.content);
  }
  const auto& lengths = record.streams[kLengths];
  std::span<const uint8_t> rows = lengths.stored;
  if (lengths.is_compressed()) {
    uint8_t* content = lengths_.need(lengths.content);
    zstd_.read(lengths.stored, lengths.content, content);
    rows = {content, lengths.content};
  }
  return write_rows(record, rows, form.rows(), out + form.rows_at);
} catch (const Error&) {
  return false;
}

size_t form_bytes(const BaselineScan& scan, std::span<const uint8_t> entropy, std::span<const uint8_t> points) {
  ScanForm form{};
  size_t bytes = 0;
  return describe(scan, entropy.size(), points.size(), &form, &bytes) ? bytes : 0;
}

void write_form(const BaselineScan& scan, std::span<const uint8_t> entropy, std::span<const uint8_t> points,
                uint8_t* out) {
  ScanForm form{};
  size_t bytes = 0;
  describe(scan, entropy.size(), points.size(), &form, &bytes);
  std::memcpy(out, &form, sizeof form);
  for (int32_t y = 0; y < form.mcu_rows; ++y) {
    const EntryPoint from = EntryPoint::load(points.data() + static_cast<size_t>(y) * EntryPoint::kBytes);
    const ScanPoint point{from.bit, {from.dc[0], from.dc[1], from.dc[2]}, 0};
    std::memcpy(out + form.points_at + static_cast<size_t>(y) * sizeof point, &point, sizeof point);
  }
  std::memcpy(out + form.entropy_at, entropy.data(), entropy.size());
}

}  // namespace pass_loader::jpeg
