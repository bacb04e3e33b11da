// The parts of the Python side.
#pragma once
#include <span>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "draws.h"
#include "error.h"
#include "image.h"
#include "plan.h"

namespace pass_loader {

// No forcecast: another dtype or layout is refused, not copied.
template <typename T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

// One dimension.
template <typename T>
std::span<const T> column(const Array<T>& array) {
  PL_CHECK(array.ndim() == 1, Fault::argument, "want a column, found %d dimensions", static_cast<int>(array.ndim()));
  return {array.data(), static_cast<size_t>(array.size())};
}

// The keys of N samples. Throws Error(argument) unless there is one draw below kMaxDraws and one epoch a record.
std::vector<SampleKey> keys_of(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                               const Array<uint32_t>& epochs);

inline std::vector<ViewSpec> recipe_of(const Array<ViewSpec>& rows) {
  std::span<const ViewSpec> specs = column(rows);
  check_recipe(specs);
  return {specs.begin(), specs.end()};
}

void bind_pictures(pybind11::module_& m);
void bind_loading(pybind11::module_& m);
void bind_masks(pybind11::module_& m);

// (height, width, channels) uint8: a gray picture in three equal channels or one, any other in three. A deep one is
// (height, width, 1) uint16.
pybind11::array interleaved(const ConstPlanes& picture, int channels);

}  // namespace pass_loader
