"""Several loaders as one: which is drawn, on which ranks, and resuming."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import DataLoader, MixedLoader, ShardDataset, recipes


def loaders_of(pack: Path, **options: Any) -> list[DataLoader]:
    return [
        DataLoader(ShardDataset(pack, recipes.dino(local_crops=1, global_size=size, local_size=8)), 3, shuffle=True,
                   infinite=True, **options)
        for size in (16, 24, 32)
    ]  # fmt: skip


def test_equal_on_all_ranks_and_as_probable_as_asked(pack: Path) -> None:
    by_rank = [
        [batch[0][0].shape[-1] for batch in itertools.islice(
            MixedLoader(loaders_of(pack, rank=rank, world_size=2), [0.5, 0.2, 0.3]), 12)]
        for rank in range(2)
    ]  # fmt: skip
    assert by_rank[0] == by_rank[1] and len(set(by_rank[0])) > 1
    mixed = MixedLoader(loaders_of(pack), [0.5, 0.2, 0.3], seed=4)
    counts = np.bincount([mixed.which(step) for step in range(10_000)], minlength=3) / 10_000
    assert np.abs(counts - [0.5, 0.2, 0.3]).max() < 0.02
    assert [mixed.which(step) for step in range(50)] != [
        MixedLoader(loaders_of(pack), [0.5, 0.2, 0.3], seed=5).which(step) for step in range(50)
    ]


def test_resumes(pack: Path) -> None:
    want = [batch[0][0] for batch in itertools.islice(MixedLoader(loaders_of(pack), [0.4, 0.3, 0.3]), 15)]
    mixed = MixedLoader(loaders_of(pack), [0.4, 0.3, 0.3])
    running = iter(mixed)
    for _ in range(6):
        next(running)
    again = MixedLoader(loaders_of(pack), [0.4, 0.3, 0.3])
    again.load_state_dict(mixed.state_dict())
    for view, batch in zip(want[6:], again):
        assert torch.equal(view, batch[0][0])


def test_ends_with_a_loader(pack: Path) -> None:
    loader = DataLoader(ShardDataset(pack, recipes.mae(size=16)), 10)
    mixed = MixedLoader([loader], [1.0])
    assert len(list(mixed)) == len(list(mixed)) == 3


def test_refused(pack: Path) -> None:
    loaders = loaders_of(pack)
    for probabilities in ([0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.2, 0.2]):
        with pytest.raises(ValueError, match="probabilities"):
            MixedLoader(loaders, probabilities)
    with pytest.raises(ValueError, match="the state is of 1 loaders"):
        MixedLoader(loaders, [0.4, 0.3, 0.3]).load_state_dict({"step": 0, "loaders": [{}]})


def test_dinov3s_pairs() -> None:
    found, probabilities = recipes.dinov3_high_resolution()
    sizes = [(recipe.views[0].height, recipe.views[-1].height) for recipe in found]
    assert sizes == [(512, 112), (768, 112), (768, 168), (768, 224), (768, 336)]
    assert probabilities == (0.3, 0.3, 0.3, 0.05, 0.05)
    assert all(recipe.roles()[2:4] == ["gram", "gram"] for recipe in found)
