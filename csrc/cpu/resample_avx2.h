// The resize at level avx2, and at higher levels for what they leave to it: a horizontal reduction by up to four.
#pragma once
#include "cpu/resample.h"

namespace pass_loader::cpu {

// Returns false, and does nothing, if the request is not one of the usual. The weights have been made. Reads up to one
// tile past the end of a row of `crop`; writes up to 31 bytes past the end of a plane of `out`, planes in ascending
// order.
bool resample_avx2(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch);

}  // namespace pass_loader::cpu
