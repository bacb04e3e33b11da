// The resize at level avx512vbmi, for the usual requests: up to 32 taps for an output.
#pragma once
#include "cpu/resample.h"

namespace pass_loader::cpu {

// Returns false, and does nothing, if the request is not one of the usual. The weights have been made. Reads up to two
// tiles past the end of a row of `crop`.
bool resample_avx512vbmi(const ConstPlanes& crop, const Planes& out, bool vertical_first, ResampleScratch& scratch);

}  // namespace pass_loader::cpu
