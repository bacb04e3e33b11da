"""Between the native engine and torch: memory for batches, submission, results in a recipe's structure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import _C
from .samples import Samples, check_epoch


@dataclass
class Submitted:
    """A batch under way. `wait` gives it or raises; dropping it stops the threads from writing into its memory."""

    samples: Samples
    records: np.ndarray  # (N,) int64
    views: list[torch.Tensor]  # of (N, 3, height, width) float32
    plans: np.ndarray | None  # (N, views)
    pending: _C.PendingBatch

    def wait(self) -> Submitted:
        failures = self.pending.wait()
        if failures:
            slot, fault, message = failures[0]
            if len(failures) > 1:
                message += f" (and {len(failures) - 1} more records of this batch failed)"
            raise self.samples.error(int(self.records[slot]), fault, message)
        return self

    def structured(self, return_info: bool) -> Any:
        """The batch as the recipe's official script expects it; one dict more with return_info."""
        parts: list[Any] = [self.views]
        if self.samples.recipe.batch == "views_labels":
            labels = self.samples.pack.column("label")[self.records].astype(np.int64)
            parts.append(torch.from_numpy(labels))
        if return_info:
            parts.append(
                {
                    "records": torch.from_numpy(self.records),
                    "ids": self.samples.pack.ids(self.records),
                    "valid": torch.ones(len(self.records), dtype=torch.bool),
                    "plans": self.plans,
                }
            )
        return parts[0] if len(parts) == 1 else tuple(parts)


class Renderer:
    """Renders batches of one Samples on `threads` threads; 0: in the thread that waits.

    Pageable memory comes from a pool and returns to it when the last tensor of a batch dies; pinned memory is torch's,
    whose allocator recycles it safely. keep: unused pageable buffers kept. Every buffer has room for batch_size
    samples, so that a smaller last batch takes one of the same size.
    """

    def __init__(self, samples: Samples, threads: int, *, batch_size: int = 1, pin_memory: bool = False, keep: int = 2):
        self.samples = samples
        self.pin_memory = pin_memory
        self.batch_size = batch_size
        recipe = samples.recipe
        table = recipe.normalize_table()
        self._engine = _C.Engine(samples.reader, recipe.rows(), samples.seed, table, recipe.mean, recipe.std, threads)
        self._groups: dict[tuple[int, int], list[int]] = {}  # views of one size lie in one allocation
        for index, view in enumerate(recipe.views):
            self._groups.setdefault((view.height, view.width), []).append(index)
        self._pool = _C.BufferPool(keep * len(self._groups))

    def submit(self, records: np.ndarray, draws: np.ndarray, epoch: int, with_plans: bool = False) -> Submitted:
        check_epoch(epoch)
        views: list[torch.Tensor] = [torch.empty(0)] * len(self.samples.recipe.views)
        arrays: list[np.ndarray] = [np.empty(0)] * len(views)
        for (height, width), members in self._groups.items():
            tensor, array = self._allocate([len(members), len(records), 3, height, width])
            for place, index in enumerate(members):
                views[index], arrays[index] = tensor[place], array[place]
        plans = np.zeros((len(records), len(views)), dtype=_C.view_plan_dtype) if with_plans else None
        pending = self._engine.submit(records, draws, epoch, arrays, plans)
        return Submitted(self.samples, records, views, plans, pending)

    def stage_times(self) -> dict[str, float]:
        """Seconds that all threads together have spent in each stage, and "samples" rendered, since the start.

        Stages in the order in which a sample meets them (csrc/stages.h). Take the difference of two readings.
        """
        return self._engine.stage_times()

    def _allocate(self, shape: list[int]) -> tuple[torch.Tensor, np.ndarray]:
        if self.pin_memory:
            tensor = torch.empty(shape, dtype=torch.float32, pin_memory=True)
            return tensor, tensor.numpy()
        room = [shape[0] * self.batch_size * math.prod(shape[2:])]
        array = self._pool.take(room)[: math.prod(shape)].reshape(shape)
        return torch.from_numpy(array), array
