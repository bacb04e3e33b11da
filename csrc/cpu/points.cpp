#include "cpu/points.h"

#include <algorithm>
#include <numeric>

#include "cpu/look_up_neon.h"
#include "isa.h"
#include "pixels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pass_loader::cpu {
namespace {

// Looks each of `count` bytes up, and those after them up to a whole tile.
void look_up_base(uint8_t* pixels, size_t count, const uint8_t* table) {
  for (size_t i = 0; i < count; ++i) pixels[i] = table[pixels[i]];
}

#if defined(__x86_64__)
// Looks bytes up in 16 << halvings entries. A shuffle does it in 16, by the low nibble. in_upper: its high bits choose
// between the halves of 32, 64, 128 and 256 entries.
template <int halvings>
PL_TARGET_AVX2 PL_INLINE __m256i found_avx2(const uint8_t* table, __m256i low, const __m256i (&in_upper)[4]) {
  if constexpr (halvings == 0) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), low);
  } else {
    return _mm256_blendv_epi8(found_avx2<halvings - 1>(table, low, in_upper),
                              found_avx2<halvings - 1>(table + (8 << halvings), low, in_upper), in_upper[halvings - 1]);
  }
}
PL_TARGET_AVX2 void look_up_avx2(uint8_t* pixels, size_t count, const uint8_t* table) {
  for (size_t i = 0; i < count; i += 32) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels + i));
    const __m256i in_upper[4] = {_mm256_slli_epi16(x, 3), _mm256_slli_epi16(x, 2), _mm256_slli_epi16(x, 1), x};
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi8(15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pixels + i), found_avx2<4>(table, low, in_upper));
  }
}

template <int halvings>
PL_TARGET_AVX512 PL_INLINE __m512i found_avx512(const uint8_t* table, __m512i low, const __mmask64 (&in_upper)[4]) {
  if constexpr (halvings == 0) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(part), low);
  } else {
    return _mm512_mask_blend_epi8(in_upper[halvings - 1], found_avx512<halvings - 1>(table, low, in_upper),
                                  found_avx512<halvings - 1>(table + (8 << halvings), low, in_upper));
  }
}
PL_TARGET_AVX512 void look_up_avx512(uint8_t* pixels, size_t count, const uint8_t* table) {
  for (size_t i = 0; i < count; i += kTile) {
    const __m512i x = _mm512_loadu_si512(pixels + i);
    const __mmask64 in_upper[4] = {_mm512_movepi8_mask(_mm512_slli_epi16(x, 3)),
                                   _mm512_movepi8_mask(_mm512_slli_epi16(x, 2)),
                                   _mm512_movepi8_mask(_mm512_slli_epi16(x, 1)), _mm512_movepi8_mask(x)};
    _mm512_storeu_si512(pixels + i, found_avx512<4>(table, _mm512_and_si512(x, _mm512_set1_epi8(15)), in_upper));
  }
}

PL_TARGET_VBMI void look_up_avx512vbmi(uint8_t* pixels, size_t count, const uint8_t* table) {
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
  const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  for (size_t i = 0; i < count; i += kTile) {
    const __m512i x = _mm512_loadu_si512(pixels + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, x, t1), high = _mm512_permutex2var_epi8(t2, x, t3);
    _mm512_storeu_si512(pixels + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high));
  }
}
#endif
#if defined(__aarch64__)
void look_up_neon(uint8_t* pixels, size_t count, const uint8_t* table) { look_up_in_registers(pixels, count, table); }
#endif
PL_DISPATCH(look_up, (uint8_t* pixels, size_t count, const uint8_t* table), (pixels, count, table), look_up)

// Four counters for each value, so that equal neighbours do not wait for each other.
Histogram histogram_of(const uint8_t* pixels, size_t count) {
  uint32_t parts[4][256] = {};
  size_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (size_t k = 0; k < 4; ++k) ++parts[k][pixels[i + k]];
  for (; i < count; ++i) ++parts[0][pixels[i]];
  Histogram sums;
  for (size_t v = 0; v < 256; ++v) sums[v] = parts[0][v] + parts[1][v] + parts[2][v] + parts[3][v];
  return sums;
}

