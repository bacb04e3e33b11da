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

// Of a block, without its DC coefficient: bit i of a mask is that of coefficient i.
struct Masks {
  uint64_t not_zero, larger, in_bytes;  // larger: than 1 in size; in_bytes: than a nibble can tell
};

// Of coefficients that are not zero, in their order: a bit for each. The bits above are undefined.
struct Bits {
  uint64_t negative, larger;
};

// Each level has these functions, and a Prepared: what a first look at a block leaves for the second.
struct Plain {
  template <typename Test>
  PL_INLINE static uint64_t where(const int16_t* block, const Test& test) {
    alignas(64) uint8_t flags[kBlockValues];
    for (int i = 0; i < kBlockValues; ++i) flags[i] = test(block[i]);
    uint64_t bits = 0;
    for (int i = 0; i < kBlockValues; i += 8) {  // 8 bytes of 0 or 1 to 8 bits, the first one lowest
      uint64_t bytes;
      std::memcpy(&bytes, flags + i, sizeof bytes);
      bits |= bytes * 0x0102040810204080 >> 56 << i;
    }
    return bits;
  }
  PL_INLINE static uint64_t not_zero(const int16_t* block) {
    return where(block, [](int16_t value) { return value != 0; });
  }
  PL_INLINE static uint64_t beyond(const int16_t* block, int most) {  // in size
    return where(block, [=](int16_t value) { return (value > most) | (value < -most); });
  }
  struct Prepared {
    const int16_t* block;
    uint64_t not_zero, larger;
  };
  PL_INLINE static void prepare(const int16_t* block, const Masks& of, Prepared* to) {
    *to = {block, of.not_zero, of.larger};
  }
  PL_INLINE static Bits bits_of(const Prepared& of) {
    Bits bits{};
    uint64_t bit = 1;
    for (uint64_t left = of.not_zero; left != 0; left &= left - 1, bit <<= 1) {
      const int value = of.block[__builtin_ctzll(left)];
      bits.negative |= value < 0 ? bit : 0, bits.larger |= std::abs(value) > 1 ? bit : 0;
    }
    return bits;
  }
  // Writes the nibbles of the larger coefficients, and up to kPackPadding bytes.
  PL_INLINE static void put_nibbles(const Prepared& of, uint8_t* to) {
    uint64_t left = of.larger;
    const auto take = [&] {
      const int size = std::abs(of.block[__builtin_ctzll(left)]);
      left &= left - 1;
      return std::min(size, 17) - 2;
    };
    while (left != 0) {
      const int low = take();
      *to++ = static_cast<uint8_t>(left == 0 ? low : low | take() << 4);
    }
  }
  // Writes a mask's bytes, one for each row of the block, but those that are 0, and up to kPackPadding bytes. Returns
  // for each row a bit: whether its byte was written.
  PL_INLINE static unsigned put_rows(uint64_t chosen, uint8_t* to) {
    unsigned rows = 0;
    for (int r = 0; r < 8; ++r) {
      const auto mask = static_cast<uint8_t>(chosen >> (8 * r));
      *to = mask;
      to += mask != 0;
      rows |= static_cast<unsigned>(mask != 0) << r;
    }
    return rows;
  }
};

#if defined(__x86_64__)
// For each mask of 8 bytes, which ones are chosen, one after another, then zeros (0x80).
struct Chosen {
  uint8_t of[256][8];
  constexpr Chosen() : of{} {
    for (int mask = 0; mask < 256; ++mask) {
      int at = 0;
      for (int i = 0; i < 8; ++i)
        if ((mask >> i & 1) != 0) of[mask][at++] = static_cast<uint8_t>(i);
      while (at < 8) of[mask][at++] = 0x80;
    }
  }
};
constexpr Chosen kChosen;

