#include <array>

#include "cpu/jitter.h"
#include "image.h"
#include "isa.h"
#include "pixels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pass_loader::cpu {
namespace {

constexpr int kLanes = kTile;

// The arithmetic is that of pixels.h.
constexpr std::array<bool, 256> kFallsShort = [] {
  std::array<bool, 256> table{};
  for (int k = 0; k < 256; ++k) table[k] = falls_short(k);
  return table;
}();

// The index is 2 * floor(quotient), plus 1 where the quotient is not whole. The value is the shifted hue byte.
struct HueTable {
  uint8_t shifted[512];
  uint8_t shift;
};

HueTable make_hue_table(int shift) {
  HueTable table;
  table.shift = static_cast<uint8_t>(shift);
  for (int i = 0; i < 512; ++i) {
    int hue = i / 2 - (i % 2 == 0 && kFallsShort[i / 2] ? 1 : 0);
    table.shifted[i] = static_cast<uint8_t>(hue + shift);
  }
  return table;
}

// `whole` is the quotient's floor; `exact` is 255 where the quotient is whole and 0 elsewhere.
PL_INLINE void rgb_to_hue_saturation(const uint8_t* red, const uint8_t* green, const uint8_t* blue, uint8_t* whole,
                                     uint8_t* exact, uint8_t* saturation, uint8_t* value) {
  for (int i = 0; i < kLanes; ++i) {
    const HueQuotients q = hue_quotients_of(red[i], green[i], blue[i]);
    whole[i] = static_cast<uint8_t>(q.floor);
    exact[i] = static_cast<uint8_t>(q.exact);
    saturation[i] = static_cast<uint8_t>(q.saturation);
    value[i] = static_cast<uint8_t>(q.value);
  }
}

PL_INLINE void hsv_to_rgb(const uint8_t* hue, const uint8_t* saturation, const uint8_t* value, uint8_t* r, uint8_t* g,
                          uint8_t* b) {
  for (int i = 0; i < kLanes; ++i) {
    const HueRamps w = hue_ramps_of(hue[i]);
    r[i] = channel_byte(value[i], saturation[i], w.r);
    g[i] = channel_byte(value[i], saturation[i], w.g);
    b[i] = channel_byte(value[i], saturation[i], w.b);
  }
}

PL_INLINE void shift_hue_body(uint8_t* red, uint8_t* green, uint8_t* blue, size_t count, const HueTable& table) {
  for (size_t at = 0; at < count; at += kLanes) {
    uint8_t whole[kLanes], exact[kLanes], hue[kLanes], saturation[kLanes], value[kLanes];
    rgb_to_hue_saturation(red + at, green + at, blue + at, whole, exact, saturation, value);
    for (int i = 0; i < kLanes; ++i) hue[i] = table.shifted[2 * whole[i] + 1 - (exact[i] & 1)];
    hsv_to_rgb(hue, saturation, value, red + at, green + at, blue + at);
  }
}

#if defined(__x86_64__) || defined(__aarch64__)
// Bit k % 8 of byte k / 8 is set if the whole quotient k falls short.
struct FallsShortBits {
  uint8_t of[32];
};
constexpr FallsShortBits kFallsShortBits = [] {
  FallsShortBits bits{};
  for (int k = 0; k < 256; ++k) bits.of[k / 8] |= static_cast<uint8_t>(kFallsShort[k] << k % 8);
  return bits;
}();
#endif

#if defined(__x86_64__)
// Computes the same quotients in 16-bit lanes: an estimate is the floor or one less, and the remainder tells which.
//
// rcpps is off by at most 1.5 / 2^12 of its value (Intel SDM, RCPPS), and its results differ between machines. kBelow
// keeps every estimate from exceeding the quotient.
constexpr float kBelow = 1.0f - 1.0f / 2048;

PL_TARGET_AVX2 PL_INLINE __m256i low_words(__m256i bytes) {
  return _mm256_unpacklo_epi8(bytes, _mm256_setzero_si256());
}
PL_TARGET_AVX2 PL_INLINE __m256i high_words(__m256i bytes) {
  return _mm256_unpackhi_epi8(bytes, _mm256_setzero_si256());
}
PL_TARGET_AVX2 PL_INLINE __m256 low_floats(__m256i words) {
  return _mm256_cvtepi32_ps(_mm256_unpacklo_epi16(words, _mm256_setzero_si256()));
}
PL_TARGET_AVX2 PL_INLINE __m256 high_floats(__m256i words) {
  return _mm256_cvtepi32_ps(_mm256_unpackhi_epi16(words, _mm256_setzero_si256()));
}

struct HueWords {
  __m256i quotient, whole, saturation;
};

// floor(85 distance / 2 chroma); all ones where that is the quotient; floor(255 chroma / value). The first two are
// undefined where chroma is 0, the last where value is 0: they do not matter there.
PL_TARGET_AVX2 PL_INLINE HueWords hue_quotients(__m256i distance, __m256i chroma, __m256i value) {
  const __m256 all = _mm256_set1_ps(32768.0f * kBelow), most = _mm256_set1_ps(255.0f * kBelow);
  __m256i reciprocal[2], estimate[2];
  for (int half = 0; half < 2; ++half) {
    const __m256 c = half ? high_floats(chroma) : low_floats(chroma);
    const __m256 v = half ? high_floats(value) : low_floats(value);
    reciprocal[half] = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_rcp_ps(c), all));
    estimate[half] = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_mul_ps(_mm256_rcp_ps(v), c), most));
  }
  const __m256i one = _mm256_set1_epi16(1);
  HueWords out;
  // The estimate is off by less than 21675 / 65536 for the reciprocal's own floor, and 0.04 for kBelow.
  const __m256i dividend = _mm256_mullo_epi16(distance, _mm256_set1_epi16(85));
  const __m256i divisor = _mm256_add_epi16(chroma, chroma);
  const __m256i near = _mm256_mulhi_epu16(dividend, _mm256_packus_epi32(reciprocal[0], reciprocal[1]));
  const __m256i rest = _mm256_sub_epi16(dividend, _mm256_mullo_epi16(near, divisor));
  out.quotient = _mm256_add_epi16(_mm256_add_epi16(near, one), _mm256_cmpgt_epi16(divisor, rest));
  out.whole = _mm256_or_si256(_mm256_cmpeq_epi16(rest, divisor), _mm256_cmpeq_epi16(rest, _mm256_setzero_si256()));
  const __m256i floor = _mm256_packus_epi32(estimate[0], estimate[1]);  // off by less than 0.3
  const __m256i times_255 = _mm256_sub_epi16(_mm256_slli_epi16(chroma, 8), chroma);
  const __m256i left = _mm256_sub_epi16(times_255, _mm256_mullo_epi16(floor, value));
  out.saturation = _mm256_add_epi16(_mm256_add_epi16(floor, one), _mm256_cmpgt_epi16(value, left));
  return out;
}

