// torchvision 0.28, transforms/_functional_tensor.py: gaussian_blur, on x86 with FMA. There the output is one chain of
// fused multiply-adds over taps x taps products in raster order (oneDNN's depthwise convolution), rounded half to even.
// A separable sum is a ninth of the work; its distance from the chain has a bound (`doubt`), so that only sums as near
// as that to a half need the chain.
#include "cpu/kernel_blur.h"

#include <cmath>
#include <cstring>

#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = 16;   // pixels of a block; no level's register holds more
constexpr int kRun = 32;     // neighbours that are summed together, so that a weight is loaded once for all
constexpr int kChains = 4;  // independent ones at a time: a fused multiply-add waits four cycles for the one before

// A level's register of floats.
template <int kCount>
struct Register {
  typedef float Floats __attribute__((vector_size(4 * kCount)));
  typedef int32_t Ints __attribute__((vector_size(4 * kCount)));
  typedef uint8_t Bytes __attribute__((vector_size(kCount)));
  static constexpr int kCountOf = kCount, kTogether = kRun / kCount;
};

struct Padded {
  const float* pixels;
  size_t stride;
  int taps;
};

// torch's sum of n floats on x86: 8 lanes, then the rest, then the lanes; below 8 numbers 4 lanes (SumKernel.cpp).
float sum_of(const float* values, int n) {
  float lanes[8] = {}, sum = 0.0f;
  const int width = n < 8 ? 4 : 8, whole = n / width * width;
  for (int i = 0; i < whole; ++i) lanes[i % width] += values[i];
  if (n < 8) {
    for (int i = whole; i < n; ++i) lanes[0] += values[i];
  } else {
    for (int i = whole; i < n; ++i) sum += values[i];
  }
  for (int lane = 0; lane < width; ++lane) sum += lanes[lane];
  return sum;
}

// exp is rounded from double; torch's is MKL's, which differs in the last place of every hundredth value.
void gaussian_taps(int taps, float sigma, float* out) {
  for (int i = 0; i < taps; ++i) {
    const float x = static_cast<float>(i - taps / 2) / sigma;
    out[i] = static_cast<float>(std::exp(static_cast<double>(-0.5f * (x * x))));
  }
  const float sum = sum_of(out, taps);
  for (int i = 0; i < taps; ++i) out[i] /= sum;
}

// Reflected without repeating the edge. Floats past the row's end, up to the stride, are zeros.
template <typename R>
PL_INLINE void pad_body(const uint8_t* plane, int height, int width, int radius, float* out, size_t stride) {
  for (int y = -radius; y < height + radius; ++y, out += stride) {
    const uint8_t* row = plane + static_cast<size_t>(y < 0 ? -y : y < height ? y : 2 * (height - 1) - y) * width;
    for (int x = 0; x < width; x += R::kCountOf) {
      typename R::Bytes bytes;
      std::memcpy(&bytes, row + x, sizeof bytes);
      const auto values = __builtin_convertvector(__builtin_convertvector(bytes, typename R::Ints), typename R::Floats);
      std::memcpy(out + radius + x, &values, sizeof values);
    }
    for (int i = 1; i <= radius; ++i) out[radius - i] = row[i], out[radius + width - 1 + i] = row[width - 1 - i];
    std::memset(out + width + 2 * radius, 0, (stride - width - 2 * radius) * sizeof(float));
  }
}

// out[k][i] = sum over t of in[t * step + i] * weight[t] for kTogether registers k of neighbours.
template <typename R>
PL_INLINE void weighted_sums(const float* in, size_t step, const float* weight, int taps,
                             typename R::Floats (&out)[R::kTogether]) {
  typename R::Floats sums[R::kTogether] = {};
  for (int t = 0; t < taps; ++t, in += step) {
    const float tap = weight[t];
    for (int k = 0; k < R::kTogether; ++k) {
      typename R::Floats values;
      std::memcpy(&values, in + k * R::kCountOf, sizeof values);
      sums[k] += values * tap;
    }
  }
  std::memcpy(out, sums, sizeof sums);
}

template <typename R>
PL_INLINE void across_body(const Padded& in, int rows, int width, const float* weight, float* out, size_t out_stride) {
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < width; x += kRun) {
      typename R::Floats sums[R::kTogether];
      weighted_sums<R>(in.pixels + y * in.stride + x, 1, weight, in.taps, sums);
      std::memcpy(out + y * out_stride + x, sums, sizeof sums);
    }
}

