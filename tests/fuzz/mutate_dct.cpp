// Mutations that leave a record of the codec "dct" whole: nearly every changed byte contradicts a length, and then little
// is decoded. So a stream is changed, and then all streams of its row are cut or filled up to what the flags, masks and
// sizes ask for. Streams as of docs/dct-codec.md.
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
using Bytes = std::vector<uint8_t>;
using Random = std::minstd_rand;

enum : size_t { kFlags, kDc, kMasks, kSigns, kLarger, kNibbles, kBytes, kDcWide, kWideSizes, kStreams };

void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

void append_number(Bytes& to, size_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

struct Row {
  Bytes streams[kStreams];

  // False where the lengths contradict the row's bytes.
  bool read(std::span<const uint8_t> from, size_t blocks) {
    size_t at = 0, lengths[5];
    for (size_t& length : lengths) {
      length = 0;
      for (int shift = 0;; shift += 7) {
        if (at == from.size() || shift > 21) return false;
        length |= static_cast<size_t>(from[at] & 127) << shift;
        if (from[at++] < 128) break;
      }
    }
    const size_t sizes[] = {blocks, blocks, lengths[0], lengths[1], lengths[1], lengths[2], lengths[3], 2 * lengths[4]};
    for (size_t s = 0; s < kWideSizes; ++s) {
      if (sizes[s] > from.size() - at) return false;
      streams[s].assign(from.begin() + static_cast<std::ptrdiff_t>(at), from.begin() + static_cast<std::ptrdiff_t>(at + sizes[s]));
      at += sizes[s];
    }
    streams[kWideSizes].assign(from.begin() + static_cast<std::ptrdiff_t>(at), from.end());
    return true;
  }

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
      for (int i = 0; i < std::popcount(flags); ++i) count += static_cast<size_t>(std::popcount(streams[kMasks][mask++]));
      for (size_t end = bit + count; bit < end; ++bit) larger += streams[kLarger][bit / 8] >> (bit % 8) & 1;
      const size_t first = nibbles;
      nibbles += (larger + 1) / 2;
      if (streams[kNibbles].size() < nibbles) fit(kNibbles, nibbles, random);
      for (size_t i = 0; i < larger; ++i) bytes += (streams[kNibbles][first + i / 2] >> (4 * (i % 2)) & 15) == 15;
    }
    fit(kNibbles, nibbles, random), fit(kBytes, bytes, random);
    for (uint8_t byte : streams[kBytes]) wide += byte >= jpeg::kWide;
    for (uint8_t byte : streams[kDc]) dc_wide += byte == jpeg::kEscape;
    fit(kDcWide, 2 * dc_wide, random), fit(kWideSizes, 2 * wide, random);
    for (size_t i = 1; i < 2 * wide; i += 2) streams[kWideSizes][i] &= random() % 4 ? 0x03 : 0x7f;
  }

  Bytes write() const {
    Bytes out;
    const size_t lengths[] = {streams[kMasks].size(), streams[kSigns].size(), streams[kNibbles].size(),
                              streams[kBytes].size(), streams[kDcWide].size() / 2};
    for (size_t length : lengths) {
      for (; length >= 128; length >>= 7) out.push_back(static_cast<uint8_t>(length | 128));
      out.push_back(static_cast<uint8_t>(length));
    }
    for (const Bytes& stream : streams) append(out, stream);
    return out;
  }
};

// The record with one stream of one row changed; empty where it cannot be read.
Bytes with_a_changed_row(std::span<const uint8_t> file, Random& random) {
  const jpeg::DctRecord record = jpeg::parse_dct(file);
  const auto header = static_cast<size_t>(record.row_lengths.data() - file.data());
  Bytes lengths, rows, out(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(header));
  const size_t count = record.row_lengths.size() / 4, changed = random() % count;
  size_t at = 0, row = 0;
  for (int c = 0; c < record.frame.components; ++c)
    for (int32_t y = 0; y < record.frame.block_rows(c); ++y, ++row) {
      uint32_t length;
      std::memcpy(&length, &record.row_lengths[4 * row], sizeof length);
      if (length > record.rows.size() - at) return {};
      const auto bytes = record.rows.subspan(at, length);
      at += length;
      const auto blocks = static_cast<size_t>(record.frame.block_columns(c));
      Row streams;
      Bytes written(bytes.begin(), bytes.end());
      if (row == changed && streams.read(bytes, blocks)) {
        Bytes& stream = streams.streams[random() % kStreams];
        const size_t size = stream.size();
        stream.resize(size + 8);
        stream.resize(LLVMFuzzerMutate(stream.data(), size, stream.size()));
        streams.settle(blocks, random);
        written = streams.write();
      }
      append_number(lengths, written.size(), 4);
      append(rows, written);
    }
  append(out, lengths), append(out, rows);
  return out;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  try {
    if (random() % 4 != 0) {
      const Bytes file = with_a_changed_row({data, size}, random);
      if (!file.empty() && file.size() <= max_size) {
        std::memcpy(data, file.data(), file.size());
        return file.size();
      }
    }
  } catch (const Error&) {  // no record yet
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