// Not PL_INLINE: `pack` itself has no target until it is inlined into pack_avx2.
struct Avx2 {
  struct Bytes {
    __m256i half[2];
  };
  PL_TARGET_AVX2 static inline __m256i load(const void* from, int group) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from) + group);
  }
  // packs takes 128 bits of each in turn.
  PL_TARGET_AVX2 static inline __m256i join(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
  }
  // The values that `of` makes of each group of 16 coefficients, as bytes, with saturation.
  template <typename Of>
  PL_TARGET_AVX2 static inline Bytes bytes_of(const Of& of) {
    return {{join(of(0), of(1)), join(of(2), of(3))}};
  }
  PL_TARGET_AVX2 static inline Bytes bytes_of(const int16_t* block) {
    const auto itself = [&](int group) PL_TARGET_AVX2 { return load(block, group); };
    return bytes_of(itself);
  }
  PL_TARGET_AVX2 static inline uint64_t signs(const Bytes& bytes) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(bytes.half[0])) |
           uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(bytes.half[1]))} << 32;
  }
  PL_TARGET_AVX2 static inline uint64_t not_zero(const int16_t* block) { return beyond(block, 0); }
  PL_TARGET_AVX2 static inline uint64_t beyond(const int16_t* block, int most) {
    const __m256i limit = _mm256_set1_epi16(static_cast<int16_t>(most));  // sizes as unsigned: that of -32768 is 32768
    const auto is_within = [&](int group) PL_TARGET_AVX2 {
      const __m256i above = _mm256_subs_epu16(_mm256_abs_epi16(load(block, group)), limit);
      return _mm256_cmpeq_epi16(above, _mm256_setzero_si256());
    };
    return ~signs(bytes_of(is_within));
  }
  PL_TARGET_AVX2 static inline __m128i eight(const uint8_t* from) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  }
  PL_TARGET_AVX2 static inline unsigned put_rows(uint64_t chosen, uint8_t* to) {
    const __m128i masks = _mm_cvtsi64_si128(static_cast<int64_t>(chosen));
    const int empty = _mm_movemask_epi8(_mm_cmpeq_epi8(masks, _mm_setzero_si128()));
    const auto rows = static_cast<uint8_t>(~empty);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(masks, eight(kChosen.of[rows])));
    return rows;
  }
  // Bytes of 0 to kBlockValues - 1 coefficients, one after another, and a 0. The others are undefined.
  struct Row {
    alignas(32) uint8_t bytes[kBlockValues + 8];
  };
  PL_TARGET_AVX2 static inline void choose(const Bytes& bytes, uint64_t chosen, Row* row) {
    alignas(32) uint8_t from[kBlockValues];
    for (int i = 0; i < 2; ++i) _mm256_store_si256(reinterpret_cast<__m256i*>(from) + i, bytes.half[i]);
    uint8_t* to = row->bytes;
    for (int i = 0; i < kBlockValues; i += 8) {
      const auto mask = static_cast<uint8_t>(chosen >> i);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(eight(from + i), eight(kChosen.of[mask])));
      to += __builtin_popcount(mask);
    }
    *to = 0;
  }
  struct Prepared {
    Row values, nibbles;
  };
  PL_TARGET_AVX2 static inline void prepare(const int16_t* block, const Masks& of, Prepared* to) {
    Bytes bytes = bytes_of(block);
    choose(bytes, of.not_zero, &to->values);
    for (__m256i& half : bytes.half)
      half = _mm256_subs_epu8(_mm256_min_epu8(_mm256_abs_epi8(half), _mm256_set1_epi8(17)), _mm256_set1_epi8(2));
    choose(bytes, of.larger, &to->nibbles);
  }
  PL_TARGET_AVX2 static inline Bits bits_of(const Prepared& of) {
    const Bytes values{{load(of.values.bytes, 0), load(of.values.bytes, 1)}};
    const __m256i two = _mm256_set1_epi8(2);
    Bytes larger;
    for (int i = 0; i < 2; ++i)
      larger.half[i] = _mm256_cmpeq_epi8(_mm256_min_epu8(_mm256_abs_epi8(values.half[i]), two), two);
    return {signs(values), signs(larger)};
  }
  PL_TARGET_AVX2 static inline void put_nibbles(const Prepared& of, uint8_t* to) {
    const __m256i sixteenfold = _mm256_set1_epi16(1 | 16 << 8);  // every second one
    const __m256i pairs = _mm256_packus_epi16(_mm256_maddubs_epi16(load(of.nibbles.bytes, 0), sixteenfold),
                                              _mm256_maddubs_epi16(load(of.nibbles.bytes, 1), sixteenfold));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(pairs, 0xd8));
  }
};

