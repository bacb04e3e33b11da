"""Packs and states in saved/ were written by version 0.1.0 before its modules moved, and are never written anew: what a
user has on disk goes on working."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import ShardDataset
from pass_loader.pack import Pack, purge, verify

from .saved_before import CASES, COUNT, SAVED, TINY, next_batches


STATES: dict[str, Any] = json.loads((SAVED / "states.json").read_text())


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(SAVED, tmp_path_factory.mktemp("saved") / "saved"))


@pytest.mark.filterwarnings("ignore:order=.blocks.")
@pytest.mark.parametrize("name", CASES)
def test_states_go_on(packs: Path, name: str) -> None:
    assert next_batches(CASES[name](packs), 2) == STATES[name]["begun"]
    loader = CASES[name](packs)
    loader.load_state_dict(STATES[name]["state"])
    assert next_batches(loader) == STATES[name]["resumed"]


def test_plans_are_the_same(packs: Path) -> None:
    plan = ShardDataset(packs / "pack", TINY, seed=5).plan(3, epoch=2)
    for name, values in STATES["plan"].items():
        assert np.array_equal(plan[name], np.array(values, plan[name].dtype)), name


@pytest.mark.parametrize("name", ["pack", "dct", "second", "companions"])
def test_packs_are_whole(packs: Path, name: str) -> None:
    assert not verify(packs / name, decode=True)


def test_removals_hold(packs: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(packs / "pack", tmp_path / "pack"))
    pack = Pack(place)
    assert len(pack) == COUNT - 2 and sorted(pack.ids(pack.removed)) == ["a/01", "b/05"]
    purge(place)
    assert not verify(place) and len(Pack(place)) == COUNT - 2
