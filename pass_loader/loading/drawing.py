"""Which samples each batch holds: drawn from our own order. foreign.py draws from a sampler that is not ours."""

from __future__ import annotations

import dataclasses
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..data.live import Served
from ..data.weights import MixedLive
from ..keys import Keys, check_epoch
from .resume import Progress
from .sampler import AHEAD, EpochSampler, Share, no_draws

_MOST_NEEDED = 1 << 21  # records of an epoch, whose order takes a tenth of a second
NONE_GONE = np.empty(0, np.int64)


class DrawnBatch(NamedTuple):
    """The samples of a batch, to be rendered."""

    keys: Keys
    gone: np.ndarray  # bool (N,): removed since the epoch began; such records are bad, and are never read
    padding: np.ndarray  # bool (N,): the sample came before in this epoch, and fills up this rank's share
    live: Served  # what replacements are drawn from
    after: dict[str, Any]  # fields of Progress that have these values once the batch is handed out


class Drawing(ABC):
    """The order of a loader's samples: over epochs, over ranks, and in saved states."""

    endless = False

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The epoch of the order."""

    @property
    @abstractmethod
    def epoch_is_set(self) -> bool:
        """True where somebody has set the epoch."""

    @abstractmethod
    def set_epoch(self, epoch: int) -> None: ...

    @property
    @abstractmethod
    def place(self) -> tuple[int, int]:
        """(rank, ranks that take part)."""

    @property
    @abstractmethod
    def step(self) -> int | None:
        """Samples of all ranks that a batch stands for; None: as many as this rank's batch has."""

    @abstractmethod
    def identity(self, samples: int, saved: Any = None) -> dict[str, Any]:
        """Return what a state holds of the order of so many samples, and must be equal where it is loaded.

        saved: the order of a state that is to be loaded, which decides what was left open here.
        """

    @abstractmethod
    def state(self, progress: Progress | None) -> dict[str, Any]:
        """Return what a state holds of a place in the order beside `Progress`; None: between two epochs.

        Raises TypeError where the order cannot be brought back.
        """

    @abstractmethod
    def check(self, progress: Progress) -> None:
        """Raise ValueError for a place where no batch begins."""

    def adopt(self, progress: Progress) -> None:  # noqa: B027
        """Take over what a state that is loaded fixes of the order."""

    @property
    def blocks(self) -> dict[str, Any] | None:
        """What is told of order="blocks", once its numbers are fixed; None for any other order."""
        return None

    def needed(self, progress: Progress, live: Served) -> np.ndarray | None:
        """Return the records that this rank needs from a place to the end of the epoch, (N,) int64; None: any."""
        return None

    @abstractmethod
    def position_of(self, batches: int) -> int:
        """Return the position after so many batches of an epoch. Raises TypeError where only the sampler knows it."""

    @abstractmethod
    def draw(
        self, progress: Progress, live: Served, gone: np.ndarray, begin: Callable[[int], Served]
    ) -> Iterator[DrawnBatch]:
        """Yield this rank's batches from a place on.

        live: what the epoch, or the running pass of an endless order, serves. gone: (N,) int64, the records that were
        removed since it began. begin: called with the number of each further pass of an endless order, returns what it
        serves.
        """


class EpochDrawing(Drawing):
    """Our own order, epoch by epoch: an EpochSampler in batches."""

    def __init__(self, sampler: EpochSampler, batch_size: int, drop_last: bool):
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self._has_looked = False  # whether windows are large enough

    @property
    def epoch(self) -> int:
        return int(self.sampler.epoch)

    @property
    def epoch_is_set(self) -> bool:
        return self.sampler.epoch_is_set

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    @property
    def place(self) -> tuple[int, int]:
        return self.sampler.place

    @property
    def step(self) -> int:
        return self.batch_size * self.place[1]

    def identity(self, samples: int, saved: Any = None) -> dict[str, Any]:
        order = self.sampler.identity(samples, saved)
        return {"order": order, "global_batch": self.step, "drop_last": self.drop_last}

    def adopt(self, progress: Progress) -> None:
        if progress.sizes is not None:
            self.sampler.adopt(progress.sizes)

    @property
    def blocks(self) -> dict[str, Any] | None:
        sizes = self.sampler.sizes_so_far
        return None if sizes is None else sizes.as_state() | {"times_read": sizes.times_read(self.place[1])}

    def along(self, live: Served) -> Served:
        """Return what the positions of the order count. Warns once where windows are small for the batch."""
        sizes = self.sampler.sizes
        if sizes is not None and not self._has_looked:
            self._has_looked = True
            counts = live.counts.tolist() if isinstance(live, MixedLive) else [len(live)]
            opened = sizes.open_blocks(counts)
            if sizes.windows(len(live)) > 1 and opened < self.step:
                warnings.warn(
                    f"order='blocks': the windows hold {opened:,.0f} blocks at a time, and the global batch is "
                    f"{self.step}: each sample shares its block with {(self.step - 1) / opened:.1f} others of its "
                    "batch. Raise window_bytes, lower block_bytes, or write the pack in a shuffled order "
                    "(pass-pack build --shuffle)", stacklevel=6,
                )  # fmt: skip
        return self.sampler.along(live)

    def state(self, progress: Progress | None) -> dict[str, Any]:
        return {}

    def check(self, progress: Progress) -> None:
        progress.check_position(self.step, self.sampler.total(progress.samples, max(1, progress.world)))

    def position_of(self, batches: int) -> int:
        return operator.index(batches) * self.step

    def _share(self, progress: Progress, live: Served) -> Share:
        stop = self.sampler.stop(len(live), progress.world, progress.position, self.step, self.drop_last)
        return self.sampler.share(len(live), progress.position, stop)

    def needed(self, progress: Progress, live: Served) -> np.ndarray | None:
        share = self._share(progress, live)
        if len(share) > _MOST_NEEDED:
            return None
        positions, draws, _ = share.all()
        return keys_at(self.sampler.along(live), positions, draws, progress.epoch).records

    def draw(
        self, progress: Progress, live: Served, gone: np.ndarray, begin: Callable[[int], Served]
    ) -> Iterator[DrawnBatch]:
        share = self._share(progress, live)
        live = self.along(live)
        for positions, draws, padding in share.chunks(self.batch_size):
            keys = keys_at(live, positions, draws, progress.epoch)
            yield DrawnBatch(keys, np.isin(keys.records, gone), padding, live, {})


