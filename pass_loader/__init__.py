"""pass_loader: multi-crop batches for self-supervised pretraining, with Pillow's pixels, from packed shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import recipes
from .companions import Companions
from .errors import BadPictureError, PackError, RecordError, ShardError
from .recipe import Recipe, ViewSpec
from .samples import Samples, render_plan

if TYPE_CHECKING:
    from .concat import ConcatDataset
    from .dataset import ShardDataset
    from .loader import DataLoader
    from .mixed import MixedLoader
    from .rendering import normalize
    from .sampler import EpochSampler

__version__ = "0.1.0"
__all__ = [
    "BadPictureError", "Companions", "ConcatDataset", "DataLoader", "EpochSampler", "MixedLoader", "PackError",
    "Recipe", "RecordError", "Samples", "ShardDataset", "ShardError", "ViewSpec", "normalize", "recipes", "render_plan",
]  # fmt: skip

_NEEDS_TORCH = {
    "ConcatDataset": "concat",
    "ShardDataset": "dataset",
    "DataLoader": "loader",
    "MixedLoader": "mixed",
    "EpochSampler": "sampler",
    "normalize": "rendering",
}


def __getattr__(name: str) -> Any:
    """Names that need torch are imported when they are used: packing works without it."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_NEEDS_TORCH[name]}", __name__), name)
