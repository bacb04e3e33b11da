"""torchvision beside a CPU-only torch: `from benchmarks.torchvision_cpu import torchvision`.

The package index has torchvision built for CUDA only, whose library does not load here; then its operators are not
registered and the import fails on the first of them. Declaring them first is enough for the transforms, which use none.
"""

from __future__ import annotations

import torch

_OPERATORS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "qroi_align", "roi_pool", "_roi_pool_backward", "ps_roi_align",
    "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
    "interpolate_bilinear2d_aa", "_interpolate_bilinear2d_aa_backward", "interpolate_bicubic2d_aa",
    "_interpolate_bicubic2d_aa_backward",
)  # fmt: skip


def _import():
    try:
        import torchvision

        return torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor input) -> Tensor")
    import torchvision

    torchvision._declared_operators = library  # the declarations live as long as this object
    return torchvision


torchvision = _import()
