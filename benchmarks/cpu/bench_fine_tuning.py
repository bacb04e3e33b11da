"""Fine-tuning with RandAugment and erasing from a pack to float32 batches on one pinned core, beside timm on PIL.

Rows as of bench_one_view; table.py says which bars are met. timm's row runs under Pillow 12: Pillow 13 refuses the
posterize to 0 bits that timm asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.recipes import reference

from .. import fine_tuning
from ..official import seed_everything
from .bench_one_view import WAYS, packs  # noqa: F401  (packs: a fixture)
from .measure import BATCH, ROUNDS, last, peers_epoch, run

EXTRA = {"table": "fine-tuning", "recipe": "mae_finetune"}


@pytest.mark.parametrize("way", WAYS)
def bench_pass_loader(benchmark: Any, packs: dict[str, Path], records: list[int], way: str, isa: str) -> None:  # noqa: F811
    recipe = recipes.mae_finetune()
    loader = DataLoader(ShardDataset(packs[way], recipe), BATCH, sampler=records, num_workers=1, return_info=True)
    renderer = loader._get_renderer()
    before = renderer.stage_times()
    batch = run(benchmark, lambda: last(loader), len(records), **EXTRA, peer=way, isa=isa)
    after = renderer.stage_times()
    samples = after.pop("samples") - before["samples"]
    benchmark.extra_info["stages"] = {stage: (after[stage] - before[stage]) / samples for stage in after}
    dataset = ShardDataset(packs["pass-loader"], recipe)
    (views, _, info) = batch
    for slot in range(BATCH):
        (plan,) = info["plans"][slot]
        view = reference.render(reference.decode(dataset.read(int(info["records"][slot]))), plan)
        want = reference.erase(reference.normalize(view, recipe), plan)
        assert np.array_equal(views[slot].numpy(), want)


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) > 12, reason="Pillow 13 refuses to posterize to 0 bits")
def bench_timm(benchmark: Any, pack: Path, records: list[int]) -> None:
    _bench(benchmark, pack, records, {"timm on PIL": fine_tuning.timm}, "timm on PIL")


@pytest.mark.parametrize("peer", fine_tuning.PEERS)
def bench_peer(benchmark: Any, pack: Path, records: list[int], peer: str) -> None:
    _bench(benchmark, pack, records, fine_tuning.PEERS, peer, differs=fine_tuning.DIFFERS[peer])


def _bench(benchmark: Any, pack: Path, records: list[int], makers: dict[str, Any], peer: str, **extra: str) -> None:
    recipe = recipes.mae_finetune()
    data = [ShardDataset(pack, recipe).read(record) for record in records]
    seed_everything(0)
    epoch = peers_epoch(makers, peer, data, recipe)
    count = len(data) // BATCH * BATCH
    (views,) = run(benchmark, lambda: last(epoch()), count, rounds=ROUNDS, **EXTRA, peer=peer, isa="", **extra)
    assert views.shape == (BATCH, 3, 224, 224) and views.dtype == torch.float32 and 0.3 < views.std() < 3
