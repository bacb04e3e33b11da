// JFIF's conversion in 16-bit lanes, see ycc_to_rgb_body. colour.cpp includes this file once for each instruction-set
// level and defines
//   PL_YCC         the function's name
//   PL_TARGET      its target attribute
//   PL_VECTOR      the register: __m256i or __m512i
//   PL_OP(name)    an intrinsic of that width: _mm256_##name or _mm512_##name
//   PL_LOADU(from), PL_STOREU(to, v)   a register at any address
//   PL_ZERO

struct PL_CONCAT(PL_YCC, _words) {
  PL_VECTOR r, g, b;
};

PL_TARGET PL_INLINE PL_CONCAT(PL_YCC, _words) PL_CONCAT(PL_YCC, _of_words)(PL_VECTOR y, PL_VECTOR cb, PL_VECTOR cr) {
  const PL_VECTOR middle = PL_OP(set1_epi16)(128), one = PL_OP(set1_epi16)(1), half = PL_OP(set1_epi32)(32768);
  cb = PL_OP(sub_epi16)(cb, middle), cr = PL_OP(sub_epi16)(cr, middle);
  const PL_VECTOR red = PL_OP(mulhi_epi16)(PL_OP(add_epi16)(cr, cr), PL_OP(set1_epi16)(26345));
  const PL_VECTOR blue = PL_OP(mulhrs_epi16)(cb, PL_OP(set1_epi16)(-14942 / 2));  // (v factor + 16384) >> 15
  const PL_VECTOR factors = PL_OP(set1_epi32)(static_cast<int>(18734u << 16 | (-22554 & 0xffff)));
  PL_VECTOR green[2] = {PL_OP(unpacklo_epi16)(cb, cr), PL_OP(unpackhi_epi16)(cb, cr)};
  for (PL_VECTOR& part : green) part = PL_OP(srai_epi32)(PL_OP(add_epi32)(PL_OP(madd_epi16)(part, factors), half), 16);
  return {PL_OP(add_epi16)(PL_OP(add_epi16)(y, cr), PL_OP(srai_epi16)(PL_OP(add_epi16)(red, one), 1)),
          PL_OP(add_epi16)(PL_OP(sub_epi16)(y, cr), PL_OP(packs_epi32)(green[0], green[1])),
          PL_OP(add_epi16)(PL_OP(add_epi16)(y, blue), PL_OP(add_epi16)(cb, cb))};
}

PL_TARGET void PL_YCC(uint8_t* luma, uint8_t* blue, uint8_t* red, size_t count) {
  const PL_VECTOR zero = PL_ZERO;
  for (size_t at = 0; at < count; at += sizeof(PL_VECTOR)) {
    uint8_t* const planes[3] = {luma + at, blue + at, red + at};
    PL_VECTOR low[3], high[3];
    for (int c = 0; c < 3; ++c) {
      const PL_VECTOR bytes = PL_LOADU(planes[c]);
      low[c] = PL_OP(unpacklo_epi8)(bytes, zero), high[c] = PL_OP(unpackhi_epi8)(bytes, zero);
    }
    const auto left = PL_CONCAT(PL_YCC, _of_words)(low[0], low[1], low[2]);
    const auto right = PL_CONCAT(PL_YCC, _of_words)(high[0], high[1], high[2]);
    PL_STOREU(planes[0], PL_OP(packus_epi16)(left.r, right.r));
    PL_STOREU(planes[1], PL_OP(packus_epi16)(left.g, right.g));
    PL_STOREU(planes[2], PL_OP(packus_epi16)(left.b, right.b));
  }
}

#undef PL_YCC
#undef PL_TARGET
#undef PL_VECTOR
#undef PL_OP
#undef PL_LOADU
#undef PL_STOREU
#undef PL_ZERO
