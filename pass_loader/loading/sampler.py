"""Order over ranks: torch's DistributedSampler index for index, without needing a process group at construction."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import math
import operator
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

from ..data.blocks import BLOCK_BYTES, WINDOW_BYTES, BlockOrder, BlockSizes
from ..data.live import Served
from ..data.samples import Samples
from ..data.weights import MixedLive
from ..keys import MAX_DRAWS, check_epoch
from ..permutation import permute
from .ranks import Occasions, agree, initialized_rank

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 16  # places turned into positions at once
AHEAD = 1 << 12  # where chunks are small: a call of a keyed order costs as much for 64 places as for 500
SELECTED = 256  # an epoch of repeats has a multiple of so many samples
PERMUTE_ABOVE = 10**7  # records: torch's permutation costs 8 bytes and about 100 ns each, at every start of an epoch
KINDS = ("sequential", "torch", "permute")


class Order(Protocol):
    """Which position each place of an epoch has."""

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the positions of int64 places, any from 0 on."""
        ...


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


def no_draws(positions: np.ndarray) -> np.ndarray:
    """Return the draws of positions of which each comes once."""
    return np.zeros(len(positions), np.uint32)


class Stretch(NamedTuple):
    """What stands at N places of an order."""

    positions: np.ndarray  # (N,) int64
    draws: np.ndarray  # (N,) uint32: which repeat of the position it is
    padding: np.ndarray  # (N,) bool: past the end of the order, which begins again to give all ranks equal numbers


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

    def chunks(self, size: int = _CHUNK) -> Iterator[Stretch]:
        """Yield up to `size` places at a time."""
        left, place, repeats = len(self), self.start + self.rank, self.sampler.repeats
        order = self.sampler.order(self.count, self.epoch) if left else None
        ahead = max(1, AHEAD // size) * size
        while order is not None and left > 0:
            places = place + self.world * np.arange(min(ahead, left), dtype=np.int64)
            positions = order.at(places if repeats == 1 else places // repeats)
            draws = no_draws(places) if repeats == 1 else (places % repeats).astype(np.uint32)
            padding = places >= self.count * repeats
            for begin in range(0, len(places), size):
                part = slice(begin, begin + size)
                yield Stretch(positions[part], draws[part], padding[part])
            place += self.world * len(places)
            left -= len(places)

    def all(self) -> Stretch:
        """Return all places at once."""
        parts = [*self.chunks()] or [Stretch(*(np.empty(0, kind) for kind in (np.int64, np.uint32, bool)))]
        return Stretch(*(np.concatenate(columns) for columns in zip(*parts)))


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
    order: "torch" is that randperm; "permute" a keyed bijection that needs no memory; "blocks" reads runs of records,
        for storage that likes runs (docs/where-packs-lie.md). None: "permute" above 10^7 records.
    block_bytes, window_bytes, lanes: of order="blocks": bytes of a block (None: 8 MiB), of the windows of all lanes
        together (None: 8 GiB), and how many lanes the order has (None: as many as ranks begin the run). They become
        numbers of records when the run begins, and stay; a loaded state brings its own, and must have what is given
        here. `data` must be a ShardDataset or its map.
    infinite: one endless stream, the order of epoch 0, then of epoch 1 and so on, dealt rank::world with neither
        padding nor dropping (DINOv2's samplers, dinov2/data/samplers.py). `len` raises TypeError.
    repeats: each picture comes so often, as timm's RepeatAugSampler and DeiT's RASampler have it, with another draw of
        views each time, in neighbouring places, which different ranks have. An epoch has about as many samples as
        there are pictures: a multiple of 256 over all ranks, from the front of the order, so that it shows 1 / repeats
        of the pictures. `iter` yields (position, draw). drop_last has no effect.
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
        block_bytes: int | None = None,
        window_bytes: int | None = None,
        lanes: int | None = None,
        repeats: int = 1,
    ):
        if (rank is None) != (world_size is None):
            raise ValueError(f"rank is {rank} and world_size {world_size}: give both or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, want [0, {world_size})")
        if order not in (None, "torch", "permute", "blocks"):
            raise ValueError(f"order is {order!r}, want 'torch', 'permute' or 'blocks'")
        if order is not None and not shuffle:
            raise ValueError(f"order={order!r} is an order of shuffling: give shuffle=True with it")
        _check_repeats(repeats, data, order, infinite)
        self.repeats = operator.index(repeats)
        asked = {"block_bytes": block_bytes, "window_bytes": window_bytes, "lanes": lanes}
        self._asked = {name: operator.index(value) for name, value in asked.items() if value is not None}
        _check_blocks(data, order, self._asked)
        self._sizes: BlockSizes | None = None  # of order="blocks", once the run has begun
        self._occasions = Occasions()
        self.data, self.shuffle, self.seed, self.drop_last, self.infinite = data, shuffle, seed, drop_last, infinite
        self.epoch = 0
        self.epoch_is_set = False  # by set_epoch, once or more
        self._used: tuple[int, int] | None = None  # the last epoch that was iterated to its end, its views' epoch
        self._order = order
        self._kept: tuple[tuple[object, ...], Order] | None = None
        self._place = (rank, world_size) if rank is not None and world_size is not None else None

    def __getstate__(self) -> dict[str, object]:
        # A spawned process knows nothing of torch.distributed.
        return {**self.__dict__, "_kept": None, "_place": self._place or initialized_rank()}

    def __repr__(self) -> str:
        kind = self._order or ("torch" if self.shuffle else "sequential")
        where = "" if self._place is None else f", rank {self._place[0]} of {self._place[1]}"
        endless = ", infinite" if self.infinite else ""
        repeated = f", each {self.repeats} times" if self.repeats > 1 else ""
        return f"EpochSampler({kind} order{repeated}, seed {self.seed}, epoch {self.epoch}{where}{endless})"

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

    def order(self, count: int, epoch: int) -> Order:
        """Return the order of so many records in an epoch. The latest one is kept."""
        kind = self.kind(count)
        key = (kind, count, self.seed, epoch, self.sizes)
        if self._kept is None or self._kept[0] != key:
            if kind == "permute" and self._order is None and self._kept is None:
                _LOG.info("%d records: order='permute', since torch's permutation would take %d MB", count, count >> 17)
            if self.sizes is not None:
                self._kept = (key, BlockOrder(count, self.sizes, self.seed, epoch))
            else:
                self._kept = (key, EpochOrder(kind, count, (self.seed + epoch) % 2**64))
        return self._kept[1]

    @property
    def sizes(self) -> BlockSizes | None:
        """The numbers of order="blocks", fixed when they are first asked for, on all ranks alike; None for another
        order."""
        if self._order == "blocks" and self._sizes is None:
            given = {"block_bytes": BLOCK_BYTES, "window_bytes": WINDOW_BYTES, "lanes": self.place[1], **self._asked}
            own = self._counted().block_sizes(**given).as_state()
            if self.place[1] > 1:  # a purge may come between two ranks' openings of the pack
                about = f"{self._counted().pack.pack_id}/{self._counted().subset()}/{self.seed}/{given}"
                own = agree(self._occasions.name(f"blocks/{_digest(about)}", 0), own)
            self._sizes = BlockSizes.of_state(own)
        return self._sizes

    @property
    def sizes_so_far(self) -> BlockSizes | None:
        """As `sizes`, but None where they are not fixed yet."""
        return self._sizes

    def identity(self, count: int, saved: Any = None) -> dict[str, Any]:
        """Return what a state holds of the order of so many records.

        saved: the same of a state that is to be loaded. With order="blocks" its numbers are taken for those that were
        not given to this sampler. Raises ValueError where it is damaged.
        """
        order = {"kind": self.kind(count), "seed": self.seed, "infinite": self.infinite}
        if self.repeats > 1:
            order["repeats"] = self.repeats
        if self._order != "blocks":
            return order
        if isinstance(saved, dict) and saved.get("kind") == "blocks":
            sizes, parts = BlockSizes.of_state(saved), self._counted().parts
            if sizes.datasets != (len(parts) if self._counted().mixture else None):
                raise ValueError(f"the state is damaged: its order is {saved!r}, for {len(parts)} datasets")
            return {**order, **sizes.as_state(), **self._asked}
        assert self.sizes is not None
        return {**order, **self.sizes.as_state()}

    def _counted(self) -> Samples:
        return self.data.counted()  # type: ignore[attr-defined]

    def adopt(self, sizes: BlockSizes) -> None:
        """Go on with the numbers of a state."""
        self._sizes, self._kept = sizes, None

    def along(self, live: Served) -> Served:
        """Return what the positions of this order count: `live`, or under weights its records along blocks."""
        sizes = self.sizes
        if sizes is None or not isinstance(live, MixedLive):
            return live
        assert isinstance(sizes.block, tuple)
        return dataclasses.replace(live, blocks=sizes.block)

    def total(self, count: int, world: int) -> int:
        """Return how many places an epoch has that `world` ranks begin together: a multiple of world."""
        if self.repeats > 1:  # timm/data/distributed_sampler.py:99-107
            rounded = count // SELECTED * SELECTED if count >= SELECTED else count + world - 1
            return min(rounded // world, math.ceil(count * self.repeats / world)) * world
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
        if self.sizes is not None and isinstance(self.sizes.block, tuple):
            raise TypeError(
                "positions alone cannot bring order='blocks' to a dataset with weights: take pass_loader.DataLoader"
            )
        views_epoch = order_epoch
        if self._used is not None and self._used[0] <= order_epoch:
            views_epoch = max(order_epoch, self._used[1] + 1)
        for number in itertools.count() if self.infinite else [0]:
            start = number * count
            first = start + (rank - start) % world  # the rank's first place in this pass
            stop = start + count if self.infinite else self.total(count, world)
            for chunk in Share(self, count, first - rank, stop, order_epoch + number, rank, world).chunks():
                positions: list[Any] = chunk.positions.tolist()
                if self.epoch_is_set:
                    positions = [Position(position, views_epoch + number) for position in positions]
                yield from positions if self.repeats == 1 else zip(positions, chunk.draws.tolist())
        self._used = order_epoch, views_epoch


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _check_repeats(repeats: int, data: Sized, order: str | None, infinite: bool) -> None:
    """Raise ValueError for a number of repeats that an order cannot have."""
    if not 1 <= operator.index(repeats) <= MAX_DRAWS:
        raise ValueError(f"repeats is {repeats}, want [1, {MAX_DRAWS}]")
    if repeats > 1 and (infinite or order == "blocks"):
        raise ValueError("repeats go with epochs of order 'torch' or 'permute', not with infinite=True or 'blocks'")
    if repeats > 1 and hasattr(data, "counted") and data.counted().mixture is not None:
        raise ValueError("repeats and weights both say how often a picture comes: give one of both")


def _check_blocks(data: Sized, order: str | None, asked: dict[str, int]) -> None:
    """Raise for arguments of order="blocks" that do not fit together, or that no order by blocks can be made from."""
    if order != "blocks":
        if asked:
            raise ValueError(f"{', '.join(asked)}: want order='blocks' with it")
        return
    if not hasattr(data, "counted"):
        raise TypeError(
            f"order='blocks' needs to know how many bytes a record has: give a ShardDataset or its as_map(), not a "
            f"{type(data).__name__}; for a part of a pack ShardDataset(..., records=...)"
        )
    for name, value in asked.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, want at least 1")
    block, window = asked.get("block_bytes", BLOCK_BYTES), asked.get("window_bytes", WINDOW_BYTES)
    if window < block:
        raise ValueError(f"window_bytes is {window}, less than a block of {block} bytes: a window holds whole blocks")
