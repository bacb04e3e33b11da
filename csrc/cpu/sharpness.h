// ImageEnhance.Sharpness: a blend of the view and its ImageFilter.SMOOTH.
#pragma once
#include "image.h"

namespace pass_loader::cpu {

// `out` has the size of `view` and lies elsewhere; its rows have no gaps, and a tile past the last one may be written.
void sharpness(const ConstPlanes& view, float factor, const Planes& out);

}  // namespace pass_loader::cpu