uint8_t clipped(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

// The lowest and the highest byte. The loop is over registers of bytes.
PL_INLINE void find_ends_body(const uint8_t* pixels, size_t count, uint8_t& lowest, uint8_t& highest) {
  uint8_t low = 255, high = 0;
  for (size_t i = 0; i < count; ++i) low = std::min(low, pixels[i]), high = std::max(high, pixels[i]);
  lowest = low, highest = high;
}
PL_LEVELS(find_ends, (const uint8_t* pixels, size_t count, uint8_t& lowest, uint8_t& highest),
          (pixels, count, lowest, highest))

// ImageOps.autocontrast without cutoff, in Python's floats. low, high: the ends of the values that occur.
PointTable autocontrast_table(int low, int high) {
  PointTable table;
  std::iota(table.begin(), table.end(), uint8_t{0});
  if (high <= low) return table;
  const double scale = 255.0 / (high - low), offset = -low * scale;
  for (int i = 0; i < 256; ++i) table[i] = clipped(static_cast<int>(i * scale + offset));
  return table;
}

PointTable autocontrast_table(const Histogram& histogram) {
  int low = 0, high = 255;
  while (low < 255 && histogram[low] == 0) ++low;
  while (high > 0 && histogram[high] == 0) --high;
  return autocontrast_table(low, high);
}

// ImageOps.equalize: the last value that occurs does not count, and a table's numbers above 255 are clipped.
PointTable equalize_table(const Histogram& histogram) {
  PointTable table;
  std::iota(table.begin(), table.end(), uint8_t{0});
  uint64_t sum = 0;
  uint32_t last = 0;
  int values = 0;
  for (uint32_t count : histogram)
    if (count != 0) sum += count, last = count, ++values;
  const uint64_t step = (sum - last) / 255;
  if (values <= 1 || step == 0) return table;
  uint64_t n = step / 2;
  for (int i = 0; i < 256; ++i) {
    table[i] = static_cast<uint8_t>(std::min<uint64_t>(n / step, 255));
    n += histogram[i];
  }
  return table;
}

}  // namespace

template <typename Map>
void Points::each(const Map& map) {
  for (int c = 0; c < view_.channels; ++c)
    for (int i = 0; i < 256; ++i) tables_[c][i] = map(pending_ ? tables_[c][i] : i);
  pending_ = true;
}

template <typename Table>
void Points::by_histogram(const Table& table_of) {
  if (!counted_)
    for (int c = 0; c < view_.channels; ++c)
      histograms_[c] = histogram_of(view_.pixels + c * view_.plane_stride, view_.count);
  counted_ = true;
  for (int c = 0; c < view_.channels; ++c) {
    if (!pending_) {
      tables_[c] = table_of(histograms_[c]);
      continue;
    }
    Histogram now{};
    for (int i = 0; i < 256; ++i) now[tables_[c][i]] += histograms_[c][i];
    const PointTable next = table_of(now);
    for (uint8_t& value : tables_[c]) value = next[value];
  }
  pending_ = true;
}

void Points::autocontrast() {
  if (pending_ || counted_) return by_histogram([](const Histogram& counts) { return autocontrast_table(counts); });
  for (int c = 0; c < view_.channels; ++c) {
    uint8_t low, high;
    find_ends(view_.pixels + c * view_.plane_stride, view_.count, low, high);
    tables_[c] = autocontrast_table(low, high);
  }
  pending_ = true;
}

void Points::equalize() { by_histogram(equalize_table); }

void Points::invert() {
  each([](int x) { return static_cast<uint8_t>(255 - x); });
}

void Points::posterize(int bits) {
  each([mask = 255 << (8 - bits)](int x) { return static_cast<uint8_t>(x & mask); });
}

void Points::solarize(int threshold) {
  each([threshold](int x) { return static_cast<uint8_t>(solarized(x, threshold)); });
}

void Points::solarize_add(int amount) {
  each([amount](int x) { return clipped(x < 128 ? x + amount : x); });
}

void Points::brightness(float factor) {
  each([factor](int x) { return blend(0.0f, static_cast<float>(x), factor); });
}

void Points::contrast(float factor) {
  apply();
  each([mean = mean_luma(view_), factor](int x) { return blend(mean, static_cast<float>(x), factor); });
}

void Points::apply() {
  if (!pending_) return;
  for (int c = 0; c < view_.channels; ++c)
    look_up(view_.pixels + c * view_.plane_stride, view_.count, tables_[c].data());
  pending_ = counted_ = false;
}

}  // namespace pass_loader::cpu
