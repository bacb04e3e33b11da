"""Official transform objects beside our recipes: python -m benchmarks.official_objects.table FOLDER [--into PAGE].

FOLDER holds checkouts, each named as its repository: dino, dinov2, swav ... Those that are missing are left out. Each
object is built from its repository's own text and run on pictures. What it asked of Pillow becomes a plan, which our
native code executes: its bytes, and then its normalized values, are compared with the object's. Beside that what is
drawn is compared with what the recipe draws that Recipe.from_torchvision makes of the object.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter

from pass_loader import _C, Recipe, ViewSpec, render_plan

from ..pages import write_between
from ..pictures import photographs
from .compare import numbers, plan_of, steps_of, worst_distance
from .objects import OFFICIALS, Official
from .recording import View, recording


@dataclass
class Counts:
    views: int = 0
    bytes_: int = 0
    different: int = 0  # bytes
    levels: int = 0  # by which a byte differs at most
    values: int = 0  # normalized values that differ
    furthest: float = 0.0
    refused: int = 0  # pictures on which the object fails


def pictures(seed: int) -> list[np.ndarray]:
    """Three pictures: two cuts of photographs and noise, of odd sizes."""
    cuts = [np.asarray(one.crop((40, 30, 40 + 241, 30 + 187))) for one in photographs().values()]
    return [cuts[0], np.ascontiguousarray(cuts[1].transpose(1, 0, 2)),
            np.random.default_rng(seed).integers(0, 256, (131, 200, 3), np.uint8)]  # fmt: skip


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the views in what an object returns, each once, in order."""
    seen: set[int] = set()

    def walk(part: Any) -> Iterator[torch.Tensor]:
        if isinstance(part, torch.Tensor):
            if id(part) not in seen and part.dtype == torch.float32 and part.dim() == 3:
                seen.add(id(part))
                yield part
        elif isinstance(part, (list, tuple)):
            for one in part:
                yield from walk(one)
        elif isinstance(part, dict):
            yield from walk([*part.values()])

    yield from walk(value)


@contextmanager
def lenient_blurs() -> Iterator[None]:
    """Have Pillow's GaussianBlur take a radius that is a tensor of one number, as Pillow before 10.1 does."""
    original = ImageFilter.GaussianBlur

    class Lenient(original):  # type: ignore[valid-type, misc]
        def __init__(self, radius: Any = 2):
            super().__init__(float(radius))

    ImageFilter.GaussianBlur = Lenient  # type: ignore[misc]
    try:
        yield
    finally:
        ImageFilter.GaussianBlur = original  # type: ignore[misc]


def run(official: Official, made: Any, pixels: np.ndarray) -> tuple[list[View], list[torch.Tensor]]:
    picture = Image.fromarray(pixels)
    with lenient_blurs() if official.lenient else nullcontext(), recording() as recorder:
        result = official.views(made, picture) if official.views else made(picture)
    return recorder.views, [*tensors(result)]


def compare_view(view: View, tensor: torch.Tensor, pixels: np.ndarray, table: np.ndarray, counts: Counts) -> None:
    plan = plan_of(view.ops, *pixels.shape[:2])
    (ours,) = render_plan(pixels, plan)
    counts.views += 1
    counts.bytes_ += view.pixels.size
    apart = np.abs(ours.astype(np.int32) - view.pixels)
    counts.different += int((apart > 0).sum())
    counts.levels = max(counts.levels, int(apart.max()))
    normalized = np.stack([table[c][ours[:, :, c]] for c in range(3)])
    theirs = tensor.numpy()
    differs = (normalized != theirs).any(0)
    if differs.any():
        rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        apart = np.abs(normalized - theirs)
        if differs[box].all() and differs.mean() < 0.5 and apart.max() > 0.1:
            return  # erased: a rectangle that differs everywhere
        counts.values += int((normalized != theirs).sum())
        counts.furthest = max(counts.furthest, float(apart.max()))


def same_views(found: Recipe, preset: Recipe) -> bool:
    """Tell whether two recipes have the same views: what their rows say, but for kinds of steps that never run."""

    def fields(view: ViewSpec) -> tuple[Any, ...]:
        return (
            view.height, view.width, view.scale if view.window is None else None, view.interpolation, view.flip,
            view.jitter and (view.jitter, view.brightness, view.contrast, view.saturation, view.hue),
            view.grayscale, view.blur and (view.blur, view.blur_sigma, view.blur_kernel),
            view.solarize and (view.solarize, view.solarize_threshold), view.resize_short, view.via, view.box_of,
            str(view.window), [str(one) for one in view.then], [str(one) for one in view.before],
            [(fields(spec), share) for spec, share in view.alternatives], view.decided_with,
        )  # fmt: skip

    return [*map(fields, found.views)] == [*map(fields, preset.views)] and found.norms() == preset.norms()


