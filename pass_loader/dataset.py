"""ShardDataset: a pack as a torch IterableDataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from . import _C
from .pack.reader import Pack
from .recipes import Recipe
from .rendering import Renderer
from .samples import Samples


def initialized_rank() -> tuple[int, int] | None:
    """(rank, world size) of torch.distributed; None where it is not initialised."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None


class ShardDataset(Samples, IterableDataset):
    """The samples of a pack under a recipe.

    Give it to `pass_loader.DataLoader` for batches. Under torch's own DataLoader it is an IterableDataset in
    sequential order: ranks and worker processes split the records among them, and each sample is
    (list of (3, height, width) float32 tensors, label), or the bare list for a recipe whose batch is "views".
    There, call `set_epoch` before each epoch for new views.

    Views depend on (seed, epoch, record) alone.
    """

    def __init__(self, pack: str | Path | Pack, recipe: Recipe, *, seed: int = 0):
        super().__init__(pack, recipe, seed=seed)
        self.epoch = 0
        self._rank: tuple[int, int] | None = None
        self._alone: tuple[int, _C.ShardReader, Renderer] | None = None

    def __repr__(self) -> str:
        return f"ShardDataset({self.pack!r}, recipe {self.recipe.name}, seed {self.seed})"

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker process knows nothing of torch.distributed.
        return {**super().__getstate__(), "_alone": None, "_rank": initialized_rank() or self._rank}

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the views that iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        rank, world = initialized_rank() or self._rank or (0, 1)
        worker = get_worker_info()
        part, parts = (rank * worker.num_workers + worker.id, world * worker.num_workers) if worker else (rank, world)
        for position in range(part, len(self), parts):
            record = int(self.pack.records_at(np.array([position], dtype=np.int64))[0])
            views = self.sample(record, self.epoch)
            if self.recipe.batch == "views":
                yield views
            else:
                yield views, int(self.pack.column("label")[record])

    def sample(self, record: int, epoch: int = 0, draw: int = 0) -> list[torch.Tensor]:
        """What a batch holds of this record: a list of (3, height, width) float32 tensors. Raises RecordError."""
        self.check_live(record)
        reader = self.reader
        if self._alone is None or self._alone[:2] != (os.getpid(), reader):
            self._alone = (os.getpid(), reader, Renderer(self, threads=0, keep=0))
        submitted = self._alone[2].submit(np.array([record], np.int64), np.array([draw], np.uint32), epoch)
        return [view[0] for view in submitted.wait().views]
