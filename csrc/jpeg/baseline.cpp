#include "jpeg/baseline.h"

#include <algorithm>
#include <cstring>

#include "jpeg/colour.h"
#include "jpeg/idct.h"

namespace pass_loader::jpeg {

// One for luma, one for both colour components.
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

// Copies up to the marker that ends the scan, which must be the end of the image, without the zeros stuffed behind FF bytes.
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

namespace {

int blocks_of(int32_t pixels, int per_block) { return (pixels + per_block - 1) / per_block; }

// Colour planes at their own size to full size, then both with luma to RGB.
void upsample(const BaselineScan& scan, const Planes* colour, uint16_t* sums, const Planes& planes) {
  const Upsampling upsampling{scan.horizontal, scan.vertical};
  for (int32_t y = 0; y < planes.height; ++y) {
    for (int c = 1; c < 3; ++c) {
      const Planes& small = colour[c];
      const int32_t near = y / scan.vertical;
      const bool lower = scan.vertical == 2 && y % 2 == 1;
      const int32_t far = scan.vertical == 1 ? near : std::clamp(lower ? near + 1 : near - 1, 0, small.height - 1);
      upsampling.run(small.row(0, near), small.row(0, far), lower, static_cast<size_t>(small.width), sums,
                     planes.row(c, y));
    }
    ycc_to_rgb(planes.row(0, y), planes.row(1, y), planes.row(2, y), planes.row_stride);
  }
}

}  // namespace

bool BaselineDecoder::decode_rows(const BaselineScan& scan, BitReader& reader, const Planes* components) {
  const Idct idct = current_idct();
  const int rows = blocks_of(scan.height, 8 * scan.vertical);
  McuRow mcu_row{blocks_of(scan.width, 8 * scan.horizontal), 0, idct.lanes, {}};
  struct BlockRow {
    int component, index;  // its place among the component's rows of an MCU
    size_t first, groups;  // of coefficients; of blocks
  } block_rows[4];
  int count = 0;
  size_t values = 0;
  for (int c = 0; c < scan.components; ++c)
    for (int v = 0; v < (c == 0 ? scan.vertical : 1); ++v) {
      const int wide = c == 0 ? scan.horizontal : 1;
      const size_t groups = static_cast<size_t>(blocks_of(mcu_row.mcus * wide, idct.lanes));
      block_rows[count++] = {c, v, values, groups};
      values += groups * idct.lanes * kBlockValues;
    }
  int16_t* coefficients = coefficients_.need(values);
  for (int i = 0; i < count; ++i) {
    const int c = block_rows[i].component, wide = c == 0 ? scan.horizontal : 1;
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
      const Planes& to = components[row.component];
      const int32_t tall = row.component == 0 ? scan.vertical : 1;
      if (!idct.run(coefficients + row.first, row.groups, scan.of[row.component].quantization,
                    to.row(0, 8 * (y * tall + row.index)), to.row_stride))
        return false;
    }
  }
  return true;
}

bool BaselineDecoder::decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Planes& planes) {
  for (int c = 0; c < scan.components; ++c)
    if (c < 2 ? !tables_->of[c].build(scan.of[c].dc, scan.of[c].ac)
              : std::memcmp(&scan.of[2].dc, &scan.of[1].dc, sizeof(HuffmanSpec)) != 0 ||
                    std::memcmp(&scan.of[2].ac, &scan.of[1].ac, sizeof(HuffmanSpec)) != 0)
      return false;
  BitReader reader;
  if (!unstuff(entropy, &reader)) return false;
  const bool subsampled = scan.components == 3 && scan.horizontal * scan.vertical > 1;
  Planes components[3];
  for (int c = 0; c < 3; ++c) components[c] = {planes.row(c, 0), planes.height, planes.width, planes.row_stride, 0};
  if (subsampled) {
    const int32_t height = blocks_of(scan.height, scan.vertical), width = blocks_of(scan.width, scan.horizontal);
    const size_t row_stride = round_up(width, kTile), bytes = row_stride * round_up(height, 8);
    uint8_t* colour = colour_.need(2 * bytes);
    components[1] = {colour, height, width, row_stride, 0};
    components[2] = {colour + bytes, height, width, row_stride, 0};
  }
  if (!decode_rows(scan, reader, components) || reader.bits_left() < 0 || reader.bits_left() > 7) return false;
  if (scan.components == 1) {
    for (int c = 1; c < 3; ++c) std::memcpy(planes.row(c, 0), planes.row(0, 0), planes.height * planes.row_stride);
  } else if (subsampled) {
    upsample(scan, components, sums_.need(static_cast<size_t>(scan.width) + 2 * kTile), planes);
  } else {
    ycc_to_rgb(planes.row(0, 0), planes.row(1, 0), planes.row(2, 0), planes.height * planes.row_stride);
  }
  return true;
}

}  // namespace pass_loader::jpeg
