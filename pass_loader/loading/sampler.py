"""Order over ranks: torch's DistributedSampler index for index, without needing a process group at construction."""

from __future__ import annotations

import itertools
import logging
import math
import operator
from collections.abc import Iterator, Sized
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

from ..data.permutation import permute
from ..keys import check_epoch
from .ranks import initialized_rank

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 16  # places turned into positions at once
PERMUTE_ABOVE = 10**7  # records: torch's permutation costs 8 bytes and about 100 ns each, at every start of an epoch
KINDS = ("sequential", "torch", "permute")


class EpochOrder:
    """A permutation of [0, count) with random access: which position each place has.

    "torch": `randperm` under a torch.Generator of this seed, DistributedSampler's order. "permute": a keyed bijection
    of O(1) memory. "sequential": the identity.
    """

    def __init__(self, kind: str, count: int, seed: int):
        if kind not in KINDS:
            raise ValueError(f"order is {kind!r}, want one of {KINDS}")
        self.kind, self.count, self.seed = kind, count, seed
        self._all = None
        if kind == "torch":
            self._all = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the positions of int64 places, any from 0 on; the order repeats where they pass its end."""
        places = places % self.count
        if self._all is not None:
            return self._all[places]
        return places if self.kind == "sequential" else permute(places, self.count, self.seed)


@dataclass(frozen=True)
class Share:
    """One rank's part of the rest of an epoch: places start + rank, + world, ... below stop.

    Global batch k of all ranks is a run of neighbouring places, whatever the number of ranks: that makes resuming on
    another number of ranks exact. Epoch and rank are those of the moment when it was made.
    """

    sampler: EpochSampler
    count: int  # served records
    start: int
    stop: int
    epoch: int
    rank: int
    world: int

    def __len__(self) -> int:
        return max(0, math.ceil((self.stop - self.start - self.rank) / self.world))

    def chunks(self, size: int = _CHUNK) -> Iterator[np.ndarray]:
        """Yield the positions, of up to `size` places at a time."""
        left, place = len(self), self.start + self.rank
        order = self.sampler.order(self.count, self.epoch) if left else None
        while order is not None and left > 0:
            places = place + self.world * np.arange(min(size, left), dtype=np.int64)
            yield order.at(places)
            place += self.world * len(places)
            left -= len(places)


class Position(int):
    """A position that brings the epoch of its views along, for a map dataset under torch's own DataLoader."""

    epoch: int

    def __new__(cls, value: int, epoch: int) -> Position:
        self = super().__new__(cls, value)
        self.epoch = epoch
        return self

    def __reduce__(self) -> tuple[type[Position], tuple[int, int]]:
        return Position, (int(self), self.epoch)


