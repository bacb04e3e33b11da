#include "cpu/normalize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/deep.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

struct Channel {
  const float* table;
  const uint16_t* half;
  float mean, std, std_reciprocal;
  float scale, offset;
  bool computable;
};

// Computes a / b by a reciprocal and one Newton step with fused multiply-adds. That is the correctly rounded quotient
// for nearly all operands (Markstein, IBM J. Res. Dev. 34, 1990); Normalization checks those that occur.
PL_INLINE float divide(float a, float b, float reciprocal) {
  float quotient = a * reciprocal;
  float rest = __builtin_fmaf(-quotient, b, a);
  return __builtin_fmaf(rest, reciprocal, quotient);
}

PL_INLINE float compute(uint8_t byte, const Channel& c) {
  float scaled = divide(static_cast<float>(byte), 255.0f, 1.0f / 255.0f);
  return divide(scaled - c.mean, c.std, c.std_reciprocal);
}

// The nearest bfloat16 to (byte / 255 - mean) / std for nearly all means and deviations: Normalization checks them.
// Ties are rounded up.
PL_INLINE uint16_t compute_bfloat16(uint8_t byte, const Channel& c) {
  const float value = __builtin_fmaf(static_cast<float>(byte), c.scale, c.offset);
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0x8000) >> 16);
}

template <typename Value>
PL_INLINE void look_up(const uint8_t* in, size_t count, const Value* table, Value* out) {
  for (size_t i = 0; i < count; ++i) out[i] = table[in[i]];
}

void look_up_plane(const uint8_t* in, size_t count, const Channel& c, Element element, void* out) {
  if (element == Element::float32) return look_up(in, count, c.table, static_cast<float*>(out));
  look_up(in, count, c.half, static_cast<uint16_t*>(out));
}

// Without fused multiply-add in the instruction set, a look-up is faster.
void compute_plane_base(const uint8_t* in, size_t count, const Channel& channel, Element element, void* out,
                        bool /*past_caches*/) {
  look_up_plane(in, count, channel, element, out);
}

#if defined(__x86_64__)
// A batch is larger than the caches, and who reads it is another core or a device: stores past the caches halve the
// traffic of memory. The fence at the end of `normalize` orders them for who is told that the batch is ready.
PL_TARGET_AVX2 PL_INLINE void store(void* out, __m256i values, bool past_caches) {
  if (past_caches)
    _mm256_stream_si256(static_cast<__m256i*>(out), values);
  else
    _mm256_storeu_si256(static_cast<__m256i*>(out), values);
}

PL_TARGET_AVX512 PL_INLINE void store(void* out, __m512i values, bool past_caches) {
  if (past_caches)
    _mm512_stream_si512(static_cast<__m512i*>(out), values);
  else
    _mm512_storeu_si512(out, values);
}

PL_TARGET_AVX2 PL_INLINE __m256 divide(__m256 a, float b, float reciprocal) {
  const __m256 quotient = _mm256_mul_ps(a, _mm256_set1_ps(reciprocal));
  const __m256 rest = _mm256_fnmadd_ps(quotient, _mm256_set1_ps(b), a);
  return _mm256_fmadd_ps(rest, _mm256_set1_ps(reciprocal), quotient);
}

PL_TARGET_AVX2 PL_INLINE __m256 compute_eight(const uint8_t* in, const Channel& c) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in));
  const __m256 scaled = divide(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), 255.0f, 1.0f / 255.0f);
  return divide(_mm256_sub_ps(scaled, _mm256_set1_ps(c.mean)), c.std, c.std_reciprocal);
}

PL_TARGET_AVX512 PL_INLINE __m512 divide(__m512 a, float b, float reciprocal) {
  const __m512 quotient = _mm512_mul_ps(a, _mm512_set1_ps(reciprocal));
  const __m512 rest = _mm512_fnmadd_ps(quotient, _mm512_set1_ps(b), a);
  return _mm512_fmadd_ps(rest, _mm512_set1_ps(reciprocal), quotient);
}

PL_TARGET_AVX512 PL_INLINE __m512 compute_sixteen(const uint8_t* in, const Channel& c) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
  const __m512 scaled = divide(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), 255.0f, 1.0f / 255.0f);
  return divide(_mm512_sub_ps(scaled, _mm512_set1_ps(c.mean)), c.std, c.std_reciprocal);
}

// Sixteen values of compute_bfloat16: those of even places in the lower halves of the lanes, of odd ones in the upper.
PL_TARGET_AVX2 PL_INLINE __m256i compute_bfloat16s(const uint8_t* in, const Channel& c) {
  const __m256 scale = _mm256_set1_ps(c.scale), offset = _mm256_set1_ps(c.offset);
  const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  const __m256i places[2] = {_mm256_and_si256(words, _mm256_set1_epi32(0xff)), _mm256_srli_epi32(words, 16)};
  __m256i bits[2];
  for (int i = 0; i < 2; ++i)
    bits[i] = _mm256_add_epi32(_mm256_castps_si256(_mm256_fmadd_ps(_mm256_cvtepi32_ps(places[i]), scale, offset)),
                               _mm256_set1_epi32(0x8000));
  return _mm256_blend_epi16(_mm256_srli_epi32(bits[0], 16), bits[1], 0xaa);
}

