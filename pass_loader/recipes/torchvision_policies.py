"""RandAugment of other projects, proved by running it. Used by torchvision_steps.py alone."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from .. import _C
from .steps import Choice, Level, Step, rows_of
from .torchvision_further import timm_op
from .torchvision_names import noise

_RUNS = 400  # two equal ones of 15 in a pair are missed with a probability of 1e-12


def rand_augment_of(transform: Any) -> tuple[Choice, ...]:
    """Return the further steps that a copy of timm's RandAugment takes (sail-sg/mugs 10ab634 src/RandAugment.py).

    Raises ValueError where one of its operations gives other bytes than timm's of that name.
    """
    what, count = type(transform).__name__, int(transform.num_layers)
    if transform.choice_weights is not None:
        raise ValueError(f"{what} with weights draws without repetition, which no recipe does")
    steps = tuple(_proved(op, what) for op in transform.ops)
    if count > 1 and _are_distinct(transform, count):
        return (Choice(tuple(itertools.permutations(steps, count))),)
    return (Choice(tuple((step,) for step in steps)),) * count


def _proved(op: Any, what: str) -> Step:
    """Return the step of an operation, after two of its magnitudes gave the step's bytes, and it ran so often as its
    probability says."""
    step, picture = timm_op(op), noise().point(lambda value: 30 + value * 3 // 4)  # contrast can grow
    ran: int | None = None
    for magnitude in (float(op.magnitude), 3.0):
        twin = copy.copy(op)
        vars(twin).update(prob=1.0, magnitude=magnitude, magnitude_std=0)
        try:
            found = np.asarray(twin(picture.copy())).tobytes()
        except Exception as error:
            raise ValueError(f"{what}'s {op.name} fails on a PIL picture: {error}") from error
        if all(found != one for one in _results(step, magnitude, picture)):
            raise ValueError(f"{what}'s {op.name} of magnitude {magnitude:g} gives other pixels than timm's")
        if found != picture.tobytes() and ran is None:
            vars(twin).update(prob=op.prob)
            ran = sum(twin(picture.copy()).tobytes() != picture.tobytes() for _ in range(_RUNS))
            if abs(ran / _RUNS - op.prob) > 6 * (max(op.prob * (1 - op.prob), 0) / _RUNS) ** 0.5:
                raise ValueError(f"{what}'s {op.name} runs {ran} times in {_RUNS}, and its prob says {op.prob:g}")
    return step


def _results(step: Step, magnitude: float, picture: Image.Image) -> Iterator[bytes]:
    """Yield what a step may make of a picture where its level is fixed: of either sign and filter."""
    signs = (1, -1) if isinstance(step.value, Level) and step.value.sign == 0 else (None,)
    for sign in signs:
        value = step.value
        if isinstance(value, Level):
            value = dataclasses.replace(value, mean=magnitude, std=0.0, sign=value.sign if sign is None else sign)
        for resample in ("bilinear", "bicubic") if step.resample == "random" else (step.resample,):
            one = dataclasses.replace(step, value=value, probability=1.0, resample=resample)
            plans = _C.plan_views(_whole(picture), seed=0, epoch=0, record=0, height=picture.height,
                                  width=picture.width, steps=rows_of([((), (one,))], 3))  # fmt: skip
            yield _C.render_plan(np.asarray(picture), plans)[0].tobytes()


def _whole(picture: Image.Image) -> np.ndarray:
    """Return the row of a view that is the picture itself."""
    row = np.zeros(1, _C.view_spec_dtype)
    row["out_height"], row["out_width"], row["interpolation"], row["box_of"] = picture.height, picture.width, 2, -1
    row["scale_min"] = row["scale_max"] = 1.0
    row["ratio_min"] = row["ratio_max"] = picture.width / picture.height
    return row


class _Noted:
    """Stands for an operation, and notes that it ran."""

    def __init__(self, number: int, notes: list[int]):
        self.number, self.notes = number, notes

    def __call__(self, picture: Any) -> Any:
        self.notes.append(self.number)
        return picture


def _are_distinct(transform: Any, count: int) -> bool:
    """Tell whether no operation runs twice on one picture."""
    what, twin, notes = type(transform).__name__, copy.copy(transform), list[int]()
    twin.ops = [_Noted(number, notes) for number in range(len(transform.ops))]
    picture, rows = noise(), []
    for _ in range(_RUNS):
        notes.clear()
        twin(picture)
        rows.append(tuple(notes))
    if any(len(row) != count for row in rows):
        raise ValueError(f"{what} says that it takes {count} operations, and takes {sorted({*map(len, rows)})}")
    counts = np.bincount([number for row in rows for number in row], minlength=len(twin.ops))
    if abs(counts - counts.mean()).max() > 6 * counts.mean() ** 0.5:
        raise ValueError(f"{what} takes some of its operations more often than others")
    return all(len({*row}) == count for row in rows)
