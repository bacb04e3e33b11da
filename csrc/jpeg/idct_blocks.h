// The inverse DCT of blocks side by side, as many as a register holds rows of. idct.cpp includes this file once for
// each level and defines
//   PL_IDCT        the function's name
//   PL_TARGET      its target attribute
//   PL_VECTOR      the register: __m128i, __m256i or __m512i
//   PL_OP(name)    an intrinsic of that width: _mm_##name, ...
//   PL_LOAD(from), PL_STORE(to, v)   aligned
//   PL_OR(a, b)
//   PL_ROW(from)   8 values from memory, repeated for every block
//   PL_TWO_ROWS(out, row_stride, v)  stores the low 8 bytes of every 16 in one row, the high 8 in the next
//   PL_ANY(v)      whether any bit is set

// Makes one pass down the columns: takes and returns eight rows of 16-bit values.
PL_TARGET static inline void PL_CONCAT(PL_IDCT, _pass)(PL_VECTOR* row, int shift) {
  using V = PL_VECTOR;
  // a * x + b * y for interleaved (x, y)
  auto pair = [&](int a, int b) PL_TARGET {
    return PL_OP(set1_epi32)(static_cast<int>(static_cast<unsigned>(b) << 16 | (a & 0xffff)));
  };
  V out[8][2];
  // Shifts x up by kConstBits and adds what rounds the last shift, for interleaved (x, 16).
  const V sixteens = PL_OP(set1_epi16)(16), up_and_round = pair(1 << kConstBits, 1 << (shift - 1 - 4));
  const V even26 = pair(kF0_541 + kF0_765, kF0_541), odd26 = pair(kF0_541, kF0_541 - kF1_847);
  const V z34_3 = pair(kF1_175 - kF1_961, kF1_175), z34_4 = pair(kF1_175, kF1_175 - kF0_390);
  const V pair71_0 = pair(kF0_298 - kF0_899, -kF0_899), pair71_3 = pair(-kF0_899, kF1_501 - kF0_899);
  const V pair53_1 = pair(kF2_053 - kF2_562, -kF2_562), pair53_2 = pair(-kF2_562, kF3_072 - kF2_562);
  const V sum04 = PL_OP(add_epi16)(row[0], row[4]), difference04 = PL_OP(sub_epi16)(row[0], row[4]);
  const V sum73 = PL_OP(add_epi16)(row[7], row[3]), sum51 = PL_OP(add_epi16)(row[5], row[1]);
  for (int half = 0; half < 2; ++half) {
    // clang-format off: it indents a lambda with an attribute by its own width
    auto interleave = [half](V a, V b) PL_TARGET {
      return half ? PL_OP(unpackhi_epi16)(a, b) : PL_OP(unpacklo_epi16)(a, b);
    };
    // clang-format on
    const V in26 = interleave(row[2], row[6]);
    const V tmp3 = PL_OP(madd_epi16)(in26, even26), tmp2 = PL_OP(madd_epi16)(in26, odd26);
    const V tmp0 = PL_OP(madd_epi16)(interleave(sum04, sixteens), up_and_round);
    const V tmp1 = PL_OP(madd_epi16)(interleave(difference04, sixteens), up_and_round);
    const V even[4] = {PL_OP(add_epi32)(tmp0, tmp3), PL_OP(add_epi32)(tmp1, tmp2), PL_OP(sub_epi32)(tmp1, tmp2),
                       PL_OP(sub_epi32)(tmp0, tmp3)};
    const V z34 = interleave(sum73, sum51);
    const V z3 = PL_OP(madd_epi16)(z34, z34_3), z4 = PL_OP(madd_epi16)(z34, z34_4);
    const V in71 = interleave(row[7], row[1]), in53 = interleave(row[5], row[3]);
    const V odd[4] = {PL_OP(add_epi32)(PL_OP(madd_epi16)(in71, pair71_3), z4),
                      PL_OP(add_epi32)(PL_OP(madd_epi16)(in53, pair53_2), z3),
                      PL_OP(add_epi32)(PL_OP(madd_epi16)(in53, pair53_1), z4),
                      PL_OP(add_epi32)(PL_OP(madd_epi16)(in71, pair71_0), z3)};
    for (int k = 0; k < 4; ++k) {
      out[k][half] = PL_OP(srai_epi32)(PL_OP(add_epi32)(even[k], odd[k]), shift);
      out[7 - k][half] = PL_OP(srai_epi32)(PL_OP(sub_epi32)(even[k], odd[k]), shift);
    }
  }
  for (int k = 0; k < 8; ++k) row[k] = PL_OP(packs_epi32)(out[k][0], out[k][1]);
}