// The same for pack_avx512vbmi. pack_avx512 is pack_avx2: without VBMI2 nothing chooses among bytes or words.
struct Vbmi {
  PL_TARGET_VBMI static inline uint64_t not_zero(const int16_t* block) {
    return _mm512_test_epi16_mask(_mm512_loadu_si512(block), _mm512_loadu_si512(block)) |
           uint64_t{_mm512_test_epi16_mask(_mm512_loadu_si512(block + 32), _mm512_loadu_si512(block + 32))} << 32;
  }
  PL_TARGET_VBMI static inline uint64_t negative(const int16_t* values) {
    return _mm512_movepi16_mask(_mm512_loadu_si512(values)) |
           uint64_t{_mm512_movepi16_mask(_mm512_loadu_si512(values + 32))} << 32;
  }
  PL_TARGET_VBMI static inline uint64_t beyond(const int16_t* block, int most) {
    const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(most));  // sizes as unsigned: that of -32768 is 32768
    return _mm512_cmpgt_epu16_mask(_mm512_abs_epi16(_mm512_loadu_si512(block)), limit) |
           uint64_t{_mm512_cmpgt_epu16_mask(_mm512_abs_epi16(_mm512_loadu_si512(block + 32)), limit)} << 32;
  }
  // Writes the chosen values, 63 at most, one after another, and a 0. Leaves the rest undefined. Joins both halves in
  // registers: a load from two overlapping stores would wait for them.
  PL_TARGET_VBMI static inline void choose(const int16_t* block, uint64_t chosen, int16_t* to) {
    const auto low = static_cast<__mmask32>(chosen), high = static_cast<__mmask32>(chosen >> 32);
    const int count = __builtin_popcount(low);
    const auto from = [](int bit) { return static_cast<__mmask32>(uint64_t{0xffffffff} << bit); };
    const __m512i rest = _mm512_maskz_compress_epi16(high, _mm512_loadu_si512(block + 32));
    _mm512_store_si512(to, _mm512_or_si512(_mm512_maskz_compress_epi16(low, _mm512_loadu_si512(block)),
                                           _mm512_maskz_expand_epi16(from(count), rest)));
    _mm512_store_si512(to + 32, _mm512_maskz_compress_epi16(from(32 - count), rest));
  }
  PL_TARGET_VBMI static inline unsigned put_rows(uint64_t chosen, uint8_t* to) { return Plain::put_rows(chosen, to); }
  struct Prepared {
    Bits bits;
    uint8_t nibbles[kBlockValues / 2];
  };
  PL_TARGET_VBMI static inline void prepare(const int16_t* block, const Masks& of, Prepared* to) {
    alignas(64) int16_t values[kBlockValues];
    alignas(64) uint8_t nibbles[kBlockValues];
    choose(block, of.not_zero, values);
    to->bits = {negative(values), beyond(values, 1)};
    choose(block, of.larger, values);
    for (int i = 0; i < kBlockValues; ++i)
      nibbles[i] = static_cast<uint8_t>(std::clamp(std::abs(values[i]), 2, 17) - 2);
    for (size_t i = 0; i < kBlockValues / 2; ++i)
      to->nibbles[i] = static_cast<uint8_t>(nibbles[2 * i] | nibbles[2 * i + 1] << 4);
  }
  PL_TARGET_VBMI static inline Bits bits_of(const Prepared& of) { return of.bits; }
  PL_TARGET_VBMI static inline void put_nibbles(const Prepared& of, uint8_t* to) {
    std::memcpy(to, of.nibbles, sizeof of.nibbles);
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

// Each block is looked at twice, a group at a time: loads from what was just stored in pieces would wait.
constexpr size_t kGroup = 8;

template <typename Values>
PL_INLINE void pack(const int16_t* coefficients, size_t blocks, RowTargets* to, bool* writable) {
  RowTargets out = *to;
  BitPair bits{out.signs, out.larger};
  int prediction = 0;
  bool fits = true;
  typename Values::Prepared prepared[kGroup];
  Masks masks[kGroup];
  for (size_t b = 0; b < blocks; ++b) {
    if (b % kGroup == 0) {
      for (size_t i = 0; i < std::min(kGroup, blocks - b); ++i) {
        const int16_t* block = coefficients + (b + i) * kBlockValues;
        fits &= (Values::beyond(block, kMost) & ~kDcBit) == 0;
        masks[i] = {Values::not_zero(block) & ~kDcBit, Values::beyond(block, 1) & ~kDcBit,
                    Values::beyond(block, 16) & ~kDcBit};
        if (masks[i].not_zero != 0) Values::prepare(block, masks[i], &prepared[i]);
      }
    }
    const int16_t* block = coefficients + b * kBlockValues;
    const Masks& of = masks[b % kGroup];
    const int dc = block[0], difference = dc - prediction;
    prediction = dc;
    fits &= dc <= kMost && dc >= -kMost - 1;
    const bool narrow = difference > -128 && difference < 128;
    *out.dc++ = narrow ? static_cast<uint8_t>(difference) : kEscape;
    if (!narrow) put_16(out.dc_wide, difference);

    const unsigned rows = Values::put_rows(of.not_zero, out.masks);
    out.masks += __builtin_popcount(rows);
    *out.flags++ = static_cast<uint8_t>(rows);
    if (of.not_zero == 0) continue;

    const auto count = static_cast<size_t>(__builtin_popcountll(of.not_zero));
    const uint64_t in_use = (uint64_t{1} << count) - 1;
    const Bits of_chosen = Values::bits_of(prepared[b % kGroup]);
    bits.add(of_chosen.negative & in_use, of_chosen.larger & in_use, count);

    Values::put_nibbles(prepared[b % kGroup], out.nibbles);
    out.nibbles += (static_cast<size_t>(__builtin_popcountll(of.larger)) + 1) / 2;
    for (uint64_t left = of.in_bytes; left != 0; left &= left - 1) {
      const int size = std::abs(block[__builtin_ctzll(left)]);
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
PL_PACK(PL_TARGET_AVX2, avx2, Avx2)
PL_PACK(PL_TARGET_AVX2, avx512, Avx2)
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
