"""Recipes of one view from a pack to float32 batches on one pinned core, in every way that a picture may be known.

Rows as of bench_loader; table.py says which bars are met.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.pack import build

from ..official import batches, seed_everything
from ..peers import DIFFERS, ONE_VIEW
from .measure import BATCH, ROUNDS, assert_equals_pillow, last, peers_epoch, run

RECIPES = ["supervised", "mae"]
# By the table's name of a row: how the pack is made of the same JPEGs.
WAYS: dict[str, dict[str, Any]] = {
    "pass-loader": {},
    "pass-loader, proven": {"decode": True},
    "pass-loader, entry points": {"entry_points": True},
    "pass-loader, dct-zstd": {"codec": "dct-zstd"},
    "pass-loader, dct": {"codec": "dct"},
}


@pytest.fixture(scope="session")
def packs(pack: Path) -> dict[str, Path]:
    made = {}
    for number, (way, options) in enumerate(WAYS.items()):
        made[way] = pack.with_name(f"one-view-{number}")
        build(sorted(pack.glob("*.tar")), made[way], **options)
    return made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipe_name", RECIPES)
def bench_pass_loader(
    benchmark: Any, packs: dict[str, Path], records: list[int], recipe_name: str, way: str, isa: str
) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    loader = DataLoader(ShardDataset(packs[way], recipe), BATCH, sampler=records, num_workers=1, return_info=True)
    extra = {"table": "one view", "recipe": recipe_name, "peer": way, "isa": isa}
    batch = run(benchmark, lambda: last(loader), len(records), **extra)
    assert_equals_pillow(ShardDataset(packs["pass-loader"], recipe), [batch[0]], batch[-1])


@pytest.mark.parametrize("recipe_name", RECIPES)
def bench_official(benchmark: Any, pack: Path, records: list[int], recipe_name: str) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    data = [dataset.read(record) for record in records]
    seed_everything(0)
    extra = {"table": "one view", "recipe": recipe_name, "peer": "official torchvision on PIL", "isa": ""}
    run(benchmark, lambda: last(batches(data, recipe, BATCH)), len(data) // BATCH * BATCH, **extra)


@pytest.mark.parametrize("recipe_name", RECIPES)
@pytest.mark.parametrize("peer", ONE_VIEW)
def bench_peer(benchmark: Any, pack: Path, records: list[int], peer: str, recipe_name: str) -> None:
    recipe = recipes.PRESETS[recipe_name]()
    dataset = ShardDataset(pack, recipe)
    data = [dataset.read(record) for record in records]
    epoch = peers_epoch(ONE_VIEW, peer, data, recipe)
    extra = {"table": "one view", "recipe": recipe_name, "peer": peer, "isa": "", "differs": DIFFERS[peer]}
    run(benchmark, lambda: last(epoch()), len(data) // BATCH * BATCH, rounds=ROUNDS, **extra)
