// The resize by pairs of taps, at levels avx2 and avx512, and at avx512vbmi for what is left to it: a horizontal
// reduction by up to four.
#pragma once
#include "cpu/resample.h"

namespace pass_loader::cpu {

// Return false, and do nothing, if the request is not one of the usual. The weights have been made. Read up to one tile
// past the end of a row of `crop`; write up to 31 bytes past the end of a plane of `out`, planes in ascending order.
bool resample_pairs_avx2(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch);
bool resample_pairs_avx512(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch);

}  // namespace pass_loader::cpu
