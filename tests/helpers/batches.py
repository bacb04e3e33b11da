"""Batches of loaders on a GPU and on the CPU, compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pass_loader import DataLoader, recipes

ON_GPU = sorted(name for name, preset in recipes.PRESETS.items()
                if preset().batch not in ("view_heatmap_labels", "views_labels_companions")
                and preset().step_rows() is None)  # fmt: skip


def assert_batches_equal(found: Any, want: Any) -> None:
    """Compare structure, types, layout and bytes."""
    assert type(found) is type(want) or isinstance(found, torch.Tensor) and isinstance(want, torch.Tensor)
    if isinstance(want, torch.Tensor):
        assert found.dtype == want.dtype and found.shape == want.shape
        assert torch.equal(found.cpu(), want)
        assert len(want) <= 1 or found.stride()[1:] == want.stride()[1:]
    elif isinstance(want, np.ndarray):
        assert np.array_equal(found, want)
    elif isinstance(want, (list, tuple)):
        assert len(found) == len(want)
        for one, other in zip(found, want):
            assert_batches_equal(one, other)
    elif isinstance(want, dict):
        assert [*found] == [*want]
        for name in want:
            assert_batches_equal(found[name], want[name])
    else:
        assert found == want


def both(make: Callable[..., Any]) -> tuple[DataLoader, DataLoader]:
    """Return (the loader on the GPU, the same on the CPU)."""
    return make(device="cuda"), make()


def compare(make: Callable[..., Any], epochs: int = 1) -> DataLoader:
    """Compare all batches of epochs when they come, and once more when all have come."""
    on_gpu, on_cpu = both(make)
    for _ in range(epochs):
        held = []
        for batch in zip(on_gpu, on_cpu, strict=True):
            assert_batches_equal(*batch)
            held.append(batch)
        assert held
        for batch in held:
            assert_batches_equal(*batch)
    return on_gpu


def pointers(batch: Any) -> tuple[int, ...]:
    """Return the addresses of all views of a batch."""
    if isinstance(batch, torch.Tensor):
        return (batch.data_ptr(),) if batch.dtype == torch.float32 and batch.dim() == 4 else ()
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return tuple(place for part in parts for place in pointers(part))
