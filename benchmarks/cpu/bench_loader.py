"""Whole recipes from a pack to float32 batches on one pinned core: pass-loader beside the official pipeline.

Each row processes the same pictures; `samples_per_second` of the JSON is pictures over the median round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL
import pytest
import torch

from pass_loader import DataLoader, ShardDataset, recipes

from ..official import batches, seed_everything
from ..peers import DIFFERS, PEERS, SLOW
from .measure import BATCH, ROUNDS, assert_decodes, assert_equals_pillow, last, peers_epoch, run, run_beside


@pytest.mark.parametrize("recipe_name", ["dino", "swav", "mocov2"])
def bench_pass_loader(benchmark: Any, pack: Path, records: list[int], recipe_name: str, isa: str) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    loader = DataLoader(dataset, BATCH, sampler=records, num_workers=1, return_info=True)
    batch = run(benchmark, lambda: last(loader), len(records), recipe=recipe_name, peer="pass-loader", isa=isa)
    assert_equals_pillow(dataset, batch[0], batch[-1])


@pytest.mark.parametrize("codec", ["dct", "dct-zstd"])
@pytest.mark.parametrize("recipe_name", ["dino", "swav", "mocov2"])
def bench_pass_loader_dct(
    benchmark: Any, pack: Path, dct_packs: dict[str, Path], records: list[int], recipe_name: str, codec: str, isa: str
) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    loader = DataLoader(ShardDataset(dct_packs[codec], recipe), BATCH, sampler=records, num_workers=1, return_info=True)
    peer = f"pass-loader, {codec}"
    batch = run(benchmark, lambda: last(loader), len(records), recipe=recipe_name, peer=peer, isa=isa)
    assert_equals_pillow(ShardDataset(pack, recipe), batch[0], batch[-1])


def bench_dtypes(benchmark: Any, pack: Path, records: list[int], isa: str) -> None:
    """Passes of float32 batches and of bfloat16 ones take turns, so that both meet the same machine."""
    dataset = ShardDataset(pack, recipes.dino())
    floats, halves = (
        DataLoader(dataset, BATCH, sampler=records, num_workers=1, return_info=True, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    rate, rate_of_floats, batch = run_beside(benchmark, halves, floats, len(records), rounds=9)
    benchmark.extra_info.update(
        table="dtypes", peer="pass-loader", isa=isa, samples_per_second=rate,
        samples_per_second_of_float32=rate_of_floats,
    )  # fmt: skip
    assert batch[0][0].dtype == torch.bfloat16
    assert_equals_pillow(dataset, batch[0], batch[-1])


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


# FFCV leaves compiled objects behind whose deletion fails inside numba.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("recipe_name", ["dino", "swav", "mocov2"])
@pytest.mark.parametrize("peer", PEERS)
def bench_peer(benchmark: Any, pack: Path, records: list[int], peer: str, recipe_name: str) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    data = [dataset.read(record) for record in records]
    epoch = peers_epoch(PEERS, peer, data, recipe)
    samples = len(data) // BATCH * BATCH
    extra = {"recipe": recipe_name, "peer": peer, "isa": "", "differs": DIFFERS[peer]}
    batch = run(benchmark, lambda: last(epoch()), samples, rounds=3 if peer in SLOW else ROUNDS, **extra)
    if peer == "libjpeg-turbo decode alone":
        assert_decodes(dataset, batch[-1].numpy(), records[samples - 1])
    else:
        assert [tuple(view.shape) for view in batch] == [(BATCH, 3, v.height, v.width) for v in recipe.views]
        assert all(view.dtype == torch.float32 and torch.isfinite(view).all() for view in batch)
        assert all(0.3 < view.std() < 3 for view in batch)
