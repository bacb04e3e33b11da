#include "cpu/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

void fill_all(const Planes& out, const uint8_t (&fill)[3]) {
  for (int c = 0; c < out.channels; ++c)
    for (int32_t y = 0; y < out.height; ++y) std::memset(out.row(c, y), fill[c], static_cast<size_t>(out.width));
}

// Nearest (Geometry.c, ImagingTransformAffine). Pillow has three ways, which differ in their roundings.

// Returns the pixel that holds a coordinate, or -1 if none of `size` does.
int32_t pixel_at(double at, int32_t size) { return at >= 0.0 && at < size ? static_cast<int32_t>(at) : -1; }

// ImagingScaleAffine: rows stay rows. Places are running sums.
void nearest_scaled(const ConstPlanes& view, const double* m, const Planes& out, int32_t* columns) {
  double at = m[2] + m[0] * 0.5;
  for (int32_t x = 0; x < out.width; ++x, at += m[0]) columns[x] = pixel_at(at, view.width);
  at = m[5] + m[4] * 0.5;
  for (int32_t y = 0; y < out.height; ++y, at += m[4]) {
    const int32_t from = pixel_at(at, view.height);
    if (from < 0) continue;
    for (int c = 0; c < out.channels; ++c) {
      const uint8_t* row = view.row(c, from);
      uint8_t* to = out.row(c, y);
      for (int32_t x = 0; x < out.width; ++x)
        if (columns[x] >= 0) to[x] = row[columns[x]];
    }
  }
}

// affine_fixed: in units of 2^-16 pixels.
void nearest_fixed(const ConstPlanes& view, const double* m, const Planes& out) {
  auto fixed = [](double v) { return static_cast<int64_t>(std::floor(v * 65536.0 + 0.5)); };
  const int64_t a0 = fixed(m[0]), a1 = fixed(m[1]), a3 = fixed(m[3]), a4 = fixed(m[4]);
  const int64_t a2 = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5), a5 = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
  const int64_t width = view.width, height = view.height, pitch = static_cast<int64_t>(view.row_stride);
  for (int32_t y = 0; y < out.height; ++y) {
    int64_t at_x = a2 + a1 * y, at_y = a5 + a4 * y;
    for (int32_t x = 0; x < out.width; ++x, at_x += a0, at_y += a3) {
      const int64_t from_x = at_x >> 16, from_y = at_y >> 16;
      if (from_x < 0 || from_x >= width || from_y < 0 || from_y >= height) continue;
      for (int c = 0; c < out.channels; ++c) out.row(c, y)[x] = view.row(c, 0)[from_y * pitch + from_x];
    }
  }
}

// Places too far away for affine_fixed: running sums along a row, and from row to row.
void nearest_far(const ConstPlanes& view, const double* m, const Planes& out) {
  double row_x = m[2] + m[1] * 0.5 + m[0] * 0.5, row_y = m[5] + m[4] * 0.5 + m[3] * 0.5;
  for (int32_t y = 0; y < out.height; ++y, row_x += m[1], row_y += m[4]) {
    double at_x = row_x, at_y = row_y;
    for (int32_t x = 0; x < out.width; ++x, at_x += m[0], at_y += m[3]) {
      const int32_t from_x = pixel_at(at_x, view.width), from_y = pixel_at(at_y, view.height);
      if (from_x < 0 || from_y < 0) continue;
      for (int c = 0; c < out.channels; ++c) out.row(c, y)[x] = view.row(c, from_y)[from_x];
    }
  }
}

// Perspective (ImagingGenericTransform with perspective_transform and nearest_filter).
void nearest_seen(const ConstPlanes& view, const double* m, const Planes& out) {
  for (int32_t y = 0; y < out.height; ++y) {
    const double at_y = y + 0.5;
    for (int32_t x = 0; x < out.width; ++x) {
      const double at_x = x + 0.5, depth = m[6] * at_x + m[7] * at_y + 1;
      const int32_t from_x = pixel_at((m[0] * at_x + m[1] * at_y + m[2]) / depth, view.width);
      const int32_t from_y = pixel_at((m[3] * at_x + m[4] * at_y + m[5]) / depth, view.height);
      if (from_x < 0 || from_y < 0) continue;
      for (int c = 0; c < out.channels; ++c) out.row(c, y)[x] = view.row(c, from_y)[from_x];
    }
  }
}

void nearest(const ConstPlanes& view, const double* m, const Planes& out, AffineScratch& scratch) {
  if (m[1] == 0.0 && m[3] == 0.0)
    return nearest_scaled(view, m, out, scratch.places.need(static_cast<size_t>(out.width)));
  auto near = [&](double x, double y) {
    return std::fabs(x * m[0] + y * m[1] + m[2]) < 32768.0 && std::fabs(x * m[3] + y * m[4] + m[5]) < 32768.0;
  };
  const double width = out.width, height = out.height;
  if (near(0, 0) && near(width, height) && near(0, height) && near(width, 0)) return nearest_fixed(view, m, out);
  nearest_far(view, m, out);
}

