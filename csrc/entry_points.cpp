#include "entry_points.h"

#include <cstring>

#include "crc32c.h"

namespace pass_loader {
namespace {

constexpr int64_t kMostPoints = 65535 / 8 + 1;  // rows of MCUs of any JPEG

template <typename Number>
Number load(const uint8_t* from) {
  Number value = 0;
  for (size_t i = 0; i < sizeof value; ++i) value = static_cast<Number>(value | Number{from[i]} << (8 * i));
  return value;
}

}  // namespace

EntryPoint EntryPoint::load(const uint8_t* from) {
  EntryPoint point{pass_loader::load<uint32_t>(from), {}};
  for (int c = 0; c < 3; ++c) point.dc[c] = static_cast<int16_t>(pass_loader::load<uint16_t>(from + 4 + 2 * c));
  return point;
}

void EntryPoint::append_to(std::vector<uint8_t>* points) const {
  for (int shift = 0; shift < 32; shift += 8) points->push_back(static_cast<uint8_t>(bit >> shift));
  for (const int16_t value : dc)
    for (int shift = 0; shift < 16; shift += 8)
      points->push_back(static_cast<uint8_t>(static_cast<uint16_t>(value) >> shift));
}

uint32_t check_of(std::span<const uint8_t> points, uint32_t crc, int64_t length) {
  uint8_t of_record[12];
  for (size_t i = 0; i < 4; ++i) of_record[i] = static_cast<uint8_t>(crc >> (8 * i));
  for (size_t i = 0; i < 8; ++i) of_record[4 + i] = static_cast<uint8_t>(static_cast<uint64_t>(length) >> (8 * i));
  return crc32c(of_record, crc32c(points));
}

Proof proof_of(const ProofColumns& columns, size_t row, uint32_t crc, int64_t length) {
  if (row >= columns.proven.size() || columns.proven[row] != 1 || row + 1 >= columns.ends.size()) return {};
  const int64_t begin = columns.ends[row], end = columns.ends[row + 1];
  if (begin < 0 || end < begin || end > static_cast<int64_t>(columns.points.size())) return {};
  if (end - begin > kMostPoints * static_cast<int64_t>(EntryPoint::kBytes)) return {};
  const auto points = columns.points.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  if (row >= columns.check.size() || check_of(points, crc, length) != columns.check[row]) return {};
  return {true, points};
}

}  // namespace pass_loader
