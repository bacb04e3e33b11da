// What the files of the Python side share.
#pragma once
#include <span>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings_gil.h"
#include "draws.h"
#include "error.h"
#include "image.h"
#include "plan.h"

namespace pass_loader {

// Without forcecast, another dtype is refused instead of cast. What is not aligned, such as a field of a packed
// structured array, is copied.
constexpr int kAligned = pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_;
template <typename T>
using Array = pybind11::array_t<T, pybind11::array::c_style | kAligned>;

// Checks that the array has one dimension.
template <typename T>
std::span<const T> column(const Array<T>& array) {
  PL_CHECK(array.ndim() == 1, Fault::argument, "want a column, found %d dimensions", static_cast<int>(array.ndim()));
  return {array.data(), static_cast<size_t>(array.size())};
}

// Returns the keys of N samples. Throws Error(argument) unless there is one draw below kMaxDraws and one epoch a
// record.
std::vector<SampleKey> keys_of(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                               const Array<uint32_t>& epochs);

// max_scans: 0 for the default.
inline Limits limits_of(int64_t max_pixels, int max_scans) {
  PL_CHECK(max_pixels >= 1 && max_pixels <= kMaxPixels, Fault::argument, "max_pixels is %lld, want [1, %lld]",
           static_cast<long long>(max_pixels), static_cast<long long>(kMaxPixels));
  PL_CHECK(max_scans >= 0, Fault::argument, "max_scans is %d, want at least 1", max_scans);
  return {max_pixels, max_scans};
}

inline std::vector<ViewSpec> recipe_of(const Array<ViewSpec>& rows) {
  const std::span<const ViewSpec> borrowed = column(rows);
  std::vector<ViewSpec> specs(borrowed.begin(), borrowed.end());  // checked as a copy, which no other thread changes
  check_recipe(specs);
  return specs;
}

// rows: a column of step_spec_dtype, or None.
inline StepRecipe steps_of(const pybind11::object& rows, std::span<const ViewSpec> recipe) {
  if (rows.is_none()) return {};
  const auto given = rows.cast<Array<StepSpec>>();
  return {column(given), recipe};
}

void bind_pictures(pybind11::module_& m);
void bind_loading(pybind11::module_& m);
void bind_masks(pybind11::module_& m);

// Returns an array (height, width, channels) of uint8. A gray picture has one channel or three equal ones, any other
// picture has three. A deep picture gives (height, width, 1) of uint16.
pybind11::array interleaved(const ConstPlanes& picture, int channels);

}  // namespace pass_loader