PL_TARGET_AVX2 PL_INLINE __m256i table_of(const uint8_t* sixteen) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

PL_TARGET_AVX2 PL_INLINE __m256i falls_short(__m256i k) {
  const __m256i byte = _mm256_and_si256(_mm256_srli_epi16(k, 3), _mm256_set1_epi8(31));
  // A shuffle gives 0 where the highest bit of the index is set.
  const __m256i low = _mm256_shuffle_epi8(table_of(kFallsShortBits.of), _mm256_add_epi8(byte, _mm256_set1_epi8(112)));
  const __m256i high =
      _mm256_shuffle_epi8(table_of(kFallsShortBits.of + 16), _mm256_sub_epi8(byte, _mm256_set1_epi8(16)));
  const __m256i bit = _mm256_shuffle_epi8(_mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201)),
                                          _mm256_and_si256(k, _mm256_set1_epi8(7)));
  return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_or_si256(low, high), bit), bit);
}

struct HueBytes {
  __m256i hue, saturation, value;
};

PL_TARGET_AVX2 PL_INLINE HueBytes rgb_to_hsv_avx2(__m256i r, __m256i g, __m256i b) {
  const __m256i value = _mm256_max_epu8(r, _mm256_max_epu8(g, b));
  const __m256i chroma = _mm256_sub_epi8(value, _mm256_min_epu8(r, _mm256_min_epu8(g, b)));
  const __m256i is_red = _mm256_cmpeq_epi8(r, value), is_green = _mm256_cmpeq_epi8(g, value);
  const __m256i ahead = _mm256_blendv_epi8(_mm256_blendv_epi8(r, b, is_green), g, is_red);
  const __m256i behind = _mm256_blendv_epi8(_mm256_blendv_epi8(g, r, is_green), b, is_red);
  __m256i sector = _mm256_and_si256(is_green, _mm256_set1_epi8(-85));
  sector = _mm256_andnot_si256(is_red, _mm256_add_epi8(sector, _mm256_set1_epi8(static_cast<char>(170))));
  const __m256i distance = _mm256_or_si256(_mm256_subs_epu8(ahead, behind), _mm256_subs_epu8(behind, ahead));
  const HueWords low = hue_quotients(low_words(distance), low_words(chroma), low_words(value));
  const HueWords high = hue_quotients(high_words(distance), high_words(chroma), high_words(value));
  const __m256i quotient = _mm256_packus_epi16(low.quotient, high.quotient);
  const __m256i whole = _mm256_packs_epi16(low.whole, high.whole);
  // Going back from the sector needs the floor of a negative quotient. Then the hue wraps around the circle, 255 to a
  // turn.
  const __m256i ahead_or_level = _mm256_cmpeq_epi8(_mm256_max_epu8(ahead, behind), ahead);
  const __m256i back = _mm256_xor_si256(ahead_or_level, _mm256_set1_epi8(-1));
  __m256i hue = _mm256_sub_epi8(_mm256_xor_si256(quotient, back), _mm256_and_si256(back, whole));
  hue = _mm256_add_epi8(_mm256_add_epi8(hue, sector), _mm256_and_si256(back, is_red));
  hue = _mm256_add_epi8(hue, _mm256_and_si256(whole, falls_short(hue)));
  return {hue, _mm256_packus_epi16(low.saturation, high.saturation), value};
}

