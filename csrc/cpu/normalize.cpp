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

// Rounds a finite value to the nearest bfloat16, ties to even.
PL_INLINE uint16_t to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
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

// As to_bfloat16, in the low halves.
PL_TARGET_AVX2 PL_INLINE __m256i bfloat16_of(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)), 16);
}

PL_TARGET_AVX512 PL_INLINE __m256i bfloat16_of(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)), 16));
}

// Returns how many values come before the first whose address is a multiple of 64.
size_t before_line(const void* out, size_t value_bytes) { return -reinterpret_cast<uintptr_t>(out) % 64 / value_bytes; }

PL_TARGET_AVX2 void compute_plane_avx2(const uint8_t* in, size_t count, const Channel& channel, Element element,
                                       void* out, bool past_caches) {
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
  for (size_t i = first; i < end; i += 16) {
    const __m256 low = compute_eight(in + i, c), high = compute_eight(in + i + 8, c);
    __m256i both;
    if (element == Element::bfloat16)
      both = _mm256_permute4x64_epi64(_mm256_packus_epi32(bfloat16_of(low), bfloat16_of(high)), 0b11011000);
    else
      both = _mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                              _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
    store(halves + i, both, past_caches);
  }
  look_up(in + end, count - end, c.half, halves + end);
}

PL_TARGET_AVX512 void compute_plane_avx512(const uint8_t* in, size_t count, const Channel& channel, Element element,
                                           void* out, bool past_caches) {
  const Channel c = channel;
  const size_t first = std::min(count, before_line(out, bytes_of(element))), end = count - (count - first) % 32;
  if (element == Element::float32) {
    auto* floats = static_cast<float*>(out);
    look_up(in, first, c.table, floats);
    for (size_t i = first; i < end; i += 16)
      store(floats + i, _mm512_castps_si512(compute_sixteen(in + i, c)), past_caches);
    look_up(in + end, count - end, c.table, floats + end);
    return;
  }
  auto* halves = static_cast<uint16_t*>(out);
  look_up(in, first, c.half, halves);
  for (size_t i = first; i < end; i += 32) {
    __m256i both[2];
    for (int half = 0; half < 2; ++half) {
      const __m512 values = compute_sixteen(in + i + 16 * half, c);
      both[half] =
          element == Element::bfloat16 ? bfloat16_of(values) : _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
    }
    store(halves + i, _mm512_inserti64x4(_mm512_castsi256_si512(both[0]), both[1], 1), past_caches);
  }
  look_up(in + end, count - end, c.half, halves + end);
}
#define compute_plane_avx512vbmi compute_plane_avx512
#elif defined(__aarch64__)
void compute_plane_neon(const uint8_t* in, size_t count, const Channel& channel, Element element, void* out,
                        bool /*past_caches*/) {
  if (element == Element::float16) return look_up_plane(in, count, channel, element, out);
  const Channel c = channel;  // a copy, which no store can change: the loops vectorise
  if (element == Element::float32) {
    auto* floats = static_cast<float*>(out);
    for (size_t i = 0; i < count; ++i) floats[i] = compute(in[i], c);
  } else {
    auto* halves = static_cast<uint16_t*>(out);
    for (size_t i = 0; i < count; ++i) halves[i] = to_bfloat16(compute(in[i], c));
  }
}
#endif

// past_caches: `out` is not read soon.
PL_DISPATCH(compute_plane,
            (const uint8_t* in, size_t count, const Channel& channel, Element element, void* out, bool past_caches),
            (in, count, channel, element, out, past_caches), compute_plane)

Channel channel_of(const Normalization& n, size_t c) {
  return {n.table[c].data(), n.half[c].data(), n.mean[c], n.std[c], n.std_reciprocal[c]};
}

void convert_plane(const uint8_t* in, size_t count, const Normalization& n, size_t plane, void* out, bool past_caches) {
  const Element element = n.form.element;
  if (element == Element::uint8) {
    std::memcpy(out, in, count);
  } else if (n.computable) {
    compute_plane(in, count, channel_of(n, plane), element, out, past_caches);
  } else {
    look_up_plane(in, count, channel_of(n, plane), element, out);
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
    for (int byte = 0; byte < 256; ++byte) {
      const float value = compute(static_cast<uint8_t>(byte), channel_of(*this, c));
      computable &= value == table[c][byte];
      if (form.element == Element::bfloat16) computable &= to_bfloat16(value) == half[c][byte];
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