@dataclass(frozen=True)
class Pass:
    """A run through the records within an endless order: an epoch without a start and an end of its own."""

    number: int
    start: int  # its place among those of all passes
    live: Served
    gone: np.ndarray

    @property
    def end(self) -> int:
        return self.start + len(self.live)

    def as_progress(self) -> dict[str, Any]:
        """Return the fields of Progress that tell of this pass."""
        own = {"passed": self.number, "pass_start": self.start}
        return own | {"generation": self.live.generation, "samples": len(self.live)}


class EndlessDrawing(EpochDrawing):
    """Our own order, pass after pass without an end (infinite=True)."""

    endless = True

    def needed(self, progress: Progress, live: Served) -> None:
        """Return None: where one pass ends another begins."""

    def check(self, progress: Progress) -> None:
        progress.check_position(self.step, None)

    def draw(
        self, progress: Progress, live: Served, gone: np.ndarray, begin: Callable[[int], Served]
    ) -> Iterator[DrawnBatch]:
        """Yield batches for ever. `begin` is called for the same batch on all ranks, also by those that have no sample
        of the new pass in it: all must know where it began."""
        rank, world = self.place
        begun, place = dataclasses.replace(progress), progress.position  # progress moves on while batches are drawn
        running = Pass(begun.passed, begun.pass_start, self.along(live), gone)
        ahead = _Ahead(self.sampler, begun, world)
        while True:
            places = place + rank + world * np.arange(self.batch_size, dtype=np.int64)
            place += self.step
            passes = [running]
            while running.end < place:
                number = running.number + 1
                check_epoch(begun.epoch + number)
                running = Pass(number, running.end, self.along(begin(number)), NONE_GONE)
                passes.append(running)
            parts = [(ahead.keys(one, places), one.gone) for one in passes]
            keys = Keys(*(np.concatenate([getattr(part, name) for part, _ in parts])
                          for name in ("records", "draws", "epochs")))  # fmt: skip
            is_gone = np.concatenate([np.isin(part.records, removed) for part, removed in parts])
            none = np.zeros(len(keys), bool)
            yield DrawnBatch(keys, is_gone, none, running.live, running.as_progress())


class _Ahead:
    """The keys of one rank's places, pass after pass. Positions of later batches are found with those of the first: few
    calls of an order cost less than many."""

    def __init__(self, sampler: EpochSampler, begun: Progress, world: int):
        self._sampler, self._begun, self._world = sampler, begun, world
        self._pass = -1  # that the positions are of
        self._first = 0  # place in that pass
        self._positions = NONE_GONE

    def keys(self, one: Pass, places: np.ndarray) -> Keys:
        """Return the keys of those of the places that the pass has."""
        inside = places[(places >= one.start) & (places < one.end)] - one.start
        epoch = self._begun.epoch + one.number
        if not len(inside):
            return keys_at(one.live, inside, no_draws(inside), epoch)
        skipped = (int(inside[0]) - self._first) // self._world
        if self._pass != one.number or not 0 <= skipped <= len(self._positions) - len(inside):
            self._pass, self._first, skipped = one.number, int(inside[0]), 0
            end = min(len(one.live), self._first + self._world * max(AHEAD, len(inside)))
            order = self._sampler.order(len(one.live), self._begun.order_epoch + one.number)
            self._positions = order.at(np.arange(self._first, end, self._world, dtype=np.int64))
        positions = self._positions[skipped : skipped + len(inside)]
        return keys_at(one.live, positions, no_draws(positions), epoch)


def keys_at(live: Served, positions: np.ndarray, draws: np.ndarray, epoch: int) -> Keys:
    """Return the keys of int64 positions (N,) and their uint32 draws in an epoch of the views."""
    check_epoch(epoch)
    epochs = np.full(len(positions), epoch, np.uint32)
    return Keys(*live.at(positions, draws, epochs), epochs)
