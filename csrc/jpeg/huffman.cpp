#include "jpeg/huffman.h"

#include <algorithm>

#include "isa.h"

namespace pass_loader::jpeg {
namespace {

// What the next kLookup bits begin with: one coefficient, whose value may reach beyond these bits, or two. An entry is
// read without branches: the last value is stored first, then the first one, which is computed. If there is only one,
// it overwrites the other.
//   bits 0..7    bits consumed by all of it; 0 where the lookup does not suffice
//   bits 8..15   how far the first coefficient is from the one before
//   bits 16..23  how far the last one is
//   bits 24..29  bits before the first value
//   bits 32..37  63 less the size of the first value
//   bits 40..44  bits of the first coefficient alone
//   bits 45..47  kind
//   bits 48..63  last value, of two
enum class Kind : uint64_t {
  one,  // a coefficient, or a run of 16 zeros
  two,
  end,  // the end of the block
  one_then_end,
  longer,  // a code longer than the lookup, or none; or more than kMostBits
};
constexpr uint64_t kFar = 64;  // beyond any block
constexpr int kMostBits = 18;  // of an entry, so that three entries need no refill in between

struct Symbol {
  Kind kind;
  int code_length, size;
  uint64_t step;

  int length() const { return kind == Kind::longer ? 0 : code_length + size; }
  uint64_t entry(uint64_t last, Kind of_all, int length_of_all, int last_value) const {
    return static_cast<uint64_t>(length_of_all) | step << 8 | last << 16 | static_cast<uint64_t>(code_length) << 24 |
           static_cast<uint64_t>(63 - size) << 32 | static_cast<uint64_t>(length()) << 40 |
           static_cast<uint64_t>(of_all) << 45 | static_cast<uint64_t>(static_cast<uint16_t>(last_value)) << 48;
  }
};
constexpr Kind kind_of(uint64_t entry) { return static_cast<Kind>(entry >> 45 & 7); }
constexpr int length_of(uint64_t entry) { return static_cast<int>(entry & 255); }
constexpr int first_length_of(uint64_t entry) { return static_cast<int>(entry >> 40 & 31); }
constexpr uint64_t first_of(uint64_t entry) { return entry >> 8 & 255; }
constexpr uint64_t last_of(uint64_t entry) { return entry >> 16 & 255; }
constexpr int16_t last_value_of(uint64_t entry) { return static_cast<int16_t>(entry >> 48); }

PL_INLINE int first_value(uint64_t bits, uint64_t entry) { return top_value(bits << (entry >> 24 & 63), entry >> 32); }

}  // namespace

std::span<const uint8_t> unstuff(std::span<const uint8_t> entropy, Scratch<uint8_t>& memory, BitReader* reader) {
  uint8_t* out = memory.need(entropy.size() + BitReader::kPadding);
  *reader = {};
  reader->next = out;
  const uint8_t *from = entropy.data(), *end = from + entropy.size();
  while (from < end) {
    const auto* marker = static_cast<const uint8_t*>(std::memchr(from, 0xff, static_cast<size_t>(end - from)));
    const size_t plain = static_cast<size_t>((marker == nullptr ? end : marker) - from);
    std::memcpy(out, from, plain);
    out += plain;
    from += plain;
    if (marker == nullptr || (marker + 1 < end && marker[1] != 0)) break;
    *out++ = 0xff;
    from = std::min(marker + 2, end);
  }
  std::memset(out, 0, BitReader::kPadding);
  reader->end = out;
  return {from, static_cast<size_t>(end - from)};
}

bool HuffmanCode::build(const HuffmanSpec& s) {
  spec = s;
  int32_t code = 0, symbols = 0;
  for (int length = 1; length <= 16; ++length) {
    offsets[length] = symbols - code;
    code += s.counts[length];
    symbols += s.counts[length];
    // No code is all ones, and every code fits its length, as libjpeg demands (jdhuff.c: jpeg_make_d_derived_tbl).
    if (symbols > 256 || (s.counts[length] > 0 && code >= 1 << length)) return false;
    limits[length] = code << (16 - length);
    code <<= 1;
  }
  return true;
}

int HuffmanCode::length_of(uint64_t bits, uint8_t* symbol) const {
  const int32_t top = static_cast<int32_t>(bits >> 48);
  for (int length = 1; length <= 16; ++length) {
    if (top >= limits[length]) continue;
    *symbol = spec.symbols[(top >> (16 - length)) + offsets[length]];
    return length;
  }
  return 0;
}

bool SymbolTable::build(const HuffmanSpec& spec, int most) {
  if (!code.build(spec)) return false;
  std::fill_n(entries, 1 << kLookup, uint16_t{0});
  int at = 0, symbol = 0;
  for (int length = 1; length <= 16; ++length)
    for (int i = 0; i < spec.counts[length]; ++i, ++symbol) {
      if (spec.symbols[symbol] > most) return false;
      if (length > kLookup) continue;
      const int span = 1 << (kLookup - length);
      std::fill_n(entries + at, span, static_cast<uint16_t>(length << 8 | spec.symbols[symbol]));
      at += span;
    }
  return true;
}

bool AcTable::build(const HuffmanSpec& spec) {
  if (!code.build(spec)) return false;
  Symbol symbols[1 << kLookup];  // the symbol that the bits begin with
  Symbol* at = symbols;
  for (int length = 1, n = 0; length <= kLookup; ++length)
    for (int i = 0; i < spec.counts[length]; ++i, ++n) {
      const int run = spec.symbols[n] >> 4, size = spec.symbols[n] & 15;
      Symbol symbol{Kind::one, length, size, static_cast<uint64_t>(run) + 1};
      if (size == 0 && run != 15) symbol = {Kind::end, length, 0, kFar};
      if (length + size > kMostBits) symbol = {Kind::longer, 0, 0, kFar};
      at = std::fill_n(at, 1 << (kLookup - length), symbol);
    }
  std::fill(at, symbols + (1 << kLookup), Symbol{Kind::longer, 0, 0, kFar});
  for (int i = 0; i < 1 << kLookup; ++i) {
    const Symbol& first = symbols[i];
    entries[i] = first.entry(first.step, first.kind, first.length(), 0);
    const int bits = (i << first.length()) & ((1 << kLookup) - 1);
    const Symbol& second = symbols[bits];
    const int both = first.length() + second.length();
    if (first.kind != Kind::one || second.kind == Kind::longer || both > kLookup) continue;
    const int value = top_value(static_cast<uint64_t>(bits) << (64 - kLookup + second.code_length), 63 - second.size);
    const Kind kind = second.kind == Kind::end ? Kind::one_then_end : Kind::two;
    entries[i] = first.entry(first.step + second.step, kind, both, value);
  }
  return true;
}

namespace {

// The places of coefficients: of[k] is the offset in a block of the k-th one in zigzag order. Beyond 63 it is the place
// of the DC coefficient, which is written last.
struct Places {
  uint8_t of[160];
};

template <int lanes>
constexpr Places kPlaces = [] {
  Places places{};
  for (int k = 0; k < kBlockValues; ++k)
    places.of[k] = static_cast<uint8_t>(kZigzag[k] / 8 * 8 * lanes + kZigzag[k] % 8);
  return places;
}();

// Stores coefficients up to an entry that reaches the block's end or for which the lookup does not suffice. Returns
// that entry; k is the last coefficient before it.
PL_INLINE uint64_t look_up(BitReader& r, const AcTable& ac, const Places& places, size_t& k, int16_t* block) {
  static_assert(3 * kMostBits <= 56);
  while (true) {
    r.refill();
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const uint64_t entry = ac.entries[r.bits >> (64 - AcTable::kLookup)];
      const size_t first = k + first_of(entry), last = k + last_of(entry);
      block[places.of[last]] = last_value_of(entry);
      block[places.of[first]] = static_cast<int16_t>(first_value(r.bits, entry));
      if (last >= 63) return entry;
      r.bits <<= entry & 63;
      r.count -= length_of(entry);
      k = last;
    }
  }
}

enum class Next { more, done, broken };

// Does what the lookup could not: the block's end, or a symbol that is longer than the lookup.
PL_INLINE Next leave_lookup(BitReader& r, const AcTable& ac, const Places& places, uint64_t entry, size_t& k,
                            int16_t* block) {
  const Kind kind = kind_of(entry);
  if (kind != Kind::longer) [[likely]] {
    // The only branch is for the last kind: the others cannot be predicted.
    const size_t first = k + first_of(entry), last = k + last_of(entry);
    const bool ends_first = kind == Kind::end, ends_second = kind == Kind::one_then_end;
    const bool only_first = (first == 63) & !ends_first;  // what follows belongs to the next block
    r.skip(only_first ? first_length_of(entry) : length_of(entry));
    return only_first | ends_first | ((first < 63) & (ends_second | (last == 63))) ? Next::done : Next::broken;
  }
  r.refill();
  uint8_t symbol;
  const int length = ac.code.length_of(r.bits, &symbol);
  if (length == 0) return Next::broken;
  r.skip(length);
  const int run = symbol >> 4, size = symbol & 15;
  if (size == 0 && run != 15) return Next::done;
  k += static_cast<size_t>(run) + 1;
  if (k > 63) return Next::broken;
  block[places.of[k]] = static_cast<int16_t>(top_value(r.bits, 63u - static_cast<unsigned>(size)));
  r.skip(size);
  return k == 63 ? Next::done : Next::more;
}

template <int lanes>
PL_INLINE bool decode_row(BitReader& reader, const McuRow& mcu_row, int32_t* predictions) {
  BitReader r = reader;  // a copy can live in registers
  for (int x = 0; x < mcu_row.mcus; ++x) {
    if (r.past_end()) return false;
    for (int i = 0; i < mcu_row.blocks; ++i) {
      const McuBlock& b = mcu_row.block[i];
      const size_t column = static_cast<size_t>(x * b.columns + b.column);
      int16_t* block = b.coefficients + column / lanes * lanes * kBlockValues + column % lanes * 8;
      int32_t& prediction = predictions[b.component];
      if (!decode_dc(r, *b.dc, prediction)) return false;
      size_t k = 0;
      Next next;
      do {
        const uint64_t entry = look_up(r, *b.ac, kPlaces<lanes>, k, block);
        next = leave_lookup(r, *b.ac, kPlaces<lanes>, entry, k, block);
      } while (next == Next::more);
      if (next == Next::broken) return false;
      block[0] = static_cast<int16_t>(prediction);
    }
  }
  reader = r;
  return true;
}

PL_INLINE void decode_at_level_body(BitReader& reader, const McuRow& mcu_row, int32_t* predictions, bool* clean) {
  if (mcu_row.lanes == 1) *clean = decode_row<1>(reader, mcu_row, predictions);
  if (mcu_row.lanes == 2) *clean = decode_row<2>(reader, mcu_row, predictions);
  if (mcu_row.lanes == 4) *clean = decode_row<4>(reader, mcu_row, predictions);
}
PL_LEVELS(decode_at_level, (BitReader & reader, const McuRow& mcu_row, int32_t* predictions, bool* clean),
          (reader, mcu_row, predictions, clean))

}  // namespace

bool decode_mcus(BitReader& reader, const McuRow& mcu_row, int32_t* predictions) {
  bool clean = false;
  decode_at_level(reader, mcu_row, predictions, &clean);
  return clean;
}

}  // namespace pass_loader::jpeg
