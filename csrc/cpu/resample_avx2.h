// The resize at level avx2, and at those above what they leave: horizontally a reduction by up to four.
#pragma once
#include "cpu/resample.h"

namespace pass_loader::cpu {

// False where the request is not one of the usual and nothing was done. Weights are made. Reads up to one tile past the
// end of a row of `crop`; writes up to 31 bytes past the end of a plane of `out`, planes in ascending order.
bool resample_avx2(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch);

}  // namespace pass_loader::cpu
