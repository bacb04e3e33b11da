"""One pass over the batches: keeps some in work, hands them out in order, and measures who waits for whom."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import numpy as np
from typing_extensions import TypeVar

from ..data.fetching import Fetching
from ..keys import BatchKey, Keys
from .depth import Depth
from .drawing import DrawnBatch
from .faults import Faults
from .rendering import Failure, Renderer, Submitted
from .resume import Progress

DRAWN_A_TURN = 1 << 10  # samples: a pack in a store has up to 131,072 fetched ahead, whose drawing takes seconds
REMOVED = "it was removed from the pack after this epoch had begun (on_error='replace' goes on without it)"


Batch = TypeVar("Batch", default=Any)


@dataclass
class Meter:
    """Seconds that the consumer spent inside and outside of `next`, and what it got."""

    batches: int = 0
    samples: int = 0
    waited_s: float = 0.0
    worked_s: float = 0.0
    busy_s: float = 0.0  # of all threads, making samples
    idle_s: float = 0.0  # of all threads, waiting for batches while the consumer waited too


@dataclass(frozen=True)
class Settings:
    """The part of a loader that an iteration needs."""

    depth: Depth
    threads: int
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


@dataclass
class Coming:
    """A batch that is drawn and not yet in work."""

    drawn: DrawnBatch
    asked: Keys  # what the engine is asked for
    removed: list[Failure]
    fetching: Fetching | None  # what has to be there before
    renderer: Renderer | None = None  # to which it was announced
    announced: Any = None


class UnderWay(NamedTuple):
    """A batch in work."""

    batch: Submitted
    removed: list[Failure]
    drawn: DrawnBatch
    renderer: Renderer
    fetching: Fetching | None  # what stays until it is done


class BatchIterator(Generic[Batch]):
    """Gives the batches of one pass, each once, to any number of Python threads. After an error the next call goes on
    with the batch after the failed one; after a timeout or an interrupt with the same batch.

    begin: called at the first `next`, which fixes epoch, ranks and what is served: Lightning makes the iterator before
        it sets the epoch (lightning 2.6.6, loops/fit_loop.py, setup_data before on_advance_start).
    """

    def __init__(self, begin: Callable[[], Begun], faults: Faults, meter: Meter):
        self._begin, self._faults, self._meter = begin, faults, meter
        self._has_begun = False
        self._under_way: deque[UnderWay] = deque()
        self._coming: deque[Coming | Exception] = deque()  # an error takes the place of the batch that it prevented
        self._announced = 0  # so many of the first that are coming
        self._samples_under_way = self._samples_coming = self._samples_announced = 0
        self._all_drawn = False
        self._turns = 0
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
        self._noted_at: float | None = None

    def _next_batch(self) -> Submitted:
        self.skip_failed()
        starved = not (self._under_way and self._under_way[0].batch.done)
        idle_s = (self._under_way[0].renderer if self._under_way else self._renderer()).thread_times().idle_s
        self._work_ahead()
        if not self._under_way:
            if self._coming:
                error = self._coming.popleft()
                assert isinstance(error, Exception)
                raise error
            self._progress.finished = True
            raise StopIteration
        batch, removed, drawn, renderer, fetching = self._under_way[0]
        failures = self._wait(batch, removed)
        self._note_threads(renderer, renderer.thread_times().idle_s - idle_s if starved else 0.0)
        self._under_way.popleft()
        size = len(batch.keys)
        self._samples_under_way -= size
        try:
            self._faults.settle(batch, failures, renderer, drawn.live)
        except BaseException:
            self._failed = (size, drawn)
            raise
        finally:
            if fetching is not None:
                fetching.done()
        step = self._progress.position // (self._settings.step or 1)
        batch.key = BatchKey(batch.samples.seed, self._progress.epoch, step, self._settings.rank)
        self._hand_out(size, drawn)
        return batch

    def _work_ahead(self) -> None:
        """Submit as many batches as may be in work, and draw those after them.

        How many are drawn does not depend on time: a sampler that is not ours is asked for the same number in each run.
        """
        self._turns += 1
        while True:
            self._read_ahead()
            following = self._coming[0] if self._coming else None
            if isinstance(following, Coming) and self._may_begin(following):
                self._submit(following)
                self._coming.popleft()  # not before: what could not be submitted comes again
                self._samples_coming -= len(following.asked)
                if self._announced:
                    self._announced -= 1
                    self._samples_announced -= len(following.asked)
            elif not self._has_enough_drawn() and self._draw():
                continue
            elif isinstance(following, Coming) and following.fetching is not None and not self._under_way:
                self._fetch(following.fetching)  # not before: those after it are on their way too meanwhile
            else:
                return

    def _may_begin(self, following: Coming) -> bool:
        """Return whether a batch may be in work now."""
        samples = self._beside_two(self._samples_under_way + len(following.asked))
        if not self._settings.depth.allows(len(self._under_way), samples):
            return False
        if following.fetching is None:
            return True
        if not following.fetching.ready:
            return False
        if not self._under_way:
            self._fetch(following.fetching)  # which raises what prevented it
        return True

    def _has_enough_drawn(self) -> bool:
        bounds = self._settings.depth.bounds
        drawn = len(self._under_way) + len(self._coming)
        samples = self._beside_two(self._samples_under_way + self._samples_coming)
        return drawn >= bounds.least and samples >= bounds.samples + min(bounds.drawn, self._turns * DRAWN_A_TURN)

    def _read_ahead(self) -> None:
        """Let records be read ahead: those of the batches that come next, as soon as the caches of stores have them."""
        bounds = self._settings.depth.bounds
        while self._announced < len(self._coming):
            coming = self._coming[self._announced]
            if not isinstance(coming, Coming) or (coming.fetching is not None and not coming.fetching.ready):
                return
            if self._beside_two(self._samples_under_way + self._samples_announced) > bounds.samples + bounds.records:
                return
            coming.renderer = self._renderer()
            coming.announced = coming.renderer.announce(coming.asked)
            self._announced += 1
            self._samples_announced += len(coming.asked)

    def _beside_two(self, samples: int) -> int:
        """Return what is left of so many samples, under way and coming, without those of the first two batches."""
        first = (len(batch.keys) for batch, *_ in itertools.islice(self._under_way, 2))
        second = (len(coming.asked) for coming in itertools.islice(self._coming, 2) if isinstance(coming, Coming))
        return max(0, samples - sum(itertools.islice(itertools.chain(first, second), 2)))

    def _fetch(self, fetching: Fetching) -> None:
        try:
            fetching.wait(self._settings.timeout)
        except TimeoutError:
            raise RuntimeError(f"DataLoader timed out after {self._settings.timeout:g} seconds") from None

    def _wait(self, batch: Submitted, removed: list[Failure]) -> list[Failure]:
        try:
            failures = batch.wait(self._settings.timeout)
        except TimeoutError:
            raise RuntimeError(f"DataLoader timed out after {self._settings.timeout:g} seconds") from None
        slots = {slot for slot, _, _ in removed}
        return sorted([failure for failure in failures if failure[0] not in slots] + removed)

    def _note_threads(self, renderer: Renderer, idle_s: float) -> None:
        """Take in what the threads have done. idle_s: of all threads, while the consumer waited for a batch in work."""
        now = time.perf_counter()
        if self._coming or not self._all_drawn:  # at the end of an epoch nothing is left to be worked on
            self._meter.idle_s += idle_s
        if self._coming and self._noted_at is not None:  # before the first batch threads had nothing
            self._settings.depth.note(idle_s, self._settings.threads * (now - self._noted_at))
        self._meter.busy_s += renderer.busy_since_then()
        self._noted_at = now

    def _submit(self, coming: Coming) -> None:
        renderer = self._renderer()
        announced = coming.announced if coming.renderer is renderer else None
        batch = renderer.submit(coming.asked, self._settings.with_plans, announced)
        batch.keys, batch.padding = coming.drawn.keys, coming.drawn.padding
        self._under_way.append(UnderWay(batch, coming.removed, coming.drawn, renderer, coming.fetching))
        self._samples_under_way += len(coming.asked)

    def _asked(self, drawn: DrawnBatch) -> Coming:
        """Begin to fetch a batch's records. The engine is given a number that no record has in place of a removed
        one."""
        keys, removed = drawn.keys, [(int(slot), "record", REMOVED) for slot in np.flatnonzero(drawn.gone)]
        asked = Keys(np.where(drawn.gone, -1, keys.records), keys.draws, keys.epochs) if removed else keys
        return Coming(drawn, asked, removed, self._renderer().samples.fetching(asked))

    def _draw(self) -> bool:
        """Draw one more batch. Returns False where there is none. An error is raised when its turn comes."""
        if self._all_drawn:
            return False
        self._renderer()  # where it cannot be made, nothing is drawn yet that would be lost
        try:
            drawn = next(self._drawn, None)
        except Exception as error:
            self._coming.append(error)
            self._all_drawn = True
            return True
        if drawn is None:
            self._all_drawn = True
            return False
        self._coming.append(self._asked(drawn))
        self._samples_coming += len(drawn.keys)
        return True

    def _hand_out(self, size: int, drawn: DrawnBatch) -> None:
        """Move on by a batch. The last one ends the epoch at once: a state that is taken then begins the next epoch."""
        self._progress.position += self._settings.step or size
        for name, value in drawn.after.items():
            setattr(self._progress, name, value)
        if not self._under_way and not self._coming:
            self._progress.finished = not self._draw()
