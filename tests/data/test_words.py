"""Mistakes that users make: each error says what was wrong and what to do instead."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from pass_loader import PackError, Recipe, Samples, ShardDataset, ViewSpec, normalize, recipes
from pass_loader.pack import Pack

from ..helpers.epochs import TINY


def test_what_is_no_pack(tiny: Path, pass_files: tuple[Path, Path]) -> None:
    for make in (Pack, lambda path: ShardDataset(path, TINY), lambda path: Samples(path, TINY)):
        with pytest.raises(PackError, match="packs are read from s3://, .* and from file systems, not from ftp://"):
            make("ftp://server/pack")
        with pytest.raises(PackError, match=r"PASS.0.tar is a file.*`pass-pack build .*PASS.0.tar --out PACK`"):
            make(pass_files[0])
        with pytest.raises(TypeError, match="for several give pass_loader.ConcatDataset"):
            make([tiny, tiny])
        with pytest.raises(PackError):
            make(tiny / "no-such-pack")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"brightness": 0.4}, r"brightness is 0.4, want a range .*torchvision is \(0.6, 1.4\)"),
        ({"hue": 0.1}, r"hue is 0.1, want a range .*\(-0.1, 0.1\)"),
        ({"contrast": (0.4,)}, r"contrast is \(0.4,\), want a range"),
        ({"scale": None}, "scale is None, want a range"),
        ({"ratio": "3/4"}, "ratio is '3/4', want a range"),
        ({"jitter": 0.8}, "jitter=0.8 has nothing to do: give it brightness"),
        ({"size": 224.0}, "size is 224.0, want whole pixels"),
        ({"size": (224, 224, 3)}, r"size is \(224, 224, 3\), want whole pixels"),
        ({"size": "224"}, "size is '224', want whole pixels"),
        ({"via": 2.5}, "via is 2.5, want whole pixels"),
    ],
)
def test_views(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ViewSpec(**{"size": 224, **fields})
    if "size" not in fields:
        with pytest.raises(ValueError, match=words):
            recipes.mae().override(**fields)


def test_views_that_are_right() -> None:
    assert ViewSpec(np.int64(8)).height == 8 and ViewSpec([8, 9]).width == 9  # type: ignore[arg-type]
    assert ViewSpec(8, [0.2, 1]) == ViewSpec(8, (0.2, 1))  # type: ignore[arg-type]
    assert dataclasses.replace(recipes.dino().views[0], jitter=0.0).brightness == (0.6, 1.4)


def test_override() -> None:
    with pytest.raises(ValueError, match=r"views=\[20\]: there is no view 20, dino has 10"):
        recipes.dino().override(views=[20], blur=0.0)
    with pytest.raises(ValueError, match="a view has no field blurr; it has size, scale"):
        recipes.dino().override(blurr=0.0)
    assert recipes.dino().override(views=[-1], blur=0.0).views[9].blur == 0.0


def test_indexing(tiny: Path) -> None:
    dataset = ShardDataset(tiny, TINY)
    for index in (lambda: dataset[0], lambda: Subset(dataset, [1])[0], lambda: Subset(dataset, [1]).__getitems__([0])):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"iterated, not indexed: dataset.as_map\(\)\[position\]"):
            index()
    assert len(list(dataset)) == 62


def test_records_by_id(tiny: Path) -> None:
    dataset = ShardDataset(tiny, TINY)
    for method in ("read", "decode", "metadata", "plan", "render", "sample", "companion", "id_of"):
        with pytest.raises(TypeError, match=r"record is '07', want its number: dataset.record_of\('07'\)"):
            getattr(dataset, method)("07")
        with pytest.raises(TypeError):
            getattr(dataset, method)(7.0)
        getattr(dataset, method)(np.int64(7))


def test_columns(tiny: Path) -> None:
    with pytest.raises(KeyError, match=r"no column 'unickname'.*pack.row\(record\)"):
        Pack(tiny).column("unickname")


def test_normalize_takes_one_tensor(tiny: Path) -> None:
    with pytest.raises(TypeError, match=r"views is a list, want one tensor: \[normalize\(view, recipe\)"):
        normalize([torch.zeros(1, 3, 4, 4, dtype=torch.uint8)], TINY)  # type: ignore[arg-type]


def test_a_transform_without_a_crop() -> None:
    v1 = pytest.importorskip("benchmarks.torchvision_cpu").torchvision.transforms
    with pytest.raises(ValueError, match="no RandomResizedCrop, CenterCrop or RandomCrop, with which a recipe"):
        Recipe.from_torchvision(v1.Compose([v1.RandomHorizontalFlip(), v1.ToTensor()]))
