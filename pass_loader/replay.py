"""Which records a saved state stands behind: the batch that a run was given last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .live import chosen_records, digest_of, live_then
from .pack.reader import Pack
from .resume import Progress
from .sampler import EpochSampler


def records_of_last_batch(pack: Pack, state: dict[str, Any], ids: Sequence[str] | None = None) -> np.ndarray:
    """(N,) int64: the records of the batch, of all ranks, that was handed out last before `state_dict` gave this state.

    ids: those of the dataset, where it was made of a part of the pack. Records that on_error="replace" drew for bad
    ones are not in a state: `loader.errors` and the batch's info tell them.
    Raises ValueError for a state of another pack or part of it, of a foreign sampler (which alone knows its order), or
    from before the first batch.
    """
    _check(pack, state)
    try:
        chosen = chosen_records(pack, None, ids)
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    if state["subset"] != digest_of(chosen):
        raise ValueError("the state is of a part of the pack: give the ids of that part, in the dataset's order")
    progress = Progress.of_state(state)
    if not progress.position and progress.epoch == progress.order_epoch:  # behind a whole epoch it is a later one
        raise ValueError("the state was taken before the first batch of its epoch: no picture had been handed out")
    generation = pack.generation if progress.generation is None else progress.generation
    if not isinstance(generation, int):
        raise ValueError("the state is of several packs: its credits are those of each of them")
    live = live_then(pack, chosen, generation)
    order, size = state["order"], int(state["global_batch"])
    kind = None if order["kind"] == "sequential" else order["kind"]
    sampler = EpochSampler(
        live, shuffle=kind is not None, seed=order["seed"], order=kind, infinite=order["infinite"], rank=0, world_size=1
    )  # fmt: skip
    sampler.set_epoch(progress.order_epoch)
    stop = progress.position
    if not stop:  # the state stands behind a whole epoch
        total = sampler.total(len(live), progress.world)
        stop = total // size * size if state["drop_last"] else total
    start = (stop - 1) // size * size
    positions, _ = next(sampler.share(len(live), start, None if sampler.infinite else stop).chunks(stop - start))
    return live.records_at(positions)


def _check(pack: Pack, state: dict[str, Any]) -> None:
    if "sampler" in state:
        raise ValueError(f"the order was that of {state['sampler']}: only the run itself knows its records")
    missing = {"pack", "subset", "order", "global_batch", "drop_last", "epoch", "position", "generation"} - {*state}
    if missing:
        raise ValueError(f"this is no state of a pass_loader.DataLoader: it lacks {', '.join(sorted(missing))}")
    if state["pack"] != pack.pack_id:
        raise ValueError(f"the state is of the pack {state['pack']}, {pack.path} is {pack.pack_id}")


def read_state(path: str | Path) -> dict[str, Any]:
    """A loader's state from a JSON file, or from one of torch.save, there alone or as one entry of a checkpoint.

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
