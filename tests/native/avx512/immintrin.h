// AVX-512's intrinsics for processors without it (`make avx512`): this header is found in place of the compiler's.
// SIMDe has most of them. Below are those that SIMDe 0.7.4 (Debian 12) lacks or gives other arguments, after Intel's
// guide, and those that shall be stricter here.
#pragma once
#include <cstdint>

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

namespace pass_loader::emulated {

using Bytes [[gnu::vector_size(64)]] = int8_t;
using Words [[gnu::vector_size(64)]] = int16_t;
using UnsignedWords [[gnu::vector_size(64)]] = uint16_t;
using Ints [[gnu::vector_size(64)]] = int32_t;
using UnsignedInts [[gnu::vector_size(64)]] = uint32_t;
using Floats [[gnu::vector_size(64)]] = float;
using QuarterBytes [[gnu::vector_size(16)]] = int8_t;
using UnsignedQuarterBytes [[gnu::vector_size(16)]] = uint8_t;
using UnsignedHalfBytes [[gnu::vector_size(32)]] = uint8_t;

inline __mmask32 cmpeq_epi16_mask(__m512i a, __m512i b) {
  return _mm512_movepi16_mask((__m512i)((Words)a == (Words)b));
}
inline __mmask32 cmpgt_epi16_mask(__m512i a, __m512i b) { return _mm512_movepi16_mask((__m512i)((Words)a > (Words)b)); }
inline __mmask32 cmpgt_epu16_mask(__m512i a, __m512i b) {
  return _mm512_movepi16_mask((__m512i)((UnsignedWords)a > (UnsignedWords)b));
}
inline __mmask32 testn_epi16_mask(__m512i a, __m512i b) { return ~_mm512_test_epi16_mask(a, b); }

inline __m512 cvtepi32_ps(__m512i v) { return __builtin_convertvector((Ints)v, Floats); }
inline __m512i cvtepu8_epi16(__m256i v) { return (__m512i) __builtin_convertvector((UnsignedHalfBytes)v, Words); }
inline __m512i cvtepu8_epi32(__m128i v) { return (__m512i) __builtin_convertvector((UnsignedQuarterBytes)v, Ints); }
inline __m128i cvtepi32_epi8(__m512i v) { return (__m128i) __builtin_convertvector((Ints)v, QuarterBytes); }
inline __m128i cvtusepi32_epi8(__m512i v) {
  const UnsignedInts values = (UnsignedInts)v, most = values - values + 255;
  return cvtepi32_epi8((__m512i)(values > most ? most : values));
}
inline __m512i cvttps_epi32(__m512 v) {
  alignas(64) float in[16];
  alignas(64) int32_t out[16];
  _mm512_store_ps(in, v);
  for (int at : {0, 8})
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + at), _mm256_cvttps_epi32(_mm256_load_ps(in + at)));
  return _mm512_load_si512(out);
}

inline __m512i srai_epi32(__m512i v, int count) { return (__m512i)((Ints)v >> count); }
inline __m512i mulhi_epu16(__m512i a, __m512i b) {
  return _mm512_inserti64x4(
      _mm512_castsi256_si512(_mm256_mulhi_epu16(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b))),
      _mm256_mulhi_epu16(_mm512_extracti64x4_epi64(a, 1), _mm512_extracti64x4_epi64(b, 1)), 1);
}

// As far off as Intel allows, to one side and to the other.
inline __m512 rcp14_ps(__m512 v) {
  Floats out = 1 / (Floats)v;
  for (int i = 0; i < 16; ++i) out[i] *= 1 + (i % 2 ? 1.0f : -1.0f) / (1 << 14);
  return out;
}

