// Box blurs down a strip of columns in 16-bit lanes. blur.cpp includes this file once for each instruction-set level
// and defines
//   PL_STRIP       the function's name; PL_STRIP_PASS(kind): of its parts
//   PL_TARGET      its target attribute
//   PL_VECTOR      the register: __m256i or __m512i
//   PL_OP(name)    an intrinsic of that width: _mm256_##name or _mm512_##name
//   PL_LOAD_BYTES  half a register of bytes, widened to 16 bits
//   PL_STORE_BYTES(to, v)  the low bytes of a register's 16-bit lanes

// Three pixels are given by the middle one, c, and far = left + right - 2 c. With 2^24 = ww + 2 fw + odd,
//   c ww + (left + right) fw = 2^24 c + far fw - odd c.
// This is computed in two 16-bit limbs with fw = 65536 high + low, low signed. To round the upper limb, all that
// matters of the lower one is whether it is below odd c.
struct PL_STRIP_PASS(Three) {
  PL_VECTOR high, low;
};

template <bool odd>
PL_TARGET PL_INLINE PL_VECTOR PL_STRIP_PASS(three)(PL_VECTOR above, PL_VECTOR c, PL_VECTOR below,
                                                   const PL_STRIP_PASS(Three) & weights) {
  const PL_VECTOR far = PL_OP(sub_epi16)(PL_OP(add_epi16)(above, below), PL_OP(add_epi16)(c, c));
  PL_VECTOR upper = PL_OP(add_epi16)(PL_OP(slli_epi16)(c, 8), PL_OP(set1_epi16)(128));
  upper = PL_OP(add_epi16)(
      upper, PL_OP(add_epi16)(PL_OP(mullo_epi16)(far, weights.high), PL_OP(mulhi_epi16)(far, weights.low)));
  if (odd) {
    const PL_VECTOR missing = PL_OP(subs_epu16)(c, PL_OP(mullo_epi16)(far, weights.low));
    upper = PL_OP(sub_epi16)(upper, PL_OP(min_epu16)(missing, PL_OP(set1_epi16)(1)));
  }
  return PL_OP(srli_epi16)(upper, 8);
}

// Makes the three passes of three pixels at once: a row enters, and one that no later row can change leaves.
template <bool odd>
PL_TARGET static void PL_STRIP_PASS(threes)(const uint8_t* in, size_t stride, int height, const Box& box,
                                            uint8_t* out) {
  const int below = static_cast<int16_t>(box.fw);
  const PL_STRIP_PASS(Three) weights{PL_OP(set1_epi16)(static_cast<short>((static_cast<int>(box.fw) - below) >> 16)),
                                     PL_OP(set1_epi16)(static_cast<short>(below))};
  auto row = [&](int y) PL_TARGET { return PL_LOAD_BYTES(in + static_cast<size_t>(std::min(y, height - 1)) * stride); };
  PL_VECTOR before[3], middle[3];  // what each pass has of the last two rows
  auto push = [&](int pass, PL_VECTOR next) PL_TARGET {
    const PL_VECTOR value = PL_STRIP_PASS(three)<odd>(before[pass], middle[pass], next, weights);
    before[pass] = middle[pass], middle[pass] = next;
    return value;
  };
  before[0] = middle[0] = row(0);
  PL_VECTOR first = push(0, row(1));
  before[1] = middle[1] = first;
  first = push(0, row(2));
  PL_VECTOR second = push(1, first);
  before[2] = middle[2] = second;
  for (int y = 0; y < height; ++y) {
    if (y + 2 < height) first = push(0, row(y + 3));
    if (y + 1 < height) second = push(1, first);
    const PL_VECTOR third = push(2, second);
    PL_STORE_BYTES(out + static_cast<size_t>(y) * stride, third);
  }
}

// Multiplies a sum of 10 to 14 bits by a 24-bit weight with 16-bit multiplications: weight = 4096 high + low, both at
// most 4096, and pmaddwd computes a sum of two products from interleaved (box sum, far pair).
PL_TARGET static void PL_STRIP_PASS(wide)(const PL_VECTOR* in, int height, const Box& box, PL_VECTOR* out) {
  const PL_VECTOR high = PL_OP(set1_epi32)(static_cast<int>((box.fw >> 12) << 16 | box.ww >> 12));
  const PL_VECTOR low = PL_OP(set1_epi32)(static_cast<int>((box.fw & 4095) << 16 | (box.ww & 4095)));
  const PL_VECTOR half = PL_OP(set1_epi32)(1 << 23);
  PL_VECTOR sum = in[-box.radius - 1];
  for (int y = -box.radius; y < box.radius; ++y) sum = PL_OP(add_epi16)(sum, in[y]);
  const PL_VECTOR *leaving = in - box.radius - 1, *next = in + box.radius + 1;
  for (int y = 0; y < height; ++y) {
    sum = PL_OP(add_epi16)(sum, PL_OP(sub_epi16)(next[y - 1], leaving[y]));
    const PL_VECTOR far_pair = PL_OP(add_epi16)(leaving[y], next[y]);
    PL_VECTOR part[2] = {PL_OP(unpacklo_epi16)(sum, far_pair), PL_OP(unpackhi_epi16)(sum, far_pair)};
    for (PL_VECTOR& p : part) {
      PL_VECTOR upper = PL_OP(slli_epi32)(PL_OP(madd_epi16)(p, high), 12);
      PL_VECTOR lower = PL_OP(add_epi32)(PL_OP(madd_epi16)(p, low), half);
      p = PL_OP(srli_epi32)(PL_OP(add_epi32)(upper, lower), 24);
    }
    out[y] = PL_OP(packus_epi32)(part[0], part[1]);
  }
}

// `words` holds the strip twice. Each copy has radius + 1 rows above and below that repeat its edges.
PL_TARGET static void PL_STRIP(const uint8_t* in, size_t stride, int height, const Box& box, uint16_t* words,
                               uint8_t* out) {
  if (box.radius == 0) {
    const auto run = ((1u << 24) - box.ww) % 2 == 1 ? &PL_STRIP_PASS(threes)<true> : &PL_STRIP_PASS(threes)<false>;
    return run(in, stride, height, box, out);
  }
  const int margin = box.radius + 1;
  PL_VECTOR* a = reinterpret_cast<PL_VECTOR*>(words) + margin;
  PL_VECTOR* b = a + height + 2 * margin;
  for (int y = 0; y < height; ++y) a[y] = PL_LOAD_BYTES(in + static_cast<size_t>(y) * stride);
  for (int pass = 0; pass < kBoxPasses; ++pass, std::swap(a, b)) {
    std::fill_n(a - margin, margin, a[0]);
    std::fill_n(a + height, margin, a[height - 1]);
    PL_STRIP_PASS(wide)(a, height, box, b);
  }
  for (int y = 0; y < height; ++y) PL_STORE_BYTES(out + static_cast<size_t>(y) * stride, a[y]);
}

#undef PL_STRIP
#undef PL_STRIP_PASS
#undef PL_TARGET
#undef PL_VECTOR
#undef PL_OP
#undef PL_LOAD_BYTES
#undef PL_STORE_BYTES
