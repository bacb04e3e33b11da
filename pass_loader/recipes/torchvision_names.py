"""What a transform object is, by its class. Used by the other torchvision_*.py alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


class UnknownTransform(ValueError):
    """An object that is neither a step nor something that makes views."""


def torchvision_name(transform: Any) -> str | None:
    """Return the torchvision class (or torch module) whose behaviour this object has; None where it has its own.

    A subclass counts as its base where it overrides nothing but the constructor and what prints it.
    """
    classes = type(transform).__mro__
    for place, cls in enumerate(classes):
        if cls.__module__.startswith(("torchvision.transforms.", "torch.nn.modules.")):
            return cls.__name__
        inherited = {name for base in classes[place + 1 :] if base is not object for name in vars(base)}
        own = {name for name in vars(cls) if not name.startswith("__") or name == "__call__"} - {"extra_repr"}
        if own & inherited or "__call__" in own:
            return None
    return None


def is_rand_augment(transform: Any) -> bool:
    """Tell whether an object has the attributes of timm's RandAugment, as copies of it have."""
    return all(hasattr(transform, name) for name in ("ops", "num_layers", "choice_weights"))


def is_timms(transform: Any) -> bool:
    return type(transform).__module__.startswith("timm.data.")


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