// Transposes 8 x 8 values in every 128 bits.
PL_TARGET static inline void PL_CONCAT(PL_IDCT, _transpose)(PL_VECTOR* row) {
  PL_VECTOR a[8], b[8];
  for (int k = 0; k < 4; ++k) {
    a[2 * k] = PL_OP(unpacklo_epi16)(row[2 * k], row[2 * k + 1]);
    a[2 * k + 1] = PL_OP(unpackhi_epi16)(row[2 * k], row[2 * k + 1]);
  }
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < 2; ++k) {
      b[4 * half + 2 * k] = PL_OP(unpacklo_epi32)(a[4 * half + k], a[4 * half + k + 2]);
      b[4 * half + 2 * k + 1] = PL_OP(unpackhi_epi32)(a[4 * half + k], a[4 * half + k + 2]);
    }
  for (int k = 0; k < 4; ++k) {
    row[2 * k] = PL_OP(unpacklo_epi64)(b[k], b[k + 4]);
    row[2 * k + 1] = PL_OP(unpackhi_epi64)(b[k], b[k + 4]);
  }
}

// Packs eight columns of 8 values to bytes around 128 and transposes them: pairs[k] gets rows 2k and 2k + 1 of every
// 128 bits.
PL_TARGET static inline void PL_CONCAT(PL_IDCT, _byte_rows)(const PL_VECTOR* column, PL_VECTOR* pairs) {
  PL_VECTOR bytes[4];  // columns k and k + 4
  for (int k = 0; k < 4; ++k)
    bytes[k] = PL_OP(add_epi8)(PL_OP(packs_epi16)(column[k], column[k + 4]), PL_OP(set1_epi8)(-128));
  const PL_VECTOR columns01 = PL_OP(unpacklo_epi8)(bytes[0], bytes[1]);
  const PL_VECTOR columns23 = PL_OP(unpacklo_epi8)(bytes[2], bytes[3]);
  const PL_VECTOR columns45 = PL_OP(unpackhi_epi8)(bytes[0], bytes[1]);
  const PL_VECTOR columns67 = PL_OP(unpackhi_epi8)(bytes[2], bytes[3]);
  const PL_VECTOR left[2] = {PL_OP(unpacklo_epi16)(columns01, columns23), PL_OP(unpackhi_epi16)(columns01, columns23)};
  const PL_VECTOR right[2] = {PL_OP(unpacklo_epi16)(columns45, columns67), PL_OP(unpackhi_epi16)(columns45, columns67)};
  for (int half = 0; half < 2; ++half) {
    pairs[2 * half] = PL_OP(unpacklo_epi32)(left[half], right[half]);
    pairs[2 * half + 1] = PL_OP(unpackhi_epi32)(left[half], right[half]);
  }
}

PL_TARGET static bool PL_IDCT(int16_t* coefficients, size_t groups, const int16_t* quantization, bool clear,
                              uint8_t* out, size_t row_stride) {
  constexpr size_t kLanes = sizeof(PL_VECTOR) / 16;
  PL_VECTOR factors[8];
  for (int r = 0; r < 8; ++r) factors[r] = PL_ROW(quantization + 8 * r);
  PL_VECTOR large = PL_OP(set1_epi32)(0);
  for (size_t group = 0; group < groups; ++group, coefficients += kBlockValues * kLanes, out += 8 * kLanes) {
    PL_VECTOR row[8];
    for (int r = 0; r < 8; ++r) row[r] = PL_OP(mullo_epi16)(PL_LOAD(coefficients + 8 * kLanes * r), factors[r]);
    if (clear)
      for (int r = 0; r < 8; ++r) PL_STORE(coefficients + 8 * kLanes * r, PL_OP(set1_epi32)(0));
    // Bits 13 to 15 of a value in [-8192, 8191] are equal; adding 8192 makes those in range fit 14 bits.
    large = PL_OR(large, PL_OP(add_epi16)(row[0], PL_OP(set1_epi16)(8192)));
    PL_CONCAT(PL_IDCT, _pass)(row, kConstBits - kPass1Bits);
    PL_CONCAT(PL_IDCT, _transpose)(row);
    PL_CONCAT(PL_IDCT, _pass)(row, kConstBits + kPass1Bits + 3);
    PL_VECTOR pairs[4];
    PL_CONCAT(PL_IDCT, _byte_rows)(row, pairs);
    for (int k = 0; k < 4; ++k) PL_TWO_ROWS(out + static_cast<size_t>(2 * k) * row_stride, row_stride, pairs[k]);
  }
  return !PL_ANY(PL_OP(srli_epi16)(large, 14));
}

#undef PL_IDCT
#undef PL_TARGET
#undef PL_VECTOR
#undef PL_OP
#undef PL_LOAD
#undef PL_STORE
#undef PL_OR
#undef PL_ROW
#undef PL_TWO_ROWS
#undef PL_ANY
