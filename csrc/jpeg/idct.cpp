#include "jpeg/idct.h"

#include <algorithm>

#include "isa.h"
#include "jpeg/frame.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pass_loader::jpeg {
namespace {

// Fixed point with 13 fractional bits; two more bits are kept between the passes (jidctint.c).
constexpr int kConstBits = 13, kPass1Bits = 2;
constexpr int kF0_298 = 2446, kF0_390 = 3196, kF0_541 = 4433, kF0_765 = 6270, kF0_899 = 7373, kF1_175 = 9633,
              kF1_501 = 12299, kF1_847 = 15137, kF1_961 = 16069, kF2_053 = 16819, kF2_562 = 20995, kF3_072 = 25172;

#if defined(__x86_64__)
#define PL_IDCT idct_base
#define PL_TARGET
#define PL_VECTOR __m128i
#define PL_OP(name) _mm_##name
#define PL_LOAD(from) _mm_load_si128(reinterpret_cast<const __m128i*>(from))
#define PL_STORE(to, v) _mm_store_si128(reinterpret_cast<__m128i*>(to), v)
#define PL_OR(a, b) _mm_or_si128(a, b)
#define PL_ROW(from) _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
#define PL_ANY(v) (_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128())) != 0xffff)
#define PL_TWO_ROWS(out, row_stride, v)                                                           \
  do {                                                                                            \
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), v);                                         \
    _mm_storel_epi64(reinterpret_cast<__m128i*>((out) + (row_stride)), _mm_unpackhi_epi64(v, v)); \
  } while (false)
#include "jpeg/idct_blocks.h"

#define PL_IDCT idct_avx2
#define PL_TARGET PL_TARGET_AVX2
#define PL_VECTOR __m256i
#define PL_OP(name) _mm256_##name
#define PL_LOAD(from) _mm256_load_si256(reinterpret_cast<const __m256i*>(from))
#define PL_STORE(to, v) _mm256_store_si256(reinterpret_cast<__m256i*>(to), v)
#define PL_OR(a, b) _mm256_or_si256(a, b)
#define PL_ROW(from) _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))
#define PL_ANY(v) (!_mm256_testz_si256(v, v))
#define PL_TWO_ROWS(out, row_stride, v)                                                                     \
  do {                                                                                                      \
    const __m256i rows_ = _mm256_permute4x64_epi64(v, 0xd8);                                                \
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(rows_));                       \
    _mm_storeu_si128(reinterpret_cast<__m128i*>((out) + (row_stride)), _mm256_extracti128_si256(rows_, 1)); \
  } while (false)
#include "jpeg/idct_blocks.h"

#define PL_IDCT idct_avx512
#define PL_TARGET PL_TARGET_AVX512
#define PL_VECTOR __m512i
#define PL_OP(name) _mm512_##name
#define PL_LOAD(from) _mm512_load_si512(from)
#define PL_STORE(to, v) _mm512_store_si512(to, v)
#define PL_OR(a, b) _mm512_or_si512(a, b)
#define PL_ROW(from) _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))
#define PL_ANY(v) (_mm512_test_epi16_mask(v, v) != 0)
#define PL_TWO_ROWS(out, row_stride, v)                                                                         \
  do {                                                                                                          \
    const __m512i rows_ = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), v);               \
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(rows_));                        \
    _mm256_storeu_si256(reinterpret_cast<__m256i*>((out) + (row_stride)), _mm512_extracti64x4_epi64(rows_, 1)); \
  } while (false)
