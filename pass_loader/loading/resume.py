"""Where an iteration stands, and how a state brings it back: exactly, on any number of ranks and threads."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from .. import _C
from ..data.live import Generation, Served
from ..data.samples import Samples
from ..keys import MAX_DRAWS, Keys, check_epoch
from .sampler import EpochSampler, Share

STATE_VERSION = 1
_NONE = np.empty(0, np.int64)


class Drawn(NamedTuple):
    """A batch to render."""

    keys: Keys
    gone: np.ndarray  # bool (N,): removed since the epoch began; such records are bad, and are never read
    live: Served  # what replacements are drawn from
    behind: dict[str, Any]  # fields of Progress that have these values once the batch is handed out


@dataclass
class Progress:
    """An iteration that has begun. Positions count samples handed out by `next`: those of all ranks together under an
    EpochSampler, this rank's under a foreign sampler.
    """

    epoch: int  # of the views
    order_epoch: int  # the sampler's
    generation: Generation | None  # of the pack; None: that of the moment at which the iteration begins
    samples: int  # served records
    world: int  # ranks that began the epoch
    position: int = 0
    sampler_start: str | None = None  # a foreign sampler's generator, before the epoch
    sampler_state: Any = None  # a foreign sampler's state_dict, behind the last batch handed out
    finished: bool = False
    endless: bool = False
    passed: int = 0  # passes before the running one of an endless order, to which generation and samples belong
    pass_start: int = 0  # the position at which that one began

    @property
    def unused_epoch(self) -> int:
        """The first epoch of which no views were handed out."""
        if self.endless:
            return self.epoch + self.passed + math.ceil((self.position - self.pass_start) / max(1, self.samples))
        return self.epoch + (self.finished or self.position > 0)

    @property
    def is_inside(self) -> bool:
        """Whether it stands inside of an epoch or pass, which keeps the records that it began with."""
        return self.position > self.pass_start

    def check_position(self, step: int, end: int | None) -> None:
        """Raises ValueError for a position that is not between two batches. step: of the global batch; end: of the
        epoch; None: endless."""
        if self.position % step and self.position != end:
            raise ValueError(
                f"the state is damaged: position {self.position} is no multiple of the global batch, {step}"
            )
        if end is not None and self.position > end:
            raise ValueError(f"the state is damaged: position {self.position} lies behind its epoch of {end} samples")
        if self.pass_start > self.position:
            raise ValueError(f"the state is damaged: position {self.position} is before its pass, {self.pass_start}")

    def to_running_pass(self) -> None:
        """Counts the passes that were gone through since pass_start."""
        if self.endless:
            passes = (self.position - self.pass_start) // max(1, self.samples)
            self.passed, self.pass_start = self.passed + passes, self.pass_start + passes * self.samples

    def as_state(self) -> dict[str, Any]:
        """This place, or behind the last batch the start of the next epoch, without what a foreign sampler adds."""
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
        """Raises ValueError for values that no state has."""
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
        return Progress(
            state["epoch"], state["order_epoch"], generation, state["samples"], state["world_size"],
            state["position"], state.get("sampler_start"), state.get("sampler_state"),
            endless=state.get("order", {}).get("infinite", False), passed=running[0], pass_start=running[1],
        )  # fmt: skip


def identity(samples: Samples) -> dict[str, Any]:
    """What a state must have in common with the loader that takes it."""
    recipe = samples.recipe
    numbers = (recipe.mean, recipe.std, recipe.batch, recipe.masks, *([recipe.companion] if recipe.companion else []))
    parts = [recipe.rows().tobytes(), repr(numbers).encode()]
    if recipe.channels != 3:
        parts.append(b"%d" % recipe.channels)
    sources = [(source.mean, source.std) for source in samples.normalized_recipes()]
    if any(source != sources[0] for source in sources):
        parts.append(repr(sources).encode())
    digest = hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
    return {
        "version": STATE_VERSION,
        "plan_version": _C.plan_version,
        "pack": samples.pack.pack_id,
        "recipe": digest,
        "seed": samples.seed,
        "subset": samples.subset(),
        **({} if samples.mixture is None else {"weights": samples.mixture.identity()}),
    }


_WORDS = {
    "version": "the format of states",
    "plan_version": "the version of the random numbers",
    "pack": "the pack",
    "recipe": "the recipe",
    "seed": "the dataset's seed",
    "subset": "the choice of records",
    "weights": "the weights",
    "order": "the order",
    "global_batch": "batch_size times ranks",
    "sampler": "the sampler",
}


def check_fits(state: dict[str, Any], own: dict[str, Any]) -> None:
    """Raises ValueError where a state is another pack's, recipe's, order's."""
    if not isinstance(state, dict):
        raise TypeError(f"a state is a dict, got {type(state).__name__}")
    missing = {"version", "epoch", "order_epoch", "position", "generation", "samples", "world_size"} - {*state}
    if missing:
        raise ValueError(f"this is no state of a pass_loader.DataLoader: it lacks {', '.join(sorted(missing))}")
    wrong = [
        f"{words} was {state[key]!r}, here {own[key]!r}" if key in state and key in own
        else f"{words} was {'not told' if key in own else 'given'}, here it is {'given' if key in own else 'not'}"
        for key, words in _WORDS.items()
        if (key in state or key in own) and state.get(key, ...) != own.get(key, ...)
    ]  # fmt: skip
    if wrong:
        raise ValueError(f"the state does not fit: {'; '.join(wrong)}")