// Returns 85 - w for the channel whose ramps are `steps` from their feet, where w = 2 steps - 1.
PL_TARGET_AVX2 PL_INLINE __m256i kept_of(__m256i steps) {
  return _mm256_min_epu8(_mm256_subs_epu8(_mm256_set1_epi8(86), _mm256_adds_epu8(steps, steps)), _mm256_set1_epi8(85));
}

struct ValueWords {
  __m256i saturation;  // in bytes, each next to 255 minus it
  __m256i value;
  __m256i share;  // 65536 / 21675 of the value
};

// v (21675 - s w) / 21675, rounded: 21675 - s w = s (85 - w) + (255 - s) 85. The estimate is off by less than a third.
PL_TARGET_AVX2 PL_INLINE __m256i channel_words(const ValueWords& v, __m256i kept_and_85) {
  const __m256i part = _mm256_maddubs_epi16(v.saturation, kept_and_85);
  const __m256i near = _mm256_mulhi_epu16(v.share, part);
  const __m256i covered = _mm256_mullo_epi16(near, _mm256_set1_epi16(21675));
  const __m256i rest = _mm256_sub_epi16(_mm256_mullo_epi16(v.value, part), covered);
  return _mm256_sub_epi16(near, _mm256_cmpgt_epi16(rest, _mm256_set1_epi16(21675 / 2)));
}

PL_TARGET_AVX2 PL_INLINE __m256i channel_bytes(const ValueWords (&v)[2], __m256i kept) {
  const __m256i all = _mm256_set1_epi8(85);
  return _mm256_packus_epi16(channel_words(v[0], _mm256_unpacklo_epi8(kept, all)),
                             channel_words(v[1], _mm256_unpackhi_epi8(kept, all)));
}