def row_of(official: Official, folder: Path, runs: int) -> tuple[list[str], Counts]:
    """Build the object, run it, compare; return its row of the table and what was counted."""
    at = folder / official.checkout
    commit = subprocess.run(["git", "-C", str(at), "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True)
    head = [f"{official.checkout} {commit.stdout.strip()}", official.name]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    made = official.make(at)
    if isinstance(made, list):
        views_of_list = made
        official = Official(official.name, official.checkout, official.make, official.preset,
                            lambda _, picture: [one(picture) for one in views_of_list])  # fmt: skip
    recipe = Recipe.from_timm(made) if official.timm else Recipe.from_torchvision(made)
    becomes = f"{len(recipe.views)} views" if len(recipe.views) > 1 else "1 view"
    if official.preset is not None:
        preset = official.preset()
        becomes = f"`{preset.name}`" if same_views(recipe, preset) else f"**not** `{preset.name}`"
    counts, table = Counts(), recipe.normalize_table()
    ours: list[list[dict[str, list[float]]]] = [[] for _ in recipe.views]
    theirs: list[list[dict[str, list[float]]]] = [[] for _ in recipe.views]
    shown = pictures(0)
    for number in range(runs):
        pixels = shown[number % len(shown)]
        try:
            views, results = run(official, made, pixels)
        except ValueError as error:  # Pillow 13 refuses to posterize to 0 bits
            if "bits" not in str(error):
                raise
            counts.refused += 1
            continue
        if len(views) != len(recipe.views) or len(results) != len(views):
            raise ValueError(f"{official.name}: {len(views)} views, {len(results)} tensors, want {len(recipe.views)}")
        plans = _C.plan_views(recipe.rows(), seed=1, epoch=0, record=number, height=pixels.shape[0],
                              width=pixels.shape[1], steps=recipe.step_rows())  # fmt: skip
        for place, (view, tensor) in enumerate(zip(views, results)):
            compare_view(view, tensor, pixels, table, counts)
            boxes = [plan_of(view.ops, *pixels.shape[:2])[0], plans[place]]
            for side, box, ops in zip((theirs, ours), boxes, (view.ops, steps_of(plans[place]))):
                fields = [box[f"crop_{name}"] for name in ("x", "y", "width", "height")]
                side[place].append(numbers(ops, fields))
    worst = [worst_distance(a, b) for a, b in zip(ours, theirs) if a]
    distance, what = max(worst, default=(math.nan, "nothing"))
    print(*head, becomes, counts, f"{distance:.2f} of {what}", file=sys.stderr, flush=True)
    share = counts.values / max(counts.bytes_, 1)
    values = f"{share:.0%}" if share > 0.005 else f"{counts.values:,}"
    values += f", by at most {counts.furthest:.1g}" if counts.values else ""
    differing = f"{counts.different:,} of {counts.bytes_ / 1e6:,.1f} million"
    differing += f", by {counts.levels}" if counts.different else ""
    if official.lenient:
        becomes += ", its radius a number"
    if counts.refused:
        becomes += f"; fails on {counts.refused} of {runs} pictures"
    return [*head, becomes, f"{counts.views:,}", differing, values, f"{distance:.2f}"], counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.official_objects.table", description=__doc__)
    parser.add_argument("folder", type=Path, help="of checkouts, each named as its repository")
    parser.add_argument("--runs", type=int, default=300, help="pictures an object")
    parser.add_argument("--only", nargs="*", default=[], help="checkouts")
    parser.add_argument("--brief", action="store_true", help="one sentence in place of the table")
    parser.add_argument("--into", type=Path, help="page to put the table in")
    given = parser.parse_args()
    rows: list[list[str]] = []
    total = Counts()
    for official in OFFICIALS:
        if not (given.folder / official.checkout).is_dir() or (given.only and official.checkout not in given.only):
            continue
        row, counts = row_of(official, given.folder, given.runs)
        rows.append(row)
        total.views += counts.views
        total.bytes_ += counts.bytes_
        total.different += counts.different
        total.refused += counts.refused
    text = (
        f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}: {len(rows)} objects, {given.runs} pictures "
        f"each, {total.views:,} views; {total.different:,} of {total.bytes_ / 1e6:,.0f} million bytes differ."
    )
    if failed := [row for row in rows if "fails on" in row[2]]:
        named = "; ".join(f"{row[0]}, {row[1]}: {row[2].partition('; fails on ')[2]}" for row in failed)
        text += f" Pillow refuses what these ask for: {named}."
    if not given.brief:
        head = ["checkout", "object", "becomes", "views", "differing bytes", "differing values", "distance"]
        text += "\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    print(text)
    if given.into:
        write_between(given.into, f"official objects, Pillow {PIL.__version__.split('.')[0]}", text)


if __name__ == "__main__":
    main()
