"""What an official script changes to read a pack: callables that take the script's own arguments.

docs/official-scripts.md has the three lines for each script.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import recipes
from .loading.dataset import ShardDataset
from .loading.loader import DataLoader
from .recipes.recipe import Recipe

__all__ = ["DataLoader", "image_folder", "multi_crop_dataset"]


def image_folder(
    root: str | Path,
    transform: Callable[..., Any],
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    cache_bytes: int | str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ShardDataset:
    """In place of torchvision's ImageFolder(root, transform): a pack under the transform's recipe.

    root: the pack, a directory or a URL. seed: of the views. cache, cache_bytes, storage_options: of a pack in a store,
    as for ShardDataset. Raises ValueError where the transform has no recipe (Recipe.from_torchvision).
    """
    return ShardDataset(
        root, Recipe.from_torchvision(transform), seed=seed, cache=cache, cache_bytes=cache_bytes,
        storage_options=storage_options,
    )  # fmt: skip


def multi_crop_dataset(
    data_path: str | Path,
    size_crops: Sequence[int],
    nmb_crops: Sequence[int],
    min_scale_crops: Sequence[float],
    max_scale_crops: Sequence[float],
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    cache_bytes: int | str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ShardDataset:
    """In place of SwAV's MultiCropDataset (src/multicropdataset.py): a pack under `recipes.swav` with these crops.

    data_path: the pack, a directory or a URL. The lists are the script's: one entry a size, with as many views of it,
    of shares of the picture's area between the two scales. seed: of the views. cache, cache_bytes, storage_options: of
    a pack in a store, as for ShardDataset. Raises ValueError where the lists differ in length.
    """
    lists = {"size_crops": size_crops, "nmb_crops": nmb_crops, "min_scale_crops": min_scale_crops,
             "max_scale_crops": max_scale_crops}  # fmt: skip
    if len({len(values) for values in lists.values()}) != 1:
        lengths = ", ".join(f"{name} has {len(values)}" for name, values in lists.items())
        raise ValueError(f"the lists of crops differ in length: {lengths}; want one entry a size in each")
    preset = recipes.swav()
    views = [
        dataclasses.replace(preset.views[0], size=size, scale=(low, high))
        for size, count, low, high in zip(*lists.values())
        for _ in range(count)
    ]
    return ShardDataset(
        data_path, dataclasses.replace(preset, views=tuple(views)), seed=seed, cache=cache, cache_bytes=cache_bytes,
        storage_options=storage_options,
    )  # fmt: skip
