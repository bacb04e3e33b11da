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
void compute_plane_base(const uint8_t* in, size_t count, const Channel& channel, Element element, void* out) {
  look_up_plane(in, count, channel, element, out);
}

#if defined(__x86_64__) || defined(__aarch64__)
PL_INLINE void compute_floats(const uint8_t* in, size_t count, const Channel& channel, Element element, void* out) {
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

#if defined(__x86_64__)
PL_TARGET_AVX2 void compute_float16(const uint8_t* in, size_t count, const Channel& channel, uint16_t* out) {
  const Channel c = channel;
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    float values[8];
    for (size_t k = 0; k < 8; ++k) values[k] = compute(in[i + k], c);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(values), _MM_FROUND_TO_NEAREST_INT));
  }
  look_up(in + i, count - i, c.half, out + i);
}

#define PL_COMPUTE_PLANE(target, level)                                                                       \
  target void compute_plane_##level(const uint8_t* in, size_t count, const Channel& channel, Element element, \
                                    void* out) {                                                              \
    if (element == Element::float16) return compute_float16(in, count, channel, static_cast<uint16_t*>(out)); \
    compute_floats(in, count, channel, element, out);                                                         \
  }
PL_COMPUTE_PLANE(PL_TARGET_AVX2, avx2)
PL_COMPUTE_PLANE(PL_TARGET_AVX512, avx512)
PL_COMPUTE_PLANE(PL_TARGET_VBMI, avx512vbmi)
#undef PL_COMPUTE_PLANE
#elif defined(__aarch64__)
void compute_plane_neon(const uint8_t* in, size_t count, const Channel& channel, Element element, void* out) {
  if (element == Element::float16) return look_up_plane(in, count, channel, element, out);
  compute_floats(in, count, channel, element, out);
}
#endif

PL_DISPATCH(compute_plane, (const uint8_t* in, size_t count, const Channel& channel, Element element, void* out),
            (in, count, channel, element, out), compute_plane)

Channel channel_of(const Normalization& n, size_t c) {
  return {n.table[c].data(), n.half[c].data(), n.mean[c], n.std[c], n.std_reciprocal[c]};
}

void convert_plane(const uint8_t* in, size_t count, const Normalization& n, size_t plane, void* out) {
  const Element element = n.form.element;
  if (element == Element::uint8) {
    std::memcpy(out, in, count);
  } else if (n.computable) {
    compute_plane(in, count, channel_of(n, plane), element, out);
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
      convert_plane(view.pixels + plane * stride, count, normalization, plane, to + plane * count * bytes);
    return;
  }
  constexpr size_t kRun = 1024;  // pixels: they stay in the first-level cache between the two steps
  alignas(64) uint8_t planes[3 * kRun * sizeof(float)];
  for (size_t at = 0; at < count; at += kRun) {
    const size_t run = std::min(kRun, count - at);
    for (size_t plane = 0; plane < 3; ++plane)
      convert_plane(view.pixels + plane * stride + at, run, normalization, plane, planes + plane * kRun * bytes);
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