PL_TARGET_AVX2 PL_INLINE void hsv_to_rgb_avx2(const HueBytes& in, __m256i& r, __m256i& g, __m256i& b) {
  const __m256i grey = _mm256_xor_si256(in.saturation, _mm256_set1_epi8(-1)), zero = _mm256_setzero_si256();
  const __m256i third = _mm256_set1_epi16(774);  // 65536 / 21675 * 256, rounded down
  const ValueWords v[2] = {{_mm256_unpacklo_epi8(in.saturation, grey), low_words(in.value),
                            _mm256_mulhi_epu16(_mm256_unpacklo_epi8(zero, in.value), third)},
                           {_mm256_unpackhi_epi8(in.saturation, grey), high_words(in.value),
                            _mm256_mulhi_epu16(_mm256_unpackhi_epi8(zero, in.value), third)}};
  const __m256i half_sixth = _mm256_set1_epi8(42);
  auto away = [&](int from) PL_TARGET_AVX2 {
    const __m256i center = _mm256_set1_epi8(static_cast<char>(from));
    return _mm256_or_si256(_mm256_subs_epu8(in.hue, center), _mm256_subs_epu8(center, in.hue));
  };
  const __m256i red_end = _mm256_subs_epu8(_mm256_set1_epi8(static_cast<char>(213)), in.hue);
  r = channel_bytes(v, kept_of(_mm256_min_epu8(_mm256_subs_epu8(in.hue, half_sixth), red_end)));
  g = channel_bytes(v, kept_of(_mm256_subs_epu8(away(85), half_sixth)));
  b = channel_bytes(v, kept_of(_mm256_subs_epu8(away(170), half_sixth)));
}

PL_TARGET_AVX2 void shift_hue_avx2(uint8_t* red, uint8_t* green, uint8_t* blue, size_t count, const HueTable& table) {
  const __m256i shift = _mm256_set1_epi8(static_cast<char>(table.shift));
  for (size_t at = 0; at < count; at += 32) {
    __m256i *to_r = reinterpret_cast<__m256i*>(red + at), *to_g = reinterpret_cast<__m256i*>(green + at),
            *to_b = reinterpret_cast<__m256i*>(blue + at);
    __m256i r = _mm256_loadu_si256(to_r), g = _mm256_loadu_si256(to_g), b = _mm256_loadu_si256(to_b);
    HueBytes hsv = rgb_to_hsv_avx2(r, g, b);
    hsv.hue = _mm256_add_epi8(hsv.hue, shift);
    hsv_to_rgb_avx2(hsv, r, g, b);
    _mm256_storeu_si256(to_r, r);
    _mm256_storeu_si256(to_g, g);
    _mm256_storeu_si256(to_b, b);
  }
}

// The same at 512 bits, with masks in place of bytes of ones.
PL_TARGET_AVX512 PL_INLINE __m512i low_words(__m512i bytes) {
  return _mm512_unpacklo_epi8(bytes, _mm512_setzero_si512());
}
PL_TARGET_AVX512 PL_INLINE __m512i high_words(__m512i bytes) {
  return _mm512_unpackhi_epi8(bytes, _mm512_setzero_si512());
}
PL_TARGET_AVX512 PL_INLINE __m512 low_floats(__m512i words) {
  return _mm512_cvtepi32_ps(_mm512_unpacklo_epi16(words, _mm512_setzero_si512()));
}
PL_TARGET_AVX512 PL_INLINE __m512 high_floats(__m512i words) {
  return _mm512_cvtepi32_ps(_mm512_unpackhi_epi16(words, _mm512_setzero_si512()));
}

struct WideHueWords {
  __m512i quotient;
  __mmask32 whole;
  __m512i saturation;
};

