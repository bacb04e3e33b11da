// Gray of 16 bits a sample: Pillow's resize of mode "I;16", and a view to what the batch holds.
#pragma once
#include "cpu/normalize.h"
#include "cpu/resample.h"
#include "image.h"

namespace pass_loader::cpu {

// As `resample`, of pictures that are deep: weights and sums in double, in Pillow's order (Resample.c:
// ImagingResampleHorizontal_16bpc), clipped to 16 bits behind each pass.
void resample_deep(const ConstPlanes& picture, const ResampleRequest& request, const Planes& out,
                   ResampleScratch& scratch);

// (x / 65535 - mean) / std in float32, half types cast from it. The form's element is not uint8.
void normalize_deep(const ConstPlanes& view, const Normalization& normalization, void* out);

}  // namespace pass_loader::cpu
