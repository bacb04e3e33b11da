#include "jpeg/progressive.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "isa.h"
#include "jpeg/header.h"
#include "jpeg/idct.h"

namespace pass_loader::jpeg {
namespace {

constexpr int kDht = 0xc4, kEoi = 0xd9, kSos = 0xda;
constexpr int64_t kMostPx = int64_t{1} << 22;  // a thread keeps memory for the coefficients of so many, up to 24 MiB
constexpr int kMostLow = 13;  // bits that a scan may leave to later ones, as libjpeg has it (jdphuff.c)

// Takes 1 to 16 bits.
PL_INLINE uint32_t take_bits(BitReader& r, int count) {
  const auto value = static_cast<uint32_t>(r.bits >> (64 - count));
  r.skip(count);
  return value;
}

// The bit of coefficient k in a block's mask of those that are not zero.
constexpr uint64_t bit_of(int k) { return uint64_t{1} << k; }

// Takes a value of 1 to 15 bits.
PL_INLINE int32_t take_value(BitReader& r, int size) {
  const int32_t value = top_value(r.bits, 63u - static_cast<unsigned>(size));
  r.skip(size);
  return value;
}

// The bits of coefficients `first` to `last` of the zigzag order that one scan brings. places: of coefficients in a
// block.
struct Band {
  int first, last, low;
  const uint8_t* places;
  const SymbolTable* table;
};

PL_INLINE bool read_dc(BitReader& r, const SymbolTable& table, int low, int32_t& prediction, int16_t* block) {
  if (!decode_dc(r, table, prediction)) return false;
  const int32_t value = prediction * (1 << low);
  *block = static_cast<int16_t>(value);
  return value == *block;
}

// T.81 G.1.2.2. blocks_left: of a run of blocks without further coefficients.
PL_INLINE bool read_ac(BitReader& r, const Band& band, uint32_t& blocks_left, int16_t* block, uint64_t& mask) {
  if (blocks_left > 0) {
    --blocks_left;
    return true;
  }
  for (int k = band.first; k <= band.last; ++k) {
    r.refill();
    uint8_t symbol;
    if (!band.table->take(r, &symbol)) return false;
    const int run = symbol >> 4, size = symbol & 15;
    if (size == 0 && run < 15) {
      blocks_left = (1u << run) - 1;
      if (run > 0) blocks_left += take_bits(r, run);
      return true;
    }
    k += run;
    if (k > band.last) return false;
    if (size == 0) continue;  // 16 zeros
    const int32_t value = take_value(r, size) * (1 << band.low);
    block[band.places[k]] = static_cast<int16_t>(value);
    mask |= bit_of(k);
    if (value != block[band.places[k]]) return false;
  }
  return true;
}

// Takes 0 to 63 bits.
PL_INLINE uint64_t take_many(BitReader& r, int count) {
  r.refill();
  uint64_t value = 0;
  if (count > 48) [[unlikely]] {
    value = take_bits(r, 16);
    r.refill();
    count -= 16;
  }
  value = value << count | r.bits >> 1 >> (63 - count);
  r.skip(count);
  return value;
}

// Adds a bit to each of these coefficients: the first one's is the highest of `count`. All are multiples of twice its
// worth.
PL_INLINE void refine(const Band& band, uint64_t coefficients, uint64_t bits, int count, int16_t* block) {
  if (bits == 0) return;
  bits <<= 64 - count;
  for (; coefficients != 0; coefficients &= coefficients - 1, bits <<= 1) {
    int16_t& value = block[band.places[std::countr_zero(coefficients)]];
    const int32_t away = (value >> 15 | 1) * (1 << band.low);  // from zero
    value = static_cast<int16_t>(value + (away & -static_cast<int32_t>(bits >> 63)));
  }
}

// T.81 G.1.2.3. Coefficients that were not zero before get a bit each, in their order.
PL_INLINE bool refine_ac(BitReader& r, const Band& band, uint32_t& blocks_left, int16_t* block, uint64_t& mask) {
  const uint64_t all = (bit_of(band.last) << 1) - bit_of(band.first), old = mask & all;
  uint64_t left = all, bits = 0;
  while (blocks_left == 0 && left != 0) {
    r.refill();
    uint8_t symbol;
    if (!band.table->take(r, &symbol)) return false;
    int run = symbol >> 4;
    const int size = symbol & 15;
    if (size > 1) return false;
    if (size == 0 && run < 15) {
      blocks_left = 1u << run;
      if (run > 0) blocks_left += take_bits(r, run);
      break;
    }
    const int32_t sign = size == 0 ? 0 : take_bits(r, 1) != 0 ? 1 : -1;
    // To the place of the new coefficient, or of the last of 16 zeros, over `run` zeros.
    uint64_t zeros = left & ~old;
    for (int i = 0; i < 4; ++i) zeros = run > i ? zeros & (zeros - 1) : zeros;  // without branches, for most
    for (; run > 4; --run) zeros &= zeros - 1;
    if (zeros == 0) return false;
    const int k = std::countr_zero(zeros);
    const int passed = std::popcount(left & old & (bit_of(k) - 1));
    bits = bits << passed | take_many(r, passed);
    left &= ~(bit_of(k) | (bit_of(k) - 1));
    block[band.places[k]] = static_cast<int16_t>(sign * (1 << band.low));
    mask |= static_cast<uint64_t>(size) << k;
  }
  if (blocks_left > 0) {
    const int rest = std::popcount(left & old);
    bits = bits << rest | take_many(r, rest);
    --blocks_left;
  }
  refine(band, old, bits, std::popcount(old), block);
  return true;
}

// A row of a component's blocks in groups of lanes (idct.h), of which a scan has so many columns.
struct Row {
  int16_t* coefficients;
  uint64_t* masks;
  int lanes, columns;

