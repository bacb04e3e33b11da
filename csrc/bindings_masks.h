#pragma once
#include <pybind11/pybind11.h>

namespace pass_loader {

void bind_masks(pybind11::module_& m);

}  // namespace pass_loader
