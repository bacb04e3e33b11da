#include "jpeg/dct_unpack.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "isa.h"
#include "jpeg/frame.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pass_loader::jpeg {
namespace {

PL_INLINE uint64_t load_64(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

PL_INLINE int load_i16(const uint8_t* from) { return static_cast<int16_t>(from[0] | from[1] << 8); }

// Returns 64 bits of a stream from bit `at`, low bits first.
PL_INLINE uint64_t bits_at(const uint8_t* stream, size_t at) {
  const uint8_t* from = stream + at / 8;
  const unsigned shift = at % 8;
  return load_64(from) >> shift | static_cast<uint64_t>(from[8]) << 1 << (63 - shift);
}

PL_INLINE uint64_t low_bits(int count) { return count == 0 ? 0 : ~uint64_t{0} >> (64 - count); }

// What a block takes from the streams before its values are made.
struct Block {
  uint64_t mask;           // a bit for each value, in row-major order
  uint64_t signs, larger;  // a bit for each value in the mask
  int count, larger_count;
};

// Byte r of the result is the next mask byte if bit r of the flags is set.
PL_INLINE uint64_t spread_bytes(uint8_t flags, const uint8_t* masks) {
  uint64_t mask = 0;
  for (unsigned left = flags; left != 0; left &= left - 1)
    mask |= static_cast<uint64_t>(*masks++) << (8 * std::countr_zero(left));
  return mask;
}

PL_INLINE bool finish_dc(RowStreams& row, size_t block, int& prediction) {
  if (row.dc[block] != kEscape) {
    prediction += static_cast<int8_t>(row.dc[block]);
    return true;
  }
  if (row.dc_wide.next + 2 > row.dc_wide.end) return false;
  prediction += load_i16(row.dc_wide.next);
  row.dc_wide.next += 2;
  return true;
}

PL_INLINE bool is_within(const RowStreams& row, size_t bits) {
  return row.masks.next <= row.masks.end && row.signs.next + (bits + 7) / 8 <= row.signs.end &&
         row.nibbles.next <= row.nibbles.end && row.bytes.next <= row.bytes.end;
}

PL_INLINE bool is_consumed(const RowStreams& row, size_t bits) {
  return row.masks.next == row.masks.end && row.signs.next + (bits + 7) / 8 == row.signs.end &&
         row.nibbles.next == row.nibbles.end && row.bytes.next == row.bytes.end &&
         row.dc_wide.next == row.dc_wide.end && row.wide.next == row.wide.end;
}

// Writes the sizes that no byte holds over the kWide + 17 that the kernels have stored. `wide` has a bit for each value
// in the mask.
PL_INLINE bool finish_wide(RowStreams& row, const Block& b, uint64_t wide, int row_stride, int16_t* out) {
  uint64_t mask = b.mask;
  for (int k = 0; mask != 0; ++k, mask &= mask - 1) {
    if ((wide >> k & 1) == 0) continue;
    if (row.wide.next + 2 > row.wide.end) return false;
    const int size = load_i16(row.wide.next), place = std::countr_zero(mask);
    row.wide.next += 2;
    if (size < kWide + 17) return false;
    out[place / 8 * row_stride + place % 8] = static_cast<int16_t>(b.signs >> k & 1 ? -size : size);
  }
  return true;
}

// kernel(row, block, row_stride, out, wide) makes a block's 64 values except the DC, and advances nibbles and bytes.
template <typename Kernel>
PL_INLINE bool unpack(RowStreams& row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients,
                      const Kernel& kernel) {
  const size_t groups = (wanted + lanes - 1) / lanes;
  if (wanted % lanes != 0)
    std::memset(coefficients + (groups - 1) * lanes * kBlockValues, 0, lanes * kBlockValues * sizeof(int16_t));
  const int row_stride = 8 * lanes;
  size_t bit = 0;
  int prediction = 0;
  for (size_t i = 0; i < wanted; ++i) {
    int16_t* out = coefficients + i / lanes * lanes * kBlockValues + i % lanes * 8;
    Block b;
    const uint8_t flags = row.flags[i];
    b.mask = kernel.spread(flags, row.masks.next);
    row.masks.next += std::popcount(flags);
    b.count = std::popcount(b.mask);
    b.signs = bits_at(row.signs.next, bit);
    b.larger = bits_at(row.larger.next, bit) & low_bits(b.count);
    b.larger_count = std::popcount(b.larger);
    bit += static_cast<size_t>(b.count);
    uint64_t wide = 0;
    kernel.values(row, b, row_stride, out, wide);
    row.nibbles.next += (b.larger_count + 1) / 2;
    if (!is_within(row, bit) || !finish_dc(row, i, prediction)) [[unlikely]]
      return false;
    if (wide != 0 && !finish_wide(row, b, wide, row_stride, out)) return false;
    if ((b.mask & 1) != 0 || prediction < INT16_MIN || prediction > INT16_MAX) [[unlikely]]
      return false;
    out[0] = static_cast<int16_t>(prediction);
  }
  return wanted < blocks || is_consumed(row, bit);
}

struct BaseKernel {
  static PL_INLINE uint64_t spread(uint8_t flags, const uint8_t* masks) { return spread_bytes(flags, masks); }

  static PL_INLINE void values(RowStreams& row, const Block& b, int row_stride, int16_t* out, uint64_t& wide) {
    for (int r = 0; r < 8; ++r) std::memset(out + r * row_stride, 0, 8 * sizeof *out);
    const uint8_t* nibble = row.nibbles.next;
    uint64_t mask = b.mask;
    bool high = false;
    for (int k = 0; mask != 0; ++k, mask &= mask - 1) {
      int size = 1;
      if (b.larger >> k & 1) {
        const int low = high ? *nibble++ >> 4 : *nibble & 15;
        high = !high;
        size = 2 + low;
        if (low == 15) {
          const int more = *row.bytes.next++;
          if (more >= kWide) wide |= uint64_t{1} << k;
          size += more;
        }
      }
      const int place = std::countr_zero(mask);
      out[place / 8 * row_stride + place % 8] = static_cast<int16_t>(b.signs >> k & 1 ? -size : size);
    }
  }
};

bool unpack_base(RowStreams& row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients) {
  return unpack(row, blocks, wanted, lanes, coefficients, BaseKernel{});
}

#if defined(__x86_64__) || defined(__aarch64__)
// Moves the k-th of 8 values in the low bytes to the place of the k-th set bit. Other places become 0.
struct ExpandTable {
  alignas(64) uint64_t of[256];
};
constexpr ExpandTable kExpand = [] {
  ExpandTable table{};
  for (int mask = 0; mask < 256; ++mask) {
    uint64_t indices = 0, next = 0;
    for (int bit = 0; bit < 8; ++bit) indices |= (mask >> bit & 1 ? next++ : uint64_t{0x80}) << (8 * bit);
    table.of[mask] = indices;
  }
  return table;
}();

#endif

#if defined(__aarch64__)
struct NeonKernel {
  static PL_INLINE uint64_t spread(uint8_t flags, const uint8_t* masks) {
    return vget_lane_u64(vreinterpret_u64_u8(expand_8(masks, flags)), 0);
  }

  static PL_INLINE uint8x8_t expand_8(const uint8_t* from, unsigned mask) {
    return vtbl1_u8(vld1_u8(from), vcreate_u8(kExpand.of[mask]));
  }

  // Makes a byte of ones for each bit that is set.
  static PL_INLINE uint8x16_t bytes_of_bits(uint8x8_t bits, uint8x16_t places) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    return vtstq_u8(vqtbl1q_u8(vcombine_u8(bits, bits), places), bit);
  }

  // Byte k of the result is the number of bits in the mask's bytes before byte k.
  static PL_INLINE uint64_t bits_before(uint64_t mask) {
    const uint64_t counts = vget_lane_u64(vreinterpret_u64_u8(vcnt_u8(vcreate_u8(mask))), 0);
    return counts * 0x0101010101010101 << 8;
  }

  // Gives each of the 16 low places of `mask` the next value of `from`, or 0. before: bits_before, from this place on.
  static PL_INLINE uint8x16_t expand_16(const uint8_t* from, uint64_t mask, uint64_t before) {
    return vcombine_u8(expand_8(from + (before & 255), mask & 255),
                       expand_8(from + (before >> 8 & 255), mask >> 8 & 255));
  }

  static PL_INLINE void values(RowStreams& row, const Block& b, int row_stride, int16_t* out, uint64_t& wide) {
    alignas(16) uint8_t nibbles[64 + 32], packed[64 + 16];
    const uint8x16_t one = vdupq_n_u8(1);
    for (int at = 0; at < b.larger_count; at += 32) {
      const uint8x16_t pairs = vld1q_u8(row.nibbles.next + at / 2);
      const uint8x16x2_t split = {vaddq_u8(vandq_u8(pairs, vdupq_n_u8(15)), one), vsraq_n_u8(one, pairs, 4)};
      vst2q_u8(nibbles + at, split);
    }
    const uint64_t larger_before = bits_before(b.larger), before = bits_before(b.mask);
    const uint8x8_t signs = vcreate_u8(b.signs);
    uint8x16_t places = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
    for (int at = 0; at < b.count; at += 16, places = vaddq_u8(places, vdupq_n_u8(2))) {
      uint8x16_t size = vaddq_u8(expand_16(nibbles, b.larger >> at, larger_before >> at), one);
      const uint8x16_t is_longer = vceqq_u8(size, vdupq_n_u8(17));
      if (vmaxvq_u8(is_longer) != 0) {
        const unsigned longer = bits_of_bytes(is_longer);
        const uint8x16_t bytes = expand_16(row.bytes.next, longer, bits_before(longer));
        row.bytes.next += std::popcount(longer);
        wide |= static_cast<uint64_t>(bits_of_bytes(vcgeq_u8(bytes, vdupq_n_u8(kWide)))) << at;
        size = vaddq_u8(size, bytes);
      }
      const uint8x16_t negative = bytes_of_bits(signs, places);
      vst1q_u8(packed + at, vsubq_u8(veorq_u8(size, negative), negative));
    }
    for (int r = 0; r < 8; ++r) {
      const uint8x8_t bytes = expand_8(packed + (before >> 8 * r & 255), b.mask >> 8 * r & 255);
      vst1q_s16(out + r * row_stride, vmovl_s8(vreinterpret_s8_u8(bytes)));
    }
  }

  static PL_INLINE unsigned bits_of_bytes(uint8x16_t bytes) {
    const uint8x16_t bits = vandq_u8(bytes, vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201)));
    return vaddv_u8(vget_low_u8(bits)) | static_cast<unsigned>(vaddv_u8(vget_high_u8(bits))) << 8;
  }
};

