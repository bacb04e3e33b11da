#include "jpeg/dct_pack.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "isa.h"
#include "jpeg/dct_unpack.h"
#include "jpeg/frame.h"

namespace pass_loader::jpeg {
namespace {

constexpr int kMost = 1023;
constexpr uint64_t kDcBit = 1;

// 64 values of 16 bits, each compared or chosen. Bit i of a result is that of value i.
struct Plain {
  template <typename Test>
  PL_INLINE static uint64_t where(const int16_t* values, const Test& test) {
    alignas(64) uint8_t flags[kBlockValues];
    for (int i = 0; i < kBlockValues; ++i) flags[i] = test(values[i]);
    uint64_t bits = 0;
    for (int i = 0; i < kBlockValues; i += 8) {  // 8 bytes of 0 or 1 to 8 bits, the first one lowest
      uint64_t bytes;
      std::memcpy(&bytes, flags + i, sizeof bytes);
      bits |= bytes * 0x0102040810204080 >> 56 << i;
    }
    return bits;
  }
  PL_INLINE static uint64_t not_zero(const int16_t* values) {
    return where(values, [](int16_t value) { return value != 0; });
  }
  PL_INLINE static uint64_t negative(const int16_t* values) {
    return where(values, [](int16_t value) { return value < 0; });
  }
  PL_INLINE static uint64_t beyond(const int16_t* values, int most) {  // in size
    return where(values, [=](int16_t value) { return (value > most) | (value < -most); });
  }
  // Writes the chosen values, 63 at most, one after another, and a 0. Leaves the rest undefined.
  PL_INLINE static void choose(const int16_t* values, uint64_t which, int16_t* to) {
    for (; which != 0; which &= which - 1) *to++ = values[__builtin_ctzll(which)];
    *to = 0;
  }
};

#if defined(__x86_64__)
// Not PL_INLINE: `pack` itself has no target until it is inlined into pack_avx512vbmi.
struct Vbmi {
  PL_TARGET_VBMI static inline uint64_t not_zero(const int16_t* values) {
    return _mm512_test_epi16_mask(_mm512_loadu_si512(values), _mm512_loadu_si512(values)) |
           uint64_t{_mm512_test_epi16_mask(_mm512_loadu_si512(values + 32), _mm512_loadu_si512(values + 32))} << 32;
  }
  PL_TARGET_VBMI static inline uint64_t negative(const int16_t* values) {
    return _mm512_movepi16_mask(_mm512_loadu_si512(values)) |
           uint64_t{_mm512_movepi16_mask(_mm512_loadu_si512(values + 32))} << 32;
  }
  PL_TARGET_VBMI static inline uint64_t beyond(const int16_t* values, int most) {
    const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(most));  // sizes as unsigned: that of -32768 is 32768
    return _mm512_cmpgt_epu16_mask(_mm512_abs_epi16(_mm512_loadu_si512(values)), limit) |
           uint64_t{_mm512_cmpgt_epu16_mask(_mm512_abs_epi16(_mm512_loadu_si512(values + 32)), limit)} << 32;
  }
  // Joins both halves in registers: a load from two overlapping stores would wait for them.
  PL_TARGET_VBMI static inline void choose(const int16_t* values, uint64_t which, int16_t* to) {
    const auto low = static_cast<__mmask32>(which), high = static_cast<__mmask32>(which >> 32);
    const int count = __builtin_popcount(low);
    const auto from = [](int bit) { return static_cast<__mmask32>(uint64_t{0xffffffff} << bit); };
    const __m512i rest = _mm512_maskz_compress_epi16(high, _mm512_loadu_si512(values + 32));
    _mm512_store_si512(to, _mm512_or_si512(_mm512_maskz_compress_epi16(low, _mm512_loadu_si512(values)),
                                           _mm512_maskz_expand_epi16(from(count), rest)));
    _mm512_store_si512(to + 32, _mm512_maskz_compress_epi16(from(32 - count), rest));
  }
};
#endif

// The two streams with a bit for each coefficient. They grow together.
struct BitPair {
  uint8_t *first_to, *second_to;
  uint64_t first = 0, second = 0;  // what is not written yet
  size_t held = 0;                 // its bits, below 64

  // count: at most 63; the bits above are 0.
  PL_INLINE void add(uint64_t of_first, uint64_t of_second, size_t count) {
    first |= of_first << held, second |= of_second << held;
    held += count;
    if (held < 64) return;
    write(8);
    held -= 64;
    first = of_first >> (count - held), second = of_second >> (count - held);
  }
  PL_INLINE void finish() { write((held + 7) / 8); }

