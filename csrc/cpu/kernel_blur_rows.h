// The rows of torchvision's blur. kernel_blur.cpp includes this file once for each level and defines
//   PL_PART(name)       a function's name
//   PL_TARGET           its target attribute
//   PL_FLOATS           the register
//   PL_FMA(a, b, c)     a * b + c; fused where the level can
//   PL_FUSED(a, b, c)   a * b + c, fused
//   PL_MIN(a, b)
//   PL_ANY_SIGN(v)      whether a number is negative
//   PL_WIDEN(from)      a register of numbers from as many bytes
//   PL_NARROW(v, to)    the lowest byte of each number's 4, to memory

PL_TARGET static inline PL_FLOATS PL_PART(load)(const float* from) {
  PL_FLOATS values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

// Converts a row of bytes to floats, reflected at the ends without repeating the edge.
PL_TARGET static void PL_PART(widen)(const uint8_t* row, int width, int radius, float* out) {
  constexpr int kCount = sizeof(PL_FLOATS) / sizeof(float);
  for (int x = 0; x < width; x += kCount) {
    const PL_FLOATS values = PL_WIDEN(row + x);
    std::memcpy(out + x, &values, sizeof values);
  }
  for (int i = 1; i <= radius; ++i) out[-i] = out[i], out[width - 1 + i] = out[width - 1 - i];
}

// Sums along a row, for kRun neighbours together, so that a weight is loaded once for all of them. Pixels with equal
// weight are added first, which is exact.
PL_TARGET static void PL_PART(across)(const float* in, int width, Taps taps, float* out) {
  constexpr int kCount = sizeof(PL_FLOATS) / sizeof(float), kTogether = kRun / kCount;
  for (int x = 0; x < width; x += kRun, in += kRun, out += kRun) {
    PL_FLOATS sums[kTogether];
    for (int k = 0; k < kTogether; ++k) sums[k] = PL_PART(load)(in + k * kCount) * taps.weight[0];
    for (int i = 1; i <= taps.reach; ++i) {
      const PL_FLOATS weight = taps.weight[i] - PL_FLOATS{};
      for (int k = 0; k < kTogether; ++k)
        sums[k] = PL_FMA(PL_PART(load)(in + k * kCount - i) + PL_PART(load)(in + k * kCount + i), weight, sums[k]);
    }
    std::memcpy(out, sums, sizeof sums);
  }
}

// Rounds a register of sums to bytes. Returns true if one of them may lie on the other side of a half than its chain.
PL_TARGET static inline bool PL_PART(round)(PL_FLOATS sum, Doubt doubt, uint8_t* out) {
  typedef int32_t Ints __attribute__((vector_size(sizeof(PL_FLOATS))));
  const PL_FLOATS most = 128.0f - PL_FLOATS{}, whole = sum + kWhole, off = sum - (whole - kWhole);
  PL_NARROW(whole, out);
  const PL_FLOATS room = PL_FMA(PL_MIN(sum, most), PL_FLOATS{} - doubt.share, (0.5f - doubt.least) - PL_FLOATS{});
  return PL_ANY_SIGN(room - (PL_FLOATS)((Ints)off & 0x7FFFFFFF));
}

// Makes one row of bytes from the sums of the rows around it. Returns how many registers hold a doubt and writes the
// first pixel of each to `doubtful`, which has room for one more.
PL_TARGET static size_t PL_PART(down)(const float* const* row, int width, Taps taps, Doubt doubt, uint8_t* out,
                                      uint32_t first, uint32_t* doubtful) {
  constexpr int kCount = sizeof(PL_FLOATS) / sizeof(float), kTogether = kRun / kCount;
  size_t count = 0;
  uint8_t beyond[kCount];  // the bytes of a register that reaches beyond the row
  for (int run = 0; run < width; run += kRun) {
    PL_FLOATS sums[kTogether];
    for (int k = 0; k < kTogether; ++k) sums[k] = PL_PART(load)(row[0] + run + k * kCount) * taps.weight[0];
    for (int i = 1; i <= taps.reach; ++i) {
      const PL_FLOATS weight = taps.weight[i] - PL_FLOATS{};
      const float *above = row[-i] + run, *below = row[i] + run;
      for (int k = 0; k < kTogether; ++k)
        sums[k] = PL_FMA(PL_PART(load)(above + k * kCount) + PL_PART(load)(below + k * kCount), weight, sums[k]);
    }
    for (int k = 0; k < kTogether; ++k) {
      const int x = run + k * kCount;
      doubtful[count] = first + static_cast<uint32_t>(x);
      count += PL_PART(round)(sums[k], doubt, x + kCount <= width ? out + x : beyond) & (x < width);
      if (x < width && x + kCount > width) std::memcpy(out + x, beyond, static_cast<size_t>(width - x));
    }
  }
  return count;
}

// Runs torch's own arithmetic for kChains registers of pixels.
PL_TARGET static void PL_PART(chains)(const Plane& plane, const uint32_t* doubtful, size_t count, uint8_t* pixels) {
  constexpr int kCount = sizeof(PL_FLOATS) / sizeof(float);
  PL_FLOATS sums[kChains] = {};
  int x[kChains], y[kChains];
  for (size_t chain = 0; chain < kChains; ++chain) {
    const int place = static_cast<int>(doubtful[chain < count ? chain : 0]);
    x[chain] = place % plane.width, y[chain] = place / plane.width;
  }
  const Taps& taps = plane.taps;
  for (int i = -taps.span; i <= taps.span; ++i) {
    const float* from[kChains];
    for (int chain = 0; chain < kChains; ++chain) from[chain] = plane.row(y[chain] + i) + x[chain];
    const float* kernel = taps.kernel + (taps.radius + i) * (2 * taps.radius + 1) + taps.radius;
    for (int j = -taps.span; j <= taps.span; ++j)
      for (int chain = 0; chain < kChains; ++chain)
        sums[chain] = PL_FUSED(PL_PART(load)(from[chain] + j), kernel[j] - PL_FLOATS{}, sums[chain]);
  }
  for (size_t chain = 0; chain < kChains && chain < count; ++chain) {
    uint8_t bytes[kCount];
    PL_NARROW(sums[chain] + kWhole, bytes);
    std::memcpy(pixels + doubtful[chain], bytes, static_cast<size_t>(std::min(kCount, plane.width - x[chain])));
  }
}

// In each step one row becomes floats, and the row before it is summed: loads from the row just made would wait for its
// stores. The row `reach` rows before that becomes bytes again.
PL_TARGET static void PL_PART(plane)(const Plane& plane, Doubt doubt, uint32_t* doubtful, uint8_t* pixels) {
  const Taps& taps = plane.taps;
  const float* rows[2 * kMaxRadius + 1];
  size_t count = 0;
  for (int last = 0; last <= plane.height + taps.reach; ++last) {
    const int middle = last - 1, y = middle - taps.reach;
    if (last < plane.height)
      PL_PART(widen)(pixels + static_cast<size_t>(last) * plane.width, plane.width, taps.radius, plane.row(last));
    if (middle >= 0 && middle < plane.height)
      PL_PART(across)(plane.row(middle), plane.width, taps, plane.sums_of(middle));
    if (y < 0) continue;
    for (int i = -taps.reach; i <= taps.reach; ++i) rows[taps.reach + i] = plane.sums_of(plane.reflected(y + i));
    const size_t first = static_cast<size_t>(y) * plane.width;
    count += PL_PART(down)(rows + taps.reach, plane.width, taps, doubt, pixels + first, static_cast<uint32_t>(first),
                           doubtful + count);
  }
  for (size_t done = 0; done < count; done += kChains) PL_PART(chains)(plane, doubtful + done, count - done, pixels);
}

#undef PL_PART
#undef PL_TARGET
#undef PL_FLOATS
#undef PL_FMA
#undef PL_FUSED
#undef PL_MIN
#undef PL_ANY_SIGN
#undef PL_WIDEN
#undef PL_NARROW
