"""Epochs of the pack `tiny`, sample by sample, by one loader or by all ranks of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pass_loader import DataLoader, Recipe, ShardDataset, ViewSpec

TINY = Recipe("tiny", (ViewSpec(4, (0.3, 1.0)),))
COUNT = 62  # 5 x 12 + 2: the last step has fewer samples than some worlds have ranks
Seen = list[tuple[int, bytes]]  # record, its first view


def seen(batch: Any) -> Seen:
    """Return the samples of a batch made with return_info=True."""
    views, _, info = batch
    return [(int(record), views[0][slot].numpy().tobytes()) for slot, record in enumerate(info["records"])]


class Ranks:
    """The loaders of all ranks of a run, in this process and in lock step: step k gives the parts of global batch k."""

    def __init__(
        self, pack: Path | Callable[[], ShardDataset], world: int, global_batch: int, threads: int = 0, **arguments: Any
    ):
        assert global_batch % world == 0
        arguments = {"shuffle": True, "return_info": True, **arguments}
        self.loaders = [
            DataLoader(pack() if callable(pack) else ShardDataset(pack, TINY, seed=5), global_batch // world,
                       num_workers=threads, rank=rank, world_size=world, **arguments) for rank in range(world)
        ]  # fmt: skip

    def steps(self) -> Iterator[list[Any]]:
        """Yield the batches of all ranks, step by step; fails where numbers of batches differ, or at an empty one."""
        iterators = [iter(loader) for loader in self.loaders]
        while True:
            batches = [next(iterator, None) for iterator in iterators]
            assert len({batch is None for batch in batches}) == 1, "ranks differ in their number of batches"
            if batches[0] is None:
                return
            assert all(len(batch[1]) for batch in batches), "an empty batch"
            yield batches

    def state(self) -> dict[str, Any]:
        states = [loader.state_dict() for loader in self.loaders]
        assert all(state == states[0] for state in states), "ranks differ in their state"
        text = json.dumps(states[0])
        assert len(text) < 1000
        return json.loads(text)

    def load(self, state: dict[str, Any]) -> Ranks:
        for loader in self.loaders:
            loader.load_state_dict(state)
        return self


def merged(batches: list[Any]) -> Seen:
    """Return the samples of one step in the order of the epoch: rank r has places r, r + world, ..."""
    parts = [seen(batch) for batch in batches]
    return [part[place] for place in range(max(map(len, parts))) for part in parts if place < len(part)]


def whole_epoch(ranks: Ranks) -> Seen:
    """Return the samples of an epoch in its order."""
    return [sample for batches in ranks.steps() for sample in merged(batches)]
