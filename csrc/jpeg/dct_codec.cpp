#include "jpeg/dct_codec.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "error.h"
#include "jpeg/dct_pack.h"
#include "jpeg/header.h"

namespace pass_loader::jpeg {
namespace {

// Reads little-endian numbers and runs of bytes. Throws for a read beyond the end.
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

void put_all(std::vector<uint8_t>& out, std::span<const uint8_t> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void check_size(const Frame& frame) {
  PL_CHECK(frame.is_sound(), Fault::record, "dct: %d x %d of %d components does not fit its colour and sampling",
           frame.width, frame.height, frame.components);
  PL_CHECK(int64_t{frame.height} * frame.width <= kMaxPixels, Fault::record, "dct: %d x %d is more than %lld pixels",
           frame.width, frame.height, static_cast<long long>(kMaxPixels));
}

// Accepts whole APPn and COM segments only: nothing else may stand there in an ordinary JPEG.
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

namespace {

// The most bytes that a block takes in each stream, or a row in kLengths.
constexpr size_t kMostBytes[kStreams] = {24, 1, 1, 8, 8, 8, 32, 63, 2, 126};
constexpr size_t kMostOfABlock = 160;  // in all streams: more than any picture needs whose largest sizes are rare

void read_streams(Reader& reader, DctRecord& record) {
  size_t rows = 0, blocks = 0, sizes[kStreams], all = 0;
  for (int c = 0; c < record.frame.components; ++c) {
    rows += static_cast<size_t>(record.frame.block_rows(c));
    blocks += static_cast<size_t>(record.frame.block_rows(c)) * static_cast<size_t>(record.frame.block_columns(c));
  }
  for (size_t kind = 0; kind < kStreams; ++kind) {
    sizes[kind] = reader.number(4);
    const size_t content = record.streams[kind].content = reader.number(4), of = kind == kLengths ? rows : blocks;
    const size_t most = kMostBytes[kind] * of, least = kind == kFlags || kind == kDc ? blocks : 0;
    PL_CHECK(sizes[kind] <= content && content >= least && content <= most, Fault::record,
             "dct: stream %zu: %zu bytes stored of %zu, for %zu blocks in %zu rows", kind, sizes[kind], content, blocks,
             rows);
    all += kind == kLengths ? 0 : content;
  }
  PL_CHECK(all <= kMostOfABlock * blocks, Fault::record, "dct: %zu bytes for %zu blocks", all, blocks);
  for (size_t kind = 0; kind < kStreams; ++kind) record.streams[kind].stored = reader.take(sizes[kind]);
  const size_t left = reader.rest().size();
  PL_CHECK(left == 0, Fault::record, "dct: %zu bytes after the last stream", left);
}

}  // namespace

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
  PL_CHECK(colour <= static_cast<uint32_t>(Colour::ycck) && components >= 1 && components <= kMaxComponents &&
               tables >= 1 && tables <= kMaxComponents,
           Fault::record, "dct: colour %u, %u components, %u tables", colour, components, tables);
  frame.colour = static_cast<Colour>(colour), frame.components = static_cast<int>(components);
  uint32_t table_of[kMaxComponents] = {};
  for (uint32_t c = 0; c < components; ++c) {
    frame.of[c].horizontal = static_cast<int>(reader.number(1)),
    frame.of[c].vertical = static_cast<int>(reader.number(1));
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
  record.header = bytes.first(static_cast<size_t>(record.markers.data() + markers - bytes.data()));
  read_streams(reader, record);
  return record;
}

Header header_of(const DctRecord& record) {
  Header header{record.frame.height, record.frame.width, record.frame.components, false, 1};
  std::span<const uint8_t> left = record.markers;
  for (std::span<const uint8_t> segment; !(segment = first_segment(left)).empty(); left = left.subspan(segment.size()))
    if (segment[1] == 0xe1 && header.exif_orientation == 1)
      header.exif_orientation = exif_orientation(segment.subspan(4));
  return header;
}

RowLengths take_lengths(std::span<const uint8_t>* left) {
  Reader reader(*left);
  RowLengths lengths{};
  lengths.masks = reader.varint(), lengths.bits = reader.varint(), lengths.nibbles = reader.varint();
  lengths.bytes = reader.varint(), lengths.dc_wide = 2 * reader.varint(), lengths.wide = 2 * reader.varint();
  *left = reader.rest();
  return lengths;
}

void RowReader::open(const DctRecord& record) {
  size_t compressed = 0;
  for (const auto& stream : record.streams) compressed += stream.is_compressed() ? stream.content : 0;
  uint8_t* to = compressed == 0 ? nullptr : contents_.need(compressed);
  for (size_t kind = 0; kind < kStreams; ++kind) {
    const auto& stream = record.streams[kind];
    left_[kind] = stream.stored;
    if (!stream.is_compressed()) continue;
    zstd_.read(stream.stored, stream.content, to);
    left_[kind] = {to, stream.content};
    to += stream.content;
  }
}

void RowReader::next(size_t blocks, size_t wanted, int lanes, int16_t* coefficients, int component, int32_t y) {
  const auto [masks, bits, nibbles, bytes, dc_wide, wide] = take_lengths(&left_[kLengths]);
  auto take = [&](StreamKind kind, size_t size) {
    Reader reader(left_[kind]);
    const std::span<const uint8_t> part = reader.take(size);
    left_[kind] = reader.rest();
    return Stream{part.data(), part.data() + part.size()};
  };
  const RowStreams row{take(kFlags, blocks).next, take(kDc, blocks).next, take(kMasks, masks),
                       take(kSigns, bits),        take(kLarger, bits),    take(kNibbles, nibbles),
                       take(kBytes, bytes),       take(kDcWide, dc_wide), take(kWideSizes, wide)};
  PL_CHECK(wanted == 0 || unpack_row(row, blocks, wanted, lanes, coefficients), Fault::record,
           "dct: component %d, block row %d: its streams do not hold %zu blocks", component, y, blocks);
}

void RowReader::finish() const {
  for (size_t kind = 0; kind < kStreams; ++kind)
    PL_CHECK(left_[kind].empty(), Fault::record, "dct: stream %zu: %zu bytes after the last row", kind,
             left_[kind].size());
}

void DctDecoder::decode(const DctRecord& record, const Assembly& assembly) {
  const Idct idct = current_idct();
  const auto lanes = static_cast<size_t>(idct.lanes);
  rows_.open(record);
  for (int c = 0; c < record.frame.components; ++c) {
    const auto blocks = static_cast<size_t>(record.frame.block_columns(c));
    int16_t* coefficients = coefficients_.need(round_up(blocks, lanes) * kBlockValues);
    const Planes& to = assembly.component(c);
    const Blocks needed = assembly.needed(c);
    const size_t first = static_cast<size_t>(needed.first_column) / lanes;  // groups
    const size_t end = (static_cast<size_t>(needed.end_column) + lanes - 1) / lanes;
    const bool is_last = c == record.frame.components - 1;  // nothing is read past its needed rows
    const int32_t rows = is_last ? needed.end_row : record.frame.block_rows(c);
    for (int32_t y = 0; y < rows; ++y) {
      const bool is_needed = y >= needed.first_row && y < needed.end_row;
      rows_.next(blocks, is_needed ? std::min(end * lanes, blocks) : 0, idct.lanes, coefficients, c, y);
      if (!is_needed) continue;
      PL_CHECK(idct.run(coefficients + first * lanes * kBlockValues, end - first, record.frame.of[c].quantization,
                        false, to.row(0, 8 * y) + 8 * first * lanes, to.row_stride),
               Fault::record, "dct: component %d, block row %d: coefficients that no picture of 8 bits has", c, y);
    }
    if (is_last && rows == record.frame.block_rows(c)) rows_.finish();
  }
}

DctEncoder::DctEncoder(const Frame& frame, std::span<const uint8_t> markers) : frame_(frame) {
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
  for (uint32_t value :
       {uint32_t{kDctVersion}, static_cast<uint32_t>(frame.colour), static_cast<uint32_t>(frame.components),
        static_cast<uint32_t>(tables.size() / (2 * kBlockValues))})
    put(header_, value, 1);
  put(header_, static_cast<uint32_t>(frame.height), 2);
  put(header_, static_cast<uint32_t>(frame.width), 2);
  put(header_, static_cast<uint32_t>(markers.size()), 4);
  put_all(header_, components);
  put_all(header_, tables);
  put_all(header_, markers);
}

bool DctEncoder::add_row(int component, const int16_t* coefficients) {
  const auto blocks = static_cast<size_t>(frame_.block_columns(component));
  uint8_t* begins[kStreams];
  size_t room = 0;
  for (size_t most : kMostBytes) room += most * blocks + kPackPadding;
  uint8_t* at = row_.need(room);
  for (size_t kind = 0; kind < kStreams; ++kind) {
    begins[kind] = at;
    at += kMostBytes[kind] * blocks + kPackPadding;
  }
  RowTargets to{begins[kFlags],   begins[kDc],    begins[kMasks],  begins[kSigns],    begins[kLarger],
                begins[kNibbles], begins[kBytes], begins[kDcWide], begins[kWideSizes]};
  const bool writable = pack_row(coefficients, blocks, &to);
  std::vector<uint8_t>(&streams)[kStreams] = streams_[component];
  auto keep = [&](StreamKind kind, const uint8_t* end) {
    streams[kind].insert(streams[kind].end(), begins[kind], const_cast<uint8_t*>(end));
    return static_cast<size_t>(end - begins[kind]);
  };
  keep(kFlags, to.flags);
  keep(kDc, to.dc);
  const size_t masks = keep(kMasks, to.masks), bits = keep(kSigns, to.signs);
  keep(kLarger, to.larger);
  const size_t nibbles = keep(kNibbles, to.nibbles), bytes = keep(kBytes, to.bytes);
  const size_t dc_wide = keep(kDcWide, to.dc_wide) / 2, wide = keep(kWideSizes, to.wide) / 2;
  for (size_t length : {masks, bits, nibbles, bytes, dc_wide, wide}) put_varint(streams[kLengths], length);
  return writable;
}

namespace {

using Parts = std::array<std::span<const uint8_t>, kMaxComponents>;  // of a stream, one after another

std::vector<uint8_t> write_record(std::span<const uint8_t> header, const Parts (&streams)[kStreams], bool zstd) {
  size_t sizes[kStreams] = {}, most = 0;
  for (size_t kind = 0; kind < kStreams; ++kind) {
    for (std::span<const uint8_t> part : streams[kind]) sizes[kind] += part.size();
    most += sizes[kind];
  }
  std::vector<uint8_t> frames[kStreams];
  if (zstd) {
    ZstdWriter writer;
    std::vector<uint8_t> content;
    for (size_t kind = 0; kind < kStreams; ++kind) {
      content.clear();
      for (std::span<const uint8_t> part : streams[kind]) put_all(content, part);
      frames[kind] = writer.write(content);
    }
  }
  std::vector<uint8_t> out;
  out.reserve(header.size() + 8 * kStreams + most + kStreamPadding);  // so that a caller can add the padding
  put_all(out, header);
  for (size_t kind = 0; kind < kStreams; ++kind) {
    put(out, static_cast<uint32_t>(frames[kind].empty() ? sizes[kind] : frames[kind].size()), 4);
    put(out, static_cast<uint32_t>(sizes[kind]), 4);
  }
  for (size_t kind = 0; kind < kStreams; ++kind) {
    put_all(out, frames[kind]);
    if (frames[kind].empty())
      for (std::span<const uint8_t> part : streams[kind]) put_all(out, part);
  }
  return out;
}

}  // namespace

std::vector<uint8_t> DctEncoder::finish(bool zstd) const {
  Parts streams[kStreams];
  for (size_t kind = 0; kind < kStreams; ++kind)
    for (size_t c = 0; c < kMaxComponents; ++c) streams[kind][c] = streams_[c][kind];
  return write_record(header_, streams, zstd);
}

std::vector<uint8_t> layer_dct(std::span<const uint8_t> bytes, bool zstd) {
  const DctRecord record = parse_dct(bytes);
  RowReader reader;
  reader.open(record);
  Parts streams[kStreams];
  for (size_t kind = 0; kind < kStreams; ++kind) streams[kind][0] = reader.left(static_cast<StreamKind>(kind));
  return write_record(record.header, streams, zstd);
}

}  // namespace pass_loader::jpeg
