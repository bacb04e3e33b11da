"""Plans of many records, as rows of numbers."""

from __future__ import annotations

import numpy as np

from pass_loader import _C
from pass_loader.recipes import Recipe

HEIGHT, WIDTH = 375, 500


def our_plans(recipe: Recipe, count: int, views: list[int], size: tuple[int, int] = (HEIGHT, WIDTH),
              seed: int = 0, epoch: int = 0, draw: int = 0) -> np.ndarray:  # fmt: skip
    """Return the plans (count, views) of records 0, 1, ..."""
    rows, steps = recipe.rows(), recipe.step_rows()
    found = np.zeros((count, len(views)), recipe.plan_dtype)
    height, width = size
    for record in range(count):
        plans = _C.plan_views(rows, seed=seed, epoch=epoch, record=record, draw=draw, height=height, width=width,
                              steps=steps)  # fmt: skip
        found[record] = plans[views]
    return found
