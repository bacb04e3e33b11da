// The parts of the Python side.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "image.h"

namespace pass_loader {

void bind_pictures(pybind11::module_& m);
void bind_masks(pybind11::module_& m);

pybind11::array_t<uint8_t> interleaved(const ConstPlanes& picture);  // (height, width, 3)

}  // namespace pass_loader
