"""The hardest and the easiest pairs of views of a run, replayed from their scores, as a contact sheet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import PackError
from ..pack.reader import Pack
from ..recipes.recipe import Recipe
from .preview import row_of, write_rows
from .samples import Samples


def pairs(
    pack: str | Path | Pack,
    recipe: Recipe,
    scores: str | Path | np.ndarray,
    out: str | Path,
    *,
    count: int = 4,
    seed: int = 0,
    epoch: int = 0,
    views: Sequence[int] = (0, 1),
    losses: bool = False,
) -> None:
    """Write a sheet of the `count` hardest and the `count` easiest pairs as PNG, each with its picture, its crop boxes
    and its exact views.

    scores: (epochs, records) numbers, or (records,) of one epoch, as an array or a file of numpy.save: how similar the
        two views of a record were. Those that are not finite are of pairs that were not seen. Removed pictures are left
        out.
    recipe, seed: the run's.
    epoch: the views' epoch of the first row (`info["epochs"]`).
    views: which two of the recipe's views are the pair.
    losses: scores are losses, which are highest for the hardest pairs.

    Raises ValueError for scores of another shape, views that the recipe does not have and a count below 1, PackError
    where no live picture has a score, or for a picture that cannot be read.
    """
    if count < 1:
        raise ValueError(f"count is {count}, want 1 pair of each kind or more")
    if len(views) != 2 or not all(0 <= view < len(recipe.views) for view in views):
        raise ValueError(f"views are {tuple(views)}, want two in [0, {len(recipe.views)}) of the recipe {recipe.name}")
    if recipe.structure.heatmaps:
        recipe = dataclasses.replace(recipe, batch="view_labels")
    samples = Samples(pack, recipe, seed=seed)
    table = _table(scores, samples)
    lowest, highest = _ends(table, samples, count)
    hardest, easiest = (highest[::-1], lowest) if losses else (lowest, highest[::-1])
    rows = []
    for kind, found in (("hardest", hardest), ("easiest", easiest)):
        for number, (row, record) in enumerate(found, 1):
            told = f"{kind} {number}: {'loss' if losses else 'score'} {table[row, record]:.4g}, epoch {epoch + row}, "
            told += f"record {record}, id {samples.id_of(record)}"
            rows.append(row_of(samples, record, epoch + row, {}, told, views))
    write_rows(rows, out)


def _table(scores: str | Path | np.ndarray, samples: Samples) -> np.ndarray:
    named = "scores" if isinstance(scores, np.ndarray) else str(scores)
    given = scores if isinstance(scores, np.ndarray) else np.load(scores, mmap_mode="r", allow_pickle=False)
    table = given[None] if given.ndim == 1 else given
    if table.ndim != 2 or table.shape[1] != samples.pack.records or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{named}: {given.dtype} of shape {given.shape}, want numbers (epochs, {samples.pack.records}) or "
            f"({samples.pack.records},): one for each record of the pack, removed ones too"
        )
    return table


Place = tuple[int, int]  # row of the scores, record


def _ends(table: np.ndarray, samples: Samples, count: int) -> tuple[list[Place], list[Place]]:
    """Return the places of the lowest and of the highest scores, both in rising order. Holds one row at a time."""
    live = np.ones(table.shape[1], bool)
    live[samples.parts[0].pack.removed] = False
    low: list[tuple[float, int, int]] = []
    high: list[tuple[float, int, int]] = []
    for row, values in enumerate(table):
        records = np.flatnonzero(live & np.isfinite(values))
        ordered = records[np.argsort(values[records], kind="stable")]
        low = sorted(low + [(float(values[one]), row, int(one)) for one in ordered[:count]])[:count]
        high = sorted(high + [(float(values[one]), row, int(one)) for one in ordered[-count:]])[-count:]
    if not low:
        raise PackError("no score is a number of a live picture")
    return [(row, record) for _, row, record in low], [(row, record) for _, row, record in high]