  PL_INLINE int16_t* block(int column) const {
    return coefficients + column / lanes * lanes * kBlockValues + column % lanes * 8;
  }
};

enum class Kind { ac, ac_refined };

PL_INLINE void read_row_body(BitReader& reader, const Band& band, Kind kind, const Row& row, uint32_t& blocks_left,
                             bool* clean) {
  BitReader r = reader;  // a copy can live in registers
  uint32_t left = blocks_left;
  *clean = false;
  for (int x = 0; x < row.columns; ++x) {
    if (r.past_end()) return;
    int16_t* block = row.block(x);
    uint64_t mask = row.masks[x];
    if (kind == Kind::ac ? !read_ac(r, band, left, block, mask) : !refine_ac(r, band, left, block, mask)) return;
    row.masks[x] = mask;
  }
  reader = r;
  blocks_left = left;
  *clean = true;
}
PL_LEVELS(read_row,
          (BitReader & reader, const Band& band, Kind kind, const Row& row, uint32_t& blocks_left, bool* clean),
          (reader, band, kind, row, blocks_left, clean))

}  // namespace

struct ProgressiveScan {
  int count, components[3];
  int first, last, high, low;  // coefficients of the zigzag order, and their bits (T.81 Ss, Se, Ah, Al)
  SymbolTable dc[3], ac;       // where the scan has such symbols
};

namespace {

// What was read of each coefficient: how many low bits are missing, or kNothing.
constexpr int8_t kNothing = -1;
struct Progress {
  int8_t missing[3][kBlockValues];

  Progress() { std::memset(missing, kNothing, sizeof missing); }

