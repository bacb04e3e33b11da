// Box blurs down a strip of columns in 16-bit lanes. Included once an instruction-set level by blur.cpp, which defines
//   PL_STRIP       the function's name
//   PL_TARGET      its target attribute
//   PL_VECTOR      the register: __m256i or __m512i
//   PL_OP(name)    an intrinsic of that width: _mm256_##name or _mm512_##name
//   PL_LOAD_BYTES  half a register of bytes, widened to 16 bits
//   PL_STORE_BYTES(to, v)  the low bytes of a register's 16-bit lanes

// A product of a 10 to 14-bit sum and a 24-bit weight in 16-bit multiplications: weight = 4096 high + low, both at most
// 4096, and a sum of two products is what pmaddwd computes of interleaved (box sum, far pair).
PL_TARGET void PL_STRIP(const uint8_t* in, size_t stride, int height, const Box& box, uint16_t* a, uint16_t* b,
                        uint8_t* out) {
  constexpr int kWords = sizeof(PL_VECTOR) / 2;
  const PL_VECTOR high = PL_OP(set1_epi32)(static_cast<int>((box.fw >> 12) << 16 | box.ww >> 12));
  const PL_VECTOR low = PL_OP(set1_epi32)(static_cast<int>((box.fw & 4095) << 16 | (box.ww & 4095)));
  const PL_VECTOR half = PL_OP(set1_epi32)(1 << 23);
  auto row = [height](uint16_t* strip, int y) {
    return reinterpret_cast<PL_VECTOR*>(strip + static_cast<size_t>(std::clamp(y, 0, height - 1)) * kWords);
  };
  for (int y = 0; y < height; ++y) *row(a, y) = PL_LOAD_BYTES(in + static_cast<size_t>(y) * stride);
  for (int pass = 0; pass < kPasses; ++pass, std::swap(a, b)) {
    PL_VECTOR sum = PL_OP(mullo_epi16)(*row(a, 0), PL_OP(set1_epi16)(static_cast<short>(box.radius + 1)));
    for (int y = 0; y < box.radius; ++y) sum = PL_OP(add_epi16)(sum, *row(a, y));
    for (int y = 0; y < height; ++y) {
      const PL_VECTOR leaving = *row(a, y - box.radius - 1);
      sum = PL_OP(add_epi16)(sum, PL_OP(sub_epi16)(*row(a, y + box.radius), leaving));
      const PL_VECTOR far_pair = PL_OP(add_epi16)(leaving, *row(a, y + box.radius + 1));
      PL_VECTOR part[2] = {PL_OP(unpacklo_epi16)(sum, far_pair), PL_OP(unpackhi_epi16)(sum, far_pair)};
      for (PL_VECTOR& p : part) {
        PL_VECTOR upper = PL_OP(slli_epi32)(PL_OP(madd_epi16)(p, high), 12);
        PL_VECTOR lower = PL_OP(add_epi32)(PL_OP(madd_epi16)(p, low), half);
        p = PL_OP(srli_epi32)(PL_OP(add_epi32)(upper, lower), 24);
      }
      const PL_VECTOR blurred = PL_OP(packus_epi32)(part[0], part[1]);
      if (pass + 1 < kPasses) {
        *row(b, y) = blurred;
      } else {
        PL_STORE_BYTES(out + static_cast<size_t>(y) * stride, blurred);
      }
    }
  }
}

#undef PL_STRIP
#undef PL_TARGET
#undef PL_VECTOR
#undef PL_OP
#undef PL_LOAD_BYTES
#undef PL_STORE_BYTES
