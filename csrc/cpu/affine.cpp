#include "cpu/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/affine_pixels.h"
#include "cpu/affine_runs.h"
#include "cpu/transpose.h"
#include "isa.h"

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
  int32_t begin = 0, end = out.width;  // those that come from inside are neighbours
  while (begin < end && columns[begin] < 0) ++begin;
  while (begin < end && columns[end - 1] < 0) --end;
  bool is_run = true;
  for (int32_t x = begin; x < end; ++x) is_run &= columns[x] - columns[begin] == x - begin;
  at = m[5] + m[4] * 0.5;
  for (int32_t y = 0; y < out.height; ++y, at += m[4]) {
    const int32_t from = pixel_at(at, view.height);
    if (from < 0 || begin == end) continue;
    for (int c = 0; c < out.channels; ++c) {
      const uint8_t* row = view.row(c, from);
      uint8_t* to = out.row(c, y);
      if (is_run)
        std::memcpy(to + begin, row + columns[begin], static_cast<size_t>(end - begin));
      else
        for (int32_t x = begin; x < end; ++x) to[x] = row[columns[x]];
    }
  }
}

// affine_fixed: in units of 2^-16 pixels.
template <int channels>
void nearest_fixed(const ConstPlanes& view, const double* m, const Planes& out) {
  auto fixed = [](double v) { return static_cast<int64_t>(std::floor(v * 65536.0 + 0.5)); };
  const int64_t a0 = fixed(m[0]), a1 = fixed(m[1]), a3 = fixed(m[3]), a4 = fixed(m[4]);
  const int64_t a2 = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5), a5 = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
  const int64_t width = view.width, height = view.height, pitch = static_cast<int64_t>(view.row_stride);
  for (int32_t y = 0; y < out.height; ++y) {
    const int64_t row_x = a2 + a1 * y, row_y = a5 + a4 * y;
    auto is_inside = [&](int32_t x) {
      const int64_t from_x = (row_x + a0 * x) >> 16, from_y = (row_y + a3 * x) >> 16;
      return from_x >= 0 && from_x < width && from_y >= 0 && from_y < height;
    };
    int32_t begin = 0, end = out.width;  // those that come from inside are neighbours
    while (begin < end && !is_inside(begin)) ++begin;
    while (begin < end && !is_inside(end - 1)) --end;
    uint8_t* rows[channels];
    for (int c = 0; c < channels; ++c) rows[c] = out.row(c, y);
    int64_t at_x = row_x + a0 * begin, at_y = row_y + a3 * begin;
    for (int32_t x = begin; x < end; ++x, at_x += a0, at_y += a3) {
      const uint8_t* from = view.pixels + (at_y >> 16) * pitch + (at_x >> 16);
      for (int c = 0; c < channels; ++c) rows[c][x] = from[c * view.plane_stride];
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
  if (near(0, 0) && near(width, height) && near(0, height) && near(width, 0))
    return (view.channels == 3 ? nearest_fixed<3> : nearest_fixed<1>)(view, m, out);
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

// Finds where the pixels of one row come from. inside: 0 for the fill, whose other numbers are those of the first
// pixel. __restrict: six outputs are too many to be compared, so that the loop would stay scalar.
template <bool divides>
PL_INLINE void find_spots_of(const double* m, int32_t y, int32_t count, int32_t width, int32_t height, int32_t pitch,
                             int32_t* __restrict offset, uint8_t* __restrict inside, double* __restrict across,
                             double* __restrict down, float* __restrict nearly_across, float* __restrict nearly_down) {
  const double at_y = y + 0.5;
  for (int32_t x = 0; x < count; ++x) {
    const double at_x = x + 0.5;
    double from_x = m[0] * at_x + m[1] * at_y + m[2], from_y = m[3] * at_x + m[4] * at_y + m[5];
    if (divides) {
      const double depth = m[6] * at_x + m[7] * at_y + 1;
      from_x /= depth, from_y /= depth;
    }
    const bool there = from_x >= 0.0 && from_x < width && from_y >= 0.0 && from_y < height;
    from_x = there ? from_x - 0.5 : 0.0, from_y = there ? from_y - 0.5 : 0.0;
    const double left = std::floor(from_x), top = std::floor(from_y);
    offset[x] = static_cast<int32_t>(top) * pitch + static_cast<int32_t>(left) * 4;
    inside[x] = there;
    across[x] = from_x - left, down[x] = from_y - top;
    nearly_across[x] = static_cast<float>(across[x]), nearly_down[x] = static_cast<float>(down[x]);
  }
}
PL_INLINE void find_spots_body(const double* m, bool divides, int32_t y, int32_t count, int32_t width, int32_t height,
                               int32_t pitch, int32_t* offset, uint8_t* inside, double* across, double* down,
                               float* nearly_across, float* nearly_down) {
  if (divides)
    return find_spots_of<true>(m, y, count, width, height, pitch, offset, inside, across, down, nearly_across,
                               nearly_down);
  find_spots_of<false>(m, y, count, width, height, pitch, offset, inside, across, down, nearly_across, nearly_down);
}
PL_LEVELS(find_spots,
          (const double* m, bool divides, int32_t y, int32_t count, int32_t width, int32_t height, int32_t pitch,
           int32_t* offset, uint8_t* inside, double* across, double* down, float* nearly_across, float* nearly_down),
          (m, divides, y, count, width, height, pitch, offset, inside, across, down, nearly_across, nearly_down))

PL_INLINE void join_row_body(const uint8_t* r, const uint8_t* g, const uint8_t* b, int32_t count, uint8_t* out) {
  for (int32_t x = 0; x < count; ++x) {
    const uint32_t pixel = r[x] | static_cast<uint32_t>(g[x]) << 8 | static_cast<uint32_t>(b[x]) << 16;
    std::memcpy(out + 4 * x, &pixel, sizeof pixel);
  }
}
PL_LEVELS(join_row, (const uint8_t* r, const uint8_t* g, const uint8_t* b, int32_t count, uint8_t* out),
          (r, g, b, count, out))

// A plane of gray stands for all three.
Mosaic mosaic_of(const ConstPlanes& view, Scratch<uint8_t>& memory) {
  const size_t pitch = (static_cast<size_t>(view.width) + 2 * kFrame) * 4;
  uint8_t* all = memory.need(pitch * (static_cast<size_t>(view.height) + 2 * kFrame));
  const int green = view.channels == 3 ? 1 : 0, blue = view.channels == 3 ? 2 : 0;
  for (int32_t y = 0; y < view.height; ++y) {
    uint8_t* row = all + static_cast<size_t>(y + kFrame) * pitch;
    uint8_t *first = row + 4 * kFrame, *last = first + 4 * static_cast<size_t>(view.width - 1);
    join_row(view.row(0, y), view.row(green, y), view.row(blue, y), view.width, first);
    for (size_t k = 0; k < kFrame; ++k) std::memcpy(row + 4 * k, first, 4), std::memcpy(last + 4 * (k + 1), last, 4);
  }
  for (size_t k = 0; k < kFrame; ++k) {
    std::memcpy(all + k * pitch, all + kFrame * pitch, pitch);
    std::memcpy(all + (static_cast<size_t>(view.height) + kFrame + k) * pitch,
                all + (static_cast<size_t>(view.height) + kFrame - 1) * pitch, pitch);
  }
  return {all + kFrame * pitch + 4 * kFrame, static_cast<ptrdiff_t>(pitch)};
}

// Maps that leave one axis as it is

// Where the pixels of a line come from along it.
struct Line {
  int32_t begin, end;  // the pixels that come from inside
  int32_t first;       // the pixel at or before the place of the first of them
  bool is_run;         // the others come from those that follow, one after the other
};

// The pixel x comes from 1 * (x + 0.5) + across + shift, with the roundings of find_spots.
PL_INLINE void find_line_body(double across, double shift, int32_t count, int32_t size, double* __restrict part,
                              float* __restrict nearly, Line& line) {
  const auto place = [&](int32_t x) { return 1.0 * (x + 0.5) + across + shift; };
  const auto first_at = [&](double limit) {  // the first pixel that comes from there or from beyond
    const double about = std::ceil(limit - shift - across - 0.5);
    auto x = static_cast<int32_t>(std::clamp(about, 0.0, static_cast<double>(count)));
    while (x > 0 && place(x - 1) >= limit) --x;
    while (x < count && place(x) < limit) ++x;
    return x;
  };
  const int32_t begin = first_at(0.0), end = first_at(size);
  line = {begin, end, 0, true};
  if (begin == end) return;
  line.first = static_cast<int32_t>(std::floor(place(begin) - 0.5));
  const int32_t ahead = line.first - begin;
  int32_t apart = 0;
  for (int32_t x = begin; x < end; ++x) {
    const double from = place(x) - 0.5, whole = std::floor(from);
    part[x] = from - whole, nearly[x] = static_cast<float>(part[x]);
    apart |= (static_cast<int32_t>(whole) - x) ^ ahead;
  }
  line.is_run = apart == 0;
}
PL_LEVELS(find_line,
          (double across, double shift, int32_t count, int32_t size, double* part, float* nearly, Line& line),
          (across, shift, count, size, part, nearly, line))

struct LineScratch {
  double* part;
  float* nearly;
};

LineScratch line_scratch(int32_t length, AffineScratch& scratch) {
  const size_t count = round_up(static_cast<size_t>(length), kRunGroup);
  return {scratch.fractions.need(count), scratch.rounded.need(count)};
}

void run_of(bool bilinear, const Run& run) { bilinear ? linear_run(run) : cubic_run(run); }

// Rows are moved along themselves: each pixel lies between neighbours of its own row. m: as the first three of an
// affine matrix, of which m[0] is 1. Returns false if a row is no run, by roundings.
bool move_along_rows(const Padded& from, const Planes& out, const double* m, const StepPlan& step,
                     AffineScratch& scratch) {
  const LineScratch places = line_scratch(out.width, scratch);
  Line line{};
  for (int32_t y = 0; y < out.height; ++y) {
    if (y == 0 || m[1] != 0.0)
      find_line(m[1] * (y + 0.5), m[2], out.width, out.width, places.part, places.nearly, line);
    if (!line.is_run) return false;
    for (int c = 0; c < out.channels; ++c) {
      uint8_t* to = out.row(c, y);
      if (line.begin > 0) std::memset(to, step.fill[c], static_cast<size_t>(line.begin));
      if (line.end < out.width) std::memset(to + line.end, step.fill[c], static_cast<size_t>(out.width - line.end));
      const uint8_t* tap = from.pixels + c * from.plane_stride + y * from.pitch + line.first;
      run_of(step.resample == 2, {{tap - 1, tap, tap + 1, tap + 2},
                                  places.part + line.begin,
                                  places.nearly + line.begin,
                                  line.end - line.begin,
                                  to + line.begin});
    }
  }
  return true;
}

// Whole rows are moved up or down: each comes from neighbouring rows.
void move_rows(const Padded& from, const Planes& out, const StepPlan& step, AffineScratch& scratch) {
  const LineScratch places = line_scratch(out.width, scratch);
  const auto width = static_cast<size_t>(out.width), count = round_up(width, kRunGroup);
  for (int32_t y = 0; y < out.height; ++y) {
    const double at = 0.0 + step.matrix[4] * (y + 0.5) + step.matrix[5], top = std::floor(at - 0.5);
    const bool inside = at >= 0.0 && at < out.height;
    std::fill(places.part, places.part + count, at - 0.5 - top);
    std::fill(places.nearly, places.nearly + count, static_cast<float>(at - 0.5 - top));
    for (int c = 0; c < out.channels; ++c) {
      uint8_t* to = out.row(c, y);
      if (!inside) {
        std::memset(to, step.fill[c], width);
        continue;
      }
      const uint8_t* tap = from.pixels + c * from.plane_stride + static_cast<ptrdiff_t>(top) * from.pitch;
      run_of(
          step.resample == 2,
          {{tap - from.pitch, tap, tap + from.pitch, tap + 2 * from.pitch}, places.part, places.nearly, out.width, to});
    }
  }
}

PL_INLINE void transpose_plane_body(const uint8_t* in, size_t in_stride, int32_t rows, int32_t columns, uint8_t* out,
                                    size_t out_stride) {
  transpose(in, in_stride, rows, columns, out, out_stride);
}
PL_LEVELS(transpose_plane,
          (const uint8_t* in, size_t in_stride, int32_t rows, int32_t columns, uint8_t* out, size_t out_stride),
          (in, in_stride, rows, columns, out, out_stride))

Planes transposed(const ConstPlanes& view, Scratch<uint8_t>& memory) {
  const size_t row_stride = round_up(static_cast<size_t>(view.height), 16);
  const size_t plane_stride = row_stride * round_up(static_cast<size_t>(view.width), 16);
  const Planes out{memory.need(plane_stride * static_cast<size_t>(view.channels)),
                   view.width,
                   view.height,
                   row_stride,
                   plane_stride,
                   view.channels};
  for (int c = 0; c < view.channels; ++c)
    transpose_plane(view.row(c, 0), view.row_stride, view.height, view.width, out.row(c, 0), row_stride);
  return out;
}

// Executes a map that moves pixels along one axis alone, by whole runs. Returns false if it is another, or roundings of
// its places leave no runs.
bool interpolated_runs(const ConstPlanes& view, const StepPlan& step, const Planes& out, AffineScratch& scratch) {
  const double* m = step.matrix;
  const bool rows_stay = m[3] == 0.0 && m[4] == 1.0 && m[5] == 0.0;
  const bool columns_stay = m[0] == 1.0 && m[1] == 0.0 && m[2] == 0.0;
  if (step.op == StepOp::perspective || !(rows_stay || columns_stay)) return false;
  if (rows_stay) return m[0] == 1.0 && move_along_rows(padded(view, scratch.padded), out, m, step, scratch);
  if (m[3] == 0.0) {
    move_rows(padded(view, scratch.padded), out, step, scratch);
    return true;
  }
  if (m[4] != 1.0) return false;
  const Planes turned = transposed(view, scratch.turned);
  const double along[3] = {m[4], m[3], m[5]};
  if (!move_along_rows(padded(turned, scratch.padded), turned, along, step, scratch)) return false;
  const ConstPlanes back = transposed(turned, scratch.back);
  for (int c = 0; c < out.channels; ++c)
    for (int32_t y = 0; y < out.height; ++y) std::memcpy(out.row(c, y), back.row(c, y), static_cast<size_t>(out.width));
  return true;
}

void interpolated(const ConstPlanes& view, const StepPlan& step, const Planes& out, AffineScratch& scratch) {
  if (interpolated_runs(view, step, out, scratch)) return;
  const Mosaic from = mosaic_of(view, scratch.mosaic);
  const auto count = round_up(static_cast<size_t>(out.width), kPixelGroup);
  double* parts = scratch.fractions.need(2 * count);
  float* nearly = scratch.rounded.need(2 * count);
  int32_t* offsets = scratch.places.need(2 * count);
  auto* inside = reinterpret_cast<uint8_t*>(offsets + count);
  const Spots spots{offsets, inside, parts, parts + count, nearly, nearly + count};
  for (int32_t y = 0; y < out.height; ++y) {
    find_spots(step.matrix, step.op == StepOp::perspective, y, static_cast<int32_t>(count), view.width, view.height,
               static_cast<int32_t>(from.pitch), offsets, inside, parts, parts + count, nearly, nearly + count);
    const int last = out.channels - 1;
    uint8_t* const rows[3] = {out.row(0, y), out.row(std::min(1, last), y), out.row(last, y)};
    if (step.resample == 2)
      linear_pixels(from, spots, out.width, step.fill, out.channels, rows);
    else
      cubic_pixels(from, spots, out.width, step.fill, out.channels, rows);
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
