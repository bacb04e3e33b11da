#include "cpu/blur.h"

#include <algorithm>

#include "blur_weights.h"
#include "cpu/transpose.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = 32;
// The box sum must stay below 2^15 to be kept in 16 bits; 255 * (2 * 63 + 1) does.
constexpr int kMaxRadius16 = 63;

// Makes one pass down kLanes columns: a running sum over the box, with repeated edges.
PL_INLINE void blur_columns(const uint8_t* in, uint8_t* out, int height, size_t stride, const Box& box) {
  auto row = [&](int y) { return in + static_cast<size_t>(std::clamp(y, 0, height - 1)) * stride; };
  uint32_t sum[kLanes];
  for (int i = 0; i < kLanes; ++i) sum[i] = in[i] * static_cast<uint32_t>(box.radius + 1);
  for (int y = 0; y < box.radius; ++y)
    for (int i = 0; i < kLanes; ++i) sum[i] += row(y)[i];
  for (int y = 0; y < height; ++y) {
    const uint8_t *leaving = row(y - box.radius - 1), *entering = row(y + box.radius), *next = row(y + box.radius + 1);
    uint8_t* to = out + static_cast<size_t>(y) * stride;
    for (int i = 0; i < kLanes; ++i) {
      sum[i] += static_cast<uint32_t>(entering[i]) - leaving[i];
      uint32_t far_pair = static_cast<uint32_t>(leaving[i]) + next[i];
      to[i] = static_cast<uint8_t>((sum[i] * box.ww + far_pair * box.fw + (1u << 23)) >> 24);
    }
  }
}

// Makes three passes down kLanes columns of `a`. The result is in `b`.
PL_INLINE void blur_strip_body(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t*) {
  blur_columns(a, b, height, stride, box);
  blur_columns(b, a, height, stride, box);
  blur_columns(a, b, height, stride, box);
}

#if defined(__x86_64__)
#define PL_STRIP strip_avx2
#define PL_STRIP_PASS(kind) strip_avx2_##kind
#define PL_TARGET PL_TARGET_AVX2
#define PL_VECTOR __m256i
#define PL_OP(name) _mm256_##name
#define PL_LOAD_BYTES(from) _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))
#define PL_STORE_BYTES(to, v)                      \
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), \
                   _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)))
#include "cpu/blur_strip.h"

#define PL_STRIP strip_avx512
#define PL_STRIP_PASS(kind) strip_avx512_##kind
#define PL_TARGET PL_TARGET_AVX512
#define PL_VECTOR __m512i
#define PL_OP(name) _mm512_##name
#define PL_LOAD_BYTES(from) _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))
#define PL_STORE_BYTES(to, v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi16_epi8(v))
#include "cpu/blur_strip.h"

void blur_strip_avx2(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t* words) {
  if (box.radius > kMaxRadius16) return blur_strip_body(a, b, height, stride, box, words);
  for (int x = 0; x < kLanes; x += 16) strip_avx2(a + x, stride, height, box, words, b + x);
}
void blur_strip_avx512(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t* words) {
  if (box.radius > kMaxRadius16) return blur_strip_body(a, b, height, stride, box, words);
  strip_avx512(a, stride, height, box, words, b);
}
#define blur_strip_avx512vbmi blur_strip_avx512
#endif

void blur_strip_base(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t* words) {
  blur_strip_body(a, b, height, stride, box, words);
}
#if defined(__aarch64__)
// The arithmetic of cpu/blur_strip.h from bytes to bytes: three pixels of 8 columns. Rounds by the narrowing shift
// after it.
template <bool odd>
PL_INLINE uint16x8_t three_pixels(uint8x8_t above, uint8x8_t middle, uint8x8_t below, int16x8_t high, int16x8_t low) {
  const int16x8_t far = vreinterpretq_s16_u16(vmlsl_u8(vaddl_u8(above, below), middle, vdup_n_u8(2)));
  int16x8_t upper = vmlaq_s16(vreinterpretq_s16_u16(vshll_n_u8(middle, 8)), far, high);
  upper = vsraq_n_s16(upper, vqdmulhq_s16(far, low), 1);
  const uint16x8_t value = vreinterpretq_u16_s16(upper);
  if (!odd) return value;
  return vaddq_u16(value, vcgtq_u16(vmovl_u8(middle), vreinterpretq_u16_s16(vmulq_s16(far, low))));
}

template <bool odd>
void three_neon(const uint8_t* in, uint8_t* out, int height, size_t stride, const Box& box) {
  const int below_half = static_cast<int16_t>(box.fw);
  const int16x8_t high = vdupq_n_s16(static_cast<int16_t>((static_cast<int>(box.fw) - below_half) >> 16));
  const int16x8_t low = vdupq_n_s16(static_cast<int16_t>(below_half));
  uint8x16_t above[2] = {vld1q_u8(in), vld1q_u8(in + 16)}, middle[2] = {above[0], above[1]};
  for (int y = 1; y <= height; ++y, out += stride) {
    in += y < height ? stride : 0;
    for (int k = 0; k < 2; ++k) {
      const uint8x16_t below = vld1q_u8(in + 16 * k);
      const uint16x8_t left =
          three_pixels<odd>(vget_low_u8(above[k]), vget_low_u8(middle[k]), vget_low_u8(below), high, low);
      const uint16x8_t right =
          three_pixels<odd>(vget_high_u8(above[k]), vget_high_u8(middle[k]), vget_high_u8(below), high, low);
      vst1q_u8(out + 16 * k, vrshrn_high_n_u16(vrshrn_n_u16(left, 8), right, 8));
      above[k] = middle[k], middle[k] = below;
    }
  }
}

