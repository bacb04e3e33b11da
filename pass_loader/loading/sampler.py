"""Order over ranks: torch's DistributedSampler index for index, without needing a process group at construction."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sized
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from ..keys import check_epoch
from .order import PERMUTE_ABOVE, Order
from .ranks import initialized_rank

_CHUNK = 1 << 16  # places turned to positions at once


@dataclass(frozen=True)
class Share:
    """One rank's part of what is left of an epoch: places start + rank, + world, ... below stop.

    Global batch k of all ranks is a run of neighbouring places, whatever the number of ranks: that makes resuming on
    another number of ranks exact. Epoch and rank are those of its making.
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
        """Positions of up to `size` places."""
        left, place = len(self), self.start + self.rank
        order = self.sampler.order(self.count, self.epoch) if left else None
        while order is not None and left > 0:
            places = place + self.world * np.arange(min(size, left), dtype=np.int64)
            yield order.at(places)
            place += self.world * len(places)
            left -= len(places)


class EpochSampler(Sampler[int]):
    """Positions of one rank for one epoch.

    shuffle: `randperm` of seed + epoch, else sequential; padded by wrap-around to equal lengths; dealt rank::world.
    So a run sees the pictures in the order of the script it came from (torch/utils/data/distributed.py).
    drop_last: cut to equal lengths instead of padding.
    order: "torch" is that randperm; "permute" a keyed bijection that needs no memory. None: "permute" above 10^7
        records.
    infinite: one endless stream, the order of epoch 0, then of epoch 1 and so on, dealt rank::world with neither
        padding nor dropping (DINOv2's samplers, dinov2/data/samplers.py). `len` raises TypeError.
    rank and world_size: None reads torch.distributed at `len` and `iter`; once it is initialised, for good.
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
        self._order = order
        self._kept: tuple[tuple[str, int, int], Order] | None = None
        self._place = (rank, world_size) if rank is not None and world_size is not None else None

    def __getstate__(self) -> dict[str, object]:
        # A spawned process knows nothing of torch.distributed.
        return {**self.__dict__, "_kept": None, "_place": self._place or initialized_rank()}

    @property
    def place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self._place is None:
            self._place = initialized_rank()
        return self._place or (0, 1)

    def set_epoch(self, epoch: int) -> None:
        """Raises ValueError outside [0, 2^32)."""
        check_epoch(operator.index(epoch))
        self.epoch = operator.index(epoch)
        self.epoch_is_set = True

    def kind(self, count: int) -> str:
        if not self.shuffle:
            return "sequential"
        return self._order or ("permute" if count > PERMUTE_ABOVE else "torch")

    def order(self, count: int, epoch: int) -> Order:
        key = (self.kind(count), count, (self.seed + epoch) % 2**64)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, Order(*key))
        return self._kept[1]

    def total(self, count: int, world: int) -> int:
        """Places of an epoch that `world` ranks begin together: a multiple of world."""
        whole = count // world * world
        return whole if self.drop_last or whole == count else whole + world

    def stop(self, count: int, world: int, position: int, step: int, drop_last: bool) -> int:
        """Where an epoch that `world` ranks began ends, in places of all ranks together, for those that go on with it
        from `position` in global batches of `step`. Every rank gets the same number of batches, none of them empty:
        with drop_last whole ones; else a rest that is too small for the ranks of now wraps around.
        """
        stop = self.total(count, world)
        rest = (stop - position) % step
        if drop_last:
            return stop - rest
        return stop + self.place[1] - rest if 0 < rest < self.place[1] else stop

    def share(self, count: int, start: int = 0, stop: int | None = None) -> Share:
        end = self.total(count, self.place[1]) if stop is None else stop
        return Share(self, count, start, end, self.epoch, *self.place)

    def __len__(self) -> int:
        if self.infinite:
            raise TypeError("an endless order has no length")
        return len(self.share(len(self.data)))

    def __iter__(self) -> Iterator[int]:
        count, (rank, world) = len(self.data), self.place
        for number in itertools.count() if self.infinite else [0]:
            start = number * count
            first = start + (rank - start) % world  # the rank's first place in this pass
            stop = start + count if self.infinite else self.total(count, world)
            for positions in Share(self, count, first - rank, stop, self.epoch + number, rank, world).chunks():
                yield from positions.tolist()