// Rounds a register of sums to bytes; true where one of them is in doubt. Terms are not negative, so that no partial sum
// exceeds the sum s, nor on average over the chain half of 255 (the kernel is symmetric): either sum is off by less than
// min(s, 128) * operations / 2^24.
template <typename R>
PL_INLINE bool round_sums(const typename R::Floats& sum, float share, uint8_t* out, int count) {
  using Floats = typename R::Floats;
  using Ints = typename R::Ints;
  const Floats most = 128.0f - Floats{};
  const Floats up = sum + 0.5f;
  const Ints whole = __builtin_convertvector(up, Ints);
  const Floats part = up - __builtin_convertvector(whole, Floats);
  const Floats doubt = (sum < most ? sum : most) * share;
  const auto bytes = __builtin_convertvector(whole, typename R::Bytes);
  const Floats off_centre = (Floats)((Ints)(part - 0.5f) & 0x7FFFFFFF);
  const Floats room = 0.5f - doubt - off_centre;  // negative: near to a half
  uint64_t signs[R::kCountOf / 2], any = 0;
  std::memcpy(signs, &room, sizeof room);
  for (uint64_t pair : signs) any |= pair;
  if (count >= R::kCountOf) {
    std::memcpy(out, &bytes, sizeof bytes);
  } else {
    std::memcpy(out, &bytes, static_cast<size_t>(count));
  }
  return (any & 0x8000000080000000) != 0;
}

// One row of bytes. Adds to `doubtful` the first pixels of the registers that hold a doubt.
template <typename R>
PL_INLINE void down_body(const float* in, size_t stride, const float* weight, int taps, int width, uint8_t* out,
                         uint32_t* doubtful, int* doubts) {
  const float share = static_cast<float>(taps * taps + 4 * taps + 16) * 0x1p-24f;
  for (int run = 0; run < width; run += kRun) {
    typename R::Floats sums[R::kTogether];
    weighted_sums<R>(in + run, stride, weight, taps, sums);
    for (int k = 0; k < R::kTogether && run + k * R::kCountOf < width; ++k) {
      const int x = run + k * R::kCountOf;
      if (round_sums<R>(sums[k], share, out + x, width - x)) doubtful[(*doubts)++] = static_cast<uint32_t>(x);
    }
  }
}

#if defined(__x86_64__)
#define PL_REGISTERS(name, params, args)                                                      \
  void name##_base params { name##_body<Register<4>> args; }                                  \
  PL_TARGET_AVX2 void name##_avx2 params { name##_body<Register<8>> args; }                   \
  PL_TARGET_AVX512 void name##_avx512 params { name##_body<Register<kLanes>> args; }       \
  PL_TARGET_VBMI void name##_avx512vbmi params { name##_body<Register<kLanes>> args; }     \
  PL_DISPATCH(name, params, args, name)
#else
#define PL_REGISTERS(name, params, args)                     \
  void name##_base params { name##_body<Register<4>> args; } \
  PL_DISPATCH(name, params, args, name)
#endif

PL_REGISTERS(pad, (const uint8_t* plane, int height, int width, int radius, float* out, size_t stride),
             (plane, height, width, radius, out, stride))
PL_REGISTERS(across, (const Padded& in, int rows, int width, const float* weight, float* out, size_t out_stride),
             (in, rows, width, weight, out, out_stride))
PL_REGISTERS(down,
             (const float* in, size_t stride, const float* weight, int taps, int width, uint8_t* out,
              uint32_t* doubtful, int* doubts),
             (in, stride, weight, taps, width, out, doubtful, doubts))
#undef PL_REGISTERS

// torch's own arithmetic for kChains blocks of kLanes pixels; sums, not yet rounded.
typedef const float* const (&Blocks)[kChains];
void chains_base(const Padded& in, Blocks from, const float* kernel, float (*sum)[kLanes]) {
  for (int chain = 0; chain < kChains; ++chain)
    for (int i = 0; i < kLanes; ++i) sum[chain][i] = 0.0f;
  for (int row = 0; row < in.taps; ++row)
    for (int column = 0; column < in.taps; ++column, ++kernel)
      for (int chain = 0; chain < kChains; ++chain)
        for (int i = 0; i < kLanes; ++i)
          sum[chain][i] = std::fma(from[chain][row * in.stride + column + i], *kernel, sum[chain][i]);
}

