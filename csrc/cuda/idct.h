// Blocks to samples: expands those of records of the codec "dct" to coefficients, takes a JPEG's as they are, and
// transforms them. The bytes are those of ../jpeg/dct_unpack.cpp and ../jpeg/idct.cpp: libjpeg's accurate integer IDCT
// (jidctint.c) in the 16-bit steps of libjpeg-turbo's SIMD code.
#pragma once
#include "cuda/dct_rows.h"
#include "cuda/scan.h"

namespace pass_loader::cuda {

// A block's values in the block's shared memory: those of one thread are kThreads apart, so that threads do not wait
// for each other's banks.
struct BlockValues {
  int16_t* first;
  PL_BOTH int16_t& operator[](int32_t i) const { return first[i * kThreads]; }
};

PL_BOTH int16_t wrap(int32_t v) { return static_cast<int16_t>(v); }

// Writes the dequantised coefficients. Returns false for a wide size that is none, or for a value in the first row that
// no picture of 8 bits has.
PL_BOTH bool expand(const DctForm& form, const GpuForm::Component& of, const BlockPlace& place, int32_t block,
                    const BlockValues& values) {
  PL_UNROLL
  for (int32_t i = 0; i < GpuForm::kBlockValues; ++i) values[i] = 0;
  const uint64_t masks = bits_at(form.stream(DctForm::kMasks), 8 * place.masks);
  const uint64_t signs = bits_at(form.stream(DctForm::kSigns), place.bits);
  const uint64_t larger = bits_at(form.stream(DctForm::kLarger), place.bits);
  const uint8_t* nibbles = form.stream(DctForm::kNibbles) + place.nibbles;
  const uint8_t* bytes = form.stream(DctForm::kBytes) + place.bytes;
  const uint8_t* wide = form.stream(DctForm::kWideSizes) + place.wide;
  values[0] = wrap(place.dc * of.quantization[0]);
  bool sound = values[0] >= -8192 && values[0] < 8192;
  int32_t k = 0, nibble = 0, shift = 0;
  for (uint32_t flags = form.stream(DctForm::kFlags)[block]; flags != 0; flags &= flags - 1, shift += 8) {
    const int32_t row = lowest_bit(flags);
    for (uint32_t mask = masks >> shift & 255; mask != 0; mask &= mask - 1, ++k) {
      int32_t size = 1;
      if ((larger >> k & 1) != 0) {
        const uint32_t more = nibbles[nibble / 2] >> (4 * (nibble % 2)) & 15u;
        ++nibble;
        size = 2 + static_cast<int32_t>(more);
        if (more == kLongest) {
          const uint32_t byte = *bytes++;
          size = 17 + static_cast<int32_t>(byte);
          if (byte >= kWideFrom) {
            size = load_i16(wide);
            wide += 2;
            sound &= size >= 17 + static_cast<int32_t>(kWideFrom);
          }
        }
      }
      const int32_t at = 8 * row + lowest_bit(mask);
      const int16_t value = wrap(((signs >> k & 1) != 0 ? -size : size) * of.quantization[at]);
      sound &= row > 0 || (value >= -8192 && value < 8192);
      values[at] = value;
    }
  }
  return sound;
}

PL_BOTH int32_t add(int32_t a, int32_t b) {  // wraps around
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
PL_BOTH int32_t subtract(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

// Transforms eight values, to 16 bits each. Fixed point with 13 fractional bits (jidctint.c).
PL_BOTH void transform(const int32_t (&in)[8], int32_t shift, int32_t (&out)[8]) {
  constexpr int32_t k0_298 = 2446, k0_390 = 3196, k0_541 = 4433, k0_765 = 6270, k0_899 = 7373, k1_175 = 9633,
                    k1_501 = 12299, k1_847 = 15137, k1_961 = 16069, k2_053 = 16819, k2_562 = 20995, k3_072 = 25172;
  const int32_t tmp3 = add((k0_541 + k0_765) * in[2], k0_541 * in[6]);
  const int32_t tmp2 = add(k0_541 * in[2], (k0_541 - k1_847) * in[6]);
  const int32_t tmp0 = wrap(in[0] + in[4]) * (1 << 13), tmp1 = wrap(in[0] - in[4]) * (1 << 13);
  const int32_t even[4] = {add(tmp0, tmp3), add(tmp1, tmp2), subtract(tmp1, tmp2), subtract(tmp0, tmp3)};
  const int32_t sum73 = wrap(in[7] + in[3]), sum51 = wrap(in[5] + in[1]);
  const int32_t z3 = add((k1_175 - k1_961) * sum73, k1_175 * sum51);
  const int32_t z4 = add(k1_175 * sum73, (k1_175 - k0_390) * sum51);
  const int32_t odd[4] = {add(add(-k0_899 * in[7], (k1_501 - k0_899) * in[1]), z4),
                          add(add(-k2_562 * in[5], (k3_072 - k2_562) * in[3]), z3),
                          add(add((k2_053 - k2_562) * in[5], -k2_562 * in[3]), z4),
                          add(add((k0_298 - k0_899) * in[7], -k0_899 * in[1]), z3)};
  PL_UNROLL
  for (int32_t k = 0; k < 4; ++k) {
    const int32_t rounded = add(even[k], 1 << (shift - 1));
    out[k] = clamped(add(rounded, odd[k]) >> shift, INT16_MIN, INT16_MAX);
    out[7 - k] = clamped(subtract(rounded, odd[k]) >> shift, INT16_MIN, INT16_MAX);
  }
}

// Transforms the values, which it overwrites, to 8 rows of 8 bytes at multiples of 8.
PL_BOTH void write_block(const BlockValues& values, uint8_t* to, int64_t row_stride) {
  int32_t in[8], out[8];
  for (int32_t c = 0; c < 8; ++c) {
    PL_UNROLL
    for (int32_t k = 0; k < 8; ++k) in[k] = values[8 * k + c];
    transform(in, 13 - 2, out);
    PL_UNROLL
    for (int32_t k = 0; k < 8; ++k) values[8 * k + c] = static_cast<int16_t>(out[k]);
  }
  for (int32_t r = 0; r < 8; ++r, to += row_stride) {
    PL_UNROLL
    for (int32_t k = 0; k < 8; ++k) in[k] = values[8 * r + k];
    transform(in, 13 + 2 + 3, out);
    uint32_t words[2] = {0, 0};
    PL_UNROLL
    for (int32_t k = 0; k < 8; ++k)
      words[k / 4] |= static_cast<uint32_t>(clamped(out[k], -128, 127) + 128) << (8 * (k % 4));
    store_two(to, words[0], words[1]);
  }
}

// Writes the dequantised coefficients of a block. Returns false for one in the first row that no picture of 8 bits has.
PL_BOTH bool dequantise(const int16_t* coefficients, const GpuForm::Component& of, const BlockValues& values) {
  bool sound = true;
  for (int32_t i = 0; i < GpuForm::kBlockValues; ++i) {
    const int16_t value = wrap(coefficients[i] * of.quantization[i]);
    sound &= i >= 8 || (value >= -8192 && value < 8192);
    values[i] = value;
  }
  return sound;
}

// A thread for each block. Neighbouring threads write neighbouring bytes of a row. Where the kernels before have
// refused the picture nothing is read: its places may lie anywhere.
template <GpuForm::Kind kind>
struct IdctOf {
  static constexpr int kPhases = 1;
  struct Shared {
    int16_t values[GpuForm::kBlockValues * kThreads];
  };
  Decoding decoding;

  PL_BOTH void run(int, int32_t block, int32_t thread, Shared& shared) const {
    constexpr bool kIsDct = kind == GpuForm::Kind::dct;
    const Tile tile = (kIsDct ? decoding.blocks : decoding.scan_blocks).tiles[block];
    const CodedPicture& picture = decoding.pictures[tile.item];
    const GpuForm& form = *picture.form;
    const int32_t number = tile.part * kThreads + thread;
    if (*picture.verdict != 0) return;
    int32_t c = 0, left = number;
    for (; c < form.components && left >= form.of[c].rows * form.of[c].columns; ++c)
      left -= form.of[c].rows * form.of[c].columns;
    if (c == form.components) return;
    const GpuForm::Component& of = form.of[c];
    const BlockValues values{shared.values + thread};
    const bool sound = kIsDct ? expand(picture.dct(), of, picture.places[number], number, values)
                              : dequantise(picture.coefficients + int64_t{number} * GpuForm::kBlockValues, of, values);
    if (!sound) *picture.verdict = 1;
    const int64_t row_stride = int64_t{8} * of.columns;
    write_block(values, picture.planes[c] + left / of.columns * 8 * row_stride + left % of.columns * 8, row_stride);
  }
};
struct Idct : IdctOf<GpuForm::Kind::dct> {};
struct ScanIdct : IdctOf<GpuForm::Kind::scan> {};

// launch(kernel, blocks), blocks >= 1: three to five calls.
template <typename Launch>
void launch_decoding(const Decoding& decoding, const Launch& launch) {
  if (decoding.rows.count > 0) {
    launch(DctRows{decoding}, row_blocks(decoding.rows));
    launch(Idct{{decoding}}, decoding.blocks.count);
  }
  if (decoding.mcu_rows.count > 0) {
    launch(Scans{decoding}, row_blocks(decoding.mcu_rows));
    launch(ScanIdct{{decoding}}, decoding.scan_blocks.count);
  }
  launch(ToRgb{{decoding.components, decoding.rgb}}, decoding.rgb.count);
}

}  // namespace pass_loader::cuda
