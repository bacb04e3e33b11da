#include "jpeg/baseline.h"

#include <cstring>

#include "jpeg/idct.h"

namespace pass_loader::jpeg {

// One set for luma, one for both colour components.
struct BaselineDecoder::Tables {
  struct Pair {
    DcTable dc;
    AcTable ac;
    bool built = false;

    bool build(const HuffmanSpec& dc_spec, const HuffmanSpec& ac_spec) {
      auto same = [](const HuffmanSpec& a, const HuffmanSpec& b) { return std::memcmp(&a, &b, sizeof a) == 0; };
      if (built && same(dc.code.spec, dc_spec) && same(ac.code.spec, ac_spec)) return true;
      built = dc.build(dc_spec) && ac.build(ac_spec);
      return built;
    }
  } of[2];
};

BaselineDecoder::BaselineDecoder() : tables_(std::make_unique<Tables>()) {}
BaselineDecoder::~BaselineDecoder() = default;

// Copies the scan, without the zeros that are stuffed after FF bytes, up to the marker that ends it. That must be the
// end of the image.
bool BaselineDecoder::unstuff(std::span<const uint8_t> entropy, BitReader* reader) {
  uint8_t* out = bits_.need(entropy.size() + BitReader::kPadding);
  reader->next = out;
  const uint8_t *from = entropy.data(), *end = from + entropy.size();
  while (true) {
    const auto* marker = static_cast<const uint8_t*>(std::memchr(from, 0xff, static_cast<size_t>(end - from)));
    if (marker == nullptr || marker + 1 == end) return false;
    const size_t plain = static_cast<size_t>(marker - from);
    std::memcpy(out, from, plain);
    out += plain;
    if (marker[1] != 0) {
      std::memset(out, 0, BitReader::kPadding);
      reader->end = out;
      return marker[1] == 0xd9;
    }
    *out++ = 0xff;
    from = marker + 2;
  }
}

// Calls use(component, y, coefficients, groups) for each block row, padding to whole MCUs included. The blocks of a
// group lie interleaved (idct.h).
template <typename Use>
bool BaselineDecoder::decode_rows(const BaselineScan& scan, std::span<const uint8_t> entropy, int lanes,
                                  const Use& use) {
  const Frame& frame = scan.frame;
  for (int c = 0; c < frame.components; ++c)
    if (c < 2 ? !tables_->of[c].build(scan.dc[c], scan.ac[c])
              : std::memcmp(&scan.dc[2], &scan.dc[1], sizeof(HuffmanSpec)) != 0 ||
                    std::memcmp(&scan.ac[2], &scan.ac[1], sizeof(HuffmanSpec)) != 0)
      return false;
  BitReader reader;
  if (!unstuff(entropy, &reader)) return false;
  const auto blocks_of = [](int32_t pixels, int per_block) { return (pixels + per_block - 1) / per_block; };
  const int rows = blocks_of(frame.height, 8 * frame.of[0].vertical);
  McuRow mcu_row{blocks_of(frame.width, 8 * frame.of[0].horizontal), 0, lanes, {}};
  struct BlockRow {
    int component, index;  // index: the row's place among the component's rows of an MCU
    size_t first, groups;  // the first coefficient; groups of blocks
  } block_rows[4];
  int count = 0;
  size_t values = 0;
  for (int c = 0; c < frame.components; ++c)
    for (int v = 0; v < frame.of[c].vertical; ++v) {
      const size_t groups = static_cast<size_t>(blocks_of(mcu_row.mcus * frame.of[c].horizontal, lanes));
      block_rows[count++] = {c, v, values, groups};
      values += groups * static_cast<size_t>(lanes) * kBlockValues;
    }
  int16_t* coefficients = coefficients_.need(values);
  for (int i = 0; i < count; ++i) {
    const int c = block_rows[i].component, wide = frame.of[c].horizontal;
    const auto& tables = tables_->of[c > 0];
    for (int h = 0; h < wide; ++h)
      mcu_row.block[mcu_row.blocks++] = {&tables.dc, &tables.ac, c, coefficients + block_rows[i].first, h, wide};
  }
  int32_t predictions[3] = {};
  for (int y = 0; y < rows; ++y) {
    std::memset(coefficients, 0, values * sizeof *coefficients);
    if (!decode_mcus(reader, mcu_row, predictions)) return false;
    for (int i = 0; i < count; ++i) {
      const BlockRow& row = block_rows[i];
      if (!use(row.component, y * frame.of[row.component].vertical + row.index, coefficients + row.first, row.groups))
        return false;
    }
  }
  return reader.bits_left() >= 0 && reader.bits_left() <= 7;
}

bool BaselineDecoder::decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Assembly& assembly) {
  const Idct idct = current_idct();
  return decode_rows(scan, entropy, idct.lanes, [&](int c, int32_t y, const int16_t* coefficients, size_t groups) {
    const Planes& to = assembly.component(c);
    return idct.run(coefficients, groups, scan.frame.of[c].quantization, to.row(0, 8 * y), to.row_stride);
  });
}

bool BaselineDecoder::read(const BaselineScan& scan, std::span<const uint8_t> entropy, const TakeRow& take) {
  return decode_rows(scan, entropy, 1, [&](int c, int32_t y, const int16_t* coefficients, size_t) {
    return y >= scan.frame.block_rows(c) || take(c, y, coefficients);
  });
}

}  // namespace pass_loader::jpeg
