"""One pass over the batches: keeps some in work, hands them out in order, and measures who waits for whom."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from typing_extensions import TypeVar

from ..keys import BatchKey, Keys
from .drawing import DrawnBatch
from .faults import Faults
from .rendering import Failure, Renderer, Submitted
from .resume import Progress

REMOVED = "it was removed from the pack after this epoch had begun (on_error='replace' goes on without it)"


Batch = TypeVar("Batch", default=Any)


@dataclass
class Meter:
    """Seconds that the consumer spent inside and outside of `next`, and what it got."""

    batches: int = 0
    samples: int = 0
    waited_s: float = 0.0
    worked_s: float = 0.0


@dataclass(frozen=True)
class Settings:
    """The part of a loader that an iteration needs."""

    depth: int  # batches in work
    timeout: float  # seconds, math.inf for none
    with_plans: bool
    structure: Callable[[Submitted], Any]
    step: int | None  # samples of all ranks that a batch stands for; None: this rank's own
    rank: int


@dataclass(frozen=True)
class Begun:
    """An iteration that begins: its batches, and what renders them."""

    drawn: Iterator[DrawnBatch]
    renderer: Callable[[], Renderer]  # the present one: a purge exchanges files
    progress: Progress
    settings: Settings


class BatchIterator(Generic[Batch]):
    """Gives the batches of one pass, each once, to any number of Python threads. After an error the next call goes on
    with the batch after the failed one; after a timeout or an interrupt with the same batch.

    begin: called at the first `next`, which fixes epoch, ranks and what is served: Lightning makes the iterator before
        it sets the epoch (lightning 2.6.6, loops/fit_loop.py, setup_data before on_advance_start).
    """

    def __init__(self, begin: Callable[[], Begun], faults: Faults, meter: Meter):
        self._begin, self._faults, self._meter = begin, faults, meter
        self._has_begun = False
        self._under_way: deque[tuple[Submitted, list[Failure], DrawnBatch, Renderer]] = deque()
        self._peeked: DrawnBatch | None = None
        self._failed: tuple[int, DrawnBatch] | None = None  # what a batch that raised stands for
        self._left_at: float | None = None
        self._lock = threading.RLock()

    def __iter__(self) -> BatchIterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            return self._next()

    def skip_failed(self) -> bool:
        """Count a batch that raised as handed out, as the next call would. Returns False where none has raised."""
        with self._lock:
            if self._failed is None:
                return False
            self._hand_out(*self._failed)
            self._failed = None
            return True

    def _next(self) -> Batch:
        begun = time.perf_counter()
        if self._left_at is not None:
            self._meter.worked_s += begun - self._left_at
        try:
            if not self._has_begun:
                self._set_up(self._begin())
            while True:
                batch = self._next_batch()
                if len(batch.keys):
                    break
            self._meter.batches += 1
            self._meter.samples += len(batch.keys)
            return self._settings.structure(batch)
        finally:
            self._left_at = time.perf_counter()
            self._meter.waited_s += self._left_at - begun

    def _set_up(self, begun: Begun) -> None:
        self._drawn, self._renderer = begun.drawn, begun.renderer
        self._progress, self._settings = begun.progress, begun.settings
        self._has_begun = True

    def _next_batch(self) -> Submitted:
        self.skip_failed()
        while len(self._under_way) < self._settings.depth and (following := self._draw()) is not None:
            self._submit(following)
        if not self._under_way:
            self._progress.finished = True
            raise StopIteration
        batch, removed, drawn, renderer = self._under_way[0]
        failures = self._wait(batch, removed)
        self._under_way.popleft()
        size = len(batch.keys)
        try:
            self._faults.settle(batch, failures, renderer, drawn.live)
        except BaseException:
            self._failed = (size, drawn)
            raise
        step = self._progress.position // (self._settings.step or 1)
        batch.key = BatchKey(batch.samples.seed, self._progress.epoch, step, self._settings.rank)
        self._hand_out(size, drawn)
        return batch

    def _wait(self, batch: Submitted, removed: list[Failure]) -> list[Failure]:
        try:
            failures = batch.wait(self._settings.timeout)
        except TimeoutError:
            raise RuntimeError(f"DataLoader timed out after {self._settings.timeout:g} seconds") from None
        slots = {slot for slot, _, _ in removed}
        return sorted([failure for failure in failures if failure[0] not in slots] + removed)

    def _submit(self, drawn: DrawnBatch) -> None:
        keys = drawn.keys
        removed: list[Failure] = []
        asked = keys
        if drawn.gone.any():  # the engine is given a number that no record has
            removed = [(int(slot), "record", REMOVED) for slot in np.flatnonzero(drawn.gone)]
            asked = Keys(np.where(drawn.gone, -1, keys.records), keys.draws, keys.epochs)
        renderer = self._renderer()
        batch = renderer.submit(asked, self._settings.with_plans)
        batch.keys = keys
        self._under_way.append((batch, removed, drawn, renderer))

    def _draw(self) -> DrawnBatch | None:
        drawn, self._peeked = self._peeked, None
        return next(self._drawn, None) if drawn is None else drawn

    def _hand_out(self, size: int, drawn: DrawnBatch) -> None:
        """Move on by a batch. The last one ends the epoch at once: a state that is taken then begins the next epoch."""
        self._progress.position += self._settings.step or size
        for name, value in drawn.after.items():
            setattr(self._progress, name, value)
        if not self._under_way:
            self._peeked = self._draw()
            self._progress.finished = self._peeked is None
