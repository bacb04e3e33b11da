"""pass_loader: multi-crop batches for self-supervised pretraining, with Pillow's pixels, from packed shards."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import recipes
from ._C import view_plan_dtype as plan_dtype
from .data.companions import Companions
from .data.samples import Samples, render_plan
from .errors import BadPictureError, PackError, PassLoaderError, RecordError, ShardError
from .recipes import Recipe, ViewSpec
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .gpu.cuda import cuda_available, cuda_reason
    from .loading.concat import ConcatDataset
    from .loading.dataset import ShardDataset
    from .loading.loader import DataLoader
    from .loading.mixed_loader import MixedLoader
    from .loading.rendering import normalize
    from .loading.sampler import EpochSampler

__all__ = [
    "BadPictureError", "Companions", "ConcatDataset", "DataLoader", "EpochSampler", "MixedLoader", "PackError",
    "PassLoaderError", "Recipe", "RecordError", "Samples", "ShardDataset", "ShardError", "ViewSpec", "cuda_available",
    "cuda_reason", "normalize", "plan_dtype", "recipes", "render_plan",
]  # fmt: skip

_NEEDS_TORCH = {
    "ConcatDataset": ".loading.concat",
    "DataLoader": ".loading.loader",
    "EpochSampler": ".loading.sampler",
    "MixedLoader": ".loading.mixed_loader",
    "ShardDataset": ".loading.dataset",
    "cuda_available": ".gpu.cuda",
    "cuda_reason": ".gpu.cuda",
    "normalize": ".loading.rendering",
}


def __getattr__(name: str) -> Any:
    """Import names that need torch when they are first used: packing works without it."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_NEEDS_TORCH[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
