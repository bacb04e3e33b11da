"""DataLoader: torch's keywords, batches rendered by native threads in this process."""

from __future__ import annotations

import itertools
import math
import operator
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from .dataset import ShardDataset
from .rendering import Renderer, Submitted
from .sampler import EpochSampler


class DataLoader:
    """Batches of a ShardDataset, in the structure of the recipe's official script, as float32 tensors on the CPU.

    dataset, batch_size, shuffle, sampler, pin_memory, drop_last, generator: as in torch. Without `sampler` the order is
        that of torch's DistributedSampler with seed 0, or with the generator's seed.
    num_workers: threads; 0 renders in the calling thread.
    prefetch_factor: batches a loader (not a worker) in work while one is waited for; 2 unless given.
    rank, world_size: None takes torch.distributed's at the first `len` or `iter`.
    return_info: one dict more a batch: records, ids, valid, plans.

    The loader holds at most prefetch_factor batches beside those that the caller holds, and never writes into one that
    the caller holds. Views are keyed by the dataset's seed, the epoch and the record. The epoch is the sampler's where
    it changed since the last iteration, else one more than the last.

    Iterating raises RecordError for a record whose bytes are bad, ShardError where the storage failed.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        batch_size: int = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: None = None,
        num_workers: int = 0,
        collate_fn: None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: None = None,
        multiprocessing_context: None = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        return_info: bool = False,
    ):
        if not isinstance(dataset, ShardDataset):
            raise TypeError(f"dataset is {type(dataset).__name__}, want a pass_loader.ShardDataset")
        _refuse(
            batch_sampler=(batch_sampler, "give sampler and batch_size"),
            collate_fn=(collate_fn, "the structure of a batch is the recipe's `batch`"),
            worker_init_fn=(worker_init_fn, "workers are threads without state of their own"),
            multiprocessing_context=(multiprocessing_context, "workers are threads"),
            timeout=(timeout or None, "waiting can be interrupted, and a failed record raises at once"),
            pin_memory_device=(pin_memory_device or None, "pin_memory=True pins for the current accelerator"),
            in_order=(None if in_order else False, "batches always come in order"),
        )
        if sampler is not None and (shuffle or rank is not None or world_size is not None):
            raise ValueError("sampler decides order and ranks: give it without shuffle, rank and world_size")
        batch_size, num_workers = operator.index(batch_size), operator.index(num_workers)
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}, want at least {least}")
        if prefetch_factor is not None and prefetch_factor < 1:
            raise ValueError(f"prefetch_factor is {prefetch_factor}, want at least 1")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.drop_last = drop_last
        self.generator = generator
        self.prefetch_factor = prefetch_factor or 2
        self.persistent_workers = persistent_workers  # threads persist either way
        self.return_info = return_info
        seed = generator.initial_seed() if generator is not None else 0
        self.sampler: Any = sampler if sampler is not None else EpochSampler(
            dataset, shuffle=bool(shuffle), seed=seed, rank=rank, world_size=world_size
        )  # fmt: skip
        self._last_epochs: tuple[int, int] | None = None  # the sampler's and the views', of the last iteration
        self._renderer: tuple[int, Renderer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}

    def __len__(self) -> int:
        """Batches of an epoch. Raises TypeError where a foreign sampler has no length."""
        if not isinstance(self.sampler, Sized):
            raise TypeError(f"the sampler {type(self.sampler).__name__} has no length, so the loader has none")
        samples = len(self.sampler)
        return samples // self.batch_size if self.drop_last else math.ceil(samples / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch = self._views_epoch()
        return self._iterate(self._batches(), epoch)

    def _views_epoch(self) -> int:
        order = int(getattr(self.sampler, "epoch", 0))
        if self._last_epochs is None or order != self._last_epochs[0]:
            views = order
        else:
            views = self._last_epochs[1] + 1
        self._last_epochs = (order, views)
        return views

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(records, draws) of each batch."""
        positions = iter(self.sampler)
        while chunk := list(itertools.islice(positions, self.batch_size)):
            if len(chunk) < self.batch_size and self.drop_last:
                return
            pairs = [p if isinstance(p, (tuple, list)) else (p, 0) for p in chunk]
            rows = np.array([[operator.index(p), operator.index(draw)] for p, draw in pairs], dtype=np.int64)
            if rows[:, 0].min() < 0 or rows[:, 0].max() >= len(self.dataset):
                raise IndexError(f"the sampler gave a position outside [0, {len(self.dataset)})")
            if rows[:, 1].min() < 0 or rows[:, 1].max() >= 1 << 16:
                raise IndexError("the sampler gave a draw outside [0, 65536)")
            yield self.dataset.pack.records_at(rows[:, 0].copy()), rows[:, 1].astype(np.uint32)

    def _iterate(self, batches: Iterator[tuple[np.ndarray, np.ndarray]], epoch: int) -> Iterator[Any]:
        renderer = self._get_renderer()
        under_way: deque[Submitted] = deque()
        while True:
            for records, draws in itertools.islice(batches, self._depth() - len(under_way)):
                under_way.append(renderer.submit(records, draws, epoch, with_plans=self.return_info))
            if not under_way:
                return
            yield under_way.popleft().wait().structured(self.return_info)

    def _depth(self) -> int:
        return self.prefetch_factor if self.num_workers > 0 else 1

    def _get_renderer(self) -> Renderer:
        """Made at the first iteration and kept for the next; threads do not survive a fork."""
        if self._renderer is None or self._renderer[0] != os.getpid():
            renderer = Renderer(
                self.dataset,
                self.num_workers,
                batch_size=self.batch_size,
                pin_memory=self.pin_memory,
                keep=self._depth() + 1,
            )
            self._renderer = (os.getpid(), renderer)
        return self._renderer[1]


def _refuse(**arguments: tuple[Any, str]) -> None:
    for name, (value, way_out) in arguments.items():
        if value is not None:
            raise TypeError(f"{name} has no meaning here: {way_out}")