// Computes sum ww + far fw of 8 columns, without the lower 16 bits.
PL_INLINE uint16x8_t box_pixels(uint16x8_t sum, uint16x8_t far, uint32x4_t ww, uint32x4_t fw) {
  uint32x4_t low = vmulq_u32(vmovl_u16(vget_low_u16(sum)), ww), high = vmulq_u32(vmovl_high_u16(sum), ww);
  low = vmlaq_u32(low, vmovl_u16(vget_low_u16(far)), fw), high = vmlaq_u32(high, vmovl_high_u16(far), fw);
  return vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
}

// A box of any radius whose sums fit 16 bits. The row that enters is the last one's next row.
void box_neon(const uint8_t* in, uint8_t* out, int height, size_t stride, const Box& box) {
  const uint32x4_t ww = vdupq_n_u32(box.ww), fw = vdupq_n_u32(box.fw);
  const int radius = box.radius;
  auto row = [&](int y) { return in + static_cast<size_t>(std::clamp(y, 0, height - 1)) * stride; };
  uint16x8_t sum[4] = {};
  for (int y = -radius - 1; y < radius; ++y)
    for (int k = 0; k < 4; ++k) sum[k] = vaddw_u8(sum[k], vld1_u8(row(y) + 8 * k));
  const uint8_t *leaving_row = in, *next_row = row(radius);
  uint8x16_t entering[2] = {vld1q_u8(next_row), vld1q_u8(next_row + 16)};
  for (int y = 0; y < height; ++y, out += stride) {
    leaving_row += y > radius + 1 ? stride : 0;
    next_row += y + radius + 1 < height ? stride : 0;
    for (int k = 0; k < 2; ++k) {
      const uint8x16_t leaving = vld1q_u8(leaving_row + 16 * k), next = vld1q_u8(next_row + 16 * k);
      sum[2 * k] = vsubw_u8(vaddw_u8(sum[2 * k], vget_low_u8(entering[k])), vget_low_u8(leaving));
      sum[2 * k + 1] = vsubw_high_u8(vaddw_high_u8(sum[2 * k + 1], entering[k]), leaving);
      const uint16x8_t left = box_pixels(sum[2 * k], vaddl_u8(vget_low_u8(leaving), vget_low_u8(next)), ww, fw);
      const uint16x8_t right = box_pixels(sum[2 * k + 1], vaddl_high_u8(leaving, next), ww, fw);
      vst1q_u8(out + 16 * k, vrshrn_high_n_u16(vrshrn_n_u16(left, 8), right, 8));
      entering[k] = next;
    }
  }
}

void blur_strip_neon(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t* words) {
  if (box.radius > kMaxRadius16) return blur_strip_body(a, b, height, stride, box, words);
  const bool odd = ((1u << 24) - box.ww) % 2 == 1;
  const auto pass = box.radius > 0 ? box_neon : odd ? three_neon<true> : three_neon<false>;
  pass(a, b, height, stride, box);
  pass(b, a, height, stride, box);
  pass(a, b, height, stride, box);
}
#endif
PL_DISPATCH(blur_strip, (uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t* words),
            (a, b, height, stride, box, words), blur_strip)

PL_INLINE void transpose_plane_body(const uint8_t* in, size_t in_stride, int rows, int columns, uint8_t* out,
                                    size_t out_stride) {
  transpose(in, in_stride, rows, columns, out, out_stride);
}
PL_LEVELS(transpose_plane,
          (const uint8_t* in, size_t in_stride, int rows, int columns, uint8_t* out, size_t out_stride),
          (in, in_stride, rows, columns, out, out_stride))

// Blurs down the columns of `a`, whose rows are padded to kLanes. The result is in `b`.
void blur_down(uint8_t* a, uint8_t* b, int height, size_t stride, const Box& box, uint16_t* words) {
  for (size_t x = 0; x < stride; x += kLanes) blur_strip(a + x, b + x, height, stride, box, words);
}

// Blurs along the rows, as columns of the transpose.
void blur_plane(uint8_t* plane, int height, int width, const Box& box, uint8_t* a, uint8_t* b, uint16_t* words) {
  const size_t down = round_up(height, kLanes), across = round_up(width, kLanes);
  transpose_plane(plane, width, height, width, a, down);
  blur_down(a, b, width, down, box, words);
  transpose_plane(b, down, width, height, a, across);
  blur_down(a, b, height, across, box, words);
  for (int y = 0; y < height; ++y) std::memcpy(plane + static_cast<size_t>(y) * width, b + y * across, width);
}

}  // namespace

void gaussian_blur(const ViewPixels& view, int height, int width, float sigma, BlurScratch& scratch) {
  const Box box = box_of(sigma);
  const size_t plane_bytes = round_up(height, kLanes) * round_up(width, kLanes);
  uint8_t* a = scratch.planes.need(2 * plane_bytes);
  const size_t margins = 2 * static_cast<size_t>(std::min(box.radius, kMaxRadius16) + 1);
  uint16_t* words = scratch.words.need(2 * kLanes * (static_cast<size_t>(std::max(height, width)) + margins));
  for (int plane = 0; plane < view.channels; ++plane)
    blur_plane(view.pixels + plane * view.plane_stride, height, width, box, a, a + plane_bytes, words);
}

}  // namespace pass_loader::cpu