class EpochSampler(Sampler[int]):
    """The positions of one rank for one epoch.

    shuffle: `randperm` of seed + epoch, else sequential; padded by wrap-around to equal lengths; dealt rank::world.
        So a run sees the pictures in the order of the script it came from (torch/utils/data/distributed.py).
    drop_last: cut to equal lengths instead of padding.
    order: "torch" is that randperm; "permute" a keyed bijection that needs no memory. None: "permute" above 10^7
        records.
    infinite: one endless stream, the order of epoch 0, then of epoch 1 and so on, dealt rank::world with neither
        padding nor dropping (DINOv2's samplers, dinov2/data/samplers.py). `len` raises TypeError.
    rank and world_size: None reads torch.distributed at `len` and `iter`; once it is initialised, that is kept.

    Once `set_epoch` was called, the positions are `Position`s, which bring their epoch to `ShardDataset.as_map()`. An
    epoch that was iterated to its end and is iterated again brings the next one, so that no views come twice.

    Raises ValueError for arguments that contradict each other.
    """

    def __init__(
        self,
        data: Sized,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        order: str | None = None,
        infinite: bool = False,
    ):
        if (rank is None) != (world_size is None):
            raise ValueError(f"rank is {rank} and world_size {world_size}: give both or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, want [0, {world_size})")
        if order not in (None, "torch", "permute"):
            raise ValueError(f"order is {order!r}, want 'torch' or 'permute'")
        if order is not None and not shuffle:
            raise ValueError(f"order={order!r} is an order of shuffling: give shuffle=True with it")
        self.data, self.shuffle, self.seed, self.drop_last, self.infinite = data, shuffle, seed, drop_last, infinite
        self.epoch = 0
        self.epoch_is_set = False  # by set_epoch, once or more
        self._used: tuple[int, int] | None = None  # the last epoch that was iterated to its end, its views' epoch
        self._order = order
        self._kept: tuple[tuple[str, int, int], EpochOrder] | None = None
        self._place = (rank, world_size) if rank is not None and world_size is not None else None

    def __getstate__(self) -> dict[str, object]:
        # A spawned process knows nothing of torch.distributed.
        return {**self.__dict__, "_kept": None, "_place": self._place or initialized_rank()}

    def __repr__(self) -> str:
        kind = self._order or ("torch" if self.shuffle else "sequential")
        where = "" if self._place is None else f", rank {self._place[0]} of {self._place[1]}"
        endless = ", infinite" if self.infinite else ""
        return f"EpochSampler({kind} order, seed {self.seed}, epoch {self.epoch}{where}{endless})"

    @property
    def place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self._place is None:
            self._place = initialized_rank()
        return self._place or (0, 1)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order `iter` gives. Raises ValueError outside [0, 2^32)."""
        check_epoch(operator.index(epoch))
        self.epoch = operator.index(epoch)
        self.epoch_is_set = True

    def kind(self, count: int) -> str:
        """Return which of KINDS orders so many records."""
        if not self.shuffle:
            return "sequential"
        return self._order or ("permute" if count > PERMUTE_ABOVE else "torch")

    def order(self, count: int, epoch: int) -> EpochOrder:
        """Return the order of so many records in an epoch. The latest one is kept."""
        key = (self.kind(count), count, (self.seed + epoch) % 2**64)
        if self._kept is None or self._kept[0] != key:
            if key[0] == "permute" and self._order is None and self._kept is None:
                _LOG.info("%d records: order='permute', since torch's permutation would take %d MB", count, count >> 17)
            self._kept = (key, EpochOrder(*key))
        return self._kept[1]

    def total(self, count: int, world: int) -> int:
        """Return how many places an epoch has that `world` ranks begin together: a multiple of world."""
        whole = count // world * world
        return whole if self.drop_last or whole == count else whole + world

    def stop(self, count: int, world: int, position: int, step: int, drop_last: bool) -> int:
        """Return the place at which an epoch ends that `world` ranks began and the ranks of now continue.

        position: where they continue, in global batches of `step`. Every rank gets the same number of batches, none of
        them empty: with drop_last whole ones, else a rest that is too small for the ranks of now wraps around.
        """
        stop = self.total(count, world)
        rest = (stop - position) % step
        if drop_last:
            return stop - rest
        return stop + self.place[1] - rest if 0 < rest < self.place[1] else stop

    def share(self, count: int, start: int = 0, stop: int | None = None) -> Share:
        """Return this rank's part of the places [start, stop) of an epoch over `count` records."""
        end = self.total(count, self.place[1]) if stop is None else stop
        return Share(self, count, start, end, self.epoch, *self.place)

    def __len__(self) -> int:
        if self.infinite:
            raise TypeError("an endless order has no length")
        return len(self.share(len(self.data)))

    def __iter__(self) -> Iterator[int]:
        count, (rank, world), order_epoch = len(self.data), self.place, self.epoch
        views_epoch = order_epoch
        if self._used is not None and self._used[0] <= order_epoch:
            views_epoch = max(order_epoch, self._used[1] + 1)
        for number in itertools.count() if self.infinite else [0]:
            start = number * count
            first = start + (rank - start) % world  # the rank's first place in this pass
            stop = start + count if self.infinite else self.total(count, world)
            for positions in Share(self, count, first - rank, stop, order_epoch + number, rank, world).chunks():
                if self.epoch_is_set:
                    yield from (Position(position, views_epoch + number) for position in positions.tolist())
                else:
                    yield from positions.tolist()
        self._used = order_epoch, views_epoch