class ForeignSampler:
    """A sampler, batch sampler or sequence of positions that is not ours, and what of it a state must hold.

    One with state_dict and load_state_dict is asked. torch's random samplers with a generator are replayed from the
    generator's state; sequences, SequentialSampler and DistributedSampler are replayed as they are.
    """

    REPLAYED = (SequentialSampler, DistributedSampler, Sequence, np.ndarray, torch.Tensor)
    RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)

    def __init__(self, sampler: Any, batched: bool):
        self.sampler, self.batched = sampler, batched
        self.inner = sampler
        while isinstance(self.inner, BatchSampler):
            self.inner = self.inner.sampler
        stateful = [s for s in (sampler, self.inner) if hasattr(s, "state_dict") and hasattr(s, "load_state_dict")]
        self._stateful = stateful[0] if stateful else None
        self._generator: torch.Generator | None = None
        if self._stateful is None and isinstance(self.inner, self.RANDOM):
            self._generator = self.inner.generator

    @property
    def epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", getattr(self.inner, "epoch", 0)))

    @property
    def epoch_is_set(self) -> bool:
        return self.epoch > 0  # of 0 it cannot be told

    def set_epoch(self, epoch: int) -> None:
        for sampler in (self.sampler, self.inner):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def identity(self) -> dict[str, Any]:
        """What must be equal for the order to be the same."""
        own: dict[str, Any] = {"type": type(self.sampler).__name__}
        if self.inner is not self.sampler:
            own["of"] = type(self.inner).__name__
        if isinstance(self.inner, DistributedSampler):
            names = ("num_replicas", "total_size", "shuffle", "seed", "drop_last")
            own |= {name: getattr(self.inner, name) for name in names}
        elif isinstance(self.inner, (Sequence, np.ndarray, torch.Tensor)):
            own["length"] = len(self.inner)
        return own

    def check_resumable(self) -> None:
        if self._stateful is None and self._generator is None and not isinstance(self.inner, self.REPLAYED):
            raise TypeError(
                f"the order of {type(self.inner).__name__} cannot be brought back: give it a generator, or state_dict "
                "and load_state_dict, or leave the order to the loader (shuffle=True)"
            )

    def begin(self, progress: Progress) -> int:
        """Brings the sampler to where the epoch began or stands; returns how many samples are still to be skipped."""
        if self._stateful is not None:
            if progress.sampler_state is not None:
                self._stateful.load_state_dict(copy.deepcopy(progress.sampler_state))
            else:
                progress.sampler_state = self._snapshot()
            return 0
        if self._generator is not None:
            if progress.sampler_start is not None:
                state = np.frombuffer(base64.b64decode(progress.sampler_start), np.uint8).copy()
                self._generator.set_state(torch.from_numpy(state))
            progress.sampler_start = self._start()
        return progress.position

    def state(self, progress: Progress | None) -> dict[str, Any]:
        """What the sampler adds to a state; progress: None between two epochs."""
        start = self._start() if progress is None else progress.sampler_start
        state = self._snapshot() if progress is None else progress.sampler_state
        added = {"sampler_start": start, "sampler_state": copy.deepcopy(state)}
        return {name: value for name, value in added.items() if value is not None}

    def draw(
        self, live: Served, gone: np.ndarray, batch_size: int, drop_last: bool, progress: Progress, skipped: int
    ) -> Iterator[Drawn]:
        """Batches of what the sampler yields: positions, or (position, draw)."""
        yielded = self._begun(again=progress.position == 0)
        while skipped > 0 and (passed := next(yielded, None)) is not None:
            skipped -= len(passed) if self.batched else 1
        if skipped > 0:
            raise ValueError(
                f"the state's position is {progress.position}, and the sampler {type(self.sampler).__name__} ends "
                f"{skipped} before it: is it the same one?"
            )
        while (chunk := next(yielded, None) if self.batched else [*itertools.islice(yielded, batch_size)]) is not None:
            if not self.batched and len(chunk) < (batch_size if drop_last else 1):
                return
            if len(chunk) == 0:
                raise ValueError(f"the batch sampler {type(self.sampler).__name__} gave an empty batch")
            keys = _keys_of(chunk, live, progress.epoch)
            yield Drawn(keys, np.isin(keys.records, gone), live, {"sampler_state": self._snapshot()})

    def _begun(self, again: bool) -> Iterator[Any]:
        """A stateful sampler whose state stood at the end of an epoch yields nothing before it begins the next."""
        yielded = iter(self.sampler)
        first = [*itertools.islice(yielded, 1)]
        if not first and again and self._stateful is not None:
            return iter(self.sampler)
        return itertools.chain(first, yielded)

    def _snapshot(self) -> Any:
        return None if self._stateful is None else copy.deepcopy(self._stateful.state_dict())

    def _start(self) -> str | None:
        if self._generator is None:
            return None
        return base64.b64encode(self._generator.get_state().numpy().tobytes()).decode()


