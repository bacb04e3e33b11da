"""Which records the batch had that a run was given last before it saved a state."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.live import Served
from ..data.samples import Samples
from .drawing import NONE_GONE, EndlessDrawing, keys_at
from .resume import Progress
from .sampler import EpochSampler


def records_of_last_batch(dataset: Samples, state: dict[str, Any]) -> np.ndarray:
    """Return (N,) int64: the records of the batch, of all ranks, that was handed out last before `state_dict` gave this
    state.

    dataset: as the loader's, whatever its recipe. Records that on_error="replace" drew for bad ones are not in a state:
    `loader.errors` and the batch's info tell them.

    Raises ValueError for a state of another pack or part of it, of a foreign sampler (which alone knows its order), or
    from before the first batch.
    """
    _check(dataset, state)
    progress = Progress.of_state(state)
    if not progress.position and progress.epoch == progress.order_epoch:  # after a whole epoch it is a later one
        raise ValueError("the state was taken before the first batch of its epoch: no picture had been handed out")
    live = dataset.live if progress.generation is None else dataset.live_then(progress.generation)
    order, size = state["order"], int(state["global_batch"])
    kind = None if order["kind"] == "sequential" else order["kind"]
    sampler = EpochSampler(
        dataset, shuffle=kind is not None, seed=order["seed"], order=kind, infinite=order["infinite"], rank=0,
        world_size=1, repeats=order.get("repeats", 1),
    )  # fmt: skip
    if progress.sizes is not None:
        sampler.adopt(progress.sizes)
    live = sampler.along(live)
    sampler.set_epoch(progress.order_epoch)
    stop, epoch = progress.position, progress.epoch
    if not stop:  # the state was taken at the end of an epoch
        total = sampler.total(len(live), progress.world)
        stop, epoch = total // size * size if state["drop_last"] else total, epoch - 1
    start = (stop - 1) // size * size
    if sampler.infinite:
        return _of_endless(sampler, progress, live, start)
    positions, draws, _ = sampler.share(len(live), start, stop).all()
    return keys_at(live, positions, draws, epoch).records


def _of_endless(sampler: EpochSampler, progress: Progress, live: Served, start: int) -> np.ndarray:
    """Passes may have begun with other records than the last one, and the state tells of that one alone."""
    size = progress.position - start
    if progress.passed * len(live) == progress.pass_start:
        passed, pass_start = start // len(live), start // len(live) * len(live)
    elif start >= progress.pass_start:
        passed, pass_start = progress.passed, progress.pass_start
    else:
        raise ValueError("the batch began before a removal and ended after it: take the state of the next batch")
    placed = dataclasses.replace(progress, position=start, passed=passed, pass_start=pass_start)
    drawing = EndlessDrawing(sampler, size, drop_last=True)
    return next(drawing.draw(placed, live, NONE_GONE, lambda number: live)).keys.records


def _check(dataset: Samples, state: dict[str, Any]) -> None:
    if "sampler" in state:
        raise ValueError(f"the order was that of {state['sampler']}: only the run itself knows its records")
    missing = {"pack", "subset", "order", "global_batch", "drop_last", "epoch", "position", "generation"} - {*state}
    if missing:
        raise ValueError(f"this is no state of a pass_loader.DataLoader: it lacks {', '.join(sorted(missing))}")
    if state["pack"] != dataset.pack.pack_id:
        raise ValueError(f"the state is of the pack {state['pack']}, {dataset.pack.path} is {dataset.pack.pack_id}")
    if state["subset"] != dataset.subset():
        raise ValueError("the state is of a part of the pack: give the ids of that part, in the dataset's order")


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a loader's state from a JSON file or one of torch.save, where it is alone or one entry of a checkpoint.

    Raises ValueError where the file holds none, or several.
    """
    content = Path(path).read_bytes()
    if content.lstrip()[:1] == b"{":
        saved = json.loads(content)
    else:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    found = [value for value in (saved, *(saved.values() if isinstance(saved, dict) else ())) if _is_state(value)]
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found) or 'no'} states of a pass_loader.DataLoader, want one")
    return found[0]


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and {"plan_version", "order_epoch", "position"} <= {*value}