// Bilinear and bicubic (ImagingGenericTransform with affine_transform or perspective_transform, bilinear_filter and
// bicubic_filter), in double.
// Pixels beyond the edge are those of the edge, so the view is copied with a frame of them.

constexpr int32_t kFrame = 2;  // pixels around the padded plane

struct Padded {
  uint8_t* pixels;  // of the first plane, the pixel 0, 0
  ptrdiff_t pitch;
  size_t plane_stride;
};

Padded padded(const ConstPlanes& view, Scratch<uint8_t>& memory) {
  const size_t pitch = static_cast<size_t>(view.width) + 2 * kFrame;
  const size_t plane_stride = pitch * (static_cast<size_t>(view.height) + 2 * kFrame);
  uint8_t* all = memory.need(plane_stride * static_cast<size_t>(view.channels));
  for (int c = 0; c < view.channels; ++c)
    for (int32_t y = -kFrame; y < view.height + kFrame; ++y) {
      const uint8_t* row = view.row(c, std::clamp(y, 0, view.height - 1));
      uint8_t* to = all + c * plane_stride + static_cast<size_t>(y + kFrame) * pitch;
      std::memset(to, row[0], kFrame);
      std::memcpy(to + kFrame, row, static_cast<size_t>(view.width));
      std::memset(to + kFrame + view.width, row[view.width - 1], kFrame);
    }
  return {all + kFrame * pitch + kFrame, static_cast<ptrdiff_t>(pitch), plane_stride};
}

// Where the pixels of one row come from.
struct Places {
  int32_t* offset;  // in a padded plane, of the pixel at or before the place
  uint8_t* inside;  // 0: the fill
  double *across, *down;
};

template <bool divides>
PL_INLINE void find_places_of(const double* m, int32_t y, int32_t count, int32_t width, int32_t height, int32_t pitch,
                              const Places& places) {
  const double at_y = y + 0.5;
  for (int32_t x = 0; x < count; ++x) {
    const double at_x = x + 0.5;
    double from_x = m[0] * at_x + m[1] * at_y + m[2], from_y = m[3] * at_x + m[4] * at_y + m[5];
    if (divides) {
      const double depth = m[6] * at_x + m[7] * at_y + 1;
      from_x /= depth, from_y /= depth;
    }
    const bool inside = from_x >= 0.0 && from_x < width && from_y >= 0.0 && from_y < height;
    from_x = inside ? from_x - 0.5 : 0.0, from_y = inside ? from_y - 0.5 : 0.0;
    const double left = std::floor(from_x), top = std::floor(from_y);
    places.offset[x] = static_cast<int32_t>(top) * pitch + static_cast<int32_t>(left);
    places.inside[x] = inside;
    places.across[x] = from_x - left, places.down[x] = from_y - top;
  }
}
PL_INLINE void find_places_body(const double* m, bool divides, int32_t y, int32_t count, int32_t width, int32_t height,
                                int32_t pitch, const Places& places) {
  if (divides) return find_places_of<true>(m, y, count, width, height, pitch, places);
  find_places_of<false>(m, y, count, width, height, pitch, places);
}
PL_LEVELS(find_places,
          (const double* m, bool divides, int32_t y, int32_t count, int32_t width, int32_t height, int32_t pitch,
           const Places& places),
          (m, divides, y, count, width, height, pitch, places))

PL_INLINE double linear(double a, double b, double t) { return a + (b - a) * t; }
PL_INLINE double cubic(double a, double b, double c, double d, double t) {
  return b + t * ((-a + c) + t * ((2 * (a - b) + c - d) + t * (-a + b - c + d)));
}
PL_INLINE uint8_t cut(double value) {
  value = value > 0.0 ? value : 0.0;
  return static_cast<uint8_t>(static_cast<int32_t>(value < 255.0 ? value : 255.0));
}

// Which fractions of a row are not zero: a whole offset along one axis leaves the middle one of its values.
enum class Axes : int { across = 1, down = 2, both = 3 };

void bilinear_row_base(const uint8_t* plane, ptrdiff_t pitch, const Places& p, int32_t count, uint8_t fill,
                       uint8_t* out) {
  for (int32_t x = 0; x < count; ++x) {
    const uint8_t* q = plane + p.offset[x];
    const double upper = linear(q[0], q[1], p.across[x]), lower = linear(q[pitch], q[pitch + 1], p.across[x]);
    out[x] = p.inside[x] ? cut(linear(upper, lower, p.down[x])) : fill;
  }
}

