// The decoders of csrc/cuda for Python, in pass_loader._cuda and in a module of the tests whose GPU is emulated on the
// CPU.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <pybind11/numpy.h>

#include "bindings_gil.h"
#include "cuda/gpu.h"

namespace pass_loader {

using MakeGpu = std::function<std::unique_ptr<cuda::Gpu>(const pybind11::object& device)>;

// As in bindings.h.
constexpr int kAligned = pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_;
template <typename T>
using Array = pybind11::array_t<T, pybind11::array::c_style | kAligned>;
using Rows = Array<int64_t>;

// Returns (N, 2): the group and the offset of each file, as a decoder's `sort` puts them.
template <typename Decoder, typename File>
Rows sorted(Decoder& decoder, const std::vector<File>& files) {
  std::span<const cuda::PicturePlace> places;
  {
    WithoutGil without_gil;
    places = decoder.sort(files);
  }
  Rows out({static_cast<pybind11::ssize_t>(places.size()), pybind11::ssize_t{2}});
  for (size_t i = 0; i < places.size(); ++i) {
    int64_t* row = out.mutable_data(static_cast<pybind11::ssize_t>(i), 0);
    row[0] = places[i].group, row[1] = places[i].offset;
  }
  return out;
}

// make: returns the GPU for the object that Python passes as device.
void bind_nvjpeg(pybind11::module_& m, MakeGpu make);
void bind_exact(pybind11::module_& m, MakeGpu make);

}  // namespace pass_loader
