// The parts of the Python side.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "image.h"

namespace pass_loader {

void bind_pictures(pybind11::module_& m);
void bind_masks(pybind11::module_& m);

// (height, width, channels) uint8: a gray picture in three equal channels or one, any other in three. A deep one is
// (height, width, 1) uint16.
pybind11::array interleaved(const ConstPlanes& picture, int channels);

}  // namespace pass_loader
