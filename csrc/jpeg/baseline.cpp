#include "jpeg/baseline.h"

#include <algorithm>
#include <cstring>

#include "entry_points.h"
#include "jpeg/idct.h"

namespace pass_loader::jpeg {

// One set for luma, one for both colour components.
struct BaselineDecoder::Tables {
  struct Pair {
    SymbolTable dc;
    AcTable ac;
    bool built = false;

    bool build(const HuffmanSpec& dc_spec, const HuffmanSpec& ac_spec) {
      auto same = [](const HuffmanSpec& a, const HuffmanSpec& b) { return std::memcmp(&a, &b, sizeof a) == 0; };
      if (built && same(dc.code.spec, dc_spec) && same(ac.code.spec, ac_spec)) return true;
      built = dc.build(dc_spec, kMostDcSize) && ac.build(ac_spec);
      return built;
    }
  } of[2];
};

BaselineDecoder::BaselineDecoder() : tables_(std::make_unique<Tables>()) {}
BaselineDecoder::~BaselineDecoder() = default;

// Unstuffs up to the marker that ends the scan. That must be the end of the image.
bool BaselineDecoder::unstuff_all(std::span<const uint8_t> entropy, BitReader* reader) {
  const std::span<const uint8_t> left = unstuff(entropy, bits_, reader);
  return left.size() >= 2 && left[1] == 0xd9;
}

bool BaselineDecoder::lay_out(const BaselineScan& scan, int lanes, Layout* layout) {
  const Frame& frame = scan.frame;
  for (int c = 0; c < frame.components; ++c)
    if (c < 2 ? !tables_->of[c].build(scan.dc[c], scan.ac[c])
              : std::memcmp(&scan.dc[2], &scan.dc[1], sizeof(HuffmanSpec)) != 0 ||
                    std::memcmp(&scan.ac[2], &scan.ac[1], sizeof(HuffmanSpec)) != 0)
      return false;
  layout->rows = frame.mcu_rows();
  McuRow& mcu_row = layout->mcu_row = {frame.mcu_columns(), 0, lanes, {}};
  layout->count = 0;
  layout->values = 0;
  for (int c = 0; c < frame.components; ++c)
    for (int v = 0; v < frame.of[c].vertical; ++v) {
      const auto groups = static_cast<size_t>((mcu_row.mcus * frame.of[c].horizontal + lanes - 1) / lanes);
      layout->block_rows[layout->count++] = {c, v, layout->values, groups};
      layout->values += groups * static_cast<size_t>(lanes) * kBlockValues;
    }
  layout->coefficients = coefficients_.need(layout->values);
  for (int i = 0; i < layout->count; ++i) {
    const int c = layout->block_rows[i].component, wide = frame.of[c].horizontal;
    const auto& tables = tables_->of[c > 0];
    for (int h = 0; h < wide; ++h)
      mcu_row.block[mcu_row.blocks++] = {&tables.dc, &tables.ac, c, layout->coefficients + layout->block_rows[i].first,
                                         h,          wide};
  }
  return true;
}

BaselineDecoder::Needed BaselineDecoder::needed(const BaselineScan& scan, const Assembly& assembly) {
  Needed all{INT32_MAX, 0, 0};
  for (int c = 0; c < scan.frame.components; ++c) {
    const Blocks blocks = assembly.needed(c);
    const auto& [horizontal, vertical, _] = scan.frame.of[c];
    all.first_row = std::min(all.first_row, blocks.first_row / vertical);
    all.end_row = std::max(all.end_row, (blocks.end_row + vertical - 1) / vertical);
    all.end_column = std::max(all.end_column, (blocks.end_column + horizontal - 1) / horizontal);
  }
  return all;
}

namespace {

struct Groups {
  size_t first, count;
};

Groups groups_of(const Blocks& needed, int lanes) {
  const size_t first = static_cast<size_t>(needed.first_column / lanes);
  return {first, static_cast<size_t>((needed.end_column + lanes - 1) / lanes) - first};
}

}  // namespace

// Transforms what is needed of row y of MCUs, and leaves zeros where the next row's needed coefficients will be. Other
// blocks may hold anything: nobody reads them.
bool BaselineDecoder::transform(const Layout& layout, const BaselineScan& scan, const Assembly& assembly, int y) {
  const Idct idct = current_idct();
  const auto lanes = static_cast<size_t>(idct.lanes);
  for (int i = 0; i < layout.count; ++i) {
    const auto& row = layout.block_rows[i];
    const Frame::Component& component = scan.frame.of[row.component];
    const int32_t block_row = y * component.vertical + row.index;
    const Blocks needed = assembly.needed(row.component);
    const Groups groups = groups_of(needed, idct.lanes);
    int16_t* coefficients = layout.coefficients + row.first + groups.first * lanes * kBlockValues;
    if (block_row < needed.first_row || block_row >= needed.end_row) {
      std::fill_n(coefficients, groups.count * lanes * kBlockValues, int16_t{0});
      continue;
    }
    const Planes& to = assembly.component(row.component);
    if (!idct.run(coefficients, groups.count, component.quantization, true,
                  to.row(0, 8 * block_row) + 8 * groups.first * lanes, to.row_stride))
      return false;
  }
  return true;
}

namespace {

// Where a reader stands in a scan that it reads from the beginning.
class Position {
 public:
  explicit Position(const BitReader& reader) : begin_(reader.next), counted_(reader.next) {}

