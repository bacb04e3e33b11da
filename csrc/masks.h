// Masks over the patches of a view, for masked image modelling. They are drawn by the same keys as plans.
#pragma once
#include <array>
#include <cstdint>

#include "draws.h"

namespace pass_loader {

struct Grid {
  int32_t height, width;  // patches

  int32_t cells() const { return height * width; }
};

constexpr int32_t kMaxGridSide = 4096;

// BEiT's block-wise masking as in iBOT (loader.py:54-116), DINOv2 and DINOv3 (data/masking.py): blocks with a random
// area and aspect, until `target` cells are masked or ten tries in a row have failed.
struct BlockMask {
  Grid grid;
  double target;              // cells
  double min_area, max_area;  // of a block
  double aspect_min;          // log-uniform between this and its reciprocal
  bool exact;                 // random cells fill it up to `target`
};

// cells: grid.cells() bytes, 1 if masked. view: the view's index in the recipe.
void draw_block_mask(const BlockMask& mask, const SampleKey& key, uint32_t view, uint8_t* cells);

// The block of CAPI (data.py) and Franca (franca/data/masking.py): a rectangle of a random aspect that holds at least
// `cells` cells, of which the first in raster order are taken, then rolled around the grid's edges.
struct RolledBlock {
  Grid grid;
  int32_t cells;      // [0, grid.cells()]
  double aspect_min;  // log-uniform between this and its reciprocal, as far as the block then fits
  bool roll;
};

// cells: grid.cells() bytes, 1 if in the block.
void draw_rolled_block(const RolledBlock& block, const SampleKey& key, uint32_t view, uint8_t* cells);

// Returns two numbers in [0, 1) for a sample's view, for decisions before its mask is drawn.
std::array<double, 2> draw_mask_uniforms(const SampleKey& key, uint32_t view);

// Writes a permutation of 0 .. count - 1.
void draw_order(const SampleKey& key, uint32_t view, int32_t count, int64_t* order);

// I-JEPA's masks of one sample (src/masks/multiblock.py): blocks of given sizes at random places. The encoder's blocks
// lack the predictors' cells. No block reaches the last row or column.
struct MultiBlock {
  Grid grid;
  Grid predictor, encoder;  // sizes of blocks, each smaller than the grid
  int32_t predictors, encoders;
  int32_t min_keep;  // a mask has more cells than this
};

// Writes cells in raster order and their counts: (predictors, grid.cells()) and (predictors,), then the same for
// encoders.
void draw_multi_block(const MultiBlock& masks, const SampleKey& key, int64_t* predictor_cells,
                      int32_t* predictor_counts, int64_t* encoder_cells, int32_t* encoder_counts);

}  // namespace pass_loader
