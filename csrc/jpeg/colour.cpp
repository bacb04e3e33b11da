#include "jpeg/colour.h"

#include <algorithm>
#include <cstring>

#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pass_loader::jpeg {
namespace {

// The fixed-point arithmetic of libjpeg (jdcolor.c: 16-bit fractions, each rounded once). Whole multiples of 65536 are
// taken out of the factors, so that the rest is a product of 16-bit numbers.
PL_INLINE void ycc_to_rgb_body(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count) {
  auto byte = [](int v) { return static_cast<uint8_t>(std::clamp(v, 0, 255)); };
  // Returns (v * factor + 32768) >> 16. Only the high half of the product is needed.
  auto scaled = [](int16_t v, int16_t factor) {
    const int16_t twice = static_cast<int16_t>(2 * v), high = static_cast<int16_t>((twice * factor) >> 16);
    return static_cast<int16_t>((high + 1) >> 1);
  };
  for (size_t at = 0; at < count; at += kTile, luma += kTile, blue += kTile, red += kTile) {
    uint8_t r[kTile], g[kTile], b[kTile];
    for (size_t i = 0; i < kTile; ++i) {
      const int16_t y = luma[i], cb = static_cast<int16_t>(blue[i] - 128), cr = static_cast<int16_t>(red[i] - 128);
      r[i] = byte(static_cast<int16_t>(y + cr + scaled(cr, 26345)));       // 1.40200 - 1
      b[i] = byte(static_cast<int16_t>(y + 2 * cb + scaled(cb, -14942)));  // 1.77200 - 2
      const int green = -22554 * cb + 18734 * cr + 32768;                  // 0.34414, 1 - 0.71414
      g[i] = byte(static_cast<int16_t>(y - cr + static_cast<int16_t>(green >> 16)));
    }
    std::memcpy(luma, r, kTile);
    std::memcpy(blue, g, kTile);
    std::memcpy(red, b, kTile);
  }
}

#if defined(__x86_64__)
#define PL_YCC ycc_to_rgb_avx2
#define PL_TARGET PL_TARGET_AVX2
#define PL_VECTOR __m256i
#define PL_OP(name) _mm256_##name
#define PL_LOADU(from) _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
#define PL_STOREU(to, v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v)
#define PL_ZERO _mm256_setzero_si256()
#include "jpeg/ycc_to_rgb.h"

#define PL_YCC ycc_to_rgb_avx512
#define PL_TARGET PL_TARGET_AVX512
#define PL_VECTOR __m512i
#define PL_OP(name) _mm512_##name
#define PL_LOADU(from) _mm512_loadu_si512(from)
#define PL_STOREU(to, v) _mm512_storeu_si512(to, v)
#define PL_ZERO _mm512_setzero_si512()
#include "jpeg/ycc_to_rgb.h"
#define ycc_to_rgb_avx512vbmi ycc_to_rgb_avx512
#elif defined(__aarch64__)
struct Words {
  int16x8_t r, g, b;
};

// Eight pixels; see ycc_to_rgb_body. cb and cr are 128 less than the bytes.
PL_INLINE Words rgb_words(uint8x8_t luma, int16x8_t cb, int16x8_t cr) {
  auto plus_luma = [luma](int16x8_t v) { return vreinterpretq_s16_u16(vaddw_u8(vreinterpretq_u16_s16(v), luma)); };
  const int16x8_t twice_high = vqdmulhq_n_s16(cr, 26345);  // 2 cr 26345 >> 16
  const int16x8_t blue = vqrdmulhq_n_s16(cb, -14942 / 2);  // rounded once: the factor is even
  int32x4_t low = vmull_n_s16(vget_low_s16(cb), -22554), high = vmull_high_n_s16(cb, -22554);
  low = vmlal_n_s16(low, vget_low_s16(cr), 18734), high = vmlal_high_n_s16(high, cr, 18734);
  const int16x8_t green = vrshrn_high_n_s32(vrshrn_n_s32(low, 16), high, 16);
  return {vrsraq_n_s16(plus_luma(cr), twice_high, 1), plus_luma(vsubq_s16(green, cr)),
          plus_luma(vmlaq_n_s16(blue, cb, 2))};
}

void ycc_to_rgb_neon(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count) {
  const uint8x16_t middle = vdupq_n_u8(128);
  auto pack = [](int16x8_t left, int16x8_t right) { return vqmovun_high_s16(vqmovun_s16(left), right); };
  for (size_t at = 0; at < count; at += 16) {
    const uint8x16_t y = vld1q_u8(luma + at), cb = vld1q_u8(blue + at), cr = vld1q_u8(red + at);
    auto low = [middle](uint8x16_t v) { return vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(v), vget_low_u8(middle))); };
    auto high = [middle](uint8x16_t v) { return vreinterpretq_s16_u16(vsubl_high_u8(v, middle)); };
    const Words left = rgb_words(vget_low_u8(y), low(cb), low(cr));
    const Words right = rgb_words(vget_high_u8(y), high(cb), high(cr));
    vst1q_u8(luma + at, pack(left.r, right.r));
    vst1q_u8(blue + at, pack(left.g, right.g));
    vst1q_u8(red + at, pack(left.b, right.b));
  }
}
#endif

void ycc_to_rgb_base(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count) {
  ycc_to_rgb_body(luma, blue, red, count);
}

// Along each axis, an output is a quarter of the farther input and three quarters of the nearer one. Rounding
// alternates, so that no bias builds up.
PL_INLINE void upsample_tall_body(const uint8_t* near, const uint8_t* far, int bias, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>((3 * near[i] + far[i] + bias) >> 2);
}

