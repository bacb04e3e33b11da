// Mutations that leave a record of the codec "dct" whole: nearly every changed byte contradicts a length, and then
// little is decoded. So a row's part of a stream is changed, and then all its parts are cut or filled up to what the
// flags, masks and sizes ask for. Streams as of docs/dct-codec.md.
#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "error.h"
#include "jpeg/dct_codec.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace pass_loader;
using namespace pass_loader::jpeg;
using Bytes = std::vector<uint8_t>;
using Random = std::minstd_rand;

void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

void append_number(Bytes& to, size_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// The parts of one row.
struct Row {
  Bytes streams[kStreams];

  size_t length(size_t s) const { return streams[s].size() / (s == kDcWide || s == kWideSizes ? 2 : 1); }

  void fit(size_t s, size_t size, Random& random) {
    while (streams[s].size() < size) streams[s].push_back(static_cast<uint8_t>(random() >> 8));
    streams[s].resize(size);
  }

  // Cuts and fills the streams to what they say of each other.
  void settle(size_t blocks, Random& random) {
    fit(kFlags, blocks, random), fit(kDc, blocks, random);
    size_t masks = 0, bits = 0, nibbles = 0, bytes = 0, wide = 0, dc_wide = 0;
    for (uint8_t flags : streams[kFlags]) masks += static_cast<size_t>(std::popcount(flags));
    fit(kMasks, masks, random);
    size_t mask = 0;
    for (uint8_t flags : streams[kFlags]) {
      if (flags & 1) streams[kMasks][mask] &= 0xfe;  // the DC's place
      mask += static_cast<size_t>(std::popcount(flags));
    }
    for (uint8_t byte : streams[kMasks]) bits += static_cast<size_t>(std::popcount(byte));
    fit(kSigns, (bits + 7) / 8, random), fit(kLarger, (bits + 7) / 8, random);
    mask = 0;
    size_t bit = 0;
    for (uint8_t flags : streams[kFlags]) {
      size_t count = 0, larger = 0;
      for (int i = 0; i < std::popcount(flags); ++i)
        count += static_cast<size_t>(std::popcount(streams[kMasks][mask++]));
      for (size_t end = bit + count; bit < end; ++bit) larger += streams[kLarger][bit / 8] >> (bit % 8) & 1;
      const size_t first = nibbles;
      nibbles += (larger + 1) / 2;
      if (streams[kNibbles].size() < nibbles) fit(kNibbles, nibbles, random);
      for (size_t i = 0; i < larger; ++i) bytes += (streams[kNibbles][first + i / 2] >> (4 * (i % 2)) & 15) == 15;
    }
    fit(kNibbles, nibbles, random), fit(kBytes, bytes, random);
    for (uint8_t byte : streams[kBytes]) wide += byte >= kWide;
    for (uint8_t byte : streams[kDc]) dc_wide += byte == kEscape;
    fit(kDcWide, 2 * dc_wide, random), fit(kWideSizes, 2 * wide, random);
    for (size_t i = 1; i < 2 * wide; i += 2) streams[kWideSizes][i] &= random() % 4 ? 0x03 : 0x7f;
  }

  void write_lengths() {
    streams[kLengths].clear();
    for (size_t s : {kMasks, kSigns, kNibbles, kBytes, kDcWide, kWideSizes}) {
      size_t left = length(s);
      for (; left >= 128; left >>= 7) streams[kLengths].push_back(static_cast<uint8_t>(left | 128));
      streams[kLengths].push_back(static_cast<uint8_t>(left));
    }
  }
};

// Takes the rows of a record whose lengths fit its streams.
class Rows {
 public:
  explicit Rows(const DctRecord& record) { reader_.open(record); }

  // False where the lengths contradict the streams.
  bool next(size_t blocks, Row* row) {
    size_t lengths[6];
    for (size_t& length : lengths)
      if (!number(&length)) return false;
    const auto [masks, bits, nibbles, bytes, dc_wide, wide] = lengths;
    const size_t sizes[] = {0, blocks, blocks, masks, bits, bits, nibbles, bytes, 2 * dc_wide, 2 * wide};
    for (size_t s = kFlags; s < kStreams; ++s) {
      const auto left = reader_.left(static_cast<StreamKind>(s)).subspan(at_[s]);
      if (sizes[s] > left.size()) return false;
      row->streams[s].assign(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(sizes[s]));
      at_[s] += sizes[s];
    }
    return true;
  }

 private:
  bool number(size_t* value) {
    const auto from = reader_.left(kLengths);
    *value = 0;
    for (int shift = 0; shift < 28; shift += 7) {
      if (at_[kLengths] == from.size()) return false;
      *value |= static_cast<size_t>(from[at_[kLengths]] & 127) << shift;
      if (from[at_[kLengths]++] < 128) return true;
    }
    return false;
  }

  RowReader reader_;
  size_t at_[kStreams] = {};
};

// The record with one stream of one row changed; empty where it cannot be read.
Bytes with_a_changed_row(std::span<const uint8_t> file, Random& random) {
  const DctRecord record = parse_dct(file);
  size_t count = 0, row = 0;
  for (int c = 0; c < record.frame.components; ++c) count += static_cast<size_t>(record.frame.block_rows(c));
  const size_t changed = random() % count;
  Rows rows(record);
  Bytes streams[kStreams], out(record.header.begin(), record.header.end());
  for (int c = 0; c < record.frame.components; ++c)
    for (int32_t y = 0; y < record.frame.block_rows(c); ++y, ++row) {
      const auto blocks = static_cast<size_t>(record.frame.block_columns(c));
      Row one;
      if (!rows.next(blocks, &one)) return {};
      if (row == changed) {
        Bytes& stream = one.streams[kFlags + random() % (kStreams - kFlags)];
        const size_t size = stream.size();
        stream.resize(size + 8);
        stream.resize(LLVMFuzzerMutate(stream.data(), size, stream.size()));
        one.settle(blocks, random);
      }
      one.write_lengths();
      for (size_t s = 0; s < kStreams; ++s) append(streams[s], one.streams[s]);
    }
  for (const Bytes& stream : streams)
    for (int twice = 0; twice < 2; ++twice) append_number(out, stream.size(), 4);
  for (const Bytes& stream : streams) append(out, stream);
  return out;
}

// The record with zstd's layer on or off: its streams become what the mutator above can change, or frames.
Bytes with_another_layer(std::span<const uint8_t> file, Random& random) {
  Bytes padded(file.begin(), file.end());
  padded.resize(file.size() + kStreamPadding);
  return layer_dct({padded.data(), file.size()}, random() % 2 == 0);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  try {
    const uint32_t way = random() % 16;
    if (way > 3) {
      const Bytes file = way == 4 ? with_another_layer({data, size}, random) : with_a_changed_row({data, size}, random);
      if (!file.empty() && file.size() <= max_size) {
        std::memcpy(data, file.data(), file.size());
        return file.size();
      }
    }
  } catch (const Error&) {  // no record yet
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