bool unpack_neon(RowStreams& row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients) {
  return unpack(row, blocks, wanted, lanes, coefficients, NeonKernel{});
}
#endif

#if defined(__x86_64__)
struct Avx2Kernel {
  PL_TARGET_AVX2 static inline uint64_t spread(uint8_t flags, const uint8_t* masks) {
    return static_cast<uint64_t>(_mm_cvtsi128_si64(expand_8(masks, flags)));
  }

  PL_TARGET_AVX2 static inline __m128i expand_8(const uint8_t* from, unsigned mask) {
    const __m128i values = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm_shuffle_epi8(values, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kExpand.of[mask])));
  }

  // Makes a byte of ones for each bit that is set.
  PL_TARGET_AVX2 static inline __m256i bytes_of_bits(uint32_t bits) {
    const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, byte), bit), bit);
  }

  // Gives each of the next 32 places of `mask` the next value of `from`, or 0.
  PL_TARGET_AVX2 static inline __m256i expand_32(const uint8_t*& from, uint32_t mask) {
    __m128i runs[4];
    for (int i = 0; i < 4; ++i, mask >>= 8) {
      runs[i] = expand_8(from, mask & 255);
      from += __builtin_popcount(mask & 255);
    }
    return _mm256_set_m128i(_mm_unpacklo_epi64(runs[2], runs[3]), _mm_unpacklo_epi64(runs[0], runs[1]));
  }

  // Values go through memory only if a later load finds them in one store. A load that spans several stores would
  // stall.
  PL_TARGET_AVX2 static inline void values(RowStreams& row, const Block& b, int row_stride, int16_t* out,
                                           uint64_t& wide) {
    alignas(64) uint8_t nibbles[64 + 32], packed[64 + 16];
    const __m256i one = _mm256_set1_epi8(1);
    for (int at = 0; at < b.larger_count; at += 32) {
      const __m256i pairs =
          _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row.nibbles.next + at / 2)));
      const __m256i split =
          _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), _mm256_set1_epi16(0x0f0f));
      _mm256_store_si256(reinterpret_cast<__m256i*>(nibbles + at), _mm256_add_epi8(split, one));
    }
    const uint8_t* nibble = nibbles;
    for (int at = 0; at < b.count; at += 32) {
      __m256i size = _mm256_add_epi8(expand_32(nibble, static_cast<uint32_t>(b.larger >> at)), one);
      const auto longer = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(size, _mm256_set1_epi8(17))));
      if (longer != 0) {
        const __m256i bytes = expand_32(row.bytes.next, longer), least = _mm256_set1_epi8(kWide);
        const auto wides =
            static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(bytes, least), bytes)));
        wide |= static_cast<uint64_t>(wides) << at;
        size = _mm256_add_epi8(size, bytes);
      }
      const __m256i negative = bytes_of_bits(static_cast<uint32_t>(b.signs >> at));
      _mm256_store_si256(reinterpret_cast<__m256i*>(packed + at),
                         _mm256_sub_epi8(_mm256_xor_si256(size, negative), negative));
    }
    const uint8_t* from = packed;
    uint64_t mask = b.mask;
    for (int r = 0; r < 8; ++r, mask >>= 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * row_stride), _mm_cvtepi8_epi16(expand_8(from, mask & 255)));
      from += __builtin_popcount(mask & 255);
    }
  }
};

