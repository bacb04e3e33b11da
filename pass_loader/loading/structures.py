"""Batches in the structure of a method's official script (recipes.batches.BATCHES). Nothing here copies pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .. import _C
from ..recipes.masks import (
    BlockMasks,
    CoarseMasks,
    IBOTMasks,
    InverseBlockMasks,
    MultiBlockMasks,
    RandomMasks,
    StratifiedMasks,
)
from ..recipes.recipe import Recipe
from .rendering import Submitted


def stack(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return views of one size as one tensor (views * N, ...): all samples of the first, then of the second.

    No copy where they follow one another in memory, as those of a loader do.
    """
    first = views[0]
    apart = first.numel() * first.element_size()
    if all(view.data_ptr() == first.data_ptr() + place * apart for place, view in enumerate(views)):
        return first.as_strided((len(views) * len(first), *first.shape[1:]), first.stride())
    return _copied(views, 0)


def _copied(views: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """Copy views that do not follow one another: those of a batch that "skip" has made smaller, copies already."""
    return torch.cat(list(views), dim)


def _pair(batch: Submitted) -> torch.Tensor:
    """Return (N, 6, height, width), of gray views (N, 2, height, width): the views of a sample follow one another
    (rendering.Renderer)."""
    first, second = batch.views
    count, channels, height, width = first.shape
    if second.data_ptr() == first.data_ptr() + first[0].numel() * first.element_size():
        return first.as_strided((count, 2 * channels, height, width), (first.stride(0), height * width, width, 1))
    return _copied([first, second], 1)


def _records(batch: Submitted) -> torch.Tensor:
    return torch.from_numpy(batch.keys.records)


def _ibot_masks(batch: Submitted) -> list[Any]:
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, IBOTMasks)
    masks = [
        torch.from_numpy(recipe.masks.draw(batch.sample_keys(), number, view.height, view.width))
        for number, view in enumerate(recipe.views)
    ]
    return [masks]


def _mae_masks(batch: Submitted) -> list[Any]:
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, RandomMasks)
    view = recipe.views[0]
    masks = recipe.masks.draw(batch.sample_keys(), 0, view.height, view.width)
    return [{name: torch.from_numpy(values) for name, values in masks.items()}]


def _coarse_mask(batch: Submitted) -> list[Any]:
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, CoarseMasks)
    view = recipe.views[0]
    return [torch.from_numpy(recipe.masks.draw(batch.sample_keys(), 0, view.height, view.width))]


def _views_and_mask(batch: Submitted) -> list[Any]:
    """BEiT's mask is over the first view's patches."""
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, BlockMasks)
    view = recipe.views[0]
    mask = recipe.masks.draw(batch.sample_keys(), 0, view.height, view.width)
    return [[*batch.views, torch.from_numpy(mask)]]


def _flags(batch: Submitted) -> list[Any]:
    """Return (N,) bool: whether no alternative stands in for the first view that has some."""
    recipe = batch.samples.recipe
    first = next((number for number, view in enumerate(recipe.views) if view.alternatives), 0)
    drawn = _C.drawn_alternatives(recipe.rows(), *batch.sample_keys())
    return [torch.from_numpy(drawn[:, first] == 0)]


def _capi(batch: Submitted) -> list[Any]:
    """The dict of facebookresearch/capi 98b4fa1, data.py:449-472. Places count through the whole batch."""
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, InverseBlockMasks)
    view = recipe.views[0]
    masks, predicted = recipe.masks.draw(batch.sample_keys(), 0, view.height, view.width)
    first = np.arange(len(masks), dtype=np.int64)[:, None] * masks[0].size if len(masks) else predicted
    return [{
        "images": batch.views[0],
        "predict_indices": torch.from_numpy((predicted + first).reshape(-1)),
        "visible_indices": torch.from_numpy(np.flatnonzero(~masks)),
    }]  # fmt: skip


def _dinov2(batch: Submitted) -> list[Any]:
    """The dict of facebookresearch/dinov2 b8931f7, dinov2/data/collate.py:10-49; gram crops as in
    dinov3/data/collate.py."""
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, StratifiedMasks)
    parts: dict[str, Any] = {}
    roles = recipe.roles()
    for role, name in (("global", "collated_global_crops"), ("local", "collated_local_crops"),
                       ("gram", "collated_gram_teacher_crops")):  # fmt: skip
        numbers = [number for number, own in enumerate(roles) if own == role]
        if numbers:
            parts[name] = stack([batch.views[number] for number in numbers])
    numbers = [number for number, own in enumerate(roles) if own == "global"]
    view = recipe.views[numbers[0]]
    drawn, bound = recipe.masks.draw(batch.sample_keys(), batch.key, numbers, view.height, view.width)
    flat = drawn.reshape(len(drawn), -1)
    places = np.flatnonzero(flat)
    counts = flat.sum(axis=1)
    weights = np.repeat(1 / np.maximum(counts, 1).astype(np.float32), counts)
    return [
        parts | {
            "collated_masks": torch.from_numpy(flat),
            "mask_indices_list": torch.from_numpy(places),
            "masks_weight": torch.from_numpy(weights),
            "upperbound": bound,
            "n_masked_patches": torch.full((1,), len(places), dtype=torch.long),
        }
    ]  # fmt: skip


