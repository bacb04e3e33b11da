// The resize at level avx512vbmi, for the usual requests: horizontal pass first, up to 20 taps an output.
#pragma once
#include "cpu/resample.h"

namespace pass_loader::cpu {

// False where the request is not one of the usual and nothing was done. Weights are made. Reads up to two tiles past
// the end of a row of `crop`.
bool resample_avx512vbmi(const ConstPlanes& crop, const Planes& out, ResampleScratch& scratch);

}  // namespace pass_loader::cpu