// sums[i + 1] is input column i, in sixteenths or quarters. If vertical == 2, its vertical neighbour is mixed in.
PL_INLINE void upsample_wide_body(const uint8_t* near, const uint8_t* far, int vertical, size_t count, uint16_t* sums,
                                  uint8_t* out) {
  const int near_weight = vertical == 2 ? 3 : 1, far_weight = vertical - 1, shift = 2 * vertical;
  for (size_t i = 0; i < count; ++i) sums[i + 1] = static_cast<uint16_t>(near_weight * near[i] + far_weight * far[i]);
  sums[0] = sums[1];
  sums[count + 1] = sums[count];
  const int left_bias = vertical == 2 ? 8 : 1, right_bias = vertical == 2 ? 7 : 2;
  for (size_t at = 0; at < count; at += kTile / 2) {
    uint16_t pairs[kTile / 2];
    for (size_t i = 0; i < kTile / 2; ++i) {
      const int left = sums[at + i], middle = 3 * sums[at + i + 1], right = sums[at + i + 2];
      const int even = (middle + left + left_bias) >> shift, odd = (middle + right + right_bias) >> shift;
      pairs[i] = static_cast<uint16_t>((even & 255) | odd << 8);
    }
    std::memcpy(out + 2 * at, pairs, kTile);
  }
}

// Returns a * b / 255, rounded as Pillow's MULDIV255 (ImagingUtils.h).
PL_INLINE int multiply_255(int a, int b) {
  int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

// 16 pixels at a time: each plane's bytes from the first two of three vectors, then from the third.
PL_INLINE void split_rgb_body(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  using Bytes [[gnu::vector_size(16)]] = uint8_t;
  int32_t x = 0;
  for (; x + 16 <= width; x += 16) {
    Bytes from[3];
    std::memcpy(from, row + 3 * x, sizeof from);
    const auto [one, two, three] = from;
    Bytes red = __builtin_shufflevector(one, two, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0);
    Bytes green = __builtin_shufflevector(one, two, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0);
    Bytes blue = __builtin_shufflevector(one, two, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0);
    red = __builtin_shufflevector(red, three, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29);
    green = __builtin_shufflevector(green, three, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30);
    blue = __builtin_shufflevector(blue, three, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31);
    std::memcpy(r + x, &red, sizeof red), std::memcpy(g + x, &green, sizeof green);
    std::memcpy(b + x, &blue, sizeof blue);
  }
  for (; x < width; ++x) r[x] = row[3 * x], g[x] = row[3 * x + 1], b[x] = row[3 * x + 2];
}

// libjpeg returns what the file holds, and Adobe's files hold inverted values. Pillow assumes that a file is Adobe's
// (raw mode "CMYK;I") and converts without a profile (Convert.c: cmyk2rgb).
PL_INLINE void split_cmyk_body(const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b) {
  for (int32_t x = 0; x < width; ++x) {
    int light = row[4 * x + 3];
    r[x] = static_cast<uint8_t>(light - multiply_255(255 - row[4 * x], light));
    g[x] = static_cast<uint8_t>(light - multiply_255(255 - row[4 * x + 1], light));
    b[x] = static_cast<uint8_t>(light - multiply_255(255 - row[4 * x + 2], light));
  }
}

PL_INLINE void cmyk_to_rgb_body(const uint8_t* black, bool complemented, size_t count, uint8_t* r, uint8_t* g,
                                uint8_t* b) {
  const int flip = complemented ? 0 : 255;
  for (size_t i = 0; i < count; ++i) {
    const int light = black[i];
    r[i] = static_cast<uint8_t>(light - multiply_255(r[i] ^ flip, light));
    g[i] = static_cast<uint8_t>(light - multiply_255(g[i] ^ flip, light));
    b[i] = static_cast<uint8_t>(light - multiply_255(b[i] ^ flip, light));
  }
}

PL_LEVELS(upsample_tall, (const uint8_t* near, const uint8_t* far, int bias, size_t count, uint8_t* out),
          (near, far, bias, count, out))
PL_LEVELS(upsample_wide,
          (const uint8_t* near, const uint8_t* far, int vertical, size_t count, uint16_t* sums, uint8_t* out),
          (near, far, vertical, count, sums, out))
PL_LEVELS(split_rgb, (const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b), (row, width, r, g, b))
PL_LEVELS(split_cmyk, (const uint8_t* row, int32_t width, uint8_t* r, uint8_t* g, uint8_t* b), (row, width, r, g, b))

}  // namespace

PL_LEVELS(cmyk_to_rgb, (const uint8_t* black, bool complemented, size_t count, uint8_t* r, uint8_t* g, uint8_t* b),
          (black, complemented, count, r, g, b))
PL_DISPATCH(ycc_to_rgb, (uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count), (luma, blue, red, count),
            ycc_to_rgb)

void Upsampling::run(const uint8_t* near, const uint8_t* far, bool lower, size_t count, uint16_t* sums,
                     uint8_t* out) const {
  if (horizontal == 1) {
    upsample_tall(near, far, lower ? 2 : 1, count, out);
  } else {
    upsample_wide(near, far, vertical, count, sums, out);
  }
}

void split_row(const uint8_t* row, int components, const Planes& planes, int32_t y) {
  if (components == 1) {
    std::memcpy(planes.row(0, y), row, planes.width);
    return;
  }
  uint8_t *r = planes.row(0, y), *g = planes.row(1, y), *b = planes.row(2, y);
  if (components == 3) return split_rgb(row, planes.width, r, g, b);
  split_cmyk(row, planes.width, r, g, b);
}

}  // namespace pass_loader::jpeg