void bicubic_row_base(const uint8_t* plane, ptrdiff_t pitch, const Places& p, int32_t count, uint8_t fill, uint8_t* out,
                      Axes axes) {
  for (int32_t x = 0; x < count; ++x) {
    const uint8_t* q = plane + p.offset[x];
    double value;
    if (axes == Axes::across) {
      value = cubic(q[-1], q[0], q[1], q[2], p.across[x]);
    } else if (axes == Axes::down) {
      value = cubic(q[-pitch], q[0], q[pitch], q[2 * pitch], p.down[x]);
    } else {
      double rows[4];
      for (int k = 0; k < 4; ++k) {
        const uint8_t* row = q + (k - 1) * pitch;
        rows[k] = cubic(row[-1], row[0], row[1], row[2], p.across[x]);
      }
      value = cubic(rows[0], rows[1], rows[2], rows[3], p.down[x]);
    }
    out[x] = p.inside[x] ? cut(value) : fill;
  }
}

#if defined(__x86_64__)
// Four or eight pixels at once. A gather of 32 bits takes four neighbours of each pixel. Sums of bytes are exact in
// integers; what follows is the arithmetic above, operation for operation.

PL_TARGET_AVX2 PL_INLINE __m256d linear_avx2(__m256d a, __m256d b, __m256d t) {
  return _mm256_add_pd(a, _mm256_mul_pd(_mm256_sub_pd(b, a), t));
}
PL_TARGET_AVX2 PL_INLINE __m256d polynomial_avx2(__m256d p1, __m256d p2, __m256d p3, __m256d p4, __m256d t) {
  __m256d value = _mm256_add_pd(p3, _mm256_mul_pd(t, p4));
  value = _mm256_add_pd(p2, _mm256_mul_pd(t, value));
  return _mm256_add_pd(p1, _mm256_mul_pd(t, value));
}
PL_TARGET_AVX2 PL_INLINE __m256d cubic_avx2(__m128i a, __m128i b, __m128i c, __m128i d, __m256d t) {
  const __m128i c_a = _mm_sub_epi32(c, a), a_b = _mm_sub_epi32(a, b), c_d = _mm_sub_epi32(c, d);
  const __m128i p3 = _mm_add_epi32(_mm_add_epi32(a_b, a_b), c_d),
                p4 = _mm_sub_epi32(_mm_sub_epi32(_mm_setzero_si128(), a_b), c_d);
  return polynomial_avx2(_mm256_cvtepi32_pd(b), _mm256_cvtepi32_pd(c_a), _mm256_cvtepi32_pd(p3), _mm256_cvtepi32_pd(p4),
                         t);
}
PL_TARGET_AVX2 PL_INLINE __m128i gather_avx2(const uint8_t* from, __m128i offsets) {
  return _mm_i32gather_epi32(reinterpret_cast<const int*>(from), offsets, 1);
}
PL_TARGET_AVX2 PL_INLINE __m128i byte_avx2(__m128i words, int number) {
  return _mm_and_si128(_mm_srli_epi32(words, 8 * number), _mm_set1_epi32(255));
}
PL_TARGET_AVX2 PL_INLINE __m256d cubic_of_avx2(__m128i words, __m256d t) {
  return cubic_avx2(byte_avx2(words, 0), byte_avx2(words, 1), byte_avx2(words, 2), byte_avx2(words, 3), t);
}

// Writes the first `count` of four values, or the fill where a pixel lies outside.
PL_TARGET_AVX2 PL_INLINE void store_avx2(__m256d value, const uint8_t* inside, uint8_t fill, int32_t count,
                                         uint8_t* out) {
  value = _mm256_min_pd(_mm256_max_pd(value, _mm256_setzero_pd()), _mm256_set1_pd(255.0));
  int32_t flags;
  std::memcpy(&flags, inside, sizeof flags);
  const __m128i there = _mm_cmpgt_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(flags)), _mm_setzero_si128());
  const __m128i chosen = _mm_blendv_epi8(_mm_set1_epi32(fill), _mm256_cvttpd_epi32(value), there);
  const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(chosen, chosen), _mm_setzero_si128());
  const int32_t four = _mm_cvtsi128_si32(bytes);
  std::memcpy(out, &four, static_cast<size_t>(std::min(count, 4)));
}

PL_TARGET_AVX2 void bilinear_row_avx2(const uint8_t* plane, ptrdiff_t pitch, const Places& p, int32_t count,
                                      uint8_t fill, uint8_t* out) {
  for (int32_t x = 0; x < count; x += 4) {
    const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p.offset + x));
    const __m256d across = _mm256_loadu_pd(p.across + x), down = _mm256_loadu_pd(p.down + x);
    __m256d rows[2];
    for (int k = 0; k < 2; ++k) {
      const __m128i words = gather_avx2(plane + k * pitch, at);
      rows[k] = linear_avx2(_mm256_cvtepi32_pd(byte_avx2(words, 0)), _mm256_cvtepi32_pd(byte_avx2(words, 1)), across);
    }
    store_avx2(linear_avx2(rows[0], rows[1], down), p.inside + x, fill, count - x, out + x);
  }
}