PL_TARGET_AVX512 PL_INLINE WideHueWords hue_quotients(__m512i distance, __m512i chroma, __m512i value) {
  const __m512 all = _mm512_set1_ps(32768.0f * kBelow), most = _mm512_set1_ps(255.0f * kBelow);
  __m512i reciprocal[2], estimate[2];
  for (int half = 0; half < 2; ++half) {
    const __m512 c = half ? high_floats(chroma) : low_floats(chroma);
    const __m512 v = half ? high_floats(value) : low_floats(value);
    reciprocal[half] = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_rcp14_ps(c), all));
    estimate[half] = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_mul_ps(_mm512_rcp14_ps(v), c), most));
  }
  const __m512i one = _mm512_set1_epi16(1);
  WideHueWords out;
  const __m512i dividend = _mm512_mullo_epi16(distance, _mm512_set1_epi16(85));
  const __m512i divisor = _mm512_add_epi16(chroma, chroma);
  const __m512i near = _mm512_mulhi_epu16(dividend, _mm512_packus_epi32(reciprocal[0], reciprocal[1]));
  const __m512i rest = _mm512_sub_epi16(dividend, _mm512_mullo_epi16(near, divisor));
  out.quotient = _mm512_mask_add_epi16(near, _mm512_cmple_epi16_mask(divisor, rest), near, one);
  out.whole = _mm512_cmpeq_epi16_mask(rest, divisor) | _mm512_testn_epi16_mask(rest, rest);
  const __m512i floor = _mm512_packus_epi32(estimate[0], estimate[1]);
  const __m512i times_255 = _mm512_sub_epi16(_mm512_slli_epi16(chroma, 8), chroma);
  const __m512i left = _mm512_sub_epi16(times_255, _mm512_mullo_epi16(floor, value));
  out.saturation = _mm512_mask_add_epi16(floor, _mm512_cmple_epi16_mask(value, left), floor, one);
  return out;
}

PL_TARGET_AVX512 PL_INLINE __m512i wide_table_of(const uint8_t* sixteen) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

PL_TARGET_AVX512 PL_INLINE __mmask64 falls_short(__m512i k) {
  const __m512i byte = _mm512_and_si512(_mm512_srli_epi16(k, 3), _mm512_set1_epi8(31));
  const __m512i low =
      _mm512_shuffle_epi8(wide_table_of(kFallsShortBits.of), _mm512_add_epi8(byte, _mm512_set1_epi8(112)));
  const __m512i high =
      _mm512_shuffle_epi8(wide_table_of(kFallsShortBits.of + 16), _mm512_sub_epi8(byte, _mm512_set1_epi8(16)));
  const __m512i bit = _mm512_shuffle_epi8(_mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201)),
                                          _mm512_and_si512(k, _mm512_set1_epi8(7)));
  return _mm512_test_epi8_mask(_mm512_or_si512(low, high), bit);
}

struct WideHueBytes {
  __m512i hue, saturation, value;
};

PL_TARGET_AVX512 PL_INLINE WideHueBytes rgb_to_hsv_avx512(__m512i r, __m512i g, __m512i b) {
  const __m512i value = _mm512_max_epu8(r, _mm512_max_epu8(g, b));
  const __m512i chroma = _mm512_sub_epi8(value, _mm512_min_epu8(r, _mm512_min_epu8(g, b)));
  const __mmask64 is_red = _mm512_cmpeq_epi8_mask(r, value), is_green = _mm512_cmpeq_epi8_mask(g, value);
  const __m512i ahead = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(r, is_green, b), is_red, g);
  const __m512i behind = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(g, is_green, r), is_red, b);
  const __m512i sector = _mm512_maskz_mov_epi8(
      ~is_red, _mm512_mask_mov_epi8(_mm512_set1_epi8(static_cast<char>(170)), is_green, _mm512_set1_epi8(85)));
  const __m512i distance = _mm512_or_si512(_mm512_subs_epu8(ahead, behind), _mm512_subs_epu8(behind, ahead));
  const WideHueWords low = hue_quotients(low_words(distance), low_words(chroma), low_words(value));
  const WideHueWords high = hue_quotients(high_words(distance), high_words(chroma), high_words(value));
  const __m512i quotient = _mm512_packus_epi16(low.quotient, high.quotient);
  const __mmask64 whole =
      _mm512_movepi8_mask(_mm512_packs_epi16(_mm512_movm_epi16(low.whole), _mm512_movm_epi16(high.whole)));
  const __mmask64 back = _mm512_cmplt_epu8_mask(ahead, behind);
  const __m512i ones = _mm512_set1_epi8(-1);
  __m512i hue = _mm512_mask_sub_epi8(quotient, back, ones, quotient);
  hue = _mm512_mask_sub_epi8(hue, back & whole, hue, ones);
  hue = _mm512_add_epi8(hue, sector);
  hue = _mm512_mask_add_epi8(hue, back & is_red, hue, ones);
  hue = _mm512_mask_add_epi8(hue, whole & falls_short(hue), hue, ones);
  return {hue, _mm512_packus_epi16(low.saturation, high.saturation), value};
}

