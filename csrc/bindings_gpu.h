// The decoders of csrc/cuda for Python, in pass_loader._cuda and in a module of the tests whose GPU is emulated on the
// CPU.
#pragma once
#include <functional>
#include <memory>

#include <pybind11/pybind11.h>

#include "cuda/gpu.h"

namespace pass_loader {

using MakeGpu = std::function<std::unique_ptr<cuda::Gpu>(const pybind11::object& device)>;

// make: returns the GPU for the object that Python passes as device.
void bind_nvjpeg(pybind11::module_& m, MakeGpu make);
void bind_exact(pybind11::module_& m, MakeGpu make);

}  // namespace pass_loader