PL_TARGET_AVX2 void bicubic_row_avx2(const uint8_t* plane, ptrdiff_t pitch, const Places& p, int32_t count,
                                     uint8_t fill, uint8_t* out, Axes axes) {
  for (int32_t x = 0; x < count; x += 4) {
    const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p.offset + x));
    const __m256d across = _mm256_loadu_pd(p.across + x), down = _mm256_loadu_pd(p.down + x);
    __m256d value;
    if (axes == Axes::across) {
      value = cubic_of_avx2(gather_avx2(plane - 1, at), across);
    } else if (axes == Axes::down) {
      __m128i taps[4];
      for (int k = 0; k < 4; ++k) taps[k] = byte_avx2(gather_avx2(plane + (k - 1) * pitch, at), 0);
      value = cubic_avx2(taps[0], taps[1], taps[2], taps[3], down);
    } else {
      __m256d v[4];
      for (int k = 0; k < 4; ++k) v[k] = cubic_of_avx2(gather_avx2(plane + (k - 1) * pitch - 1, at), across);
      const __m256d v12 = _mm256_sub_pd(v[0], v[1]);
      const __m256d p3 = _mm256_sub_pd(_mm256_add_pd(_mm256_add_pd(v12, v12), v[2]), v[3]);
      const __m256d p4 = _mm256_add_pd(_mm256_sub_pd(_mm256_sub_pd(v[1], v[0]), v[2]), v[3]);
      value = polynomial_avx2(v[1], _mm256_sub_pd(v[2], v[0]), p3, p4, down);
    }
    store_avx2(value, p.inside + x, fill, count - x, out + x);
  }
}
#define bilinear_row_avx512 bilinear_row_avx2
#define bilinear_row_avx512vbmi bilinear_row_avx2
#define bicubic_row_avx512 bicubic_row_avx2
#define bicubic_row_avx512vbmi bicubic_row_avx2
#endif
PL_DISPATCH_X86(bilinear_row,
                (const uint8_t* plane, ptrdiff_t pitch, const Places& p, int32_t count, uint8_t fill, uint8_t* out),
                (plane, pitch, p, count, fill, out), bilinear_row)
PL_DISPATCH_X86(bicubic_row,
                (const uint8_t* plane, ptrdiff_t pitch, const Places& p, int32_t count, uint8_t fill, uint8_t* out,
                 Axes axes),
                (plane, pitch, p, count, fill, out, axes), bicubic_row)

void interpolated(const ConstPlanes& view, const StepPlan& step, const Planes& out, AffineScratch& scratch) {
  const double* m = step.matrix;
  const Padded from = padded(view, scratch.padded);
  const auto count = round_up(static_cast<size_t>(out.width), 4);  // pixels are made by fours
  double* fractions = scratch.fractions.need(2 * count);
  int32_t* offsets = scratch.places.need(2 * count);
  const Places places{offsets, reinterpret_cast<uint8_t*>(offsets + count), fractions, fractions + count};
  const bool divides = step.op == StepOp::perspective;
  const bool across_alone = !divides && m[3] == 0.0 && m[4] == 1.0 && m[5] == 0.0;
  const bool down_alone = !divides && m[0] == 1.0 && m[1] == 0.0 && m[2] == 0.0;
  const Axes axes = across_alone ? Axes::across : down_alone ? Axes::down : Axes::both;
  for (int32_t y = 0; y < out.height; ++y) {
    find_places(m, divides, y, static_cast<int32_t>(count), view.width, view.height, static_cast<int32_t>(from.pitch),
                places);
    for (int c = 0; c < out.channels; ++c) {
      const uint8_t* plane = from.pixels + c * from.plane_stride;
      if (step.resample == 2)
        bilinear_row(plane, from.pitch, places, out.width, step.fill[c], out.row(c, y));
      else
        bicubic_row(plane, from.pitch, places, out.width, step.fill[c], out.row(c, y), axes);
    }
  }
}

}  // namespace

void affine(const ConstPlanes& view, const StepPlan& step, const Planes& out, AffineScratch& scratch) {
  if (step.resample != 0) return interpolated(view, step, out, scratch);
  fill_all(out, step.fill);
  if (step.op == StepOp::perspective) return nearest_seen(view, step.matrix, out);
  nearest(view, step.matrix, out, scratch);
}

}  // namespace pass_loader::cpu
