"""Our draws against those of torchvision's own code and of the official scripts' classes.

`python -m benchmarks.proof.draws --count 1000000 --page docs/proof.md`; long. tests/recipes/test_draws.py runs it
with fewer draws.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.official import PilBlur, PilSolarize, seed_everything
from benchmarks.pages import write_between
from pass_loader import _C, recipes
from pass_loader.recipes import Recipe, ViewSpec
from pass_loader.recipes.steps import OP_NAMES

from .statistics import LEVEL, Outcome, holm, independent, same_distribution, same_shares, uncorrelated

from torchvision import transforms as T  # noqa: E402
from torchvision.transforms import autoaugment  # noqa: E402

HEIGHT, WIDTH = 375, 500
FACTORS = ("brightness", "contrast", "saturation", "hue")
Drawn = dict[str, np.ndarray]  # a row of numbers for each thing that is drawn; NaN where a step does not run

VIEWS: dict[str, tuple[Recipe, int]] = {
    "DINO, second global view": (recipes.dino(local_crops=1), 1),
    "DINO, local view": (recipes.dino(local_crops=1), 2),
    "SwAV, local view": (recipes.swav(global_crops=1, local_crops=1), 1),
    "MoCo-v2": (recipes.mocov2(), 0),
}
POLICIES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "RandAugment": (recipes.rand_augment((HEIGHT, WIDTH)), T.RandAugment),
    "TrivialAugmentWide": (recipes.trivial_augment_wide(), T.TrivialAugmentWide),
    "AutoAugment": (recipes.auto_augment((HEIGHT, WIDTH)), T.AutoAugment),
}


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


def numbers_of(plans: np.ndarray) -> Drawn:
    """Return what was drawn for each of the plans of one view."""
    order = plans["jitter_order"].astype(np.float64)
    jittered = order[:, 0] >= 0
    numbers = {name: np.where(jittered, plans[name], np.nan) for name in FACTORS}
    numbers |= {name: plans[f"crop_{side}"] for name, side in
                {"left": "x", "top": "y", "width": "width", "height": "height"}.items()}  # fmt: skip
    return numbers | {
        "flip": plans["flip"],
        "jitter": jittered,
        "order": np.where(jittered, order @ [64, 16, 4, 1], np.nan),
        "gray": plans["grayscale"],
        "sigma": np.where(plans["blur_sigma"] > 0, plans["blur_sigma"], np.nan),
        "solarize": plans["solarize_threshold"] >= 0,
    }


def official_numbers(view: ViewSpec, count: int) -> Drawn:
    """Return the same, drawn by torchvision's transforms and the official scripts' classes on small pictures."""
    picture, pair = torch.empty(3, HEIGHT, WIDTH), torch.tensor([[[0.0, 1.0]]])
    colour, point = torch.tensor([1.0, 0.0, 0.0])[:, None, None], Image.new("RGB", (1, 1))
    flip, gray = T.RandomHorizontalFlip(view.flip), T.RandomGrayscale(view.grayscale)
    gate = T.RandomApply([lambda _: True], view.jitter)
    jitter = T.ColorJitter(*(getattr(view, name) for name in FACTORS))
    blur, solarize = PilBlur(view.blur, view.blur_sigma), PilSolarize(view.solarize, view.solarize_threshold)
    seen = SimpleNamespace(filter=lambda gaussian: gaussian.radius)  # a picture that a blur only looks at
    rows = np.empty((count, 14))
    for row in rows:
        row[:4] = T.RandomResizedCrop.get_params(picture, list(view.scale), list(view.ratio))
        row[4] = flip(pair)[0, 0, 0] == 1
        row[5] = jittered = gate(False)
        order, *factors = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        row[6] = int(order @ torch.tensor([64, 16, 4, 1])) if jittered else np.nan
        row[7:11] = factors if jittered else np.nan
        row[11] = gray(colour)[1, 0, 0] > 0
        radius = blur(seen)  # type: ignore[arg-type]
        row[12] = np.nan if radius is seen else radius
        row[13] = solarize(point) is not point
    names = ("top", "left", "height", "width", "flip", "jitter", "order", *FACTORS, "gray", "sigma", "solarize")
    return dict(zip(names, rows.T))


def compared(what: str, ours: Drawn, theirs: Drawn) -> Iterator[Outcome]:
    """Yield the tests of one view's draws against theirs."""

    def both(make: Callable[[Drawn], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        one, other = make(ours), make(theirs)
        return one[~np.isnan(one)], other[~np.isnan(other)]

    continuous: dict[str, Callable[[Drawn], np.ndarray]] = {
        "area": lambda d: d["width"] * d["height"].astype(np.float64),
        "log aspect": lambda d: np.log(d["width"] / d["height"]),
        **{name: (lambda d, name=name: d[name].astype(np.float64)) for name in ("left", "top", *FACTORS, "sigma")},
    }
    for name, make in continuous.items():
        yield same_distribution(f"{what}: {name}", *both(make))
    shares: dict[str, Callable[[Drawn], np.ndarray]] = {
        "left edge": lambda d: _edge(d["left"], d["width"], WIDTH),
        "top edge": lambda d: _edge(d["top"], d["height"], HEIGHT),
        "blur": lambda d: ~np.isnan(d["sigma"]) * 1.0,
        **{name: (lambda d, name=name: d[name].astype(np.float64))
           for name in ("flip", "jitter", "order", "gray", "solarize")},
    }  # fmt: skip
    for name, make in shares.items():
        yield same_shares(f"{what}: {name}", *both(make))


def _edge(begin: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """Return 0 where a box begins at the picture's edge, 2 where it ends there, 3 for both, else 1."""
    return np.where(begin == 0, np.where(length == side, 3.0, 0.0), np.where(begin + length == side, 2.0, 1.0))


def our_policies(then: Any, count: int) -> np.ndarray:
    """Return the steps that were chosen, (count,) words: operations and the values of colours. What changes nothing is
    left out."""
    recipe = Recipe("policy", (ViewSpec((HEIGHT, WIDTH), then=then),))
    steps = our_plans(recipe, count, [0])["steps"][:, 0]
    moves = (steps["matrix"][..., :6] != (1, 0, 0, 0, 1, 0)).any(-1).tolist()
    rows = zip(steps["op"].tolist(), steps["factor"].tolist(), steps["level"].tolist(), moves)
    return np.array([" ".join(filter(None, map(_word, *row))) for row in rows])


def _word(op: int, factor: float, level: int, moves: bool) -> str:
    name = OP_NAMES[op] if op else ""
    if name in ("affine", "quarter_turn", "flip", "vertical_flip"):
        return "geometry" if name != "affine" or moves else ""
    return _with_value(name, level if name in ("posterize", "solarize") else factor)


def _with_value(name: str, value: float) -> str:
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return f"{name} {np.float32(value):.4f}" if value != 1 else ""
    if name in ("posterize", "solarize"):
        return f"{name} {int(value)}" if (name, value) not in (("posterize", 8), ("solarize", 256)) else ""
    return name


_OFFICIAL = {
    "Brightness": "brightness", "Color": "saturation", "Contrast": "contrast", "Sharpness": "sharpness",
    "Posterize": "posterize", "Solarize": "solarize", "AutoContrast": "autocontrast", "Equalize": "equalize",
    "Invert": "invert", "Identity": "",
}  # fmt: skip


def official_policies(transform: Any, count: int) -> np.ndarray:
    """Return the same of torchvision's transform, whose operations are only noted."""
    noted: list[str] = []

    def note(picture: Any, op: str, magnitude: float, **_: Any) -> Any:
        name = _OFFICIAL.get(op, "geometry")
        if name == "geometry":
            noted.append(name if magnitude else "")
        else:
            value = {"posterize": int(magnitude), "solarize": int(np.ceil(magnitude))}.get(name, 1.0 + magnitude)
            noted.append(_with_value(name, value))
        return picture

    own, autoaugment._apply_op = autoaugment._apply_op, note
    try:
        picture, words = Image.new("RGB", (WIDTH, HEIGHT)), []
        for _ in range(count):
            transform(picture)
            words.append(" ".join(filter(None, noted)))
            noted.clear()
    finally:
        autoaugment._apply_op = own
    return np.array(words)


def against_torchvision(count: int) -> Iterator[Outcome]:
    """Yield the tests of all views and policies, each with so many draws of ours and of theirs."""
    for number, (what, (recipe, view)) in enumerate(VIEWS.items()):
        seed_everything(number)
        ours = numbers_of(our_plans(recipe, count, [view], seed=number)[:, 0])
        yield from compared(what, ours, official_numbers(recipe.views[view], count))
    for what, (then, make) in POLICIES.items():
        seed_everything(0)
        yield same_shares(f"{what}: steps", our_policies(then, count), official_policies(make(), count))


def free_numbers(count: int, views: int = 3, side: int = 4000, **key: int) -> list[Drawn]:
    """Return all that is drawn for so many views, each number without regard to others: every step runs, gates are
    even, and no box is refused, since it is small in a large square picture."""
    view = ViewSpec(96, (0.05, 0.1), interpolation="random", jitter=1.0, brightness=(0, 2), contrast=(0, 2),
                    saturation=(0, 2), hue=(-0.5, 0.5), grayscale=0.5, blur=1.0, solarize=0.5)  # fmt: skip
    plans = our_plans(Recipe("free", (view,) * views), count, list(range(views)), (side, side), **key)
    gates = our_plans(Recipe("gates", (view,) * views).override(jitter=0.5, blur=0.5), count, list(range(views)),
                      (side, side), **key)  # fmt: skip
    found = []
    for number in range(views):
        drawn = numbers_of(plans[:, number])
        width, height = drawn.pop("width"), drawn.pop("height")
        drawn["area"], drawn["aspect"] = width * height.astype(np.float64), width / height
        drawn["left"] = drawn["left"] / (side - width)  # of all places that the box may have
        drawn["top"] = drawn["top"] / (side - height)
        drawn["jitter"] = gates[:, number]["jitter_order"][:, 0] >= 0
        drawn["blur"] = gates[:, number]["blur_sigma"] > 0
        drawn["filter"] = plans[:, number]["interpolation"]
        found.append({name: values.astype(np.float64) for name, values in drawn.items()})
    return found


def independence(count: int) -> Iterator[Outcome]:
    """Yield tests of ours alone: decisions of a view, views, epochs, draws, seeds and neighbouring records."""
    here = free_numbers(count)
    for one, other in itertools.combinations(here[0], 2):
        yield independent(f"{one} and {other} of a view", here[0][one], here[0][other])
    others = {"the next epoch": {"epoch": 1}, "the next draw": {"draw": 1}, "the next seed": {"seed": 1},
              "a far seed": {"seed": 2**63}, "a far epoch": {"epoch": 2**31}}  # fmt: skip
    there = {what: free_numbers(count, 1, **key)[0] for what, key in others.items()}
    there |= {"the next view": here[1], "the view after it": here[2]}
    for name, values in here[0].items():
        for what, drawn in there.items():
            yield independent(f"{name} and {what}", values, drawn[name])
        for lag in (1, 2, 8):
            yield independent(f"{name}, {lag} records on", values[:-lag], values[lag:])
            yield uncorrelated(f"{name}, {lag} records on, correlation", values[:-lag], values[lag:])


def _one_pixel_off(drawn: Drawn) -> Drawn:
    return drawn | {"left": np.minimum(drawn["left"] + 1, WIDTH - drawn["width"])}


def _more_often(name: str, drop: float) -> Callable[[Drawn], Drawn]:
    def changed(drawn: Drawn) -> Drawn:
        kept = np.random.default_rng(0).random(len(drawn[name])) >= drop
        return drawn | {name: drawn[name] & kept}

    return changed


def _sigma(law: Callable[[np.ndarray], np.ndarray]) -> Callable[[Drawn], Drawn]:
    return lambda drawn: drawn | {"sigma": law((drawn["sigma"] - 0.1) / 1.9)}


# What is wrong with the draws, and how it is made.
CONTROLS: dict[str, Callable[[Drawn], Drawn]] = {
    "boxes one pixel to the right": _one_pixel_off,
    "the last place of a box is never taken": lambda d: (
        d | {"left": np.where(d["left"] + d["width"] == WIDTH, d["left"] - (d["left"] > 0), d["left"])}
    ),
    "a flip of 0.49": _more_often("flip", 0.02),
    "gray of 0.19": _more_often("gray", 0.05),
    "sigma log-uniform in [0.1, 2]": _sigma(lambda u: 0.1 * 20**u),
    "sigma uniform in [0.1, 1.98]": _sigma(lambda u: 0.1 + 1.88 * u),
    "hue 1 % weaker": lambda d: d | {"hue": d["hue"] * 0.99},
    "aspect uniform, not its logarithm": lambda d: d | {"width": _uniform_aspect(d)},
    "jitter in torch's order of names": lambda d: d | {"order": np.where(d["jitter"], 27.0, np.nan)},
}


def _uniform_aspect(drawn: Drawn) -> np.ndarray:
    """Return widths whose aspect, at the box's height, is uniform where its logarithm was."""
    low, high = np.log(3 / 4), np.log(4 / 3)
    share = np.clip((np.log(drawn["width"] / drawn["height"]) - low) / (high - low), 0, 1)
    return np.rint(drawn["height"] * (3 / 4 + share * (4 / 3 - 3 / 4)))


SIZES = (300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


def found_from(count: int, what: str = "DINO, local view") -> dict[str, int | None]:
    """Return, for each control, from which number of draws on it is found; None: not with `count`.

    The smallest p-value of the view's tests counts against the level over all tests of the whole family.
    """
    recipe, view = VIEWS[what]
    number = list(VIEWS).index(what)
    seed_everything(number)
    ours = numbers_of(our_plans(recipe, count, [view], seed=number)[:, 0])
    theirs = official_numbers(recipe.views[view], count)
    family = len(VIEWS) * len(list(compared(what, *({k: v[:300] for k, v in d.items()} for d in (ours, theirs)))))
    found: dict[str, int | None] = {}
    for name, change in CONTROLS.items():
        changed = change(ours)
        found[name] = None
        for size in (size for size in reversed(SIZES) if size <= count):
            parts = [{key: values[:size] for key, values in drawn.items()} for drawn in (changed, theirs)]
            if min(test.p for test in compared(what, *parts)) > LEVEL / (family + len(POLICIES)):
                break
            found[name] = size
    return found


def summary(families: dict[str, tuple[int, list[Outcome]]], controls: dict[str, int | None], count: int) -> str:
    """Return the page's tables. count: how many draws the controls had at most."""
    lines = ["| family | draws each | tests | smallest p | rejected (Holm, 0.001) |", "|---|---|---|---|---|"]
    for name, (draws, tests) in families.items():
        least = min(tests, key=lambda test: test.p)
        lines.append(f"| {name} | {draws:,} | {len(tests)} | {least.p:.2g} ({least.what}) | {len(holm(tests))} |")
    lines += ["", "| what is wrong on purpose | found from so many draws on |", "|---|---|"]
    lines += [f"| {name} | {f'{size:,}' if size else f'not with {count:,}'} |" for name, size in controls.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="draws of each kind")
    parser.add_argument("--page", type=Path, help="a page whose tables are written anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    from .generator import stream_tests

    families = {
        "against torchvision and the official classes": (options.count, list(against_torchvision(options.count))),
        "independence": (options.count, list(independence(options.count))),
        "the generator (bits)": (32 * options.count, list(stream_tests(options.count))),
    }
    text = summary(families, found_from(options.count), options.count)
    print(text)
    rejected = [test for _, tests in families.values() for test in holm(tests)]
    for test in rejected:
        print(f"rejected: {test.what}, p {test.p:.2g}")
    if options.page and not rejected:
        write_between(options.page, "benchmarks/proof/draws.py", text)
    return bool(rejected)


if __name__ == "__main__":
    sys.exit(main())
