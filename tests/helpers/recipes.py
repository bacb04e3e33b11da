"""Recipes for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pass_loader import _C, Recipe, ViewSpec, recipes, render_plan

WITH_HEATMAPS = recipes.mae_thorax(size=40, scale=(0.1, 1.0), heatmaps=True)
SMALL = recipes.dino(local_crops=2, global_size=32, local_size=16)


def hostile() -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Means and standard deviations: the usual, SwAV's, none, a byte's own value, some whose quotients multiply-adds
    get wrong (found by search), results that overflow or vanish in half types."""
    rng = np.random.default_rng(0)
    tables = [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.5, 100 / 255, 1.0), (0.5, 1 / 3, 1e-3)),
        ((0.5, -3.0, 1e4), (1e-6, 1e30, 1e-30)), ((0.5, 0.5, 0.5), (1e-39, 3e38, 1e-41)),
    ]  # fmt: skip
    # Below a power of two, by one bit: the divisors whose rounded reciprocal misleads multiply-adds (Markstein 1990).
    below = [float(np.nextafter(np.float32(2.0**power), np.float32(0))) for power in range(-5, 2)]
    tables += [((mean,) * 3, tuple(below[i : i + 3])) for i in range(5) for mean in (0.0, 0.45)]
    tables += [(tuple(rng.uniform(0, 1, 3)), tuple(rng.uniform(0.01, 2, 3))) for _ in range(30)]
    return [(tuple(map(float, mean)), tuple(map(float, std))) for mean, std in tables]


def small(recipe: Recipe) -> Recipe:
    """The recipe with views of 32 and 16, which are fast."""
    first = recipe.views[0].height

    def shrunk(view: ViewSpec) -> ViewSpec:
        others = tuple((shrunk(spec), share) for spec, share in view.alternatives)
        size = 32 if view.height >= first else 16
        return dataclasses.replace(view, size=size, blur_kernel=0, resize_short=None, alternatives=others)

    masks: Any = recipe.masks  # of so few patches
    if isinstance(masks, recipes.BlockMasks):
        masks = dataclasses.replace(masks, cells=2, least=1)
    elif isinstance(masks, recipes.InverseBlockMasks):
        masks = dataclasses.replace(masks, predicted=0.5)
    return dataclasses.replace(recipe, views=tuple(map(shrunk, recipe.views)), masks=masks)


def rendered(recipe: Recipe, pixels: np.ndarray, record: int = 0) -> np.ndarray:
    """Return the recipe's first view of a picture."""
    height, width = pixels.shape[:2]
    plan = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=record, height=height, width=width,
                         steps=recipe.step_rows())  # fmt: skip
    return render_plan(pixels, plan)[0]


def tensor_steps(T: Any) -> list[Any]:
    """Return the steps that make tensors. T: torchvision.transforms, or its v2."""
    import torch

    return [T.ToImage(), T.ToDtype(torch.float32, scale=True)] if hasattr(T, "ToImage") else [T.ToTensor()]
