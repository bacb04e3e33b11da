"""Our draws against those of torchvision's own code and of the official scripts' classes.

`python -m benchmarks.proof.draws --count 1000000 --page docs/proof.md`; long. The exit status is 1 where a difference
is found, and where a control is not. tests/recipes/test_draws.py runs it with fewer draws.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.official import PilBlur, PilSolarize, seed_everything
from benchmarks.pages import write_between
from pass_loader import recipes
from pass_loader.recipes import Recipe, ViewSpec

from .plans import HEIGHT, WIDTH, our_plans
from .policies import POLICIES, first_of, official_policies, our_policies, without_values
from .statistics import LEVEL, Outcome, has_share, holm, independent, same_distribution, same_shares, uncorrelated

from torchvision import transforms as T  # noqa: E402

FACTORS = ("brightness", "contrast", "saturation", "hue")
Drawn = dict[str, np.ndarray]  # a row of numbers for each thing that is drawn; NaN where a step does not run

VIEWS: dict[str, tuple[Recipe, int]] = {
    "DINO, second global view": (recipes.dino(local_crops=1), 1),
    "DINO, local view": (recipes.dino(local_crops=1), 2),
    "SwAV, local view": (recipes.swav(global_crops=1, local_crops=1), 1),
    "MoCo-v2": (recipes.mocov2(), 0),
}


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
    recipe, number = VIEWS[what]
    for name in ("flip", "jitter", "gray", "blur", "solarize"):
        share = getattr(recipe.views[number], "grayscale" if name == "gray" else name)
        yield has_share(f"{what}: {name}, by its probability", both(shares[name])[0], share)


def _edge(begin: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """Return 0 where a box begins at the picture's edge, 2 where it ends there, 3 for both, else 1."""
    return np.where(begin == 0, np.where(length == side, 3.0, 0.0), np.where(begin + length == side, 2.0, 1.0))


def both_numbers(what: str, count: int) -> tuple[Drawn, Drawn]:
    """Return what is drawn for a view of VIEWS, by us and by them."""
    recipe, view = VIEWS[what]
    number = list(VIEWS).index(what)
    seed_everything(number)
    ours = numbers_of(our_plans(recipe, count, [view], seed=number)[:, 0])
    return ours, official_numbers(recipe.views[view], count)


def against_view(what: str, count: int) -> list[Outcome]:
    """Return the tests of one view."""
    return list(compared(what, *both_numbers(what, count)))


def against_policy(what: str, count: int) -> list[Outcome]:
    """Return the tests of one policy."""
    then, make = POLICIES[what]
    seed_everything(0)
    return compared_policies(what, our_policies(then, count), official_policies(make(), count))


def compared_policies(what: str, ours: np.ndarray, theirs: np.ndarray) -> list[Outcome]:
    """Return the tests of what a policy chose, as words, against theirs."""
    return [same_shares(f"{what}: operations", without_values(ours), without_values(theirs)),
            same_shares(f"{what}: first operation and its value", first_of(ours), first_of(theirs)),
            same_shares(f"{what}: operations and values", ours, theirs)]  # fmt: skip


def against_torchvision(count: int) -> list[Outcome]:
    """Return the tests of all views and policies, each with so many draws of ours and of theirs."""
    return [test for what in VIEWS for test in against_view(what, count)] + [
        test for what in POLICIES for test in against_policy(what, count)
    ]


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


def independence(count: int) -> list[Outcome]:
    """Return tests of ours alone: decisions of a view, views, epochs, draws, seeds and neighbouring records."""
    here = free_numbers(count)
    found = []
    for one, other in itertools.combinations(here[0], 2):
        found.append(independent(f"{one} and {other} of a view", here[0][one], here[0][other]))
    others = {"the next epoch": {"epoch": 1}, "the next draw": {"draw": 1}, "the next seed": {"seed": 1},
              "a far seed": {"seed": 2**63}, "a far epoch": {"epoch": 2**31}}  # fmt: skip
    there = {what: free_numbers(count, 1, **key)[0] for what, key in others.items()}
    there |= {"the next view": here[1], "the view after it": here[2]}
    for name, values in here[0].items():
        for what, drawn in there.items():
            found.append(independent(f"{name} and {what}", values, drawn[name]))
        for lag in (1, 2, 8):
            found.append(independent(f"{name}, {lag} records on", values[:-lag], values[lag:]))
            found.append(uncorrelated(f"{name}, {lag} records on, correlation", values[:-lag], values[lag:]))
    return found


def _one_pixel_off(drawn: Drawn) -> Drawn:
    return drawn | {"left": np.minimum(drawn["left"] + 1, WIDTH - drawn["width"])}


def _more_often(name: str, drop: float) -> Callable[[Drawn], Drawn]:
    def changed(drawn: Drawn) -> Drawn:
        kept = np.random.default_rng(0).random(len(drawn[name])) >= drop
        return drawn | {name: drawn[name] & kept}

    return changed


def _sigma(law: Callable[[np.ndarray], np.ndarray]) -> Callable[[Drawn], Drawn]:
    return lambda drawn: drawn | {"sigma": law((drawn["sigma"] - 0.1) / 1.9)}


class Control(NamedTuple):
    """What is wrong with the draws, how it is made, and with how many draws it must be found."""

    change: Callable[[Drawn], Drawn]
    size: int


