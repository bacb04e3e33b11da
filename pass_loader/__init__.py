"""pass_loader: multi-crop batches for self-supervised pretraining, with Pillow's pixels, from packed shards."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._C import view_plan_dtype as plan_dtype
from .errors import BadPictureError, PackError, PassLoaderError, RecordError, ShardError
from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import recipes
    from .data.companions import Companions
    from .data.plans import render_plan
    from .data.samples import Samples
    from .data.split import split
    from .gpu.cuda import cuda_available, cuda_reason
    from .loading.concat import ConcatDataset
    from .loading.dataset import ShardDataset
    from .loading.loader import DataLoader
    from .loading.mixed_loader import MixedLoader
    from .loading.rendering import normalize
    from .loading.sampler import EpochSampler
    from .recipes import Recipe, ViewSpec

__all__ = [
    "BadPictureError", "Companions", "ConcatDataset", "DataLoader", "EpochSampler", "MixedLoader", "PackError",
    "PassLoaderError", "Recipe", "RecordError", "Samples", "ShardDataset", "ShardError", "ViewSpec", "cuda_available",
    "cuda_reason", "normalize", "plan_dtype", "recipes", "render_plan", "split",
]  # fmt: skip

# Names whose modules are imported when they are first used: those of `recipes` and `data` import Pillow or pyarrow,
# those of `loading` and `gpu` torch.
_LAZY = {
    "Companions": ".data.companions",
    "ConcatDataset": ".loading.concat",
    "DataLoader": ".loading.loader",
    "EpochSampler": ".loading.sampler",
    "MixedLoader": ".loading.mixed_loader",
    "Recipe": ".recipes",
    "Samples": ".data.samples",
    "ShardDataset": ".loading.dataset",
    "ViewSpec": ".recipes",
    "cuda_available": ".gpu.cuda",
    "cuda_reason": ".gpu.cuda",
    "normalize": ".loading.rendering",
    "recipes": ".recipes",
    "render_plan": ".data.plans",
    "split": ".data.split",
}


def __getattr__(name: str) -> Any:
    """Import what a name needs when it is first used. Raises ImportError where torch is needed and is not installed."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_LAZY[name], __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "torch":
            raise
        raise ImportError(f"pass_loader.{name} needs torch: pip install torch", name="torch") from error
    found = globals()[name] = module if name == "recipes" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
