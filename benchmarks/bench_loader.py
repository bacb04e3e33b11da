"""Whole recipes from a pack to float32 batches on one pinned core: pass-loader beside the official pipeline.

Each row processes the same pictures; `samples_per_second` of the JSON is pictures over the median round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch

from pass_loader import _C, DataLoader, ShardDataset, recipes, reference

from .official import batches, seed_everything
from .peers import DIFFERS, PEERS

BATCH = 32
ROUNDS = 5


def last(batches_of: Iterable[Any]) -> Any:
    """The last batch; each is dropped as the next comes, as a training loop does."""
    return deque(batches_of, maxlen=1).pop()


def run(benchmark: Any, work: Any, samples: int, **extra: Any) -> Any:
    result = benchmark.pedantic(work, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(samples=samples, samples_per_second=samples / benchmark.stats.stats.median, **extra)
    return result


@pytest.mark.parametrize("recipe_name", ["dino", "swav", "mocov2"])
@pytest.mark.parametrize("isa", _C.supported_isas()[::-1])
def bench_pass_loader(benchmark: Any, pack: Path, records: list[int], recipe_name: str, isa: str) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    loader = DataLoader(dataset, BATCH, sampler=records, num_workers=1, return_info=True)
    _C.set_isa(isa)
    try:
        batch = run(benchmark, lambda: last(loader), len(records), recipe=recipe_name, peer="pass-loader", isa=isa)
    finally:
        _C.set_isa("best")
    views, info = batch[0], batch[-1]
    picture = reference.decode(dataset.read(int(info["records"][0])))
    for view, plan in zip(views, info["plans"][0]):
        assert np.array_equal(view[0].numpy(), reference.normalize(reference.render(picture, plan), recipe))


@pytest.mark.parametrize("recipe_name", ["dino", "swav", "mocov2"])
def bench_official(benchmark: Any, pack: Path, records: list[int], recipe_name: str) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    data = [dataset.read(record) for record in records]
    seed_everything(0)
    samples = len(data) // BATCH * BATCH
    simd = ".post" in PIL.__version__
    peer = {
        "recipe": recipe_name,
        "peer": "official torchvision on Pillow-SIMD" if simd else "official torchvision on PIL",
        "isa": "",
        "differs": "resize with 16-bit weights" if simd else "",
    }
    batch = run(benchmark, lambda: last(batches(data, recipe, BATCH)), samples, **peer)
    assert [view.shape[2:] for view in batch] == [(v.height, v.width) for v in recipe.views]
    assert all(torch.isfinite(view).all() for view in batch)


NEEDS = {
    "DALI CPU": "nvidia.dali",
    "albumentations + OpenCV": "albumentations",
    "libjpeg-turbo decode alone": "simplejpeg",
}


@pytest.mark.parametrize("recipe_name", ["dino", "swav", "mocov2"])
@pytest.mark.parametrize("peer", PEERS)
def bench_peer(benchmark: Any, pack: Path, records: list[int], peer: str, recipe_name: str) -> None:
    if peer in NEEDS:
        pytest.importorskip(NEEDS[peer])
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    data = [dataset.read(record) for record in records]
    seed_everything(0)
    samples = len(data) // BATCH * BATCH
    extra = {"recipe": recipe_name, "peer": peer, "isa": "", "differs": DIFFERS[peer]}
    batch = run(benchmark, lambda: last(PEERS[peer](data, recipe, BATCH)), samples, **extra)
    if peer != "libjpeg-turbo decode alone":
        assert [tuple(view.shape) for view in batch] == [(BATCH, 3, v.height, v.width) for v in recipe.views]
        assert all(view.dtype == torch.float32 and torch.isfinite(view).all() for view in batch)
        assert all(0.3 < view.std() < 3 for view in batch)