PL_TARGET_AVX2 PL_INLINE __m256i compute_float16s(const uint8_t* in, const Channel& c) {
  const __m128i low = _mm256_cvtps_ph(compute_eight(in, c), _MM_FROUND_TO_NEAREST_INT);
  const __m128i high = _mm256_cvtps_ph(compute_eight(in + 8, c), _MM_FROUND_TO_NEAREST_INT);
  return _mm256_set_m128i(high, low);
}

// Returns how many values come before the first whose address is a multiple of 64.
size_t before_line(const void* out, size_t value_bytes) { return -reinterpret_cast<uintptr_t>(out) % 64 / value_bytes; }

PL_TARGET_AVX2 void compute_plane_avx2(const uint8_t* in, size_t count, const Channel& channel, Element element,
                                       void* out, bool past_caches) {
  if (!channel.computable) return look_up_plane(in, count, channel, element, out);
  const Channel c = channel;
  const size_t first = std::min(count, before_line(out, bytes_of(element))), end = count - (count - first) % 16;
  if (element == Element::float32) {
    auto* floats = static_cast<float*>(out);
    look_up(in, first, c.table, floats);
    for (size_t i = first; i < end; i += 8)
      store(floats + i, _mm256_castps_si256(compute_eight(in + i, c)), past_caches);
    look_up(in + end, count - end, c.table, floats + end);
    return;
  }
  auto* halves = static_cast<uint16_t*>(out);
  look_up(in, first, c.half, halves);
  if (element == Element::bfloat16)
    for (size_t i = first; i < end; i += 16) store(halves + i, compute_bfloat16s(in + i, c), past_caches);
  else
    for (size_t i = first; i < end; i += 16) store(halves + i, compute_float16s(in + i, c), past_caches);
  look_up(in + end, count - end, c.half, halves + end);
}

PL_TARGET_AVX512 void compute_floats_avx512(const uint8_t* in, size_t count, const Channel& channel, float* out,
                                            bool past_caches) {
  if (!channel.computable) return look_up(in, count, channel.table, out);
  const Channel c = channel;
  const size_t first = std::min(count, before_line(out, sizeof(float))), end = count - (count - first) % 16;
  look_up(in, first, c.table, out);
  for (size_t i = first; i < end; i += 16) store(out + i, _mm512_castps_si512(compute_sixteen(in + i, c)), past_caches);
  look_up(in + end, count - end, c.table, out + end);
}

// The table's 256 words lie in eight registers, which permutes of 64 words look up.
PL_TARGET_AVX512 void look_up_halves_avx512(const uint8_t* in, size_t count, const uint16_t* table, uint16_t* out,
                                            bool past_caches) {
  __m512i words[8];
  for (int i = 0; i < 8; ++i) words[i] = _mm512_loadu_si512(table + 32 * i);
  const __m512i bit_6 = _mm512_set1_epi16(64), bit_7 = _mm512_set1_epi16(128);
  const size_t first = std::min(count, before_line(out, sizeof(uint16_t))), end = count - (count - first) % 32;
  look_up(in, first, table, out);
  for (size_t i = first; i < end; i += 32) {
    const __m512i at = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i)));
    const __mmask32 odd = _mm512_test_epi16_mask(at, bit_6), upper = _mm512_test_epi16_mask(at, bit_7);
    __m512i half[2];
    for (int k = 0; k < 2; ++k)
      half[k] = _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(words[4 * k], at, words[4 * k + 1]), odd,
                                      _mm512_permutex2var_epi16(words[4 * k + 2], at, words[4 * k + 3]));
    store(out + i, _mm512_mask_mov_epi16(half[0], upper, half[1]), past_caches);
  }
  look_up(in + end, count - end, table, out + end);
}

PL_TARGET_AVX512 void compute_plane_avx512(const uint8_t* in, size_t count, const Channel& channel, Element element,
                                           void* out, bool past_caches) {
  if (element == Element::float32)
    compute_floats_avx512(in, count, channel, static_cast<float*>(out), past_caches);
  else
    look_up_halves_avx512(in, count, channel.half, static_cast<uint16_t*>(out), past_caches);
}
#define compute_plane_avx512vbmi compute_plane_avx512
#elif defined(__aarch64__)
void compute_plane_neon(const uint8_t* in, size_t count, const Channel& channel, Element element, void* out,
                        bool /*past_caches*/) {
  if (element == Element::float16 || !channel.computable) return look_up_plane(in, count, channel, element, out);
  const Channel c = channel;  // a copy, which no store can change: the loops vectorise
  if (element == Element::float32) {
    auto* floats = static_cast<float*>(out);
    for (size_t i = 0; i < count; ++i) floats[i] = compute(in[i], c);
  } else {
    auto* halves = static_cast<uint16_t*>(out);
    for (size_t i = 0; i < count; ++i) halves[i] = compute_bfloat16(in[i], c);
  }
}
#endif

