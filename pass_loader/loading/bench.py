"""`pass-pack bench`: samples a second on this machine and this pack, the share of each stage, and what is the limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PackError
from ..pack.reader import Pack
from ..recipes.recipe import Recipe
from .limits import Limits, limits_of

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement.

    stages: the share of the threads' time that each stage took, in the order in which a sample meets them. What is
    missing to 1 is waiting: for work, or for a batch to be taken.
    """

    threads: int
    samples_per_second: float
    stages: dict[str, float]


def bench(pack: str | Path | Pack, recipe: Recipe, threads: int, seconds: float) -> Measured:
    """Load batches as a training loop does, records drawn at random, for so many seconds after a warm-up.

    Raises ImportError without torch, PackError, RecordError for a record whose bytes are bad.
    """
    try:
        from .dataset import ShardDataset
        from .loader import DataLoader
    except ImportError as error:
        raise ImportError(
            f"bench loads batches as training does, which needs torch ({error}): pip install torch"
        ) from None

    dataset = ShardDataset(pack, recipe)
    if len(dataset) == 0:
        raise PackError(f"{dataset.pack.path} has no live records")
    loader = DataLoader(dataset, BATCH_SIZE, sampler=_positions(len(dataset)), num_workers=threads)
    times = loader._get_renderer().stage_times
    batches = iter(loader)
    for _ in range(2):  # every buffer has been written to and waits to be used again
        for _ in range(loader.stats()["batches_ahead_most"] + 1):
            next(batches)
    before, began = times(), time.perf_counter()
    while time.perf_counter() < began + seconds:
        next(batches)
    after, elapsed = times(), time.perf_counter() - began
    spent = {stage: after[stage] - before[stage] for stage in after}
    samples = spent.pop("samples")
    return Measured(threads, samples / elapsed, {name: took / (threads * elapsed) for name, took in spent.items()})


def limits(pack: str | Path | Pack, measured: Measured, seconds: float) -> Limits:
    """Measure storage by itself for so many seconds, and say what limits the loader that was measured.

    Raises OSError where storage fails.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    return limits_of(pack, measured.stages, measured.samples_per_second, measured.threads, seconds)


def _positions(live: int, seed: int = 0) -> Iterator[int]:
    """Yield random positions without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.integers(live, size=4096).tolist()
