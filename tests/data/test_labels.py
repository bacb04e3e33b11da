"""Labels beside the pack's own: vectors by record, columns of the metadata, several packs together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils import data

from pass_loader import ConcatDataset, DataLoader, PackError, ShardDataset, recipes
from pass_loader.pack import build, purge, remove

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree


RECIPE = recipes.mocov2(size=8)
FINDINGS = ["Edema", "Pneumonia", "Fracture"]


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with CheXpert's kind of labels: 1, 0, -1 for uncertain, nothing for not mentioned."""
    place = tmp_path_factory.mktemp("chest")
    (place / "m.csv").write_text(
        "hash,Edema,Pneumonia,Fracture,Age,View\n"
        + "".join(f"{i},{i % 2}.0, ,{i - 1 if i < 3 else ''},{i + 40},PA\n" for i in range(6))
    )
    source = write_tree(place / "in", {f"{i}.jpg": jpeg(noise(16, 16, i)) for i in range(6)})
    build([source], place / "pack", metadata=place / "m.csv", shard_bytes=2000, workers=1)
    return place / "pack"


def labels(dataset: ShardDataset, **arguments: Any) -> torch.Tensor:
    return torch.cat([batch for _, batch in DataLoader(dataset, 4, num_workers=1, **arguments)])


def test_columns_of_the_metadata(chest: Path) -> None:
    """In every way of getting a sample; what is missing is NaN, never 0."""
    dataset = ShardDataset(chest, RECIPE, labels=FINDINGS)
    nan = float("nan")
    want = np.array([[i % 2, nan, i - 1 if i < 3 else nan] for i in range(6)], np.float32)
    found = labels(dataset)
    assert found.dtype == torch.float32 and np.array_equal(found.numpy(), want, equal_nan=True)
    for batches in (data.DataLoader(dataset.as_map(), 3), data.DataLoader(dataset, 3)):
        theirs = torch.cat([batch for _, batch in batches])
        assert theirs.dtype == torch.float32 and np.array_equal(theirs.numpy(), want, equal_nan=True)
    collated = next(iter(DataLoader(dataset, 6, collate_fn=data.default_collate)))[1]
    assert np.array_equal(collated.numpy(), want, equal_nan=True)
    shuffled = DataLoader(dataset, 6, shuffle=True, return_info=True)
    _, vectors, info = next(iter(shuffled))
    assert info["records"].tolist() != list(range(6))
    assert np.array_equal(vectors.numpy(), want[info["records"].numpy()], equal_nan=True)
    ages = labels(ShardDataset(chest, RECIPE, labels="Age", ids=["3", "1"]))
    assert ages.dtype == torch.int64 and ages.tolist() == [43, 41]
    assert labels(ShardDataset(chest, RECIPE, labels=["Age"])).shape == (6, 1)


def test_arrays(chest: Path) -> None:
    for given, dtype in ((np.arange(12, dtype=np.uint8).reshape(6, 2), torch.int64), (torch.rand(6, 14), torch.float32),
                         (np.arange(6) > 2, torch.int64), ([5, 4, 3, 2, 1, 0], torch.int64),
                         (np.random.default_rng(0).random((6, 3)), torch.float32)):  # fmt: skip
        found = labels(ShardDataset(chest, RECIPE, labels=given))
        assert found.dtype == dtype and np.array_equal(found.numpy(), np.asarray(given).astype(found.numpy().dtype))