// past_caches: `out` is not read soon.
PL_DISPATCH(compute_plane,
            (const uint8_t* in, size_t count, const Channel& channel, Element element, void* out, bool past_caches),
            (in, count, channel, element, out, past_caches), compute_plane)

Channel channel_of(const Normalization& n, size_t c) {
  return {n.table[c].data(),   n.half[c].data(), n.mean[c],   n.std[c],
          n.std_reciprocal[c], n.scale[c],       n.offset[c], n.computable};
}

void convert_plane(const uint8_t* in, size_t count, const Normalization& n, size_t plane, void* out, bool past_caches) {
  const Element element = n.form.element;
  if (element == Element::uint8) {
    std::memcpy(out, in, count);
  } else {
    compute_plane(in, count, channel_of(n, plane), element, out, past_caches);
  }
}

// Interleaves three runs of `count` values, which lie `stride` apart.
template <typename Value>
PL_INLINE void interleave_values(const Value* planes, size_t stride, size_t count, Value* out) {
  for (size_t i = 0; i < count; ++i)
    for (size_t c = 0; c < 3; ++c) out[3 * i + c] = planes[c * stride + i];
}

PL_INLINE void interleave_pixels_body(const void* planes, size_t stride, size_t count, size_t bytes, void* out) {
  if (bytes == 1) interleave_values(static_cast<const uint8_t*>(planes), stride, count, static_cast<uint8_t*>(out));
  if (bytes == 2) interleave_values(static_cast<const uint16_t*>(planes), stride, count, static_cast<uint16_t*>(out));
  if (bytes == 4) interleave_values(static_cast<const uint32_t*>(planes), stride, count, static_cast<uint32_t*>(out));
}
PL_LEVELS(interleave_pixels, (const void* planes, size_t stride, size_t count, size_t bytes, void* out),
          (planes, stride, count, bytes, out))

}  // namespace

Normalization::Normalization(const OutputForm& of, const NormalizeTable& values, const HalfTable& halves,
                             const std::array<float, 3>& means, const std::array<float, 3>& stds)
    : form(of), table(values), half(halves), mean(means), std(stds), computable(true) {
  for (size_t c = 0; c < static_cast<size_t>(form.channels); ++c) {
    std_reciprocal[c] = 1.0f / std[c];
    scale[c] = static_cast<float>(1.0 / (255.0 * std[c]));
    offset[c] = static_cast<float>(-static_cast<double>(mean[c]) / std[c]);
    for (int byte = 0; byte < 256; ++byte) {
      const Channel channel = channel_of(*this, c);
      computable &= form.element == Element::bfloat16
                        ? compute_bfloat16(static_cast<uint8_t>(byte), channel) == half[c][byte]
                        : compute(static_cast<uint8_t>(byte), channel) == table[c][byte];
    }
  }
}

void normalize(const Planes& view, const Normalization& normalization, void* out) {
  if (view.deep) return normalize_deep(view, normalization, out);
  const size_t count = static_cast<size_t>(view.height) * view.width, bytes = bytes_of(normalization.form.element);
  const auto channels = static_cast<size_t>(normalization.form.channels);
  const size_t stride = view.channels == 1 ? 0 : view.plane_stride;  // one plane fills all channels
  auto* to = static_cast<uint8_t*>(out);
  if (!normalization.form.channels_last || channels == 1) {
    for (size_t plane = 0; plane < channels; ++plane)
      convert_plane(view.pixels + plane * stride, count, normalization, plane, to + plane * count * bytes, true);
#if defined(__x86_64__)
    _mm_sfence();
#endif
    return;
  }
  constexpr size_t kRun = 1024;  // pixels: they stay in the first-level cache between the two steps
  alignas(64) uint8_t planes[3 * kRun * sizeof(float)];
  for (size_t at = 0; at < count; at += kRun) {
    const size_t run = std::min(kRun, count - at);
    for (size_t plane = 0; plane < 3; ++plane)
      convert_plane(view.pixels + plane * stride + at, run, normalization, plane, planes + plane * kRun * bytes, false);
    interleave_pixels(planes, kRun, run, bytes, to + 3 * at * bytes);
  }
}

void interleave(const ConstPlanes& view, int channels, uint8_t* out) {
  const size_t width = static_cast<size_t>(view.width), stride = view.channels == 1 ? 0 : view.plane_stride;
  for (int32_t y = 0; y < view.height; ++y, out += channels * width) {
    if (channels == 1) {
      std::memcpy(out, view.row(0, y), width);
    } else {
      interleave_pixels(view.row(0, y), stride, width, 1, out);
    }
  }
}

}  // namespace pass_loader::cpu