PL_TARGET_AVX2 bool unpack_avx2(RowStreams& row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients) {
  return unpack(row, blocks, wanted, lanes, coefficients, Avx2Kernel{});
}
#define unpack_avx512 unpack_avx2

struct VbmiKernel {
  PL_TARGET_VBMI static inline uint64_t spread(uint8_t flags, const uint8_t* masks) {
    return _pdep_u64(load_64(masks), _pdep_u64(flags, 0x0101010101010101) * 255);
  }

  PL_TARGET_VBMI static inline void values(RowStreams& row, const Block& b, int row_stride, int16_t* out,
                                           uint64_t& wide) {
    const __m512i one = _mm512_set1_epi8(1);
    const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.nibbles.next)));
    const __m512i nibbles =
        _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4)), _mm512_set1_epi16(0x0f0f));
    __m512i size = _mm512_maskz_expand_epi8(b.larger, nibbles);
    const __mmask64 longer = _mm512_mask_cmpeq_epi8_mask(b.larger, size, _mm512_set1_epi8(15));
    size = _mm512_mask_add_epi8(one, b.larger, size, _mm512_set1_epi8(2));
    if (longer != 0) {
      const __m512i bytes = _mm512_maskz_expand_epi8(longer, _mm512_loadu_si512(row.bytes.next));
      row.bytes.next += std::popcount(longer);
      wide = _mm512_mask_cmpge_epu8_mask(longer, bytes, _mm512_set1_epi8(kWide));
      size = _mm512_mask_add_epi8(size, longer, bytes, _mm512_set1_epi8(17));
    }
    size = _mm512_mask_sub_epi8(size, b.signs, _mm512_setzero_si512(), size);
    const __m512i all = _mm512_maskz_expand_epi8(b.mask, size);
    const __m512i rows[2] = {_mm512_cvtepi8_epi16(_mm512_castsi512_si256(all)),
                             _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(all, 1))};
    for (int half = 0; half < 2; ++half) {
      auto* to = out + 4 * half * row_stride;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_castsi512_si128(rows[half]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + row_stride), _mm512_extracti32x4_epi32(rows[half], 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * row_stride), _mm512_extracti32x4_epi32(rows[half], 2));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 3 * row_stride), _mm512_extracti32x4_epi32(rows[half], 3));
    }
  }
};

PL_TARGET_VBMI bool unpack_avx512vbmi(RowStreams& row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients) {
  return unpack(row, blocks, wanted, lanes, coefficients, VbmiKernel{});
}
#endif

}  // namespace

bool unpack_row(RowStreams row, size_t blocks, size_t wanted, int lanes, int16_t* coefficients) {
#if defined(__x86_64__)
  constexpr decltype(&unpack_base) by_level[] = {unpack_base, unpack_avx2, unpack_avx512, unpack_avx512vbmi};
  return by_level[static_cast<int>(current_isa())](row, blocks, wanted, lanes, coefficients);
#elif defined(__aarch64__)
  constexpr decltype(&unpack_base) by_level[] = {unpack_base, unpack_neon};
  return by_level[static_cast<int>(current_isa())](row, blocks, wanted, lanes, coefficients);
#else
  return unpack_base(row, blocks, wanted, lanes, coefficients);
#endif
}

}  // namespace pass_loader::jpeg
