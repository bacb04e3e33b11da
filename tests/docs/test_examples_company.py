"""The examples of other libraries: batches and pictures are those of our loader used directly."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.pack import Pack, build, remove

from ..helpers.batches import assert_batches_equal


def direct(pack: Path) -> list[Any]:
    """Return an epoch of our loader, as the examples make it."""
    return list(DataLoader(ShardDataset(pack, recipes.mocov2(), seed=0), 4, shuffle=True, drop_last=True))


@pytest.mark.slow
def test_accelerate(pack: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from examples import with_accelerate

    want = direct(pack)
    accelerator, loader = with_accelerate.make(str(pack))
    batches = with_accelerate.batches(accelerator, loader)
    assert_batches_equal([next(batches), next(batches)], want[:2])
    accelerator.save_state(str(tmp_path / "state"))
    assert next(batches)[0][0].device == accelerator.device
    accelerator, loader = with_accelerate.make(str(pack))
    accelerator.load_state(str(tmp_path / "state"))
    assert_batches_equal(list(with_accelerate.batches(accelerator, loader)), want[2:])


@pytest.mark.slow
def test_distributed_checkpoint(pack: Path, tmp_path: Path) -> None:
    from examples import with_distributed_checkpoint as example

    want = direct(pack)
    loader = example.make(str(pack))
    batches = iter(loader)
    assert_batches_equal([next(batches), next(batches)], want[:2])
    model = torch.nn.Linear(3, 3)
    example.save(loader, str(tmp_path / "state"), model=model)
    again, other = example.make(str(pack)), torch.nn.Linear(3, 3)
    example.load(again, str(tmp_path / "state"), model=other)
    assert_batches_equal(list(again), want[2:])
    assert torch.equal(model.weight, other.weight)


def test_webdataset(pass_files: tuple[Path, Path], tmp_path: Path) -> None:
    """A removed record is left out; shards are split over nodes, and drawn again and again."""
    pytest.importorskip("webdataset")
    from examples import with_webdataset

    place = tmp_path / "pack"
    build([pass_files[0]], place, shard_bytes=1_000_000)
    opened = Pack(place)
    reader = opened.open_reader()
    remove(place, [opened.id_of(3)], reason="asked")
    want = {opened.id_of(record): reader.read(record) for record in range(opened.records) if record != 3}
    assert {sample["__key__"]: sample["jpg"] for sample in with_webdataset.samples(str(place))} == want
    seen: list[str] = []
    for node in (0, 1):

        def split(urls: Any, node: int = node) -> Any:
            return (url for number, url in enumerate(urls) if number % 2 == node)

        part = [sample["__key__"] for sample in with_webdataset.samples(str(place), nodesplitter=split)]
        assert part
        seen += part
    assert sorted(seen) == sorted(want)
    drawn = iter(with_webdataset.samples(str(place), resampled=True))
    assert all(next(drawn)["__key__"] in want for _ in range(3 * len(want)))


@pytest.mark.slow
def test_trainer(pack: Path, tmp_path: Path) -> None:
    """Resumed in mid-epoch, a run sees the batches that are left and ends with the same weights."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  transformers imports it
    from examples import with_trainer

    def run(folder: Path, resume: str | None = None) -> tuple[list[Any], torch.nn.Module]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 16, 16), torch.nn.Flatten(), torch.nn.Linear(392, 4))
        seen: list[Any] = []
        model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        trainer = with_trainer.make(str(pack), str(folder), model, num_train_epochs=2, save_steps=2, use_cpu=True,
                                    disable_tqdm=True)  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return seen, model

    seen, model = run(tmp_path / "whole")
    want = [view for views, _ in direct(pack) for view in views]
    assert len(want) == 10 and len(seen) == 20, "two views, five steps, two epochs"
    assert_batches_equal(seen[:10], want)
    assert not any(torch.equal(one, other) for one, other in zip(seen[:10], seen[10:])), "another epoch"
    rest, resumed = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert_batches_equal(rest, seen[4:])
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_datasets(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    from examples import with_datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows, dataset = with_datasets.table(str(pack)), ShardDataset(pack, recipes.mocov2())
    assert len(rows) == len(dataset)
    for record in range(len(dataset)):
        row = rows[record]
        assert row["id"] == dataset.id_of(record)
        with Image.open(io.BytesIO(dataset.read(record))) as picture:
            same = [hashlib.sha256(one.convert("RGB").tobytes()).digest() for one in (picture, row["image"])]
        assert same[0] == same[1]
        assert row["unickname"] == dataset.metadata(record)["unickname"]
