// JpegDecoder for Python: of pass_loader._cuda, and of a module of the tests whose GPU the CPU executes.
#pragma once
#include <functional>
#include <memory>

#include <pybind11/pybind11.h>

#include "cuda/nvjpeg.h"

namespace pass_loader {

using MakeGpu = std::function<std::unique_ptr<cuda::Gpu>(const pybind11::object& device)>;

// make: of what the constructor is given as device.
void bind_nvjpeg(pybind11::module_& m, MakeGpu make);

}  // namespace pass_loader
