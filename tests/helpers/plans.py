"""Rows of plans, and what is asked of drawn ones."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from pass_loader import _C, Recipe, render_plan
from pass_loader.recipes import installed_pillow, reference
from pass_loader.recipes.steps import OPS

from .compare import assert_pixels_equal
from .levels import every_level

PLAN_OPS = {**OPS, "affine": 18, "perspective": 20}
INSTALLED_ORDER = {13: 0, 12: 1}[installed_pillow()]


def draw(recipe: Recipe, count: int, height: int = 375, width: int = 500, seed: int = 0) -> np.ndarray:
    """Return the plans of records 0, 1, ...: (count, views)."""
    rows = recipe.rows()
    return np.stack(
        [_C.plan_views(rows, seed=seed, epoch=0, record=i, height=height, width=width) for i in range(count)]
    )


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Demand a Kolmogorov-Smirnov distance below the 0.01 % point."""
    ordered = np.sort((values.astype(np.float64) - low) / (high - low))
    assert ordered[0] >= 0 and ordered[-1] <= 1
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1]))
    assert distance < 2.23 / math.sqrt(len(ordered))


def plan_of(height: int, width: int, **fields: object) -> np.ndarray:
    """Return one plan row: the whole picture at its size and no other step, but for `fields`."""
    row = np.zeros(1, dtype=_C.view_plan_dtype)
    row["crop_height"], row["crop_width"] = height, width
    row["jitter_order"], row["solarize_threshold"], row["interpolation"] = -1, -1, 2
    row["resize_order"] = INSTALLED_ORDER
    for name in ("brightness", "contrast", "saturation"):
        row[name] = 1
    for name, value in fields.items():
        row[name] = value
    for side in ("height", "width"):
        row[f"resize_{side}"] = fields.get(f"resize_{side}", row[f"crop_{side}"])
        row[f"out_{side}"] = fields.get(f"out_{side}", row[f"resize_{side}"])
    return row


def with_steps(row: np.ndarray, *steps: dict[str, object]) -> np.ndarray:
    """Return a plan row with these further steps, each by its fields; the op by its name in the plan."""
    found = np.zeros(1, dtype=_C.plan_dtype(len(steps)))
    for name in row.dtype.names or ():
        found[name] = row[name]
    for place, step in enumerate(steps):
        for name, value in {**step, "op": PLAN_OPS[str(step["op"])]}.items():
            if name == "matrix":
                found["steps"][0, place][name][: len(value)] = value
            else:
                found["steps"][0, place][name] = value
    return found


def check(pixels: np.ndarray, plans: np.ndarray) -> None:
    """Compare render_plan at every instruction-set level with Pillow executing the same plans."""
    picture = Image.fromarray(pixels)
    wanted = [reference.render(picture, plan) for plan in plans]
    for level in every_level():
        for plan, view, want in zip(plans, render_plan(pixels, plans), wanted):
            assert_pixels_equal(view, want, (level, plan))
