#include "masks.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "portable_math.h"

namespace pass_loader {
namespace {

// See Slot in plan.cpp. Each of these begins a run of slots.
enum MaskSlot : uint32_t {
  kBlockTry = 0x1000000,  // two for each try: area and aspect, place
  kOrder = 0x2000000,     // four numbers in each slot
  kMultiBlockTry = 0x3000000,
  kMaskUniforms = 0x4000000,
  kRolledBlock = 0x5000000,  // aspect, place; then shifts
};

constexpr int kTries = 10;       // of a block
constexpr int kMultiTries = 20;  // of an encoder block, before a constraint is dropped

// A stream of random words in consecutive slots.
class WordStream {
 public:
  WordStream(const Draws& draws, uint32_t slot) : draws_(draws), slot_(slot) {}

  uint32_t next() {
    if (used_ == 4) {
      words_ = draws_.words(slot_++);
      used_ = 0;
    }
    return words_[used_++];
  }

 private:
  const Draws& draws_;
  uint32_t slot_;
  Words words_{};
  int used_ = 4;
};

struct Block {
  int32_t top, left, height, width;
};

// Masks the block's cells unless that would add none, or more than `budget`. Returns how many it adds.
int32_t mask_block(const Grid& grid, const Block& block, double budget, uint8_t* cells) {
  int32_t masked = 0;
  for (int32_t y = 0; y < block.height; ++y) {
    const uint8_t* row = cells + static_cast<size_t>(block.top + y) * grid.width + block.left;
    masked = std::accumulate(row, row + block.width, masked);
  }
  const int32_t added = block.height * block.width - masked;
  if (added <= 0 || added > budget) return 0;
  for (int32_t y = 0; y < block.height; ++y)
    std::fill_n(cells + static_cast<size_t>(block.top + y) * grid.width + block.left, block.width, uint8_t{1});
  return added;
}

// Makes one try. Returns 0 if the block does not fit or is not taken.
int32_t try_block(const BlockMask& mask, const Draws& draws, uint32_t slot, double budget, double log_aspect,
                  uint8_t* cells) {
  const Words shape = draws.words(slot);
  const double area = uniform(unit(shape[0], shape[1]), mask.min_area, budget);
  const double aspect = portable_exp(uniform(unit(shape[2], shape[3]), log_aspect, -log_aspect));
  const double height = std::sqrt(area * aspect), width = std::sqrt(area / aspect);
  if (height > mask.grid.height || width > mask.grid.width) return 0;
  const auto h = static_cast<int32_t>(round_half_even(height)), w = static_cast<int32_t>(round_half_even(width));
  if (h >= mask.grid.height || w >= mask.grid.width) return 0;
  const Words place = draws.words(slot + 1);
  const auto top = static_cast<int32_t>(below(place[0], static_cast<uint32_t>(mask.grid.height - h) + 1));
  const auto left = static_cast<int32_t>(below(place[1], static_cast<uint32_t>(mask.grid.width - w) + 1));
  return mask_block(mask.grid, {top, left, h, w}, budget, cells);
}

void fill_up(int32_t missing, int32_t count, const Draws& draws, uint8_t* cells) {
  std::vector<int32_t> free;
  for (int32_t i = 0; i < count; ++i)
    if (cells[i] == 0) free.push_back(i);
  WordStream words(draws, kOrder);
  for (int32_t i = 0; i < missing; ++i) {
    const auto left = static_cast<uint32_t>(free.size()) - i;
    std::swap(free[i], free[i + below(words.next(), left)]);
    cells[free[i]] = 1;
  }
}

}  // namespace

void draw_block_mask(const BlockMask& mask, const SampleKey& key, uint32_t view, uint8_t* cells) {
  const Draws draws = draws_of(key, view);
  const double log_aspect = portable_log(mask.aspect_min);
  std::fill_n(cells, mask.grid.cells(), uint8_t{0});
  int32_t count = 0;
  uint32_t slot = kBlockTry;
  while (count < mask.target) {
    const double budget = std::min(mask.target - count, mask.max_area);
    int32_t added = 0;
    for (int i = 0; i < kTries && added == 0; ++i, slot += 2)
      added = try_block(mask, draws, slot, budget, log_aspect, cells);
    if (added == 0) break;
    count += added;
  }
  const int32_t missing = std::min(static_cast<int32_t>(mask.target), mask.grid.cells()) - count;
  if (mask.exact && missing > 0) fill_up(missing, mask.grid.cells(), draws, cells);
}

void draw_rolled_block(const RolledBlock& block, const SampleKey& key, uint32_t view, uint8_t* cells) {
  const Grid& grid = block.grid;
  std::fill_n(cells, grid.cells(), uint8_t{0});
  if (block.cells == 0) return;
  const Draws draws = draws_of(key, view);
  const Words shape = draws.words(kRolledBlock), shift = draws.words(kRolledBlock + 1);
  const double count = block.cells, rows = grid.height, columns = grid.width;
  const double limit = portable_log(block.aspect_min);
  const double least = portable_log(count / (columns * columns)), most = portable_log(rows * rows / (count + 1e-5));
  const double low = std::min(std::max(limit, least), most), high = std::min(std::max(-limit, least), most);
  const double aspect = portable_exp(uniform(unit(shape[0], shape[1]), low, high));
  auto side = [](double length, int32_t longest) { return std::min(static_cast<int32_t>(std::ceil(length)), longest); };
  int32_t height = side(std::sqrt(count * aspect), grid.height), width = side(std::sqrt(count / aspect), grid.width);
  while (int64_t{height} * width < block.cells) ++(width < grid.width ? width : height);  // rounding alone
  int32_t top = static_cast<int32_t>(below(shape[2], static_cast<uint32_t>(grid.height - height) + 1));
  int32_t left = static_cast<int32_t>(below(shape[3], static_cast<uint32_t>(grid.width - width) + 1));
  if (block.roll) {
    top += static_cast<int32_t>(below(shift[0], static_cast<uint32_t>(grid.height)));
    left += static_cast<int32_t>(below(shift[1], static_cast<uint32_t>(grid.width)));
  }
  for (int32_t i = 0; i < block.cells; ++i)
    cells[(top + i / width) % grid.height * grid.width + (left + i % width) % grid.width] = 1;
}

std::array<double, 2> draw_mask_uniforms(const SampleKey& key, uint32_t view) {
  const Words words = draws_of(key, view).words(kMaskUniforms);
  return {unit(words[0], words[1]), unit(words[2], words[3])};
}

void draw_order(const SampleKey& key, uint32_t view, int32_t count, int64_t* order) {
  const Draws draws = draws_of(key, view);
  WordStream words(draws, kOrder);
  std::iota(order, order + count, int64_t{0});
  for (int32_t i = count - 1; i > 0; --i) std::swap(order[i], order[below(words.next(), static_cast<uint32_t>(i) + 1)]);
}

void draw_multi_block(const MultiBlock& masks, const SampleKey& key, int64_t* predictor_cells,
                      int32_t* predictor_counts, int64_t* encoder_cells, int32_t* encoder_counts) {
  const Draws draws = draws_of(key, 0);
  const Grid grid = masks.grid;
  WordStream words(draws, kMultiBlockTry);
  auto place = [&](const Grid& size) {
    const auto top = static_cast<int32_t>(below(words.next(), static_cast<uint32_t>(grid.height - size.height)));
    const auto left = static_cast<int32_t>(below(words.next(), static_cast<uint32_t>(grid.width - size.width)));
    return Block{top, left, size.height, size.width};
  };
  std::vector<Block> taken;
  auto is_taken = [&](int32_t y, int32_t x, size_t constraints) {
    return std::any_of(taken.begin(), taken.begin() + constraints, [&](const Block& b) {
      return y >= b.top && y < b.top + b.height && x >= b.left && x < b.left + b.width;
    });
  };
  auto list = [&](const Block& block, size_t constraints, int64_t* cells) {
    int32_t count = 0;
    for (int32_t y = block.top; y < block.top + block.height; ++y)
      for (int32_t x = block.left; x < block.left + block.width; ++x)
        if (!is_taken(y, x, constraints)) cells[count++] = int64_t{y} * grid.width + x;
    return count;
  };
  for (int32_t i = 0; i < masks.predictors; ++i) {
    taken.push_back(place(masks.predictor));
    predictor_counts[i] = list(taken.back(), 0, predictor_cells + static_cast<size_t>(i) * grid.cells());
  }
  for (int32_t i = 0; i < masks.encoders; ++i) {
    size_t constraints = taken.size();
    for (int tries = 1;; ++tries) {
      encoder_counts[i] =
          list(place(masks.encoder), constraints, encoder_cells + static_cast<size_t>(i) * grid.cells());
      if (encoder_counts[i] > masks.min_keep || (constraints == 0 && tries > kMultiTries)) break;
      if (tries % kMultiTries == 0 && constraints > 0) --constraints;
    }
  }
}

}  // namespace pass_loader