#if defined(__x86_64__)
PL_TARGET_AVX2 void chains_avx2(const Padded& in, Blocks from, const float* kernel, float (*sum)[kLanes]) {
  __m256 low[kChains] = {}, high[kChains] = {};
  for (int row = 0; row < in.taps; ++row)
    for (int column = 0; column < in.taps; ++column, ++kernel) {
      const __m256 weight = _mm256_set1_ps(*kernel);
      for (int chain = 0; chain < kChains; ++chain) {
        const float* pixels = from[chain] + row * in.stride + column;
        low[chain] = _mm256_fmadd_ps(_mm256_loadu_ps(pixels), weight, low[chain]);
        high[chain] = _mm256_fmadd_ps(_mm256_loadu_ps(pixels + 8), weight, high[chain]);
      }
    }
  for (int chain = 0; chain < kChains; ++chain) {
    _mm256_storeu_ps(sum[chain], low[chain]);
    _mm256_storeu_ps(sum[chain] + 8, high[chain]);
  }
}

PL_TARGET_AVX512 void chains_avx512(const Padded& in, Blocks from, const float* kernel, float (*sum)[kLanes]) {
  __m512 sums[kChains] = {};
  for (int row = 0; row < in.taps; ++row)
    for (int column = 0; column < in.taps; ++column, ++kernel)
      for (int chain = 0; chain < kChains; ++chain)
        sums[chain] = _mm512_fmadd_ps(_mm512_loadu_ps(from[chain] + row * in.stride + column), _mm512_set1_ps(*kernel),
                                      sums[chain]);
  for (int chain = 0; chain < kChains; ++chain) _mm512_storeu_ps(sum[chain], sums[chain]);
}
#define chains_avx512vbmi chains_avx512
#endif
PL_DISPATCH(chains, (const Padded& in, Blocks from, const float* kernel, float (*sum)[kLanes]), (in, from, kernel, sum),
            chains)

uint8_t round_half_even(float value) {
  constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23
  return static_cast<uint8_t>(static_cast<int>(value + kWhole - kWhole));
}

void settle(const Padded& in, const float* kernel, const uint32_t* doubtful, size_t count, int width, uint8_t* plane) {
  for (size_t first = 0; first < count; first += kChains) {
    const float* from[kChains];
    float sum[kChains][kLanes];
    auto place = [&](int chain) { return doubtful[first + chain < count ? first + chain : first]; };
    for (int chain = 0; chain < kChains; ++chain)
      from[chain] = in.pixels + place(chain) / width * in.stride + place(chain) % width;
    chains(in, from, kernel, sum);
    for (int chain = 0; chain < kChains; ++chain) {
      const int left = width - static_cast<int>(place(chain) % width);
      for (int i = 0; i < kLanes && i < left; ++i) plane[place(chain) + i] = round_half_even(sum[chain][i]);
    }
  }
}

}  // namespace

void kernel_blur(const ViewPixels& view, int height, int width, int taps, float sigma, KernelBlurScratch& scratch) {
  const int radius = taps / 2, rows = height + 2 * radius;
  const size_t stride = round_up(width, kRun) + round_up(2 * radius, kRun), across_stride = round_up(width, kRun);
  float* kernel = scratch.kernel.need(static_cast<size_t>(taps) * taps + taps);
  float* weight = kernel + static_cast<size_t>(taps) * taps;
  gaussian_taps(taps, sigma, weight);
  for (int i = 0; i < taps * taps; ++i) kernel[i] = weight[i / taps] * weight[i % taps];
  float* padded = scratch.padded.need(stride * rows);
  float* blurred = scratch.rows.need(across_stride * rows);
  uint32_t* doubtful = scratch.doubtful.need(across_stride / 4 * height);
  const Padded in{padded, stride, taps};
  for (int plane = 0; plane < view.channels; ++plane) {
    uint8_t* pixels = view.pixels + plane * view.plane_stride;
    pad(pixels, height, width, radius, padded, stride);
    across(in, rows, width, weight, blurred, across_stride);
    size_t count = 0;
    for (int y = 0; y < height; ++y) {
      int doubts = 0;
      const uint32_t begin = static_cast<uint32_t>(y) * width;
      down(blurred + y * across_stride, across_stride, weight, taps, width, pixels + begin, doubtful + count, &doubts);
      for (; doubts > 0; --doubts) doubtful[count++] += begin;
    }
    settle(in, kernel, doubtful, count, width, pixels);
  }
}

}  // namespace pass_loader::cpu
