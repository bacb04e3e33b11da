"""Parts of a pack: disjoint, by id, stable under removals and in other packs of the same pictures."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import pass_loader.data.split as module
from pass_loader import PackError, Samples, recipes, split
from pass_loader.data.split import _places
from pass_loader.pack import Pack, build, purge, remove, restore

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree

FRACTIONS = (0.6, 0.3, 0.1)
RECIPE = recipes.mocov2(size=8)


def ids_of(pack: Path, parts: list[np.ndarray]) -> list[list[str]]:
    return [Pack(pack).ids(records) for records in parts]


def test_parts_are_disjoint_and_whole(tiny: Path) -> None:
    parts = split(tiny, FRACTIONS, seed=1)
    assert sorted(np.concatenate(parts).tolist()) == [*range(62)]
    assert all(part.dtype == np.int64 and np.array_equal(part, np.sort(part)) for part in parts)
    assert all(0 < len(part) for part in parts)
    assert [len(split(tiny, (0.5,), seed)[0]) < 62 for seed in range(3)] == [True] * 3
    for given in (Pack(tiny), Samples(tiny, RECIPE)):
        assert all(map(np.array_equal, split(given, FRACTIONS, 1), parts))
    assert not all(map(np.array_equal, split(tiny, FRACTIONS, 2), parts))
    assert [part.tolist() for part in split(tiny, (1.0,))] == [[*range(62)]]


def test_a_chosen_part_is_split_in_its_order(tiny: Path) -> None:
    whole = split(tiny, FRACTIONS)
    chosen = [40, 3, 61, 17, 5]
    for part, found in zip(whole, split(Samples(tiny, RECIPE, records=chosen), FRACTIONS)):
        assert found.tolist() == [record for record in chosen if record in part]


def test_removals_move_nothing(tiny: Path, tmp_path: Path) -> None:
    """Kills: shares of what is live, numbers of records in place of ids."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    before = ids_of(copy, split(copy, FRACTIONS))
    gone = ["00", "17", "30", "61"]
    remove(copy, gone, reason="x")
    after = ids_of(copy, split(copy, FRACTIONS))
    assert after == [[name for name in part if name not in gone] for part in before]
    restore(copy, gone, reason="y")
    assert ids_of(copy, split(copy, FRACTIONS)) == before
    remove(copy, gone, reason="x")
    purge(copy)
    assert ids_of(copy, split(copy, FRACTIONS)) == after


def test_other_packs_of_the_same_pictures(tiny: Path, tmp_path: Path) -> None:
    """Fewer pictures, in another order: each stays in its part."""
    names = [f"{number:02d}" for number in range(61, 0, -2)]
    source = write_tree(tmp_path / "in", {f"{name}.jpg": jpeg(noise(12, 16, int(name))) for name in names})
    build([source], tmp_path / "pack", shuffle=3, workers=1)
    theirs = ids_of(tmp_path / "pack", split(tmp_path / "pack", FRACTIONS))
    for whole, part in zip(ids_of(tiny, split(tiny, FRACTIONS)), theirs):
        assert sorted(part) == sorted(name for name in whole if name in names)


def test_shares() -> None:
    """Kolmogorov and Smirnov against a uniform distribution at 1e-6; golden numbers. Kills: another hash or salt."""
    places = np.sort(_places([str(number) for number in range(20_000)], 5))
    apart = np.abs(places - np.arange(20_000) / 20_000).max()
    assert apart < math.sqrt(-math.log(1e-6 / 2) / 2 / 20_000) and 0 <= places[0] and places[-1] < 1
    assert _places(["a", "b"], 0).tolist() == GOLDEN


GOLDEN = [0.22660909119342587, 0.6794587940127836]


def test_edges(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares whose sum falls short of 1 by rounding lose no picture; one on an edge is in the part after it."""
    last = 1 - 2.0**-53
    monkeypatch.setattr(module, "_places", lambda names, seed: np.full(len(names), last))
    assert [len(part) for part in split(tiny, (0.1,) * 10)] == [0] * 9 + [62]
    monkeypatch.setattr(module, "_places", lambda names, seed: np.full(len(names), 0.5))
    assert [len(part) for part in split(tiny, (0.5, 0.5))] == [0, 62]


def test_pictures_of_one_patient_stay_together(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'' if i >= 36 else f'p{i // 4}'}\n" for i in range(40))
    (tmp_path / "m.csv").write_text("hash,patient\n" + rows)
    source = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(noise(16, 16, i)) for i in range(40)})
    build([source], tmp_path / "pack", metadata=tmp_path / "m.csv", workers=1)
    parts = ids_of(tmp_path / "pack", split(tmp_path / "pack", (0.5, 0.5), by="patient"))
    patients = [{int(name) // 4 for name in part if int(name) < 36} for part in parts]
    assert not patients[0] & patients[1] and patients[0] | patients[1] == {*range(9)} and all(patients)
    alone = split(tmp_path / "pack", (0.5, 0.5))
    for part, other in zip(parts, ids_of(tmp_path / "pack", alone)):
        assert {name for name in part if int(name) >= 36} == {name for name in other if int(name) >= 36}
    with pytest.raises(PackError, match=r"by: .* has no column 'age'; its metadata has \['patient'\]"):
        split(tmp_path / "pack", (0.5,), by="age")


def test_refusals(tiny: Path) -> None:
    for wrong in ((), (0.5, 0.6), (0.5, -0.1), (0.0, 1.0), (math.nan,)):
        with pytest.raises(ValueError, match="want numbers above 0 whose sum is at most 1"):
            split(tiny, wrong)
    assert len(split(tiny, (1 / 3,) * 3)) == 3 and len(split(tiny, (0.1,) * 10)) == 10
    with pytest.raises(ValueError, match="seed is -1"):
        split(tiny, (0.5,), -1)
