"""Order: torch's DistributedSampler index for index, without its demand for a process group at construction."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from .dataset import initialized_rank


class EpochSampler(Sampler[int]):
    """Positions of one rank for one epoch.

    shuffle: `randperm` of seed + epoch, else sequential; padded by wrap-around to equal lengths; dealt rank::world.
    So a run sees the pictures in the order of the script it came from (torch/utils/data/distributed.py).
    rank and world_size: None reads torch.distributed at the first `len` or `iter`.
    """

    def __init__(
        self, data: Sized, *, shuffle: bool, seed: int = 0, rank: int | None = None, world_size: int | None = None
    ):
        if (rank is None) != (world_size is None):
            raise ValueError(f"rank is {rank} and world_size {world_size}: give both or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, want [0, {world_size})")
        self.data, self.shuffle, self.seed = data, shuffle, seed
        self.epoch = 0
        self._place = (rank, world_size) if rank is not None and world_size is not None else None

    @property
    def place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self._place is None:
            self._place = initialized_rank() or (0, 1)
        return self._place

    def set_epoch(self, epoch: int) -> None:
        self.epoch = operator.index(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.place[1])

    def positions(self) -> torch.Tensor:
        """(len,) int64."""
        count = len(self.data)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.arange(count)
        rank, world = self.place
        total = len(self) * world
        if total > count:
            order = order.repeat(math.ceil(total / count))[:total]
        return order[rank::world]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())