  // Notes a scan's bits. Returns false if they are not those that come next.
  bool note(int component, int first, int last, int high, int low) {
    int8_t* of = missing[component];
    if (first > 0 && of[0] == kNothing) return false;
    for (int k = first; k <= last; ++k) {
      if (of[k] == kNothing ? high != 0 : high == 0 || high != of[k]) return false;
      of[k] = static_cast<int8_t>(low);
    }
    return true;
  }
  bool is_complete(int components) const {
    return std::all_of(missing, missing + components, [](const auto& of) {
      return std::all_of(std::begin(of), std::end(of), [](int8_t bits) { return bits == 0; });
    });
  }
};

// Takes the tables of a DHT segment (T.81 B.2.4.2), whose payload is given. Returns false if it is not sound.
bool take_tables(std::span<const uint8_t> payload, ProgressiveFrame* tables) {
  while (!payload.empty()) {
    if (payload.size() < 17) return false;
    const int kind = payload[0] >> 4, slot = payload[0] & 15;
    HuffmanSpec spec{};
    size_t symbols = 0;
    for (int length = 1; length <= 16; ++length) symbols += spec.counts[length] = payload[static_cast<size_t>(length)];
    payload = payload.subspan(17);
    if (kind > 1 || slot >= kTableSlots || symbols > sizeof spec.symbols || symbols > payload.size()) return false;
    std::copy_n(payload.begin(), symbols, spec.symbols);
    payload = payload.subspan(symbols);
    (kind == 0 ? tables->dc : tables->ac)[slot] = spec;
    (kind == 0 ? tables->has_dc : tables->has_ac)[slot] = true;
  }
  return true;
}

// Takes a scan's header, whose segment is given, and its tables. Returns false for one that is not sound, or does not
// bring the bits that come next.
bool take_scan(std::span<const uint8_t> segment, const ProgressiveFrame& start, Progress* progress,
               ProgressiveScan* scan) {
  const int components = start.frame.components;
  scan->count = segment.size() > 4 ? segment[4] : 0;
  if (scan->count < 1 || scan->count > components || segment.size() != 8 + 2 * static_cast<size_t>(scan->count))
    return false;
  const uint8_t *named = &segment[5], *band = named + 2 * scan->count;
  scan->first = band[0], scan->last = band[1], scan->high = band[2] >> 4, scan->low = band[2] & 15;
  if (scan->last >= kBlockValues || scan->low > kMostLow || (scan->high != 0 && scan->high != scan->low + 1))
    return false;
  if (scan->first == 0 ? scan->last != 0 : scan->first > scan->last || scan->count != 1) return false;
  for (int i = 0; i < scan->count; ++i, named += 2) {
    const int c = static_cast<int>(std::find(start.ids, start.ids + components, named[0]) - start.ids);
    if (c == components || (i > 0 && c <= scan->components[i - 1])) return false;
    scan->components[i] = c;
    if (!progress->note(c, scan->first, scan->last, scan->high, scan->low)) return false;
    const int dc = named[1] >> 4, ac = named[1] & 15;
    if (scan->first > 0) {
      if (ac >= kTableSlots || !start.has_ac[ac] || !scan->ac.build(start.ac[ac], UINT8_MAX)) return false;
    } else if (scan->high == 0) {
      if (dc >= kTableSlots || !start.has_dc[dc] || !scan->dc[i].build(start.dc[dc], kMostDcSize)) return false;
    }
  }
  return true;
}

}  // namespace

void ProgressiveDecoder::lay_out(const Frame& frame, int lanes) {
  lanes_ = lanes;
  size_t values = 0, begins[3] = {};
  for (int c = 0; c < frame.components; ++c) {
    const auto& [horizontal, vertical, _] = frame.of[c];
    const auto columns = static_cast<size_t>(frame.mcu_columns() * horizontal);
    const auto rows = static_cast<size_t>(frame.mcu_rows() * vertical);
    begins[c] = values;
    of_[c] = {nullptr, nullptr, round_up(columns, static_cast<size_t>(lanes)) * kBlockValues, frame.block_rows(c),
              frame.block_columns(c)};
    values += rows * of_[c].row_values;
  }
  int16_t* memory = coefficients_.need(values);
  std::memset(memory, 0, values * sizeof *memory);
  uint64_t* masks = masks_.need(values / kBlockValues);
  std::memset(masks, 0, values / kBlockValues * sizeof *masks);
  for (int c = 0; c < frame.components; ++c)
    of_[c].coefficients = memory + begins[c], of_[c].masks = masks + begins[c] / kBlockValues;
}

bool ProgressiveDecoder::read_ac_scan(const ProgressiveScan& scan, BitReader& reader) {
  uint8_t places[kBlockValues];
  for (int k = 0; k < kBlockValues; ++k) places[k] = static_cast<uint8_t>(kZigzag[k] / 8 * 8 * lanes_ + kZigzag[k] % 8);
  const Component& component = of_[scan.components[0]];
  const Band band{scan.first, scan.last, scan.low, places, &scan.ac};
  const Kind kind = scan.high == 0 ? Kind::ac : Kind::ac_refined;
  uint32_t blocks_left = 0;
  bool clean = true;
  for (int y = 0; clean && y < component.block_rows; ++y) {
    const size_t at = static_cast<size_t>(y) * component.row_values;
    const Row row{component.coefficients + at, component.masks + at / kBlockValues, lanes_, component.block_columns};
    read_row(reader, band, kind, row, blocks_left, &clean);
  }
  return clean && blocks_left == 0;
}

bool ProgressiveDecoder::read_dc_scan(const ProgressiveScan& scan, const Frame& frame, BitReader& reader) {
  // A component alone has its own blocks in rows; several have those of MCUs.
  const bool alone = scan.count == 1;
  const Component& only = of_[scan.components[0]];
  const int rows = alone ? only.block_rows : frame.mcu_rows();
  const int columns = alone ? only.block_columns : frame.mcu_columns();
  int32_t predictions[3] = {};
  for (int at = 0; at < rows * columns; ++at) {
    if (reader.past_end()) return false;
    reader.refill();  // for the bits of all blocks where they are refined
    for (int i = 0; i < scan.count; ++i) {
      const int c = scan.components[i];
      const int tall = alone ? 1 : frame.of[c].vertical, wide = alone ? 1 : frame.of[c].horizontal;
      for (int place = 0; place < tall * wide; ++place) {
        const auto y = static_cast<size_t>(at / columns * tall + place / wide);
        const Row row{of_[c].coefficients + y * of_[c].row_values, nullptr, lanes_, 0};
        int16_t* block = row.block(at % columns * wide + place % wide);
        if (scan.high != 0)
          *block = static_cast<int16_t>(*block | static_cast<int>(take_bits(reader, 1)) << scan.low);
        else if (!read_dc(reader, scan.dc[i], scan.low, predictions[c], block))
          return false;
      }
    }
  }
  return true;
}

bool ProgressiveDecoder::transform(const Frame& frame, const Assembly& assembly) const {
  const Idct idct = current_idct();
  for (int c = 0; c < frame.components; ++c) {
    const Blocks needed = assembly.needed(c);
    const auto lanes = static_cast<size_t>(lanes_), first = static_cast<size_t>(needed.first_column) / lanes;
    const size_t end = (static_cast<size_t>(needed.end_column) + lanes - 1) / lanes;
    const Planes& to = assembly.component(c);
    for (int32_t y = needed.first_row; y < needed.end_row; ++y)
      if (!idct.run(of_[c].coefficients + static_cast<size_t>(y) * of_[c].row_values + first * lanes * kBlockValues,
                    end - first, frame.of[c].quantization, false, to.row(0, 8 * y) + 8 * first * lanes, to.row_stride))
        return false;
  }
  return true;
}

bool ProgressiveDecoder::read_scans(const ProgressiveFrame& start, std::span<const uint8_t> scans, int most_scans,
                                    int lanes) {
  const Frame& frame = start.frame;
  if (int64_t{frame.height} * frame.width > kMostPx) return false;
  ProgressiveFrame present = start;  // with the tables of the segments between scans
  Progress progress;
  lay_out(frame, lanes);
  for (int count = 0; scans.size() >= 2;) {
    if (scans[0] != 0xff) return false;
    if (scans[1] == kEoi) return progress.is_complete(frame.components);
    const std::span<const uint8_t> segment = first_segment(scans);
    if (segment.empty()) return false;
    scans = scans.subspan(segment.size());
    if (segment[1] == kDht) {
      if (!take_tables(segment.subspan(4), &present)) return false;
      continue;
    }
    ProgressiveScan scan;
    if (segment[1] != kSos || ++count > most_scans || !take_scan(segment, present, &progress, &scan)) return false;
    BitReader reader;
    scans = unstuff(scans, bits_, &reader);
    if (scan.first > 0 ? !read_ac_scan(scan, reader) : !read_dc_scan(scan, frame, reader)) return false;
    if (reader.bits_left() < 0 || reader.bits_left() > 7) return false;
  }
  return false;
}

bool ProgressiveDecoder::decode(const ProgressiveFrame& start, std::span<const uint8_t> scans, int most_scans,
                                const Assembly& assembly) {
  return read_scans(start, scans, most_scans, current_idct().lanes) && transform(start.frame, assembly);
}

bool ProgressiveDecoder::read(const ProgressiveFrame& start, std::span<const uint8_t> scans, int most_scans,
                              const TakeRow& take) {
  if (!read_scans(start, scans, most_scans, 1)) return false;
  for (int c = 0; c < start.frame.components; ++c)
    for (int y = 0; y < of_[c].block_rows; ++y)
      if (!take(c, y, of_[c].coefficients + static_cast<size_t>(y) * of_[c].row_values)) return false;
  return true;
}

}  // namespace pass_loader::jpeg
