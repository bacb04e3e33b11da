"""Recorded views as plans, our plans as recorded steps, and how likely both are."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pass_loader import _C
from pass_loader.recipes.recipe import _RESIZE_ORDER, installed_pillow
from pass_loader.recipes.steps import OP_NAMES

from .recording import Op

_NUMBERS = {name: number for number, name in OP_NAMES.items()}
_PADDINGS = {"constant": 1, "edge": 2, "reflect": 3, "symmetric": 4}
_JITTER = ("brightness", "contrast", "saturation", "hue")


def _geometry(ops: list[Op], picture: tuple[int, int], row: np.ndarray) -> list[Op]:
    """Fill in where a view's pixels come from, of a picture (height, width); return the steps after that."""
    names = [op[0] for op in ops]
    row["interpolation"] = next((op[3] for op in ops if op[0] == "resize"), 2)
    if names[:2] == ["crop", "resize"]:
        left, top, right, bottom = ops[0][1:]
        row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"] = left, top, right - left, bottom - top
        last = ops[1]
        rest = ops[2:]
        if names[2:3] == ["resize"]:
            row["via_width"], row["via_height"] = last[1:3]
            last, rest = ops[2], ops[3:]
        row["resize_width"], row["resize_height"] = row["out_width"], row["out_height"] = last[1:3]
        return rest
    row["crop_height"], row["crop_width"] = height, width = picture
    rest = ops
    if names[:1] == ["resize"]:
        width, height = ops[0][1:3]
        rest = ops[1:]
    row["resize_width"], row["resize_height"] = row["out_width"], row["out_height"] = width, height
    left = top = 0
    if rest and rest[0][0] == "pad":
        _, left, top, right, bottom, mode, _ = rest[0]
        row["padding"], rest = _PADDINGS[mode], rest[1:]
        row["offset_x"], row["offset_y"] = -left, -top
        row["out_width"], row["out_height"] = width + left + right, height + top + bottom
    if rest and rest[0][0] == "crop":
        x, y, right, bottom = rest[0][1:]
        row["offset_x"], row["offset_y"] = x - left, y - top
        row["out_width"], row["out_height"] = right - x, bottom - y
        rest = rest[1:]
        inside = x >= left and y >= top and right - left <= width and bottom - top <= height
        row["padding"] = 0 if inside else row["padding"]
    return rest


def _step(op: Op) -> dict[str, Any]:
    name, *values = op
    step: dict[str, Any] = {"op": _NUMBERS[name]}
    if name in ("affine", "perspective"):
        matrix, resample, fill = values
        return {**step, "matrix": [*matrix, *[0.0] * (8 - len(matrix))], "resample": resample, "fill": fill}
    if name == "ground":
        return {**step, "fill": values[0]}
    if name in ("posterize", "solarize", "solarize_add", "quarter_turn"):
        return {**step, "level": values[0]}
    if name == "kernel_blur":
        return {**step, "level": values[0], "factor": values[1]}
    return {**step, "factor": values[0]} if values else step


def plan_of(ops: list[Op], height: int, width: int) -> np.ndarray:
    """Return the plan row, (1,), of a view's steps. Raises ValueError, KeyError for what no plan does.

    Steps that stand in the fixed order of plans are fixed ones, others further ones.
    """
    fixed = np.zeros(1, _C.view_plan_dtype)
    for name in ("brightness", "contrast", "saturation"):
        fixed[name] = 1
    fixed["jitter_order"], fixed["solarize_threshold"] = -1, -1
    fixed["resize_order"] = _RESIZE_ORDER[installed_pillow()]
    cut = next((place for place, op in enumerate(ops) if op[0] in ("crop", "resize", "pad")), 0)
    before, rest = ops[:cut], _geometry(ops[cut:], (height, width), fixed)
    before = [("ground", op[6]) for op in ops if op[0] == "pad" and any(op[6])] + before
    jitter: list[int] = []
    stage = 0  # 0 flip, 1 jitter, 2 gray, 3 blur, 4 solarize
    order = {"flip": 0, **dict.fromkeys(_JITTER, 1), "grayscale": 2, "blur": 3, "kernel_blur": 3, "solarize": 4}
    while rest:
        name, *values = rest[0]
        place = order.get(name, -1)
        again = place == stage and not (place == 1 and _JITTER.index(name) not in jitter)
        if place < stage or (again and stage > 0) or (name == "flip" and fixed["flip"][0]):
            break
        stage = place
        if place == 0:
            fixed["flip"] = True
        elif place == 1:
            jitter.append(_JITTER.index(name))
            fixed[name] = values[0]
        elif place == 2:
            fixed["grayscale"] = True
        elif place == 3:
            fixed["blur_sigma"], fixed["blur_kernel"] = values[-1], values[0] if name == "kernel_blur" else 0
        else:
            fixed["solarize_threshold"] = values[0]
        rest = rest[1:]
    fixed["jitter_order"][0, : len(jitter)] = jitter
    plan = np.zeros(1, _C.plan_dtype(len(before) + len(rest)))
    for name in fixed.dtype.names or ():
        plan[name] = fixed[name]
    for place, op in enumerate([*before, *rest]):
        step = plan["steps"][0, place]
        for name, value in _step(op).items():
            step[name] = value
        step["before"] = place < len(before)
    return plan