def _keys_of(chunk: Sequence[Any], live: Served, epoch: int) -> Keys:
    pairs = [p if isinstance(p, (tuple, list)) else (p, 0) for p in chunk]
    rows = np.array([[operator.index(p), operator.index(draw)] for p, draw in pairs], dtype=np.int64)
    if rows[:, 0].min() < 0 or rows[:, 0].max() >= len(live):
        raise IndexError(
            f"the sampler gave a position outside [0, {len(live)}). Were records removed since it was made? Positions "
            "count the live ones: make the sampler anew, for len(dataset) positions"
        )
    if rows[:, 1].min() < 0 or rows[:, 1].max() >= MAX_DRAWS:
        raise IndexError(f"the sampler gave a draw outside [0, {MAX_DRAWS})")
    epochs = np.full(len(rows), epoch, np.uint32)
    return Keys(*live.at(rows[:, 0].copy(), rows[:, 1].astype(np.uint32), epochs), epochs)


def draw_share(share: Share, live: Served, batch_size: int, epoch: int, gone: np.ndarray = _NONE) -> Iterator[Drawn]:
    """Batches of one rank's part of an epoch in our own order. gone: records that were removed since it began."""
    for positions in share.chunks(batch_size):
        keys = _keys_at(live, positions, epoch)
        yield Drawn(keys, np.isin(keys.records, gone), live, {})


@dataclass(frozen=True)
class Pass:
    """A run through the records within an endless order: an epoch without ends of its own."""

    number: int
    start: int  # its place among those of all passes
    live: Served
    gone: np.ndarray

    @property
    def end(self) -> int:
        return self.start + len(self.live)

    def keys(self, sampler: EpochSampler, places: np.ndarray, progress: Progress) -> Keys:
        inside = places[(places >= self.start) & (places < self.end)] - self.start
        order = sampler.order(len(self.live), progress.order_epoch + self.number)
        return _keys_at(self.live, order.at(inside), progress.epoch + self.number)

    def as_progress(self) -> dict[str, Any]:
        own = {"passed": self.number, "pass_start": self.start}
        return own | {"generation": self.live.generation, "samples": len(self.live)}


def draw_endless(
    sampler: EpochSampler, batch_size: int, progress: Progress, running: Pass, begin: Callable[[int], Served]
) -> Iterator[Drawn]:
    """Batches of one rank, from progress on. begin: what pass number k serves. It is called for the same batch on all
    ranks, also by those that have no sample of the new pass in it: all must know where it began.
    """
    rank, world = sampler.place
    place = progress.position
    while True:
        places = place + rank + world * np.arange(batch_size, dtype=np.int64)
        place += world * batch_size
        passes = [running]
        while running.end < place:
            number = running.number + 1
            check_epoch(progress.epoch + number)
            running = Pass(number, running.end, begin(number), _NONE)
            passes.append(running)
        parts = [(one.keys(sampler, places, progress), one.gone) for one in passes]
        keys = Keys(*(np.concatenate([getattr(part, name) for part, _ in parts])
                      for name in ("records", "draws", "epochs")))  # fmt: skip
        gone = np.concatenate([np.isin(part.records, gone) for part, gone in parts])
        yield Drawn(keys, gone, running.live, running.as_progress())


def _keys_at(live: Served, positions: np.ndarray, epoch: int) -> Keys:
    check_epoch(epoch)
    epochs = np.full(len(positions), epoch, np.uint32)
    return Keys(*live.at(positions, np.zeros(len(positions), np.uint32), epochs), epochs)