PL_TARGET_AVX512 PL_INLINE __m512i kept_of(__m512i steps) {
  return _mm512_min_epu8(_mm512_subs_epu8(_mm512_set1_epi8(86), _mm512_adds_epu8(steps, steps)), _mm512_set1_epi8(85));
}

struct WideValueWords {
  __m512i saturation, value, share;
};

PL_TARGET_AVX512 PL_INLINE __m512i channel_words(const WideValueWords& v, __m512i kept_and_85) {
  const __m512i part = _mm512_maddubs_epi16(v.saturation, kept_and_85);
  const __m512i near = _mm512_mulhi_epu16(v.share, part);
  const __m512i covered = _mm512_mullo_epi16(near, _mm512_set1_epi16(21675));
  const __m512i rest = _mm512_sub_epi16(_mm512_mullo_epi16(v.value, part), covered);
  return _mm512_mask_add_epi16(near, _mm512_cmpgt_epi16_mask(rest, _mm512_set1_epi16(21675 / 2)), near,
                               _mm512_set1_epi16(1));
}

PL_TARGET_AVX512 PL_INLINE __m512i channel_bytes(const WideValueWords (&v)[2], __m512i kept) {
  const __m512i all = _mm512_set1_epi8(85);
  return _mm512_packus_epi16(channel_words(v[0], _mm512_unpacklo_epi8(kept, all)),
                             channel_words(v[1], _mm512_unpackhi_epi8(kept, all)));
}

PL_TARGET_AVX512 PL_INLINE __m512i distance_to(__m512i hue, int from) {
  const __m512i center = _mm512_set1_epi8(static_cast<char>(from));
  return _mm512_or_si512(_mm512_subs_epu8(hue, center), _mm512_subs_epu8(center, hue));
}

PL_TARGET_AVX512 PL_INLINE void hsv_to_rgb_avx512(const WideHueBytes& in, __m512i& r, __m512i& g, __m512i& b) {
  const __m512i grey = _mm512_xor_si512(in.saturation, _mm512_set1_epi8(-1)), zero = _mm512_setzero_si512();
  const __m512i third = _mm512_set1_epi16(774);
  const WideValueWords v[2] = {{_mm512_unpacklo_epi8(in.saturation, grey), low_words(in.value),
                                _mm512_mulhi_epu16(_mm512_unpacklo_epi8(zero, in.value), third)},
                               {_mm512_unpackhi_epi8(in.saturation, grey), high_words(in.value),
                                _mm512_mulhi_epu16(_mm512_unpackhi_epi8(zero, in.value), third)}};
  const __m512i half_sixth = _mm512_set1_epi8(42);
  const __m512i red_end = _mm512_subs_epu8(_mm512_set1_epi8(static_cast<char>(213)), in.hue);
  r = channel_bytes(v, kept_of(_mm512_min_epu8(_mm512_subs_epu8(in.hue, half_sixth), red_end)));
  g = channel_bytes(v, kept_of(_mm512_subs_epu8(distance_to(in.hue, 85), half_sixth)));
  b = channel_bytes(v, kept_of(_mm512_subs_epu8(distance_to(in.hue, 170), half_sixth)));
}

PL_TARGET_AVX512 void shift_hue_avx512(uint8_t* red, uint8_t* green, uint8_t* blue, size_t count,
                                       const HueTable& table) {
  const __m512i shift = _mm512_set1_epi8(static_cast<char>(table.shift));
  for (size_t at = 0; at < count; at += 64) {
    __m512i r = _mm512_loadu_si512(red + at), g = _mm512_loadu_si512(green + at), b = _mm512_loadu_si512(blue + at);
    WideHueBytes hsv = rgb_to_hsv_avx512(r, g, b);
    hsv.hue = _mm512_add_epi8(hsv.hue, shift);
    hsv_to_rgb_avx512(hsv, r, g, b);
    _mm512_storeu_si512(red + at, r);
    _mm512_storeu_si512(green + at, g);
    _mm512_storeu_si512(blue + at, b);
  }
}
#define shift_hue_avx512vbmi shift_hue_avx512
#endif