def steps_of(plan: np.void) -> list[Op]:
    """Return a plan row as the steps that a recorder would note, without its crop and resize."""
    ops: list[Op] = [("flip",)] if plan["flip"] else []
    ops += [(_JITTER[step], float(plan[_JITTER[step]])) for step in plan["jitter_order"] if step >= 0]
    ops += [("grayscale",)] if plan["grayscale"] else []
    if plan["blur_sigma"] > 0:
        kernel = int(plan["blur_kernel"])
        ops.append(
            ("kernel_blur", kernel, float(plan["blur_sigma"])) if kernel else ("blur", float(plan["blur_sigma"]))
        )
    ops += [("solarize", int(plan["solarize_threshold"]))] if plan["solarize_threshold"] >= 0 else []
    for step in plan["steps"] if "steps" in (plan.dtype.names or ()) else ():
        name = OP_NAMES[int(step["op"])]
        if name in ("affine", "perspective"):
            count = 6 if name == "affine" else 8
            ops.append((name, tuple(float(one) for one in step["matrix"][:count]), int(step["resample"]), ()))
        elif name in ("posterize", "solarize", "solarize_add", "quarter_turn"):
            ops.append((name, int(step["level"])))
        elif name in (*_JITTER, "sharpness", "blur"):
            ops.append((name, float(step["factor"])))
        elif name == "kernel_blur":
            ops.append((name, int(step["level"]), float(step["factor"])))
        elif name not in ("none", "erase", "ground"):
            ops.append((name,))
    return ops


def numbers(ops: Iterable[Op], box: Sequence[float]) -> dict[str, list[float]]:
    """Return what is drawn in a view, by name: how often each step runs, its numbers, the crop box."""
    found: dict[str, list[float]] = defaultdict(list)
    for place, value in zip("xywh", box):
        found[f"crop {place}"].append(float(value))
    for name, *values in ops:
        if name in ("crop", "resize", "pad"):
            continue
        found[f"{name} runs"].append(1.0)
        for place, value in enumerate(values[0] if name in ("affine", "perspective") else values):
            found[f"{name} {place}"].append(float(value))
    return found


def worst_distance(ours: list[dict[str, list[float]]], theirs: list[dict[str, list[float]]]) -> tuple[float, str]:
    """Return the largest distance of two samples of views, as a share of what one in 10,000 would exceed, and of what.

    Of shares by their difference, of numbers by Kolmogorov and Smirnov's.
    """
    worst = (0.0, "")
    for name in sorted({name for view in (*ours, *theirs) for name in view}):
        if name.endswith(" runs"):
            shares = [sum(len(view.get(name, ())) for view in side) / len(side) for side in (ours, theirs)]
            mean = sum(shares) / 2
            spread = math.sqrt(max(mean, mean * (1 - min(mean, 1))) * (1 / len(ours) + 1 / len(theirs)))
            distance = abs(shares[0] - shares[1]) / (3.9 * spread)
        else:
            a, b = (np.array([value for view in side for value in view.get(name, ())]) for side in (ours, theirs))
            if min(len(a), len(b)) < 8:
                continue
            points = np.unique(np.concatenate([a, b]))
            ranks = [np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (a, b)]
            distance = np.abs(ranks[0] - ranks[1]).max() / (2.23 * math.sqrt(1 / len(a) + 1 / len(b)))
        worst = max(worst, (float(distance), name))
    return worst
