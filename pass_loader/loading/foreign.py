"""Samples drawn from a sampler that is not ours, and what of it a state must hold."""

from __future__ import annotations

import base64
import copy
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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

from ..data.live import Served
from ..keys import MAX_DRAWS, Keys
from .drawing import Drawing, DrawnBatch
from .ranks import initialized_rank
from .resume import Progress


class ForeignDrawing(Drawing):
    """The order of a sampler, batch sampler or sequence of positions that is not ours.

    A sampler with state_dict and load_state_dict is asked for its state. torch's random samplers with a generator are
    replayed from the generator's state; sequences, SequentialSampler and DistributedSampler are replayed as they are.
    """

    REPLAYED = (SequentialSampler, DistributedSampler, Sequence, np.ndarray, torch.Tensor)
    RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)

    def __init__(self, sampler: Any, batch_size: int | None, drop_last: bool):
        """batch_size: None for a batch sampler, which yields lists."""
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
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
        return self.epoch > 0  # whether somebody set 0 cannot be told

    def set_epoch(self, epoch: int) -> None:
        for sampler in (self.sampler, self.inner):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    @property
    def place(self) -> tuple[int, int]:
        return initialized_rank() or (0, 1)

    @property
    def step(self) -> None:
        return None

    def identity(self, samples: int, saved: Any = None) -> dict[str, Any]:
        own: dict[str, Any] = {"type": type(self.sampler).__name__}
        if self.inner is not self.sampler:
            own["of"] = type(self.inner).__name__
        if isinstance(self.inner, DistributedSampler):
            names = ("num_replicas", "total_size", "shuffle", "seed", "drop_last")
            own |= {name: getattr(self.inner, name) for name in names}
        elif isinstance(self.inner, (Sequence, np.ndarray, torch.Tensor)):
            own["length"] = len(self.inner)
        return {"sampler": own}

    def check(self, progress: Progress) -> None:
        """Only the sampler knows where a batch begins."""

    def position_of(self, batches: int) -> int:
        raise TypeError(f"{type(self.sampler).__name__} decides where it begins: advance that one")

    def state(self, progress: Progress | None) -> dict[str, Any]:
        if self._stateful is None and self._generator is None and not isinstance(self.inner, self.REPLAYED):
            raise TypeError(
                f"the order of {type(self.inner).__name__} cannot be brought back: give it a generator, or state_dict "
                "and load_state_dict, or leave the order to the loader (shuffle=True)"
            )
        start = self._start() if progress is None else progress.sampler_start
        state = self._snapshot() if progress is None else progress.sampler_state
        added = {"sampler_start": start, "sampler_state": copy.deepcopy(state)}
        return {name: value for name, value in added.items() if value is not None}

    def _begin(self, progress: Progress) -> int:
        """Bring the sampler to where the epoch began or stands; return how many samples are still to be skipped."""
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

    def draw(
        self, progress: Progress, live: Served, gone: np.ndarray, begin: Callable[[int], Served]
    ) -> Iterator[DrawnBatch]:
        """Yield batches of what the sampler yields: positions, or (position, draw)."""
        epoch, skipped = progress.epoch, self._begin(progress)
        yielded = self._begun(again=progress.position == 0)
        while skipped > 0 and (passed := next(yielded, None)) is not None:
            skipped -= len(passed) if self.batch_size is None else 1
        if skipped > 0:
            raise ValueError(
                f"the state's position is {progress.position}, and the sampler {type(self.sampler).__name__} ends "
                f"{skipped} before it: is it the same one?"
            )
        for chunk in yielded if self.batch_size is None else self._batches(yielded, self.batch_size):
            if len(chunk) == 0:
                raise ValueError(f"the batch sampler {type(self.sampler).__name__} gave an empty batch")
            keys = _keys_of(chunk, live, epoch)
            none = np.zeros(len(keys), bool)  # only the sampler knows
            yield DrawnBatch(keys, np.isin(keys.records, gone), none, live, {"sampler_state": self._snapshot()})

    def _batches(self, yielded: Iterator[Any], batch_size: int) -> Iterator[list[Any]]:
        while len(chunk := [*itertools.islice(yielded, batch_size)]) >= (batch_size if self.drop_last else 1):
            yield chunk

    def _begun(self, again: bool) -> Iterator[Any]:
        """Iterate. A stateful sampler whose state was taken at the end of an epoch yields nothing at first."""
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