  // Returns the bit, stuffed zeros counted. Never goes back.
  int64_t bit(const BitReader& reader) {
    const int64_t bit = 8 * (reader.next - begin_) - reader.count;
    const uint8_t* byte = begin_ + bit / 8;
    stuffed_ += std::count(counted_, byte, uint8_t{0xff});
    counted_ = byte;
    return bit + 8 * stuffed_;
  }

 private:
  const uint8_t *begin_, *counted_;
  int64_t stuffed_ = 0;
};

}  // namespace

bool BaselineDecoder::decode(const BaselineScan& scan, std::span<const uint8_t> entropy, const Assembly& assembly,
                             std::vector<uint8_t>* points) {
  Layout layout;
  BitReader reader;
  if (!lay_out(scan, current_idct().lanes, &layout) || !unstuff_all(entropy, &reader)) return false;
  const Needed all = needed(scan, assembly);
  const int mcus = layout.mcu_row.mcus;
  Position position(reader);
  int32_t predictions[3] = {};
  for (int y = 0; y < all.end_row; ++y) {
    if (points != nullptr) {
      EntryPoint point{static_cast<uint32_t>(position.bit(reader)), {}};
      std::copy_n(predictions, 3, point.dc);
      point.append_to(points);
    }
    if (y == all.first_row) std::fill_n(layout.coefficients, layout.values, int16_t{0});
    if (y == all.end_row - 1) layout.mcu_row.mcus = all.end_column;
    if (!decode_mcus(reader, layout.mcu_row, predictions)) return false;
    if (y >= all.first_row && !transform(layout, scan, assembly, y)) return false;
  }
  if (points != nullptr && entropy.size() > UINT32_MAX / 8) points->clear();
  const bool is_all = all.end_row == layout.rows && all.end_column == mcus;
  return reader.bits_left() >= 0 && (!is_all || reader.bits_left() <= 7);
}

bool BaselineDecoder::decode_from(std::span<const uint8_t> points, const BaselineScan& scan,
                                  std::span<const uint8_t> entropy, const Assembly& assembly) {
  Layout layout;
  if (!lay_out(scan, current_idct().lanes, &layout)) return false;
  if (points.size() != static_cast<size_t>(layout.rows) * EntryPoint::kBytes) return false;
  const Needed all = needed(scan, assembly);
  layout.mcu_row.mcus = all.end_column;
  std::fill_n(layout.coefficients, layout.values, int16_t{0});
  const auto point_of = [&](int y) { return EntryPoint::load(&points[static_cast<size_t>(y) * EntryPoint::kBytes]); };
  for (int y = all.first_row; y < all.end_row; ++y) {
    const EntryPoint point = point_of(y);
    const size_t begin = point.bit / 8;
    const size_t end = y + 1 < layout.rows ? size_t{point_of(y + 1).bit} / 8 + 1 : entropy.size();
    if (begin >= end || end > entropy.size()) return false;
    BitReader reader;
    unstuff(entropy.subspan(begin, end - begin), bits_, &reader);
    reader.refill();
    reader.skip(static_cast<int>(point.bit % 8));
    int32_t predictions[3] = {point.dc[0], point.dc[1], point.dc[2]};
    if (!decode_mcus(reader, layout.mcu_row, predictions) || reader.bits_left() < 0) return false;
    if (!transform(layout, scan, assembly, y)) return false;
  }
  return true;
}

bool BaselineDecoder::read(const BaselineScan& scan, std::span<const uint8_t> entropy, const TakeRow& take) {
  Layout layout;
  BitReader reader;
  if (!lay_out(scan, 1, &layout) || !unstuff_all(entropy, &reader)) return false;
  int32_t predictions[3] = {};
  for (int y = 0; y < layout.rows; ++y) {
    std::memset(layout.coefficients, 0, layout.values * sizeof(int16_t));
    if (!decode_mcus(reader, layout.mcu_row, predictions)) return false;
    for (int i = 0; i < layout.count; ++i) {
      const auto& row = layout.block_rows[i];
      const int32_t block_row = y * scan.frame.of[row.component].vertical + row.index;
      if (block_row < scan.frame.block_rows(row.component) &&
          !take(row.component, block_row, layout.coefficients + row.first))
        return false;
    }
  }
  return reader.bits_left() >= 0 && reader.bits_left() <= 7;
}

}  // namespace pass_loader::jpeg
