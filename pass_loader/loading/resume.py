"""Where an iteration stands, and the state that brings it back: exactly, on any number of ranks and threads."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import Any

from .. import _C
from ..data.blocks import BlockSizes
from ..data.live import Generation
from ..data.samples import Samples
from ..recipes.recipe import Recipe, ViewSpec

STATE_VERSION = 1


@dataclass
class Progress:
    """An iteration that has begun.

    Positions count samples handed out by `next`: those of all ranks together under an EpochSampler, this rank's under a
    foreign sampler.
    """

    epoch: int  # of the views
    order_epoch: int  # the sampler's
    generation: Generation | None  # of the pack; None: that of the moment at which the iteration begins
    samples: int  # served records
    world: int  # ranks that began the epoch
    position: int = 0
    sampler_start: str | None = None  # a foreign sampler's generator, before the epoch
    sampler_state: Any = None  # a foreign sampler's state_dict, after the last batch handed out
    finished: bool = False
    endless: bool = False
    passed: int = 0  # passes before the running one of an endless order, to which generation and samples belong
    pass_start: int = 0  # the position at which that one began
    sizes: BlockSizes | None = None  # of order="blocks", where a state brought them

    @property
    def unused_epoch(self) -> int:
        """The first epoch whose views were not handed out."""
        if self.endless:
            return self.epoch + self.passed + math.ceil((self.position - self.pass_start) / max(1, self.samples))
        return self.epoch + (self.finished or self.position > 0)

    @property
    def is_inside(self) -> bool:
        """True inside an epoch or pass, which keeps the records that it began with."""
        return self.position > self.pass_start

    def check_position(self, step: int, end: int | None) -> None:
        """Raise ValueError for a position that is not between two batches.

        step: the global batch. end: of the epoch; None where it is endless.
        """
        if self.position % step and self.position != end:
            raise ValueError(
                f"the state is damaged: position {self.position} is no multiple of the global batch, {step}"
            )
        if end is not None and self.position > end:
            raise ValueError(f"the state is damaged: position {self.position} is past its epoch of {end} samples")
        if self.pass_start > self.position:
            raise ValueError(f"the state is damaged: position {self.position} is before its pass, {self.pass_start}")

    def to_running_pass(self) -> None:
        """Count the passes that were completed since pass_start."""
        if self.endless:
            passes = (self.position - self.pass_start) // max(1, self.samples)
            self.passed, self.pass_start = self.passed + passes, self.pass_start + passes * self.samples

    def as_state(self) -> dict[str, Any]:
        """Return the state of this place, or after the last batch that of the next epoch's start.

        What a foreign sampler adds comes on top.
        """
        return {
            "epoch": self.epoch + self.finished,
            "order_epoch": self.order_epoch,
            "position": 0 if self.finished else self.position,
            "generation": list(self.generation) if isinstance(self.generation, tuple) else self.generation,
            "samples": self.samples,
            "world_size": self.world,
            **({"pass": [self.passed, self.pass_start]} if self.passed else {}),
        }

    @staticmethod
    def of_state(state: dict[str, Any]) -> Progress:
        """Return the place that a state names. Raises ValueError for values that no state has."""
        generation = state["generation"]
        if isinstance(generation, (list, tuple)):
            generation = tuple(generation)
        numbers = [(name, state[name]) for name in ("epoch", "order_epoch", "position", "samples", "world_size")]
        if generation is not None:
            numbers += [("generation", one) for one in (generation if isinstance(generation, tuple) else [generation])]
        running = state.get("pass", [0, 0])
        numbers += [("pass", number) for number in running]
        for name, number in numbers:
            if not (type(number) is int and number >= 0):
                raise ValueError(f"the state is damaged: {name} is {state[name]!r}")
        order = state.get("order", {})
        return Progress(
            state["epoch"], state["order_epoch"], generation, state["samples"], state["world_size"],
            state["position"], state.get("sampler_start"), state.get("sampler_state"),
            endless=order.get("infinite", False), passed=running[0], pass_start=running[1],
            sizes=BlockSizes.of_state(order) if order.get("kind") == "blocks" else None,
        )  # fmt: skip


def identity(samples: Samples) -> dict[str, Any]:
    """Return what a state must have in common with the loader that takes it."""
    recipe = samples.recipe
    numbers = (recipe.mean, recipe.std, recipe.batch, recipe.masks, *([recipe.companion] if recipe.companion else []))
    parts = [recipe.row_bytes(), repr(numbers).encode()]
    steps = recipe.step_rows()
    if steps is not None:
        parts.append(steps.tobytes())
    if recipe.norms_differ:
        parts.append(repr(recipe.norms()).encode())
    if recipe.channels != 3:
        parts.append(b"%d" % recipe.channels)
    sources = [(source.mean, source.std) for source in samples.normalized_recipes()]
    if any(source != sources[0] for source in sources):
        parts.append(repr(sources).encode())
    return {
        "version": STATE_VERSION,
        "plan_version": _C.plan_version,
        "pack": samples.pack.pack_id,
        "recipe": _digest(b"".join(parts), 8),
        "recipe_parts": recipe_parts(recipe),
        "seed": samples.seed,
        "subset": samples.subset(),
        **({} if samples.mixture is None else {"weights": samples.mixture.identity()}),
    }


def _digest(data: bytes, size: int) -> str:
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def recipe_parts(recipe: Recipe) -> dict[str, Any]:
    """Return short values by which a message can say which field of a recipe differs from that of a state.

    views: 3 hexadecimal digits for each field of ViewSpec, in the order of the class: new fields come last.
    """
    fields = "".join(
        _digest(repr([getattr(view, field.name) for view in recipe.views]).encode(), 2)[:3]
        for field in dataclasses.fields(ViewSpec)
    )
    return {
        "pillow": recipe.pillow,
        "batch": recipe.batch,
        "channels": recipe.channels,
        "companion": recipe.companion,
        "masks": _digest(repr(recipe.masks).encode(), 2),
        "mean": _digest(repr(recipe.mean).encode(), 2),
        "std": _digest(repr(recipe.std).encode(), 2),
        "number of views": len(recipe.views),
        "views": fields,
    }


def _difference(state: dict[str, Any], own: dict[str, Any]) -> str:
    """Say in which fields the recipes of a state and of a loader differ."""
    theirs, ours = state.get("recipe_parts"), own["recipe_parts"]
    if not isinstance(theirs, dict):
        return f"the recipe was {state.get('recipe')!r}, here {own['recipe']!r} (the state does not tell its fields)"
    told = ("pillow", "batch", "channels", "companion", "number of views")
    found = [f"{name} was {theirs.get(name)!r}, here {ours[name]!r}" for name in told if theirs.get(name) != ours[name]]
    found += [f"{name} differs" for name in ("masks", "mean", "std") if theirs.get(name) != ours[name]]
    names = [field.name for field in dataclasses.fields(ViewSpec)]
    digits = [str(one["views"]) for one in ({"views": "", **theirs}, ours)]
    if theirs.get("number of views") == ours["number of views"]:
        found += [
            f"{name} of the views differs"
            for place, name in enumerate(names)
            if digits[0][3 * place : 3 * place + 3] != digits[1][3 * place : 3 * place + 3]
        ]
    return f"the recipe: {'; '.join(found) or 'mean and std of another pack'}"


_WORDS = {
    "version": "the format of states",
    "plan_version": "the version of the random numbers",
    "pack": "the pack",
    "recipe": "the recipe",
    "seed": "the dataset's seed",
    "subset": "the choice of records",
    "weights": "the weights",
    "order": "the order",
    "mix": "the mix",
    "global_batch": "batch_size times ranks",
    "sampler": "the sampler",
}


def check_fits(state: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise ValueError where a state is of another pack, recipe or order, TypeError where it is no dict."""
    if not isinstance(state, dict):
        raise TypeError(f"a state is a dict, got {type(state).__name__}")
    missing = {"version", "epoch", "order_epoch", "position", "generation", "samples", "world_size"} - {*state}
    if missing:
        raise ValueError(f"this is no state of a pass_loader.DataLoader: it lacks {', '.join(sorted(missing))}")
    wrong = [
        _difference(state, own) if key == "recipe" and key in state
        else f"{words} was {state[key]!r}, here {own[key]!r}" if key in state and key in own
        else f"{words} was {'not told' if key in own else 'given'}, here it is {'given' if key in own else 'not'}"
        for key, words in _WORDS.items()
        if (key in state or key in own) and state.get(key, ...) != own.get(key, ...)
    ]  # fmt: skip
    if wrong:
        raise ValueError(f"the state does not fit: {'; '.join(wrong)}")
