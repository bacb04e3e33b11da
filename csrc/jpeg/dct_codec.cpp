#include "jpeg/dct_codec.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "error.h"
#include "jpeg/header.h"

namespace pass_loader::jpeg {
namespace {

// Reads little-endian numbers and runs of bytes; whatever is asked for beyond the end throws.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : left_(bytes) {}

  std::span<const uint8_t> take(size_t count) {
    PL_CHECK(count <= left_.size(), Fault::record, "dct: cut off: %zu bytes wanted, %zu left", count, left_.size());
    std::span<const uint8_t> taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }
  uint32_t number(size_t bytes) {
    uint32_t value = 0;
    std::span<const uint8_t> from = take(bytes);
    for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint32_t>(from[i]) << (8 * i);
    return value;
  }
  size_t varint() {  // LEB128, at most 4 bytes
    size_t value = 0;
    for (int shift = 0; shift < 28; shift += 7) {
      const uint8_t byte = take(1)[0];
      value |= static_cast<size_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    fail(Fault::record, "dct: a length of more than 28 bits");
  }
  std::span<const uint8_t> rest() { return take(left_.size()); }

 private:
  std::span<const uint8_t> left_;
};

void put(std::vector<uint8_t>& out, uint32_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

void put_varint(std::vector<uint8_t>& out, size_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

void put_all(std::vector<uint8_t>& out, const std::vector<uint8_t>& bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

Stream stream_of(std::span<const uint8_t> bytes) { return {bytes.data(), bytes.data() + bytes.size()}; }

void check_size(const Frame& frame) {
  PL_CHECK(frame.is_sound(), Fault::record, "dct: %d x %d of %d components does not fit its colour and sampling",
           frame.width, frame.height, frame.components);
  PL_CHECK(int64_t{frame.height} * frame.width <= kMaxPixels, Fault::record,
           "dct: %d x %d is more than %lld pixels", frame.width, frame.height, static_cast<long long>(kMaxPixels));
}

// Only what keeps a JPEG ordinary: whole APPn and COM segments.
void check_markers(std::span<const uint8_t> left) {
  while (!left.empty()) {
    const std::span<const uint8_t> segment = first_segment(left);
    PL_CHECK(!segment.empty() && ((segment[1] >= 0xe0 && segment[1] <= 0xef) || segment[1] == 0xfe), Fault::record,
             "dct: its markers are no APPn and COM segments");
    left = left.subspan(segment.size());
  }
}

}  // namespace

bool is_dct(std::span<const uint8_t> record) {
  return record.size() >= sizeof kDctMagic && std::memcmp(record.data(), kDctMagic, sizeof kDctMagic) == 0;
}

DctRecord parse_dct(std::span<const uint8_t> bytes) {
  PL_CHECK(is_dct(bytes), Fault::record, "dct: no record of this codec");
  Reader reader(bytes.subspan(sizeof kDctMagic));
  const uint32_t version = reader.number(1);
  PL_CHECK(version == kDctVersion, Fault::record, "dct: version %u, this pass-loader knows %d", version, kDctVersion);
  DctRecord record{};
  Frame& frame = record.frame;
  const uint32_t colour = reader.number(1), components = reader.number(1), tables = reader.number(1);
  frame.height = static_cast<int32_t>(reader.number(2)), frame.width = static_cast<int32_t>(reader.number(2));
  const uint32_t markers = reader.number(4);
  PL_CHECK(colour <= static_cast<uint32_t>(Colour::ycck) && components >= 1 && components <= kMaxComponents && tables >= 1 &&
               tables <= kMaxComponents,
           Fault::record, "dct: colour %u, %u components, %u tables", colour, components, tables);
  frame.colour = static_cast<Colour>(colour), frame.components = static_cast<int>(components);
  uint32_t table_of[kMaxComponents] = {};
  for (uint32_t c = 0; c < components; ++c) {
    frame.of[c].horizontal = static_cast<int>(reader.number(1)), frame.of[c].vertical = static_cast<int>(reader.number(1));
    table_of[c] = reader.number(1);
    PL_CHECK(table_of[c] < tables, Fault::record, "dct: table %u of %u", table_of[c], tables);
  }
  const std::span<const uint8_t> values = reader.take(tables * 2 * kBlockValues);
  for (uint32_t c = 0; c < components; ++c)
    for (size_t i = 0; i < kBlockValues; ++i) {
      const uint8_t* value = &values[2 * (table_of[c] * kBlockValues + i)];
      frame.of[c].quantization[i] = static_cast<int16_t>(value[0] | value[1] << 8);
    }
  check_size(frame);
  record.markers = reader.take(markers);
  check_markers(record.markers);
  size_t rows = 0, blocks = 0;
  for (int c = 0; c < frame.components; ++c) {
    rows += static_cast<size_t>(frame.block_rows(c));
    blocks += static_cast<size_t>(frame.block_rows(c)) * static_cast<size_t>(frame.block_columns(c));
  }
  record.row_lengths = reader.take(4 * rows);
  record.rows = reader.rest();
  // Before anything is allocated: few bytes cannot claim a large picture.
  PL_CHECK(record.rows.size() >= 5 * rows + 2 * blocks, Fault::record, "dct: cut off: %zu bytes for %zu blocks",
           record.rows.size(), blocks);
  return record;
}

Header header_of(const DctRecord& record) {
  Header header{record.frame.height, record.frame.width, record.frame.components, false, 1};
  std::span<const uint8_t> left = record.markers;
  for (std::span<const uint8_t> segment; !(segment = first_segment(left)).empty(); left = left.subspan(segment.size()))
    if (segment[1] == 0xe1 && header.exif_orientation == 1) header.exif_orientation = exif_orientation(segment.subspan(4));
  return header;
}

namespace {

// The parts of a row's bytes.
RowStreams split_row_streams(std::span<const uint8_t> row, size_t blocks) {
  Reader reader(row);
  const size_t masks = reader.varint(), bits = reader.varint(), nibbles = reader.varint(), bytes = reader.varint(),
               dc_wide = reader.varint();
  RowStreams streams;
  streams.flags = reader.take(blocks).data();
  streams.dc = reader.take(blocks).data();
  streams.masks = stream_of(reader.take(masks));
  streams.signs = stream_of(reader.take(bits));
  streams.larger = stream_of(reader.take(bits));
  streams.nibbles = stream_of(reader.take(nibbles));
  streams.bytes = stream_of(reader.take(bytes));
  streams.dc_wide = stream_of(reader.take(2 * dc_wide));
  streams.wide = stream_of(reader.rest());
  return streams;
}

}  // namespace

void RowReader::next(size_t blocks, int lanes, int16_t* coefficients, int component, int32_t y) {
  Reader lengths(lengths_), rows(rows_);
  const RowStreams streams = split_row_streams(rows.take(lengths.number(4)), blocks);
  lengths_ = lengths.rest(), rows_ = rows.rest();
  PL_CHECK(unpack_row(streams, blocks, lanes, coefficients), Fault::record,
           "dct: component %d, block row %d: its streams do not hold %zu blocks", component, y, blocks);
}

void RowReader::finish() const {
  PL_CHECK(rows_.empty(), Fault::record, "dct: %zu bytes behind the last row", rows_.size());
}

void DctDecoder::decode(const DctRecord& record, const Assembly& assembly) {
  const Idct idct = current_idct();
  const auto lanes = static_cast<size_t>(idct.lanes);
  RowReader rows(record);
  for (int c = 0; c < record.frame.components; ++c) {
    const auto blocks = static_cast<size_t>(record.frame.block_columns(c)), groups = (blocks + lanes - 1) / lanes;
    int16_t* coefficients = coefficients_.need(groups * lanes * kBlockValues);
    const Planes& to = assembly.component(c);
    for (int32_t y = 0; y < record.frame.block_rows(c); ++y) {
      rows.next(blocks, idct.lanes, coefficients, c, y);
      PL_CHECK(idct.run(coefficients, groups, record.frame.of[c].quantization, to.row(0, 8 * y), to.row_stride),
               Fault::record, "dct: component %d, block row %d: coefficients that no picture of 8 bits has", c, y);
    }
  }
  rows.finish();
}

DctEncoder::DctEncoder(const Frame& frame, std::span<const uint8_t> markers) {
  check_size(frame);
  header_.assign(kDctMagic, kDctMagic + sizeof kDctMagic);
  std::vector<uint8_t> tables, components;
  for (int c = 0; c < frame.components; ++c) {
    std::vector<uint8_t> table;
    for (int16_t value : frame.of[c].quantization) put(table, static_cast<uint16_t>(value), 2);
    size_t index = 0;
    while (index < tables.size() / table.size() &&
           !std::equal(table.begin(), table.end(), tables.begin() + static_cast<std::ptrdiff_t>(index * table.size())))
      ++index;
    if (index == tables.size() / table.size()) put_all(tables, table);
    for (int value : {frame.of[c].horizontal, frame.of[c].vertical, static_cast<int>(index)})
      components.push_back(static_cast<uint8_t>(value));
  }
  for (uint32_t value : {uint32_t{kDctVersion}, static_cast<uint32_t>(frame.colour), static_cast<uint32_t>(frame.components),
                         static_cast<uint32_t>(tables.size() / (2 * kBlockValues))})
    put(header_, value, 1);
  put(header_, static_cast<uint32_t>(frame.height), 2);
  put(header_, static_cast<uint32_t>(frame.width), 2);
  put(header_, static_cast<uint32_t>(markers.size()), 4);
  put_all(header_, components);
  put_all(header_, tables);
  header_.insert(header_.end(), markers.begin(), markers.end());
}

namespace {

// The streams of a row under construction.
struct RowWriter {
  std::vector<uint8_t> flags, dc, masks, signs, larger, nibbles, bytes, dc_wide, wide;
  size_t bit = 0;
  int prediction = 0;

  static void put_bit(std::vector<uint8_t>& out, size_t at, bool set) {
    if (at % 8 == 0) out.push_back(0);
    out.back() |= static_cast<uint8_t>(static_cast<unsigned>(set) << (at % 8));
  }

  bool add_dc(int value) {
    const int difference = value - prediction;
    prediction = value;
    const bool narrow = difference > -128 && difference < 128;
    dc.push_back(narrow ? static_cast<uint8_t>(difference) : kEscape);
    if (!narrow) put(dc_wide, static_cast<uint16_t>(difference), 2);
    return difference >= INT16_MIN && difference <= INT16_MAX;
  }

  bool add_value(int value, bool& high_nibble) {
    const int size = std::abs(value);
    put_bit(signs, bit, value < 0);
    put_bit(larger, bit++, size > 1);
    if (size <= 1) return true;
    const int nibble = std::min(size - 2, 15);
    if (high_nibble) nibbles.back() |= static_cast<uint8_t>(nibble << 4);
    if (!high_nibble) nibbles.push_back(static_cast<uint8_t>(nibble));
    high_nibble = !high_nibble;
    if (nibble == 15) bytes.push_back(static_cast<uint8_t>(std::min(size - 17, int{kWide})));
    if (size >= 17 + kWide) put(wide, static_cast<uint32_t>(size), 2);
    return size <= INT16_MAX;
  }

  bool add_block(const int16_t* block) {
    bool fits = add_dc(block[0]), high_nibble = false;
    uint8_t flag = 0;
    for (int r = 0; r < 8; ++r) {
      uint8_t mask = 0;
      for (int x = r == 0 ? 1 : 0; x < 8; ++x) {
        if (block[8 * r + x] == 0) continue;
        mask |= static_cast<uint8_t>(1 << x);
        fits &= add_value(block[8 * r + x], high_nibble);
      }
      if (mask == 0) continue;
      flag |= static_cast<uint8_t>(1 << r);
      masks.push_back(mask);
    }
    flags.push_back(flag);
    return fits;
  }
};

}  // namespace

bool DctEncoder::add_row(std::span<const int16_t> blocks) {
  RowWriter row;
  bool fits = true;
  for (size_t at = 0; at < blocks.size(); at += kBlockValues) fits &= row.add_block(&blocks[at]);
  const size_t begun = rows_.size();
  for (size_t length : {row.masks.size(), row.signs.size(), row.nibbles.size(), row.bytes.size(), row.dc_wide.size() / 2})
    put_varint(rows_, length);
  for (const auto* stream : {&row.flags, &row.dc, &row.masks, &row.signs, &row.larger, &row.nibbles, &row.bytes,
                             &row.dc_wide, &row.wide})
    put_all(rows_, *stream);
  put(lengths_, static_cast<uint32_t>(rows_.size() - begun), 4);
  return fits;
}

std::vector<uint8_t> DctEncoder::finish() {
  put_all(header_, lengths_);
  put_all(header_, rows_);
  return std::move(header_);
}

}  // namespace pass_loader::jpeg