 private:
  PL_INLINE void write(size_t bytes) {
    std::memcpy(first_to, &first, sizeof first), std::memcpy(second_to, &second, sizeof second);
    first_to += bytes, second_to += bytes;
  }
};

PL_INLINE void put_16(uint8_t*& to, int value) {
  const auto number = static_cast<uint16_t>(value);
  std::memcpy(to, &number, sizeof number);
  to += sizeof number;
}

template <typename Values>
PL_INLINE void pack(const int16_t* coefficients, size_t blocks, RowTargets* to, bool* writable) {
  RowTargets out = *to;
  BitPair bits{out.signs, out.larger};
  int prediction = 0;
  bool fits = true;
  // Whole blocks, so that loops over them vectorise. What lies after the values in use is not looked at.
  alignas(64) int16_t values[kBlockValues] = {}, larger_ones[kBlockValues] = {};
  alignas(64) uint8_t nibbles[kBlockValues];
  for (size_t b = 0; b < blocks; ++b) {
    const int16_t* block = coefficients + b * kBlockValues;
    const int dc = block[0], difference = dc - prediction;
    prediction = dc;
    const bool narrow = difference > -128 && difference < 128;
    *out.dc++ = narrow ? static_cast<uint8_t>(difference) : kEscape;
    if (!narrow) put_16(out.dc_wide, difference);

    fits &= (Values::beyond(block, kMost) & ~kDcBit) == 0 && dc <= kMost && dc >= -kMost - 1;
    const uint64_t chosen = Values::not_zero(block) & ~kDcBit;
    unsigned rows = 0;
    for (int r = 0; r < 8; ++r) {
      const auto mask = static_cast<uint8_t>(chosen >> (8 * r));
      *out.masks = mask;
      out.masks += mask != 0;
      rows |= static_cast<unsigned>(mask != 0) << r;
    }
    *out.flags++ = static_cast<uint8_t>(rows);
    if (chosen == 0) continue;

    const auto count = static_cast<size_t>(__builtin_popcountll(chosen));
    const uint64_t in_use = (uint64_t{1} << count) - 1;
    Values::choose(block, chosen, values);
    const uint64_t larger = Values::beyond(values, 1) & in_use;
    bits.add(Values::negative(values) & in_use, larger, count);

    const auto sizes = static_cast<size_t>(__builtin_popcountll(larger));
    Values::choose(values, larger, larger_ones);
    for (int i = 0; i < kBlockValues; ++i)
      nibbles[i] = static_cast<uint8_t>(std::clamp(std::abs(larger_ones[i]), 2, 17) - 2);
    for (size_t i = 0; i < kBlockValues / 2; ++i)
      out.nibbles[i] = static_cast<uint8_t>(nibbles[2 * i] | nibbles[2 * i + 1] << 4);
    out.nibbles += (sizes + 1) / 2;
    uint64_t in_bytes = Values::beyond(larger_ones, 16) & ((uint64_t{1} << sizes) - 1);
    for (; in_bytes != 0; in_bytes &= in_bytes - 1) {
      const int size = std::abs(larger_ones[__builtin_ctzll(in_bytes)]);
      *out.bytes++ = static_cast<uint8_t>(std::min(size - 17, int{kWide}));
      if (size >= 17 + kWide) put_16(out.wide, size);
    }
  }
  bits.finish();
  out.signs = bits.first_to, out.larger = bits.second_to;
  *to = out;
  *writable = fits;
}

#define PL_PACK(target, level, values)                                                                   \
  target void pack_##level(const int16_t* coefficients, size_t blocks, RowTargets* to, bool* writable) { \
    pack<values>(coefficients, blocks, to, writable);                                                    \
  }
PL_PACK(, base, Plain)
#if defined(__x86_64__)
PL_PACK(PL_TARGET_AVX2, avx2, Plain)
PL_PACK(PL_TARGET_AVX512, avx512, Plain)
PL_PACK(PL_TARGET_VBMI, avx512vbmi, Vbmi)
#endif
#undef PL_PACK
PL_DISPATCH_X86(pack_at_level, (const int16_t* coefficients, size_t blocks, RowTargets* to, bool* writable),
                (coefficients, blocks, to, writable), pack)

}  // namespace

bool pack_row(const int16_t* coefficients, size_t blocks, RowTargets* to) {
  bool writable = false;
  pack_at_level(coefficients, blocks, to, &writable);
  return writable;
}

}  // namespace pass_loader::jpeg