template <typename Vector>
inline __m512i compress(uint64_t mask, __m512i v) {
  const Vector in = (Vector)v;
  Vector out = in - in;
  for (size_t from = 0, to = 0; from < sizeof(in) / sizeof(in[0]); ++from)
    if (mask >> from & 1) out[to++] = in[from];
  return (__m512i)out;
}
template <typename Vector>
inline __m512i expand(uint64_t mask, __m512i v) {
  const Vector in = (Vector)v;
  Vector out = in - in;
  for (size_t from = 0, to = 0; to < sizeof(in) / sizeof(in[0]); ++to)
    if (mask >> to & 1) out[to] = in[from++];
  return (__m512i)out;
}

template <typename Vector>
inline void mask_storeu_epi8(void* to, uint64_t mask, Vector v) {
  for (size_t i = 0; i < sizeof(v); ++i)
    if (mask >> i & 1) static_cast<uint8_t*>(to)[i] = reinterpret_cast<const uint8_t*>(&v)[i];
}

// The processor ends a program whose address is no multiple of 64 here.
template <typename Address>
inline Address* aligned(Address* address) {
  if (reinterpret_cast<uintptr_t>(address) % 64 != 0) __builtin_trap();
  return address;
}

}  // namespace pass_loader::emulated

#undef _mm512_cmpeq_epi16_mask
#define _mm512_cmpeq_epi16_mask pass_loader::emulated::cmpeq_epi16_mask
#undef _mm512_cmpgt_epi16_mask
#define _mm512_cmpgt_epi16_mask pass_loader::emulated::cmpgt_epi16_mask
#undef _mm512_cmpgt_epu16_mask
#define _mm512_cmpgt_epu16_mask pass_loader::emulated::cmpgt_epu16_mask
#undef _mm512_testn_epi16_mask
#define _mm512_testn_epi16_mask pass_loader::emulated::testn_epi16_mask
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps pass_loader::emulated::cvtepi32_ps
#undef _mm512_cvtepu8_epi16
#define _mm512_cvtepu8_epi16 pass_loader::emulated::cvtepu8_epi16
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 pass_loader::emulated::cvtepu8_epi32
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 pass_loader::emulated::cvtepi32_epi8
#undef _mm512_cvtusepi32_epi8
#define _mm512_cvtusepi32_epi8 pass_loader::emulated::cvtusepi32_epi8
#undef _mm512_cvttps_epi32
#define _mm512_cvttps_epi32 pass_loader::emulated::cvttps_epi32
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 pass_loader::emulated::srai_epi32
#undef _mm512_mulhi_epu16
#define _mm512_mulhi_epu16 pass_loader::emulated::mulhi_epu16
#undef _mm512_rcp14_ps
#define _mm512_rcp14_ps pass_loader::emulated::rcp14_ps
#undef _mm512_mask_storeu_epi8
#define _mm512_mask_storeu_epi8 pass_loader::emulated::mask_storeu_epi8
#undef _mm_mask_storeu_epi8
#define _mm_mask_storeu_epi8 pass_loader::emulated::mask_storeu_epi8
#undef _mm512_maskz_compress_epi16
#define _mm512_maskz_compress_epi16 pass_loader::emulated::compress<pass_loader::emulated::Words>
#undef _mm512_maskz_expand_epi16
#define _mm512_maskz_expand_epi16 pass_loader::emulated::expand<pass_loader::emulated::Words>
#undef _mm512_maskz_expand_epi8
#define _mm512_maskz_expand_epi8 pass_loader::emulated::expand<pass_loader::emulated::Bytes>

#undef _mm512_madd_epi16
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#undef _mm512_mask_cmpge_epu8_mask
#define _mm512_mask_cmpge_epu8_mask simde_mm512_mask_cmpge_epu8_mask

#undef _mm512_load_si512
#define _mm512_load_si512(from) simde_mm512_loadu_si512(pass_loader::emulated::aligned(from))
#undef _mm512_store_si512
#define _mm512_store_si512(to, v) simde_mm512_storeu_si512(pass_loader::emulated::aligned(to), v)
#undef _mm512_stream_si512
#define _mm512_stream_si512 _mm512_store_si512