def _ijepa(batch: Submitted) -> list[Any]:
    """The three parts of facebookresearch/ijepa 52c1ae9, src/train.py:278-286."""
    recipe = batch.samples.recipe
    assert isinstance(recipe.masks, MultiBlockMasks)
    view = recipe.views[0]
    encoders, predictors = recipe.masks.draw(batch.sample_keys(), batch.key, view.height, view.width)
    return [
        [batch.views[0], batch.labels()],
        [torch.from_numpy(cells) for cells in encoders],
        [torch.from_numpy(cells) for cells in predictors],
    ]


def _vissl(batch: Submitted) -> list[Any]:
    """The dict of facebookresearch/vissl 09270ed, vissl/data/collators/multicrop_collator.py.

    One entry for each view and sample, all samples of the first view first. Labels are records, as LABEL_TYPE
    sample_index has it.
    """
    records = _records(batch).repeat(len(batch.views))
    valid = torch.from_numpy(batch.valid).repeat(len(batch.views))
    return [{"data": [batch.views], "label": [records], "data_valid": [valid], "data_idx": [records]}]


# Each makes one part of a batch by its name in BATCHES, or several that belong together.
_PARTS: dict[str, Callable[[Submitted], list[Any]]] = {
    "views": lambda batch: [batch.views],
    "view": lambda batch: [batch.views[0]],
    "view_and_heatmap": lambda batch: [[batch.views[0], batch.heatmaps[0]]],
    "pair": lambda batch: [_pair(batch)],
    "labels": lambda batch: [batch.labels()],
    "records": lambda batch: [_records(batch)],
    "companions": lambda batch: [batch.companions_dict()],  # GenView's gen_chosen_view and gen_img_scale, as tensors
    "ibot_masks": _ibot_masks,
    "mae_masks": _mae_masks,
    "coarse_mask": _coarse_mask,
    "views_and_mask": _views_and_mask,
    "flags": _flags,
    "capi": _capi,
    "dinov2": _dinov2,
    "ijepa": _ijepa,
    "vissl": _vissl,
}


def structured(batch: Submitted, return_info: bool = False, return_plan: bool = False) -> Any:
    """Return the batch as the recipe's official script expects it; then its plans with return_plan, then one dict with
    return_info. A single part stands for itself."""
    structure = batch.samples.recipe.structure
    parts = [part for name in structure.parts for part in _PARTS[name](batch)]
    parts += ([batch.plans] if return_plan else []) + ([batch.info()] if return_info else [])
    if len(parts) == 1:
        return parts[0]
    return parts if structure.as_list else tuple(parts)


def as_samples(batch: Submitted) -> list[Any]:
    """Return what a map dataset gives for each sample; the tensors are views of the batch's."""
    return [
        item(
            batch.samples.recipe,
            [view[slot] for view in batch.views],
            int(batch.keys.records[slot]),
            label,
            [heatmap[slot] for heatmap in batch.heatmaps],
        )
        for slot, label in enumerate(batch.labels())
    ]


# Each makes one part of a sample: of its views, label, record and heatmaps.
_ITEM_PARTS: dict[str, Callable[[list[torch.Tensor], Any, int, Sequence[torch.Tensor]], Any]] = {
    "views": lambda views, label, record, heatmaps: views,
    "view": lambda views, label, record, heatmaps: views[0],
    "view_and_heatmap": lambda views, label, record, heatmaps: [views[0], heatmaps[0]],
    "pair": lambda views, label, record, heatmaps: torch.cat(views),
    "labels": lambda views, label, record, heatmaps: label,
    "records": lambda views, label, record, heatmaps: record,
}


def item(
    recipe: Recipe, views: list[torch.Tensor], record: int, given: torch.Tensor, heatmaps: Sequence[torch.Tensor] = ()
) -> Any:
    """Return one sample for torch's own DataLoader, whose default collation gives the batch's structure.

    given: the label, int64 () or of another shape and type. A class number becomes an int, as ImageFolder's.
    """
    label = int(given) if given.dim() == 0 and given.dtype == torch.int64 else given
    structure = recipe.structure
    parts = [_ITEM_PARTS[name](views, label, record, heatmaps) for name in structure.item]
    if len(parts) == 1:
        return parts[0]
    return parts if structure.as_list else tuple(parts)