def test_refused(chest: Path) -> None:
    for given, error, words in (
        (["Edema", "Nodule", "Mass"], PackError, r"no column 'Nodule', 'Mass'; its metadata has \['Edema'"),
        ("View", PackError, "column 'View' .* holds other than numbers: .*PA"),
        (np.zeros(5), ValueError, r"shape \(5,\): want \(6,\) or \(6, L\)"),
        (np.zeros((6, 1, 1)), ValueError, "want"), (np.array(["a"] * 6), TypeError, "want numbers, or names"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            ShardDataset(chest, RECIPE, labels=given)


def test_a_purge_does_not_change_the_type(chest: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(chest, tmp_path / "copy"))
    remove(copy, ["2"], reason="x")
    purge(copy)
    found = labels(ShardDataset(copy, RECIPE, labels=["Age"]))
    assert found.dtype == torch.int64 and found.flatten().tolist() == [40, 41, 43, 44, 45]


def test_types_of_a_parquet_file(tmp_path: Path) -> None:
    table = {"hash": ["0", "1"], "flag": [True, False], "whole": [7, 8], "real": [1.0, None], "gap": [None, 3]}
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    source = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(noise(16, 16, i)) for i in range(2)})
    build([source], tmp_path / "pack", metadata=tmp_path / "m.parquet", workers=1)
    found = labels(ShardDataset(tmp_path / "pack", RECIPE, labels=["flag", "whole"]))
    assert found.dtype == torch.int64 and found.tolist() == [[1, 7], [0, 8]]
    found = labels(ShardDataset(tmp_path / "pack", RECIPE, labels=["real", "gap", "flag"]))
    assert found.dtype == torch.float32 and found.nan_to_num(-9).tolist() == [[1, -9, 1], [-9, 3, 0]]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pack of the classes a, b, c and d, and one of b and d."""
    place = tmp_path_factory.mktemp("classes")
    for name, ids in (("train", ["a/0", "b/1", "c/2", "d/3"]), ("val", ["d/4", "b/5", "b/6"])):
        files = {f"{id}.jpg": jpeg(noise(16, 16, int(id[-1]))) for id in ids}
        build([write_tree(place / f"in-{name}", files)], place / name, workers=1)
    return place / "train", place / "val"


def test_classes_by_name(classes: tuple[Path, Path]) -> None:
    """Kills: numbers that the pack itself has."""
    train = ShardDataset(classes[0], RECIPE)
    plain, named = ShardDataset(classes[1], RECIPE), ShardDataset(classes[1], RECIPE, labels=train.class_to_idx)
    assert labels(plain).tolist() == [0, 0, 1] and labels(named).tolist() == [1, 1, 3]
    assert labels(named).dtype == torch.int64 and named.targets == [1, 1, 3]
    assert named.classes == ["a", "b", "c", "d"] == train.classes and named.class_to_idx == train.class_to_idx
    assert ConcatDataset([train, named]).classes == train.classes
    assert labels(ConcatDataset([train, named])).tolist() == [0, 1, 2, 3, 1, 1, 3]
    other = ShardDataset(classes[1], RECIPE, labels={"b": 7, "d": 2})
    assert labels(other).tolist() == [7, 7, 2]
    with pytest.raises(AttributeError, match="no names"):
        other.classes  # noqa: B018


def test_classes_by_name_refused(classes: tuple[Path, Path], chest: Path) -> None:
    with pytest.raises(PackError, match=r"has the class 'a', 'c', and no number is given for it \(2 of 4 classes\)"):
        ShardDataset(classes[0], RECIPE, labels=ShardDataset(classes[1], RECIPE).class_to_idx)
    with pytest.raises(PackError, match="names no classes"):
        ShardDataset(chest, RECIPE, labels={"a": 0})
    with pytest.raises(TypeError):
        ShardDataset(classes[1], RECIPE, labels={"b": 0.5, "d": 1})  # type: ignore[dict-item]


def test_of_several_packs(chest: Path, tiny: Path) -> None:
    """Findings of one, -1 for those of another, as medical MAE's concatenation."""
    parts = [ShardDataset(chest, RECIPE, labels=FINDINGS[::2]),
             ShardDataset(tiny, RECIPE, labels=np.full((62, 2), -1), records=[7, 8])]  # fmt: skip
    found = labels(ConcatDataset(parts))
    assert found.dtype == torch.float32 and found[6:].tolist() == [[-1, -1]] * 2 and found[1].tolist() == [1, 0]
    plain = [ShardDataset(chest, RECIPE, labels="Age"), ShardDataset(tiny, RECIPE, records=[7, 8])]
    found = labels(ConcatDataset(plain))
    assert found.dtype == torch.int64 and found.tolist() == [40, 41, 42, 43, 44, 45, -1, -1]
