#include "cpu/normalize.h"

#include <cmath>

#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

struct Channel {
  const float* table;
  float mean, std, std_reciprocal;
};

// a / b by a reciprocal and one Newton step with fused multiply-adds: the correctly rounded quotient for nearly all
// operands (Markstein, IBM J. Res. Dev. 34, 1990). Normalization checks those that occur.
PL_INLINE float divide(float a, float b, float reciprocal) {
  float quotient = a * reciprocal;
  float rest = __builtin_fmaf(-quotient, b, a);
  return __builtin_fmaf(rest, reciprocal, quotient);
}

PL_INLINE float compute(uint8_t byte, const Channel& c) {
  float scaled = divide(static_cast<float>(byte), 255.0f, 1.0f / 255.0f);
  return divide(scaled - c.mean, c.std, c.std_reciprocal);
}

PL_INLINE void compute_plane(const uint8_t* in, size_t count, const Channel& channel, float* out) {
  const Channel c = channel;
  for (size_t i = 0; i < count; ++i) out[i] = compute(in[i], c);
}

void look_up_plane(const uint8_t* in, size_t count, const Channel& channel, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] = channel.table[in[i]];
}

// Without fused multiply-add in the instruction set, looking up is faster.
void compute_plane_base(const uint8_t* in, size_t count, const Channel& channel, float* out) {
  look_up_plane(in, count, channel, out);
}

#if defined(__x86_64__)
PL_TARGET_AVX2 void compute_plane_avx2(const uint8_t* in, size_t count, const Channel& channel, float* out) {
  compute_plane(in, count, channel, out);
}
PL_TARGET_AVX512 void compute_plane_avx512(const uint8_t* in, size_t count, const Channel& channel, float* out) {
  compute_plane(in, count, channel, out);
}
PL_TARGET_VBMI void compute_plane_avx512vbmi(const uint8_t* in, size_t count, const Channel& channel, float* out) {
  compute_plane(in, count, channel, out);
}
#endif

PL_DISPATCH(compute_plane_fast, (const uint8_t* in, size_t count, const Channel& channel, float* out),
            (in, count, channel, out), compute_plane)

Channel channel_of(const Normalization& n, size_t c) {
  return {n.table[c].data(), n.mean[c], n.std[c], n.std_reciprocal[c]};
}

}  // namespace

Normalization::Normalization(const NormalizeTable& values, const std::array<float, 3>& means,
                             const std::array<float, 3>& stds)
    : table(values), mean(means), std(stds), computable(true) {
  for (size_t c = 0; c < 3; ++c) {
    std_reciprocal[c] = 1.0f / std[c];
    for (int byte = 0; byte < 256; ++byte)
      computable &= compute(static_cast<uint8_t>(byte), channel_of(*this, c)) == table[c][byte];
  }
}

void normalize(const Planes& view, const Normalization& normalization, float* out) {
  const size_t count = static_cast<size_t>(view.height) * view.width;
  for (size_t plane = 0; plane < 3; ++plane) {
    const uint8_t* in = view.pixels + plane * view.plane_stride;
    const Channel channel = channel_of(normalization, plane);
    if (normalization.computable) {
      compute_plane_fast(in, count, channel, out + plane * count);
    } else {
      look_up_plane(in, count, channel, out + plane * count);
    }
  }
}

void interleave(const ConstPlanes& view, uint8_t* out) {
  for (int32_t y = 0; y < view.height; ++y) {
    const uint8_t *r = view.row(0, y), *g = view.row(1, y), *b = view.row(2, y);
    for (int32_t x = 0; x < view.width; ++x, out += 3) {
      out[0] = r[x];
      out[1] = g[x];
      out[2] = b[x];
    }
  }
}

}  // namespace pass_loader::cpu
