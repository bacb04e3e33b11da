"""What loaders and datasets tell of themselves: repr, classes and targets, the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.utils.data

from pass_loader import ConcatDataset, DataLoader, MixedLoader, RecordError, ShardDataset, recipes
from pass_loader.loading import faults
from pass_loader.loading.faults import is_logged
from pass_loader.pack import Pack, build, remove

from ..helpers.corpus import jpeg, noise
from ..helpers.epochs import TINY
from ..helpers.packs import flip_a_bit
from ..helpers.trees import write_tree


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    files = {f"{name}/{number}.jpg": jpeg(noise(9, 9, number)) for number in range(3) for name in ("cat", "dog")}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    return tmp_path / "pack"


def test_reprs_are_one_line(classes: Path) -> None:
    dataset = ShardDataset(classes, TINY, seed=3)
    assert repr(dataset) == (
        f"ShardDataset(Pack('{classes}': 6 live of 6 records, 1 shards), recipe tiny (1 views, batch views_labels), "
        "seed 3, epoch 0)"
    )
    part = ShardDataset(classes, TINY, ids=["dog/0", "cat/1"])
    dataset.set_epoch(2)
    loader: DataLoader[object] = DataLoader(dataset, 4, shuffle=True, rank=0, world_size=2, num_workers=1)
    loader.sampler.set_epoch(5)
    foreign = DataLoader(part, 2, sampler=torch.utils.data.SequentialSampler(part.as_map()))
    batches = DataLoader(part, batch_sampler=[[0, 1]])
    both = ConcatDataset([ShardDataset(classes, TINY), part], weights=[1, 2])
    assert "2 chosen records of Pack(" in repr(part) and "epoch 2" in repr(dataset)
    for words in ("batch_size=4", "torch order, seed 0, epoch 5, rank 0 of 2", "num_workers=1", "device='cpu'"):
        assert words in repr(loader), words
    assert "SequentialSampler" in repr(foreign) and "batch sampler" in repr(batches)
    assert "weights (1.0, 2.0)" in repr(both) and "8 samples of Pack(" in repr(both)
    assert repr(dataset.as_map()).startswith("MapDataset(6 positions of ShardDataset(")
    mixed = MixedLoader([loader], [1.0], seed=4)
    assert repr(mixed).startswith("MixedLoader([DataLoader(") and "seed 4, step 0" in repr(mixed)
    for one in (dataset, part, loader, foreign, batches, both, mixed, dataset.as_map(), loader.sampler):
        assert "\n" not in repr(one)


def test_classes_and_targets(classes: Path, pack: Path) -> None:
    """As torchvision's ImageFolder, for scripts that read them."""
    dataset = ShardDataset(classes, TINY)
    assert dataset.classes == ["cat", "dog"] and dataset.class_to_idx == {"cat": 0, "dog": 1}
    assert dataset.targets == [label for _, label in dataset.as_map()] == [0, 0, 0, 1, 1, 1]
    part = ShardDataset(classes, TINY, ids=["dog/0", "cat/1"])
    assert part.targets == [1, 0] == part.as_map().targets and part.as_map().class_to_idx == dataset.class_to_idx
    assert ConcatDataset([dataset, part]).targets == [0, 0, 0, 1, 1, 1, 1, 0]
    remove(classes, ["cat/0"], reason="x")
    seen = dataset.as_map()
    dataset.set_epoch(1)
    assert dataset.targets == [0, 0, 1, 1, 1] and len(seen.targets) == 6
    with pytest.raises(AttributeError, match="have no names"):
        ShardDataset(classes, TINY, labels=[1.0] * 6).classes  # noqa: B018
    with pytest.raises(AttributeError, match="different classes"):
        ConcatDataset([dataset, ShardDataset(pack, TINY)]).classes  # noqa: B018
    with pytest.raises(AttributeError, match="no targets"):
        ConcatDataset([dataset], weights=[1]).targets  # noqa: B018


def test_which_events_are_logged() -> None:
    assert [n for n in range(1, 2000) if is_logged(n)] == [1, 2, 3, 4, 5, 10, 100, 1000]


@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_bad_records_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: str) -> None:
    files = {f"{number:02d}.jpg": jpeg(noise(9, 9, number)) for number in range(30)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    for record in range(0, 24, 2):
        flip_a_bit(Pack(tmp_path / "pack"), record)
    loader = DataLoader(ShardDataset(tmp_path / "pack", TINY), 30, on_error=policy)
    with caplog.at_level(logging.WARNING, logger="pass_loader"):
        list(loader)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("pass_loader")]
    expected = [number for number in range(1, len(loader.errors) + 1) if is_logged(number)]
    assert [int(line.split("number ")[1].split()[0]) for line in lines] == expected and len(expected) >= 6
    first = loader.errors[0]
    assert isinstance(first, RecordError) and str(first) in lines[0] and f"on_error={policy!r}" in lines[0]


def test_storage_that_fails_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build([write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(9, 9))})], tmp_path / "pack", workers=1)
    monkeypatch.setattr(faults, "IO_RETRIES_S", (0.0, 0.0))
    loader = DataLoader(ShardDataset(tmp_path / "pack", TINY), 1)
    (tmp_path / "pack" / "shard-00000-000.tar").unlink()
    with caplog.at_level(logging.INFO, logger="pass_loader"), pytest.raises(OSError):
        list(loader)
    told = [record for record in caplog.records if "reading once more" in record.getMessage()]
    assert len(told) == 2 and all("shard-00000-000.tar, record 0, id a" in record.getMessage() for record in told)


def test_what_a_loader_decides_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from pass_loader.loading import sampler

    monkeypatch.setattr(sampler, "PERMUTE_ABOVE", 100)
    with caplog.at_level(logging.INFO, logger="pass_loader"):
        list(sampler.EpochSampler(range(101), shuffle=True, rank=0, world_size=1))
        list(sampler.EpochSampler(range(101), shuffle=True, rank=0, world_size=1, order="permute"))
        list(sampler.EpochSampler(range(99), shuffle=True, rank=0, world_size=1))
    assert len([record for record in caplog.records if "order='permute'" in record.getMessage()]) == 1


def test_recipes_of_other_structures_have_no_label() -> None:
    """A row of the table of structures names only parts that loading builds."""
    from pass_loader.loading.structures import _ITEM_PARTS, _PARTS
    from pass_loader.recipes.batches import BATCHES

    assert {part for row in BATCHES.values() for part in row.parts} == {*_PARTS}
    assert {part for row in BATCHES.values() for part in row.item} <= {*_ITEM_PARTS}
    assert {preset().batch for preset in recipes.PRESETS.values()} <= {*BATCHES}
