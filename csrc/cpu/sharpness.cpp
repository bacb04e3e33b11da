#include "cpu/sharpness.h"

#include <cstring>

#include "isa.h"
#include "pixels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

// Pillow adds up the nine weighted bytes in float32 (Filter.c, ImagingFilter3x3, weights 1 and 5 of 13). The sum is no
// nearer to a half than 1/26, so (2 s + 13) / 26 is the same byte.
PL_INLINE void sharpen_row_body(const uint8_t* above, const uint8_t* row, const uint8_t* below, uint8_t* out,
                                int32_t width, float factor) {
  for (int32_t x = 1; x < width - 1; ++x) {
    const int32_t sum = above[x - 1] + above[x] + above[x + 1] + row[x - 1] + 5 * row[x] + row[x + 1] + below[x - 1] +
                        below[x] + below[x + 1];
    const int32_t smooth = (2 * sum + 13) / 26;
    out[x] = blend(static_cast<float>(smooth), row[x], factor);
  }
}
void sharpen_row_base(const uint8_t* above, const uint8_t* row, const uint8_t* below, uint8_t* out, int32_t width,
                      float factor) {
  sharpen_row_body(above, row, below, out, width, factor);
}

#if defined(__x86_64__)
PL_TARGET_AVX2 PL_INLINE __m256i words_at(const uint8_t* bytes) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// Sixteen pixels in 16-bit lanes. (s + 6) / 13 is the same byte, and up to 6563 the same as a product and a shift.
// Pixels past the row's end are made too: the rows that follow are written later.
PL_TARGET_AVX2 void sharpen_row_avx2(const uint8_t* above, const uint8_t* row, const uint8_t* below, uint8_t* out,
                                     int32_t width, float factor) {
  const __m256 all_factor = _mm256_set1_ps(factor);
  for (int32_t x = 1; x < width - 1; x += 16) {
    const __m256i own = words_at(row + x);
    __m256i sum = _mm256_add_epi16(_mm256_slli_epi16(own, 2), _mm256_set1_epi16(6));
    for (const uint8_t* line : {above, row, below})
      for (int k = -1; k <= 1; ++k) sum = _mm256_add_epi16(sum, words_at(line + x + k));
    const __m256i smooth = _mm256_mulhi_epu16(sum, _mm256_set1_epi16(5042)), away = _mm256_sub_epi16(own, smooth);
    __m256i blended[2];
    for (int half = 0; half < 2; ++half) {
      const __m128i from = half ? _mm256_extracti128_si256(smooth, 1) : _mm256_castsi256_si128(smooth);
      const __m128i part = half ? _mm256_extracti128_si256(away, 1) : _mm256_castsi256_si128(away);
      const __m256 value = _mm256_add_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(from)),
                                         _mm256_mul_ps(all_factor, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(part))));
      blended[half] = _mm256_cvttps_epi32(value);  // |factor| <= 1e6 keeps it inside int32; the packs clip
    }
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(blended[0], blended[1]), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x),
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
}
#define sharpen_row_avx512 sharpen_row_avx2
#define sharpen_row_avx512vbmi sharpen_row_avx2
#endif
PL_DISPATCH_X86(sharpen_row,
                (const uint8_t* above, const uint8_t* row, const uint8_t* below, uint8_t* out, int32_t width,
                 float factor),
                (above, row, below, out, width, factor), sharpen_row)

}  // namespace

void sharpness(const ConstPlanes& view, float factor, const Planes& out) {
  const auto bytes = static_cast<size_t>(view.width);
  for (int c = 0; c < view.channels; ++c)
    for (int32_t y = 0; y < view.height; ++y) {  // the frame of one pixel is its own smooth one
      const uint8_t* row = view.row(c, y);
      uint8_t* to = out.row(c, y);
      if (y == 0 || y == view.height - 1 || view.width < 3) {
        std::memcpy(to, row, bytes);
        continue;
      }
      sharpen_row(view.row(c, y - 1), row, view.row(c, y + 1), to, view.width, factor);
      to[0] = row[0], to[bytes - 1] = row[bytes - 1];
    }
}

}  // namespace pass_loader::cpu
