// Masks for Python: takes arrays of keys, returns arrays of cells.
#include <algorithm>
#include <cmath>
#include <vector>

#include <pybind11/numpy.h>

#include "bindings.h"
#include "error.h"
#include "masks.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pass_loader {
namespace {

void check_grid(const char* what, const Grid& grid, int32_t most_height, int32_t most_width) {
  PL_CHECK(grid.height >= 1 && grid.width >= 1 && grid.height <= most_height && grid.width <= most_width,
           Fault::argument, "%s is %d x %d, want sides from 1 to %d and %d", what, grid.height, grid.width, most_height,
           most_width);
}

py::array_t<bool> block_masks(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                              const Array<uint32_t>& epochs, uint32_t view, std::pair<int32_t, int32_t> grid,
                              const Array<double>& targets, double min_area, double max_area, double aspect_min,
                              bool exact) {
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const auto n = static_cast<py::ssize_t>(keys.size());
  BlockMask mask{{grid.first, grid.second}, 0.0, min_area, max_area, aspect_min, exact};
  check_grid("the grid", mask.grid, kMaxGridSide, kMaxGridSide);
  PL_CHECK(view < 256, Fault::argument, "view %u, want [0, 256)", view);
  PL_CHECK(targets.ndim() == 1 && targets.size() == n, Fault::argument, "want one target a record");
  PL_CHECK(min_area > 0.0 && max_area > 0.0 && aspect_min >= 1e-3 && aspect_min <= 1.0, Fault::argument,
           "areas %g and %g, aspect %g: want areas above 0, the aspect in [0.001, 1]", min_area, max_area, aspect_min);
  const std::vector<double> wanted(targets.data(), targets.data() + n);
  for (double target : wanted)
    PL_CHECK(target >= 0.0 && target <= mask.grid.cells(), Fault::argument, "target %g, want [0, %d] cells", target,
             mask.grid.cells());
  py::array_t<bool> out({n, py::ssize_t{grid.first}, py::ssize_t{grid.second}});
  auto* cells = reinterpret_cast<uint8_t*>(out.mutable_data());
  WithoutGil without_gil;
  for (py::ssize_t i = 0; i < n; ++i, cells += mask.grid.cells()) {
    mask.target = wanted[i];
    draw_block_mask(mask, keys[i], view, cells);
  }
  return out;
}

py::array_t<bool> rolled_blocks(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                                const Array<uint32_t>& epochs, uint32_t view, std::pair<int32_t, int32_t> grid,
                                const Array<int64_t>& counts, double aspect_min, bool roll) {
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const auto n = static_cast<py::ssize_t>(keys.size());
  RolledBlock block{{grid.first, grid.second}, 0, aspect_min, roll};
  check_grid("the grid", block.grid, kMaxGridSide, kMaxGridSide);
  PL_CHECK(view < 256, Fault::argument, "view %u, want [0, 256)", view);
  PL_CHECK(aspect_min >= 1e-3 && aspect_min <= 1.0, Fault::argument, "aspect %g, want [0.001, 1]", aspect_min);
  PL_CHECK(counts.ndim() == 1 && counts.size() == n, Fault::argument, "want one count a record");
  const std::vector<int64_t> wanted(counts.data(), counts.data() + n);
  for (int64_t count : wanted)
    PL_CHECK(count >= 0 && count <= block.grid.cells(), Fault::argument, "a block of %lld cells, want [0, %d]",
             static_cast<long long>(count), block.grid.cells());
  py::array_t<bool> out({n, py::ssize_t{grid.first}, py::ssize_t{grid.second}});
  auto* cells = reinterpret_cast<uint8_t*>(out.mutable_data());
  WithoutGil without_gil;
  for (py::ssize_t i = 0; i < n; ++i, cells += block.grid.cells()) {
    block.cells = static_cast<int32_t>(wanted[i]);
    draw_rolled_block(block, keys[i], view, cells);
  }
  return out;
}

py::array_t<double> mask_uniforms(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                                  const Array<uint32_t>& epochs, uint32_t view) {
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const auto n = static_cast<py::ssize_t>(keys.size());
  PL_CHECK(view < 256, Fault::argument, "view %u, want [0, 256)", view);
  py::array_t<double> out({n, py::ssize_t{2}});
  for (py::ssize_t i = 0; i < n; ++i) {
    const std::array<double, 2> drawn = draw_mask_uniforms(keys[i], view);
    std::copy(drawn.begin(), drawn.end(), out.mutable_data() + 2 * i);
  }
  return out;
}

py::array_t<int64_t> orders(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                            const Array<uint32_t>& epochs, uint32_t view, int32_t count) {
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const auto n = static_cast<py::ssize_t>(keys.size());
  PL_CHECK(count >= 1 && count <= kMaxGridSide * kMaxGridSide, Fault::argument, "%d cells, want 1 or more", count);
  PL_CHECK(view < 256, Fault::argument, "view %u, want [0, 256)", view);
  py::array_t<int64_t> out({n, py::ssize_t{count}});
  int64_t* order = out.mutable_data();
  WithoutGil without_gil;
  for (py::ssize_t i = 0; i < n; ++i, order += count) draw_order(keys[i], view, count, order);
  return out;
}

// Returns (predictor cells, their counts, encoder cells, their counts). Cells are (N, blocks, cells of the grid),
// counts (N, blocks).
py::tuple multi_block(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                      const Array<uint32_t>& epochs, std::pair<int32_t, int32_t> grid,
                      std::pair<int32_t, int32_t> predictor, std::pair<int32_t, int32_t> encoder, int32_t predictors,
                      int32_t encoders, int32_t min_keep) {
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const auto n = static_cast<py::ssize_t>(keys.size());
  const MultiBlock masks{{grid.first, grid.second},
                         {predictor.first, predictor.second},
                         {encoder.first, encoder.second},
                         predictors,
                         encoders,
                         min_keep};
  check_grid("the grid", masks.grid, kMaxGridSide, kMaxGridSide);
  check_grid("a predictor block", masks.predictor, grid.first - 1, grid.second - 1);
  check_grid("an encoder block", masks.encoder, grid.first - 1, grid.second - 1);
  PL_CHECK(predictors >= 1 && encoders >= 1 && predictors <= 64 && encoders <= 64, Fault::argument,
           "%d predictor and %d encoder blocks, want 1 to 64", predictors, encoders);
  const py::ssize_t cells = masks.grid.cells();
  py::array_t<int64_t> predictor_cells({n, py::ssize_t{predictors}, cells}),
      encoder_cells({n, py::ssize_t{encoders}, cells});
  py::array_t<int32_t> predictor_counts({n, py::ssize_t{predictors}}), encoder_counts({n, py::ssize_t{encoders}});
  int64_t *p = predictor_cells.mutable_data(), *e = encoder_cells.mutable_data();
  int32_t *p_counts = predictor_counts.mutable_data(), *e_counts = encoder_counts.mutable_data();
  std::fill_n(p, predictor_cells.size(), int64_t{-1});
  std::fill_n(e, encoder_cells.size(), int64_t{-1});
  {
    WithoutGil without_gil;
    for (py::ssize_t i = 0; i < n; ++i)
      draw_multi_block(masks, keys[i], p + i * predictors * cells, p_counts + i * predictors, e + i * encoders * cells,
                       e_counts + i * encoders);
  }
  return py::make_tuple(predictor_cells, predictor_counts, encoder_cells, encoder_counts);
}

py::array_t<double> batch_uniforms(uint64_t seed, uint32_t epoch, int64_t step, uint32_t rank, uint32_t purpose,
                                   py::ssize_t count) {
  PL_CHECK(step >= 0 && step < int64_t{1} << 48 && rank < 1u << 16, Fault::argument,
           "step %lld, rank %u: want [0, 2^48) and [0, 2^16)", static_cast<long long>(step), rank);
  PL_CHECK(purpose < 128 && count >= 0 && count < 1 << 24, Fault::argument, "purpose %u or count %zd", purpose, count);
  const Draws draws = draws_of(BatchKey{seed, epoch, step, rank});
  py::array_t<double> out(count);
  for (py::ssize_t i = 0; i < count; ++i)
    out.mutable_data()[i] = draws.first(kBatchSlots + (purpose << 24) + static_cast<uint32_t>(i));
  return out;
}

}  // namespace

void bind_masks(py::module_& m) {
  m.def("block_masks", &block_masks, "seed"_a, "records"_a, "draws"_a, "epochs"_a, "view"_a, "grid"_a, "targets"_a,
        "min_area"_a, "max_area"_a, "aspect_min"_a, "exact"_a);
  m.def("rolled_blocks", &rolled_blocks, "seed"_a, "records"_a, "draws"_a, "epochs"_a, "view"_a, "grid"_a, "counts"_a,
        "aspect_min"_a, "roll"_a);
  m.def("mask_uniforms", &mask_uniforms, "seed"_a, "records"_a, "draws"_a, "epochs"_a, "view"_a);
  m.def("orders", &orders, "seed"_a, "records"_a, "draws"_a, "epochs"_a, "view"_a, "count"_a);
  m.def("multi_block", &multi_block, "seed"_a, "records"_a, "draws"_a, "epochs"_a, "grid"_a, "predictor"_a, "encoder"_a,
        "predictors"_a, "encoders"_a, "min_keep"_a);
  m.def("batch_uniforms", &batch_uniforms, "seed"_a, "epoch"_a, "step"_a, "rank"_a, "purpose"_a, "count"_a);
}

}  // namespace pass_loader