void shift_hue_base(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, const HueTable& table) {
  shift_hue_body(r, g, b, count, table);
}
#if defined(__aarch64__)
// The way of the AVX2 kernel above, with quotients as in pixels.h: a correctly rounded division, truncated. A quotient
// is whole if its product is the dividend. Where a divisor is 0 the quotient does not matter.
PL_INLINE uint16x8_t floor_of_quotients(uint16x8_t dividend, uint16x8_t divisor) {
  auto floats = [](uint16x4_t words) { return vcvtq_f32_u32(vmovl_u16(words)); };
  const float32x4_t low = vdivq_f32(floats(vget_low_u16(dividend)), floats(vget_low_u16(divisor)));
  const float32x4_t high = vdivq_f32(floats(vget_high_u16(dividend)), floats(vget_high_u16(divisor)));
  return vuzp1q_u16(vreinterpretq_u16_u32(vcvtq_u32_f32(low)), vreinterpretq_u16_u32(vcvtq_u32_f32(high)));
}

PL_INLINE uint8x16_t low_bytes(uint16x8_t low, uint16x8_t high) {
  return vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
}

struct HueBytes {
  uint8x16_t hue, saturation, value;
};

PL_INLINE uint8x16_t falls_short(uint8x16_t k) {
  const uint8x16x2_t table = vld1q_u8_x2(kFallsShortBits.of);
  const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  return vtstq_u8(vqtbl2q_u8(table, vshrq_n_u8(k, 3)), vqtbl1q_u8(bits, vandq_u8(k, vdupq_n_u8(7))));
}

PL_INLINE HueBytes rgb_to_hsv_neon(uint8x16_t r, uint8x16_t g, uint8x16_t b) {
  const uint8x16_t value = vmaxq_u8(r, vmaxq_u8(g, b)), chroma = vsubq_u8(value, vminq_u8(r, vminq_u8(g, b)));
  const uint8x16_t is_red = vceqq_u8(r, value), is_green = vceqq_u8(g, value);
  const uint8x16_t ahead = vbslq_u8(is_red, g, vbslq_u8(is_green, b, r));
  const uint8x16_t behind = vbslq_u8(is_red, b, vbslq_u8(is_green, r, g));
  const uint8x16_t sector = vbicq_u8(vbslq_u8(is_green, vdupq_n_u8(85), vdupq_n_u8(170)), is_red);
  const uint8x16_t distance = vabdq_u8(ahead, behind);
  uint16x8_t quotient[2], whole[2], saturation[2];
  for (int half = 0; half < 2; ++half) {
    auto part = [half](uint8x16_t v) { return half ? vget_high_u8(v) : vget_low_u8(v); };
    const uint16x8_t dividend = vmull_u8(part(distance), vdup_n_u8(85));
    const uint16x8_t divisor = vaddl_u8(part(chroma), part(chroma));
    quotient[half] = floor_of_quotients(dividend, divisor);
    whole[half] = vceqq_u16(vmulq_u16(quotient[half], divisor), dividend);
    saturation[half] = floor_of_quotients(vmull_u8(part(chroma), vdup_n_u8(255)), vmovl_u8(part(value)));
  }
  const uint8x16_t all_whole = low_bytes(whole[0], whole[1]);
  // As in the AVX2 kernel: the floor of a negative quotient, then round the circle.
  const uint8x16_t back = vcltq_u8(ahead, behind);
  uint8x16_t hue = vsubq_u8(veorq_u8(low_bytes(quotient[0], quotient[1]), back), vandq_u8(back, all_whole));
  hue = vaddq_u8(vaddq_u8(hue, sector), vandq_u8(back, is_red));
  hue = vaddq_u8(hue, vandq_u8(all_whole, falls_short(hue)));
  return {hue, low_bytes(saturation[0], saturation[1]), value};
}

