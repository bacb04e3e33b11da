// Makes the weights of all axes, one output in each thread: the integers of ../weights.cpp, by the same arithmetic.
#pragma once
#include "cuda/descriptors.h"
#include "filters.h"

namespace pass_loader::cuda {

struct Weights {
  static constexpr int kPhases = 1;
  struct Shared {};
  Batch batch;

  PL_BOTH static void make(const Axis& axis, int32_t at, int32_t* table) {
    const Scaling s = scaling_of(axis.in_size, axis.resize_size, axis.interpolation);
    const double centre = centre_of(s, axis.offset + at);
    const int32_t first = first_tap(s, centre), count = end_tap(s, centre, axis.in_size) - first;
    const int32_t out = axis.reversed ? axis.out_size - 1 - at : at;
    double sum = 0.0;
    for (int32_t t = 0; t < count; ++t) sum += weight_of(s, static_cast<double>(t) + first, centre);
    sum = sum != 0.0 ? sum : 1.0;
    table[out] = first;
    table[axis.out_size + out] = count;
    int32_t* to = table + int64_t{2} * axis.out_size + out;
    for (int32_t t = 0; t < count; ++t, to += axis.out_size)
      *to = fixed_weight(weight_of(s, static_cast<double>(t) + first, centre), sum);
  }

  PL_BOTH void run(int, int32_t block, int32_t thread, Shared&) const {
    const Tile tile = batch.weights.tiles[block];
    const Resize& resize = batch.resizes[tile.item];
    const int32_t at = tile.part * kOutputsPerTile + thread, columns = resize.horizontal.out_size;
    if (at == 0 && tile.item < batch.view_count) batch.luma_sums[tile.item] = 0;
    if (at < columns)
      make(resize.horizontal, at, batch.tables + resize.horizontal.table);
    else if (at - columns < resize.vertical.out_size)
      make(resize.vertical, at - columns, batch.tables + resize.vertical.table);
  }
};

}  // namespace pass_loader::cuda