CONTROLS = {
    "boxes one pixel to the right": Control(_one_pixel_off, 10_000),
    "the last place of a box is never taken": Control(
        lambda d: d | {"left": np.where(d["left"] + d["width"] == WIDTH, d["left"] - (d["left"] > 0), d["left"])},
        10_000,
    ),
    "a flip of 0.49": Control(_more_often("flip", 0.02), 100_000),
    "gray of 0.19": Control(_more_often("gray", 0.05), 100_000),
    "sigma log-uniform in [0.1, 2]": Control(_sigma(lambda u: 0.1 * 20**u), 1_000),
    "sigma uniform in [0.1, 1.98]": Control(_sigma(lambda u: 0.1 + 1.88 * u), 1_000_000),
    "hue 1 % weaker": Control(lambda d: d | {"hue": d["hue"] * 0.99}, 1_000_000),
    "aspect uniform, not its logarithm": Control(lambda d: d | {"width": _uniform_aspect(d)}, 3_000),
    "jitter in torch's order of names": Control(lambda d: d | {"order": np.where(d["jitter"], 27.0, np.nan)}, 300),
}


def _uniform_aspect(drawn: Drawn) -> np.ndarray:
    """Return widths whose aspect, at the box's height, is uniform where its logarithm was."""
    low, high = np.log(3 / 4), np.log(4 / 3)
    share = np.clip((np.log(drawn["width"] / drawn["height"]) - low) / (high - low), 0, 1)
    return np.rint(drawn["height"] * (3 / 4 + share * (4 / 3 - 3 / 4)))


CONTROLLED = "DINO, local view"
SIZES = (300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


def found_from(ours: Drawn, theirs: Drawn, what: str = CONTROLLED) -> dict[str, int | None]:
    """Return, for each control, from which number of draws on it is found; None: not with all.

    The smallest p-value of the view's tests counts against the level over all tests of the whole family.
    """
    few = ({key: values[:300] for key, values in drawn.items()} for drawn in (ours, theirs))
    tests = len(VIEWS) * len(list(compared(what, *few))) + 3 * len(POLICIES)
    found: dict[str, int | None] = {}
    for name, control in CONTROLS.items():
        changed = control.change(ours)
        found[name] = None
        for size in (size for size in reversed(SIZES) if size <= len(ours["flip"])):
            parts = [{key: values[:size] for key, values in drawn.items()} for drawn in (changed, theirs)]
            if min(test.p for test in compared(what, *parts)) > LEVEL / tests:
                break
            found[name] = size
    return found


def missed(found: dict[str, int | None], count: int) -> list[str]:
    """Return the controls that are not found with the number of draws they must be found with, where it was tried."""
    return [name for name, size in found.items()
            if CONTROLS[name].size <= count and not (size and size <= CONTROLS[name].size)]  # fmt: skip


def summary(families: dict[str, tuple[int, list[Outcome]]], found: dict[str, int | None], count: int) -> str:
    """Return the page's tables. count: how many draws the controls had at most."""
    lines = ["| family | draws each | tests | smallest p | rejected (Holm, 0.001) |", "|---|---|---|---|---|"]
    for name, (draws, tests) in families.items():
        least = min(tests, key=lambda test: test.p)
        lines.append(f"| {name} | {draws:,} | {len(tests):,} | {least.p:.2g} ({least.what}) | {len(holm(tests))} |")
    lines += ["", "| what is wrong on purpose | must be found with | found from so many draws on |", "|---|---|---|"]
    for name, size in found.items():
        lines.append(f"| {name} | {CONTROLS[name].size:,} | {f'{size:,}' if size else f'not with {count:,}'} |")
    return "\n".join(lines)


def _controlled(count: int) -> tuple[list[Outcome], dict[str, int | None]]:
    both = both_numbers(CONTROLLED, count)
    return list(compared(CONTROLLED, *both)), found_from(*both)


def all_tests(count: int, processes: int) -> tuple[dict[str, tuple[int, list[Outcome]]], dict[str, int | None]]:
    """Return the outcomes of all families, with how many draws each had, and from where on controls are found."""
    from .generator import slot_tests, stream_tests

    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        alone = pool.submit(independence, count)  # the long ones first
        controlled = pool.submit(_controlled, count)
        views = [pool.submit(against_view, what, count) for what in VIEWS if what != CONTROLLED]
        policies = [pool.submit(against_policy, what, count) for what in POLICIES]
        slots, streams = pool.submit(slot_tests, count), pool.submit(stream_tests, count)
        tests, found = controlled.result()
        tests = tests + [test for job in views + policies for test in job.result()]
        families = {
            "against torchvision and the official classes": (count, tests),
            "independence": (count, alone.result()),
            "independence of slots (words)": (count, slots.result()),
            "the generator (bits)": (32 * count, streams.result()),
        }
    return families, found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="draws of each kind")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--page", type=Path, help="a page whose tables are written anew")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    families, found = all_tests(options.count, options.processes)
    text = summary(families, found, options.count)
    text += f"\n\n{(time.monotonic() - began) / 60:.0f} minutes, {options.processes} processes."
    print(text)
    rejected = [test for _, tests in families.values() for test in holm(tests)]
    for test in rejected:
        print(f"rejected: {test.what}, p {test.p:.2g}")
    not_found = missed(found, options.count)
    for name in not_found:
        print(f"not found with {CONTROLS[name].size:,} draws: {name}")
    if options.page and not rejected and not not_found:
        write_between(options.page, "benchmarks/proof/draws.py", text)
    return bool(rejected or not_found)


if __name__ == "__main__":
    sys.exit(main())