#include "jpeg/idct_blocks.h"
#else
inline int16_t wrap(int32_t v) { return static_cast<int16_t>(v); }
inline int16_t saturate(int32_t v) { return static_cast<int16_t>(std::clamp(v, INT16_MIN, INT16_MAX)); }
inline int32_t add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
inline int32_t subtract(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

// Makes one pass over eight columns, with value k of column c at [k][c]. The result is transposed.
PL_INLINE void pass(const int16_t in[8][8], int16_t out[8][8], int shift) {
  for (int c = 0; c < 8; ++c) {
    auto at = [&](int k) { return static_cast<int32_t>(in[k][c]); };
    const int32_t tmp3 = add((kF0_541 + kF0_765) * at(2), kF0_541 * at(6));
    const int32_t tmp2 = add(kF0_541 * at(2), (kF0_541 - kF1_847) * at(6));
    const int32_t tmp0 = wrap(at(0) + at(4)) * (1 << kConstBits), tmp1 = wrap(at(0) - at(4)) * (1 << kConstBits);
    const int32_t even[4] = {add(tmp0, tmp3), add(tmp1, tmp2), subtract(tmp1, tmp2), subtract(tmp0, tmp3)};
    const int32_t sum73 = wrap(at(7) + at(3)), sum51 = wrap(at(5) + at(1));
    const int32_t z3 = add((kF1_175 - kF1_961) * sum73, kF1_175 * sum51);
    const int32_t z4 = add(kF1_175 * sum73, (kF1_175 - kF0_390) * sum51);
    const int32_t odd[4] = {add(add(-kF0_899 * at(7), (kF1_501 - kF0_899) * at(1)), z4),
                            add(add(-kF2_562 * at(5), (kF3_072 - kF2_562) * at(3)), z3),
                            add(add((kF2_053 - kF2_562) * at(5), -kF2_562 * at(3)), z4),
                            add(add((kF0_298 - kF0_899) * at(7), -kF0_899 * at(1)), z3)};
    for (int k = 0; k < 4; ++k) {
      const int32_t rounded = add(even[k], 1 << (shift - 1));
      out[c][k] = saturate(add(rounded, odd[k]) >> shift);
      out[c][7 - k] = saturate(subtract(rounded, odd[k]) >> shift);
    }
  }
}

bool idct_base(int16_t* coefficients, size_t groups, const int16_t* quantization, bool clear, uint8_t* out,
               size_t row_stride) {
  bool in_range = true;
  for (size_t group = 0; group < groups; ++group, coefficients += kBlockValues, out += 8) {
    int16_t a[8][8], b[8][8];
    for (int i = 0; i < kBlockValues; ++i) a[i / 8][i % 8] = wrap(coefficients[i] * quantization[i]);
    if (clear) std::fill_n(coefficients, kBlockValues, int16_t{0});
    for (int c = 0; c < 8; ++c) in_range &= a[0][c] >= -8192 && a[0][c] < 8192;
    pass(a, b, kConstBits - kPass1Bits);
    pass(b, a, kConstBits + kPass1Bits + 3);
    for (int r = 0; r < 8; ++r)
      for (int c = 0; c < 8; ++c)
        out[static_cast<size_t>(r) * row_stride + c] = static_cast<uint8_t>(std::clamp<int>(a[r][c], -128, 127) + 128);
  }
  return in_range;
}
#endif

#if defined(__aarch64__)
// sum + a * x + b * y, for the low or the high halves of two rows.
template <bool high>
PL_INLINE int32x4_t add_products(int32x4_t sum, int16x8_t x, int a, int16x8_t y, int b) {
  const int16x8_t of_x = vdupq_n_s16(static_cast<int16_t>(a)), of_y = vdupq_n_s16(static_cast<int16_t>(b));
  if (high) return vmlal_high_s16(vmlal_high_s16(sum, x, of_x), y, of_y);
  return vmlal_s16(vmlal_s16(sum, vget_low_s16(x), vget_low_s16(of_x)), vget_low_s16(y), vget_low_s16(of_y));
}
template <bool high>
PL_INLINE int32x4_t products(int16x8_t x, int a, int16x8_t y, int b) {
  const int16x8_t of_x = vdupq_n_s16(static_cast<int16_t>(a)), of_y = vdupq_n_s16(static_cast<int16_t>(b));
  if (high) return vmlal_high_s16(vmull_high_s16(x, of_x), y, of_y);
  return vmlal_s16(vmull_s16(vget_low_s16(x), vget_low_s16(of_x)), vget_low_s16(y), vget_low_s16(of_y));
}

// The rows that a pass needs, and sums of them that wrap around.
struct PassInput {
  int16x8_t row[8], sum04, difference04, sum73, sum51;
};

// Makes one pass down half of the columns, without the last shift.
template <bool high>
PL_INLINE void half_pass(const PassInput& in, int32x4_t rounding, int32x4_t (&out)[8]) {
  auto shifted_up = [](int16x8_t v) {
    return high ? vshll_high_n_s16(v, kConstBits) : vshll_n_s16(vget_low_s16(v), kConstBits);
  };
  const int16x8_t(&row)[8] = in.row;
  const int32x4_t tmp0 = vaddq_s32(shifted_up(in.sum04), rounding);
  const int32x4_t tmp1 = vaddq_s32(shifted_up(in.difference04), rounding);
  const int32x4_t tmp3 = products<high>(row[2], kF0_541 + kF0_765, row[6], kF0_541);
  const int32x4_t tmp2 = products<high>(row[2], kF0_541, row[6], kF0_541 - kF1_847);
  const int32x4_t even[4] = {vaddq_s32(tmp0, tmp3), vaddq_s32(tmp1, tmp2), vsubq_s32(tmp1, tmp2),
                             vsubq_s32(tmp0, tmp3)};
  const int32x4_t z3 = products<high>(in.sum73, kF1_175 - kF1_961, in.sum51, kF1_175);
  const int32x4_t z4 = products<high>(in.sum73, kF1_175, in.sum51, kF1_175 - kF0_390);
  const int32x4_t odd[4] = {add_products<high>(z4, row[7], -kF0_899, row[1], kF1_501 - kF0_899),
                            add_products<high>(z3, row[5], -kF2_562, row[3], kF3_072 - kF2_562),
                            add_products<high>(z4, row[5], kF2_053 - kF2_562, row[3], -kF2_562),
                            add_products<high>(z3, row[7], kF0_298 - kF0_899, row[1], -kF0_899)};
  for (int k = 0; k < 4; ++k) {
    out[k] = vaddq_s32(even[k], odd[k]);
    out[7 - k] = vsubq_s32(even[k], odd[k]);
  }
}

// Makes one pass down the columns. The second pass leaves its values shifted by 16 bits, two less than it has to.
template <bool second>
PL_INLINE void neon_pass(int16x8_t (&row)[8]) {
  constexpr int kShift = second ? kConstBits + kPass1Bits + 3 : kConstBits - kPass1Bits;
  PassInput in;
  for (int k = 0; k < 8; ++k) in.row[k] = row[k];
  in.sum04 = vaddq_s16(row[0], row[4]), in.difference04 = vsubq_s16(row[0], row[4]);
  in.sum73 = vaddq_s16(row[7], row[3]), in.sum51 = vaddq_s16(row[5], row[1]);
  int32x4_t low[8], high[8];
  half_pass<false>(in, vdupq_n_s32(1 << (kShift - 1)), low);
  half_pass<true>(in, vdupq_n_s32(1 << (kShift - 1)), high);
  for (int k = 0; k < 8; ++k)
    row[k] = second
                 ? vuzp2q_s16(vreinterpretq_s16_s32(low[k]), vreinterpretq_s16_s32(high[k]))
                 : vqshrn_high_n_s32(vqshrn_n_s32(low[k], kConstBits - kPass1Bits), high[k], kConstBits - kPass1Bits);
}

PL_INLINE void neon_transpose(int16x8_t (&row)[8]) {
  int32x4_t a[8];
  int64x2_t b[8];
  for (int k = 0; k < 8; k += 2) {
    a[k] = vreinterpretq_s32_s16(vtrn1q_s16(row[k], row[k + 1]));
    a[k + 1] = vreinterpretq_s32_s16(vtrn2q_s16(row[k], row[k + 1]));
  }
  for (int k = 0; k < 8; k += 4)
    for (int i = 0; i < 2; ++i) {
      b[k + i] = vreinterpretq_s64_s32(vtrn1q_s32(a[k + i], a[k + i + 2]));
      b[k + i + 2] = vreinterpretq_s64_s32(vtrn2q_s32(a[k + i], a[k + i + 2]));
    }
  for (int k = 0; k < 4; ++k) {
    row[k] = vreinterpretq_s16_s64(vtrn1q_s64(b[k], b[k + 4]));
    row[k + 4] = vreinterpretq_s16_s64(vtrn2q_s64(b[k], b[k + 4]));
  }
}

bool idct_neon(int16_t* coefficients, size_t groups, const int16_t* quantization, bool clear, uint8_t* out,
               size_t row_stride) {
  int16x8_t factors[8];
  for (int r = 0; r < 8; ++r) factors[r] = vld1q_s16(quantization + 8 * r);
  uint16x8_t large = vdupq_n_u16(0);
  for (size_t group = 0; group < groups; ++group, coefficients += kBlockValues, out += 8) {
    int16x8_t row[8];
    for (int r = 0; r < 8; ++r) row[r] = vmulq_s16(vld1q_s16(coefficients + 8 * r), factors[r]);
    if (clear) std::fill_n(coefficients, kBlockValues, int16_t{0});
    large = vmaxq_u16(large, vreinterpretq_u16_s16(vaddq_s16(row[0], vdupq_n_s16(8192))));
    neon_pass<false>(row);
    neon_transpose(row);
    neon_pass<true>(row);
    neon_transpose(row);
    for (int r = 0; r < 8; r += 2) {
      const int8x16_t two = vqshrn_high_n_s16(vqshrn_n_s16(row[r], 2), row[r + 1], 2);
      const uint8x16_t bytes = veorq_u8(vreinterpretq_u8_s8(two), vdupq_n_u8(0x80));
      uint8_t* to = out + static_cast<size_t>(r) * row_stride;
      vst1_u8(to, vget_low_u8(bytes));
      vst1_u8(to + row_stride, vget_high_u8(bytes));
    }
  }
  return vmaxvq_u16(large) < 16384;
}
#endif

}  // namespace

Idct current_idct() {
#if defined(__x86_64__)
  constexpr Idct by_level[] = {{1, idct_base}, {2, idct_avx2}, {4, idct_avx512}, {4, idct_avx512}};
  return by_level[static_cast<int>(current_isa())];
#elif defined(__aarch64__)
  constexpr Idct by_level[] = {{1, idct_base}, {1, idct_neon}};
  return by_level[static_cast<int>(current_isa())];
#else
  return {1, idct_base};
#endif
}

}  // namespace pass_loader::jpeg
