// Gray pictures of 16 bits: Pillow's resize of mode "I;16", and the conversion of a view to the batch's elements.
#pragma once
#include "cpu/normalize.h"
#include "cpu/resample.h"
#include "image.h"

namespace pass_loader::cpu {

// Does what `resample` does, for deep pictures. Weights and sums are double, in Pillow's order (Resample.c:
// ImagingResampleHorizontal_16bpc), and are clipped to 16 bits after each pass.
void resample_deep(const ConstPlanes& picture, const ResampleRequest& request, const Planes& out,
                   ResampleScratch& scratch);

// Writes (x / 65535 - mean) / std in float32, or cast from that to a half type. The form's element is not uint8.
void normalize_deep(const ConstPlanes& view, const Normalization& normalization, void* out);

}  // namespace pass_loader::cpu