// Returns 85 - w for the channel whose ramps are `steps` from their feet, where w = 2 steps - 1.
PL_INLINE uint8x16_t kept_of(uint8x16_t steps) {
  return vminq_u8(vqsubq_u8(vdupq_n_u8(86), vqaddq_u8(steps, steps)), vdupq_n_u8(85));
}

// What the three channels of 8 pixels share.
struct ValueWords {
  uint8x8_t saturation;
  uint16x8_t gray_part;  // (255 - s) 85
  uint16x8_t value;
  uint16x8_t share;  // 65536 / 21675 of the value
};

PL_INLINE ValueWords value_words(uint8x8_t saturation, uint8x8_t value) {
  const uint16x8_t words = vmovl_u8(value);
  const uint16x8_t share = vmlaq_n_u16(vshrq_n_u16(vmulq_n_u16(words, 6), 8), words, 3);  // 774 v / 256
  return {saturation, vmull_u8(vmvn_u8(saturation), vdup_n_u8(85)), words, share};
}

// v (21675 - s w) / 21675, rounded: 21675 - s w = s (85 - w) + (255 - s) 85. The estimate is off by less than a third.
PL_INLINE uint16x8_t channel_words(const ValueWords& v, uint8x8_t kept) {
  const uint16x8_t part = vmlal_u8(v.gray_part, v.saturation, kept);
  const uint32x4_t low = vmull_u16(vget_low_u16(v.share), vget_low_u16(part)), high = vmull_high_u16(v.share, part);
  const uint16x8_t near = vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
  const uint16x8_t rest = vmlsq_n_u16(vmulq_u16(v.value, part), near, 21675);
  const uint16x8_t above = vcgtq_s16(vreinterpretq_s16_u16(rest), vdupq_n_s16(21675 / 2));
  return vsubq_u16(near, above);
}

PL_INLINE uint8x16_t channel_bytes(const ValueWords (&v)[2], uint8x16_t kept) {
  return low_bytes(channel_words(v[0], vget_low_u8(kept)), channel_words(v[1], vget_high_u8(kept)));
}

void shift_hue_neon(uint8_t* red, uint8_t* green, uint8_t* blue, size_t count, const HueTable& table) {
  const uint8x16_t shift = vdupq_n_u8(table.shift), half_sixth = vdupq_n_u8(42);
  for (size_t at = 0; at < count; at += 16) {
    const HueBytes in = rgb_to_hsv_neon(vld1q_u8(red + at), vld1q_u8(green + at), vld1q_u8(blue + at));
    const uint8x16_t hue = vaddq_u8(in.hue, shift);
    const ValueWords v[2] = {value_words(vget_low_u8(in.saturation), vget_low_u8(in.value)),
                             value_words(vget_high_u8(in.saturation), vget_high_u8(in.value))};
    const uint8x16_t red_steps = vminq_u8(vqsubq_u8(hue, half_sixth), vqsubq_u8(vdupq_n_u8(213), hue));
    vst1q_u8(red + at, channel_bytes(v, kept_of(red_steps)));
    const uint8x16_t from_green = vabdq_u8(hue, vdupq_n_u8(85)), from_blue = vabdq_u8(hue, vdupq_n_u8(170));
    vst1q_u8(green + at, channel_bytes(v, kept_of(vqsubq_u8(from_green, half_sixth))));
    vst1q_u8(blue + at, channel_bytes(v, kept_of(vqsubq_u8(from_blue, half_sixth))));
  }
}
#endif
PL_DISPATCH(shift_hue, (uint8_t* r, uint8_t* g, uint8_t* b, size_t count, const HueTable& table),
            (r, g, b, count, table), shift_hue)

}  // namespace

void hue(const ViewPixels& view, float turns) {
  if (view.channels == 1) return;  // without saturation, a change of hue changes nothing
  shift_hue(view.pixels, view.pixels + view.plane_stride, view.pixels + 2 * view.plane_stride, view.count,
            make_hue_table(static_cast<int>(static_cast<double>(turns) * 255.0)));
}

}  // namespace pass_loader::cpu
