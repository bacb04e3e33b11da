"""The records that a state names are those of the batch that was handed out last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import ConcatDataset, DataLoader, Samples, ShardDataset, recipes
from pass_loader.pack import build, remove
from pass_loader.cli.main import main
from pass_loader.loading.replay import read_state, records_of_last_batch

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree


COUNT = 23


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("replay")
    write_tree(root / "in", {f"{i:02d}.jpg": jpeg(noise(9, 9, i)) for i in range(COUNT)})
    (root / "m.csv").write_text(
        "hash,unickname,licensename\n" + "".join(f"{i:02d},someone,Attribution License\n" for i in range(COUNT))
    )
    build([root / "in"], root / "pack", metadata=root / "m.csv", shard_bytes=4000, workers=1)
    return root / "pack"


def loaders(pack: Path, world: int, ids: list[str] | None = None, **given: Any) -> list[DataLoader]:
    recipe = recipes.mocov2()
    return [
        DataLoader(ShardDataset(pack, recipe, ids=ids), 4, rank=rank, world_size=world, return_info=True, **given)
        for rank in range(world)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("order", [{}, {"shuffle": True}, {"shuffle": True, "order": "permute"}])
def test_every_batch_of_two_epochs(pack: Path, world: int, drop_last: bool, order: dict[str, Any]) -> None:
    """And of a third without set_epoch; the last batch of an epoch too, whose state is the start of the next."""
    ranks = loaders(pack, world, drop_last=drop_last, **order)
    for epoch in (0, 1, None):
        if epoch is not None:
            for loader in ranks:
                loader.sampler.set_epoch(epoch)
        for batches in zip(*ranks):
            state = json.loads(json.dumps(ranks[0].state_dict()))
            records = np.sort(np.concatenate([batch[-1]["records"] for batch in batches]))
            assert np.array_equal(np.sort(records_of_last_batch(ranks[0].dataset, state)), records)
        state = ranks[0].state_dict()
        assert state["position"] == 0
        assert np.array_equal(np.sort(records_of_last_batch(ranks[0].dataset, state)), records)


def test_an_endless_order(pack: Path) -> None:
    (loader,) = loaders(pack, 1, shuffle=True, infinite=True)
    batches = iter(loader)
    for _ in range(13):
        records = next(batches)[-1]["records"]
        assert np.array_equal(records_of_last_batch(loader.dataset, loader.state_dict()), records)


def test_a_part_of_the_pack(pack: Path) -> None:
    ids = ["07", "03", "11", "20", "01", "02"]
    (loader,) = loaders(pack, 1, ids=ids, shuffle=True)
    records = next(iter(loader))[-1]["records"]
    state = loader.state_dict()
    assert np.array_equal(records_of_last_batch(loader.dataset, state), records)
    for wrong in (None, ids[1:], sorted(ids)):
        with pytest.raises(ValueError, match="a part of the pack"):
            records_of_last_batch(Samples(pack, recipes.mocov2(), ids=wrong), state)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_several_packs(pack: Path, weights: list[float] | None) -> None:
    parts = [ShardDataset(pack, recipes.mocov2()), ShardDataset(pack, recipes.mocov2(), ids=["05", "11", "02"])]
    loader = DataLoader(ConcatDataset(parts, weights), 4, shuffle=True, return_info=True)
    for _ in range(2):
        for batch in loader:
            assert np.array_equal(records_of_last_batch(loader.dataset, loader.state_dict()), batch[-1]["records"])


def test_what_was_removed_later_was_used_then(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {f"{i:02d}.jpg": jpeg(noise(9, 9, i)) for i in range(9)})
    build([tmp_path / "in"], tmp_path / "pack", workers=1)
    (loader,) = loaders(tmp_path / "pack", 1, shuffle=True)
    records = next(iter(loader))[-1]["records"]
    state = loader.state_dict()
    remove(tmp_path / "pack", ["00", "05"], reason="asked")
    assert np.array_equal(records_of_last_batch(Samples(tmp_path / "pack", recipes.simclr()), state), records)


def test_states_that_tell_of_no_batch(pack: Path) -> None:
    (loader,) = loaders(pack, 1)
    for epoch in (0, 3):
        loader.sampler.set_epoch(epoch)
        with pytest.raises(ValueError, match="before the first batch"):
            records_of_last_batch(loader.dataset, loader.state_dict())
    with pytest.raises(ValueError, match="is of the pack other"):
        records_of_last_batch(loader.dataset, loader.state_dict() | {"pack": "other"})
    foreign = DataLoader(ShardDataset(pack, recipes.mocov2()), 4, sampler=list(range(COUNT)))
    next(iter(foreign))
    with pytest.raises(ValueError, match="only the run itself"):
        records_of_last_batch(loader.dataset, foreign.state_dict())


@pytest.mark.parametrize("kept", ["json", "torch", "checkpoint"])
def test_the_command(pack: Path, tmp_path: Path, kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    (loader,) = loaders(pack, 1, shuffle=True)
    ids = next(iter(loader))[-1]["ids"]
    state = loader.state_dict()
    file = tmp_path / "state"
    if kept == "json":
        file.write_text(json.dumps(state))
    else:
        torch.save(state if kept == "torch" else {"model": {"w": torch.ones(2)}, "loader": state}, file)
    assert main(["attribution", str(pack), "--batch", str(file), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in printed["credits"]] == sorted(ids)
    assert read_state(file) == state


def test_files_without_a_state(tmp_path: Path, pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").write_text('{"epoch": 3}')
    assert main(["attribution", str(pack), "--batch", str(tmp_path / "state")]) != 0
    assert "holds no states of a pass_loader.DataLoader" in capsys.readouterr().err
