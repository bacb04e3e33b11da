"""What the benchmarks share: a peer's epoch, rounds, batches dropped as a training loop drops them, the last check."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import Recipe, ShardDataset
from pass_loader.recipes import reference

from ..official import seed_everything
from ..peers import NEEDS

BATCH = 32
ROUNDS = 5


def last(batches: Iterable[Any]) -> Any:
    """Return the last batch; each is dropped as the next comes, as a training loop does."""
    return deque(batches, maxlen=1).pop()


def run(
    benchmark: Any, work: Callable[[], Any], samples: int, *, rounds: int = ROUNDS, warmup_rounds: int = 1, **extra: Any
) -> Any:
    """Times passes over the same samples and notes samples/s of the median round; returns what the last pass gave."""
    result = benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=warmup_rounds)
    benchmark.extra_info.update(samples=samples, samples_per_second=samples / benchmark.stats.stats.median, **extra)
    return result


def run_beside(
    benchmark: Any, batches: Iterable[Any], others: Iterable[Any], samples: int, *, rounds: int
) -> tuple[float, float, Any]:
    """Times passes over two loaders by turns: samples/s of each one's median round, and the first's last batch."""
    theirs: list[float] = []

    def pass_of_others() -> None:
        began = time.perf_counter()
        last(others)
        theirs.append(time.perf_counter() - began)

    batch = benchmark.pedantic(lambda: last(batches), setup=pass_of_others, rounds=rounds, warmup_rounds=1)
    return samples / benchmark.stats.stats.median, samples / statistics.median(theirs[1:]), batch


def peers_epoch(
    makers: Mapping[str, Callable[..., Callable[[], Iterable[Any]]]], peer: str, data: list[bytes], recipe: Recipe
) -> Callable[[], Iterable[Any]]:
    """Return what makes a peer's epoch of batches. Skips a peer that cannot run here."""
    if peer in NEEDS:
        pytest.importorskip(NEEDS[peer], exc_type=ImportError)
    seed_everything(0)
    try:
        return makers[peer](data, recipe, BATCH)
    except ImportError as error:
        pytest.skip(str(error))


def assert_equals_pillow(dataset: ShardDataset, views: Sequence[Any], info: dict[str, Any]) -> None:
    """The first sample of a batch made with return_info, float for float what Pillow makes of the same plans; rounded
    where the batch has a smaller type."""
    picture = reference.decode(dataset.read(int(info["records"][0])))
    plans = info["plans"][0]
    assert len(views) == len(plans) == len(dataset.recipe.views)
    for view, plan in zip(views, plans):
        want = reference.normalize(reference.render(picture, plan), dataset.recipe)
        assert torch.equal(view[0], torch.from_numpy(want).to(view.dtype))


def assert_decodes(dataset: ShardDataset, pixels: np.ndarray, record: int) -> None:
    """(height, width, 3) of another decoder, which may round otherwise."""
    want = dataset.decode(record)
    assert pixels.shape == want.shape and np.abs(pixels.astype(int) - want).mean() < 1
