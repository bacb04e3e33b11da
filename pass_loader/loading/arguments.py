"""Arguments of DataLoader that contradict each other or have no meaning."""

from __future__ import annotations

from typing import Any

import torch


def check_samplers(batch_size: int | None, sampler: Any, batch_sampler: Any, drop_last: bool, ours: bool) -> None:
    """Raise ValueError for arguments of order that contradict each other. ours: some of our own order were given."""
    if (sampler is not None or batch_sampler is not None) and ours:
        raise ValueError(
            "a sampler decides order and ranks: give it without shuffle, order and its numbers, infinite, repeats, "
            "rank and world_size"
        )
    if getattr(sampler, "num_repeats", 1) > 1 and hasattr(sampler, "num_selected_samples"):
        raise ValueError(
            f"{type(sampler).__name__} yields a position several times without a draw, so that all repeats would have "
            f"the same views: give shuffle=True, repeats={sampler.num_repeats} in its place"
        )
    if batch_sampler is not None and (batch_size != 1 or sampler is not None or drop_last):
        raise ValueError("batch_sampler decides batches: give it without batch_size, sampler and drop_last")
    if batch_size is None and batch_sampler is None:
        raise ValueError("batch_size=None would give single samples: take dataset.as_map() or dataset.sample(record)")


def check_device(
    device: torch.device | str, decode: str, static_buffers: bool, batch_size: int | None, arena_bytes: int | None
) -> None:
    """Raise ValueError for arguments of a device that contradict each other."""
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device is {device}, want 'cpu' or a GPU of NVIDIA's such as 'cuda:0'")
    if decode not in ("cpu", "cuda", "nvjpeg"):
        raise ValueError(f"decode is {decode!r}, want 'cpu', 'cuda' or 'nvjpeg'")
    if kind == "cpu" and (static_buffers or arena_bytes is not None or decode != "cpu"):
        raise ValueError("decode='cuda' or 'nvjpeg', static_buffers and arena_bytes go with device='cuda'")
    if static_buffers and batch_size is None:
        raise ValueError("static_buffers have room for batch_size samples: give it, not batch_sampler")
    if arena_bytes is not None and arena_bytes < 1:
        raise ValueError(f"arena_bytes is {arena_bytes}, want at least 1")


def refuse(**arguments: tuple[Any, str]) -> None:
    """Raise TypeError for the first argument that is not None. arguments: NAME=(value, way out)."""
    for name, (value, way_out) in arguments.items():
        if value is not None:
            raise TypeError(f"{name} has no meaning here: {way_out}")
