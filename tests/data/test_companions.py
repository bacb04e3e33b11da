"""Companions: which view is of which picture, Pillow's pixels of both, and nothing decoded that is not used."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pass_loader import (
    Companions,
    ConcatDataset,
    DataLoader,
    PackError,
    Recipe,
    RecordError,
    ShardDataset,
    ViewSpec,
    _C,
    recipes,
)
from pass_loader.recipes import reference
from pass_loader.pack import Pack, build, remove, restore
from pass_loader.loading.rendering import Renderer
from pass_loader.keys import Keys

from ..helpers.corpus import jpeg, noise
from ..helpers.packs import ORIGINALS, PLAIN, SEVERAL, flip_a_bit
from ..helpers.trees import write_tree


RECIPE = recipes.genview(size=16)
COVERED = {0, 1, 2, 3, 5, 9}


@pytest.fixture
def copies(companion_packs: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    first, second = (Path(shutil.copytree(pack, tmp_path / pack.name)) for pack in companion_packs)
    return first, second


def dataset_of(companion_packs: tuple[Path, Path], recipe: Recipe = RECIPE, **arguments: Any) -> ShardDataset:
    return ShardDataset(companion_packs[0], recipe, seed=5, companions=companion_packs[1], **arguments)


def with_companion(recipe: Recipe, probability: float) -> Recipe:
    return dataclasses.replace(recipe, companion=probability)


@pytest.mark.parametrize("batch", ["views_labels_companions", "views_labels"])
def test_batches_equal_pillow(companion_packs: tuple[Path, Path], batch: str) -> None:
    """Pixels, plans and what is told, of batches and of single samples; a box fits the picture that it is cut of."""
    recipe = dataclasses.replace(recipes.genview(size=24, as_declared=True), batch=batch)
    dataset, kinds = dataset_of((companion_packs[0], companion_packs[1]), recipe), Counter()  # type: ignore[var-annotated]
    for epoch in range(6):
        loader = DataLoader(dataset, ORIGINALS, shuffle=True, num_workers=2, return_info=True)
        loader.sampler.set_epoch(epoch)
        views, labels, *told, info = next(iter(loader))
        for name, values in info["companions"].items():
            assert not told or torch.equal(told[0][name].nan_to_num(-9), values.nan_to_num(-9))
        for slot, record in enumerate(info["records"].tolist()):
            companions = info["companions"]
            used, view, other, scale = (companions[name][slot].item() for name in ("used", "view", "record", "scale"))
            original = reference.decode(dataset.read(record))
            companion = reference.decode(dataset.read(other)) if used else None
            assert used == (record in COVERED) and used == (view >= 0)
            plans = dataset.plan(record, epoch)
            for number, plan in enumerate(plans):
                picture = companion if number == view and companion else original
                want = _C.plan_views(recipe.rows(), seed=5, epoch=epoch, record=record, height=picture.height,
                                     width=picture.width)[number]  # fmt: skip
                assert plan == want == info["plans"][slot, number]
            oracle = reference.render_sample(original, plans, companion, view)
            single, rendered = dataset.sample(record, epoch), dataset.render(record, epoch)
            for number, pixels in enumerate(oracle):
                want = reference.normalize(pixels, recipe)
                assert np.array_equal(views[number][slot].numpy(), want) and np.array_equal(
                    single[number].numpy(), want
                )
                assert np.array_equal(rendered[number], pixels)
            found = dataset.companion(record, epoch)
            assert (found is None) != used
            if found is not None:
                id = dataset.id_of(other)
                assert found[:2] == (view, other) and id.startswith(f"{record:02d}")
                assert (scale == SEVERAL[id]) if id in SEVERAL else np.isnan(scale)
                kinds[id, view] += 1
    assert {view for _, view in kinds} == {0, 1} and len({id for id, _ in kinds}) == len(SEVERAL) + len(PLAIN)
    with pytest.raises(IndexError):
        dataset.companion(10**6)


def test_draws_are_even_and_keep_their_place() -> None:
    """40,000 samples: 4 sigma of a rate is 0.01. Golden: the scheme is part of saved states."""
    count = 40_000
    key = (7, np.arange(count), np.zeros(count, np.uint32), np.full(count, 3, np.uint32))
    always = _C.draw_companions(*key, np.full(count, 3), 2, 1.0)
    assert abs(np.mean(always[0]) - 0.5) < 0.01 and set(always[0].tolist()) == {0, 1}
    for which in range(3):
        assert abs(np.mean(always[1] == which) - 1 / 3) < 0.01
        assert abs(np.mean(always[0][always[1] == which]) - 0.5) < 0.02
    views, which = _C.draw_companions(*key, np.full(count, 3), 2, 0.3)
    used = views >= 0
    assert abs(used.mean() - 0.3) < 0.01 and abs(views[used].mean() - 0.5) < 0.02
    assert (views[used] == always[0][used]).all() and (which[used] == always[1][used]).all(), "p moves nothing else"
    assert (_C.draw_companions(*key, np.zeros(count, np.int64), 2, 1.0)[0] == -1).all()
    assert (_C.draw_companions(*key, np.full(count, 3), 2, 0.0)[0] == -1).all()
    assert abs(np.mean(_C.draw_companions(*key, np.full(count, 1), 10, 1.0)[0]) - 4.5) < 0.06
    for place, other in enumerate((8, np.arange(1, count + 1), np.ones(count, np.uint32), np.zeros(count, np.uint32))):
        changed = [*key]
        changed[place] = other  # type: ignore[call-overload]
        assert np.mean(_C.draw_companions(*changed, np.full(count, 3), 2, 1.0)[0] == always[0]) < 0.52
    assert [column[:10].tolist() for column in always] == GOLDEN and _C.plan_version == 1
    flips = np.array([_C.plan_views(RECIPE.rows(), seed=7, epoch=3, record=record, height=9, width=9)[0]["flip"]
                      for record in range(4000)])  # fmt: skip
    assert abs(np.corrcoef(flips, always[0][:4000])[0, 1]) < 0.07, "of their own slot"


GOLDEN = [[1, 0, 1, 1, 0, 1, 0, 1, 1, 1], [0, 0, 1, 2, 1, 2, 2, 1, 2, 1]]


def reads() -> int:
    """Calls of read and pread of this process so far."""
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("syscr"))


@pytest.mark.parametrize("probability,views,want", [(1.0, 2, 2), (1.0, 1, 1), (0.0, 2, 1), (0.0, 1, 1)])
def test_pictures_read_a_sample(companion_packs: tuple[Path, Path], probability: float, views: int, want: int) -> None:
    """Two where a companion is used beside the original, one otherwise; nothing is read that is not decoded."""
    recipe = dataclasses.replace(RECIPE, views=RECIPE.views[:views])
    if probability:
        dataset = dataset_of(companion_packs, with_companion(recipe, probability))
    else:
        dataset = ShardDataset(companion_packs[0], recipe)
    renderer = Renderer(dataset, threads=0)

    def read_by(records: list[int]) -> int:
        renderer.submit(Keys(np.array(records), *np.zeros((2, len(records)), np.uint32))).wait()
        before = reads()
        failures = renderer.submit(Keys(np.array(records), *np.zeros((2, len(records)), np.uint32))).wait()
        assert not failures
        return reads() - before

    covered, bare = sorted(COVERED), [4, 6, 7, 8, 10, 11]
    nothing = read_by(bare) - len(bare)  # reading /proc itself
    assert (
        nothing >= 0
        and read_by(covered * 3) - nothing == want * 18
        and read_by([*covered, *bare]) - nothing == want * 6 + 6
    )


def test_what_is_not_used_may_be_broken(copies: tuple[Path, Path]) -> None:
    """One view, always of the companion: no original is read. Never of it: no companion is."""
    alone = dataclasses.replace(RECIPE, views=RECIPE.views[:1])
    want = [dataset_of(copies, alone).render(record)[0].tobytes() for record in (0, 5)]
    for record in range(ORIGINALS):
        flip_a_bit(Pack(copies[0]), record)
    dataset = dataset_of(copies, alone, records=sorted(COVERED))
    assert len(list(DataLoader(dataset, 3))) == 2
    assert [dataset.render(record)[0].tobytes() for record in (0, 5)] == want and dataset.sample(9)
    with pytest.raises(RecordError, match="record 0, id 00: CRC32C"):
        dataset_of(copies).sample(0)


def test_errors_name_the_companion(copies: tuple[Path, Path]) -> None:
    for record in range(len(SEVERAL) + len(PLAIN)):
        flip_a_bit(Pack(copies[1]), record)
    dataset = dataset_of(copies, with_companion(RECIPE, 0.5))
    used = [record for record in range(ORIGINALS) if dataset.companion(record)]
    assert 0 < len(used) < len(COVERED)
    loader = DataLoader(dataset, ORIGINALS, on_error="replace", return_info=True)
    *_, told, info = next(iter(loader))
    assert np.flatnonzero(~info["valid"].numpy()).tolist() == used and not told["used"].any()
    assert told["view"].tolist() == [-1] * ORIGINALS == told["record"].tolist() and told["scale"].isnan().all()
    error = loader.errors[0]
    companion = dataset.companion(used[0])
    assert companion is not None and error.record == used[0] and error.id == f"{used[0]:02d}"
    assert f"its companion, record {companion.record}: CRC32C is" in error.cause and "/b/shard-0000" in error.cause
    with pytest.raises(RecordError, match=f"record {companion.record}, id .*: CRC32C"):
        dataset.read(companion.record)


def test_a_batch_tells_of_what_it_holds(copies: tuple[Path, Path]) -> None:
    """Also where a record was replaced by one with a companion, or left out."""
    for record in (4, 6, 7, 8, 10, 11):  # all that have none
        flip_a_bit(Pack(copies[0]), record)
    dataset = dataset_of(copies)
    for policy in ("replace", "skip"):
        views, _, told, info = next(iter(DataLoader(dataset, ORIGINALS, on_error=policy, return_info=True)))
        assert told["used"].all() and len(told["used"]) == len(info["records"]) == (
            ORIGINALS if policy == "replace" else 6
        )
        for slot, record in enumerate(info["records"].tolist()):
            companion = dataset.companion(record)
            assert companion is not None and companion[:2] == (told["view"][slot], told["record"][slot])
            assert all(torch.equal(view[slot], one) for view, one in zip(views, dataset.sample(record)))


def test_removed_companions_are_not_used(copies: tuple[Path, Path]) -> None:
    """From the next epoch on: their views are of the originals, and all else stays as it was."""
    dataset = dataset_of(copies)
    loader = DataLoader(dataset, ORIGINALS, return_info=True)
    loader.sampler.set_epoch(0)
    before = next(iter(loader))[2]
    assert loader.state_dict()["generation"] == [0, 0] and len(loader.state_dict()["pack"]) == 2
    remove(copies[1], ["02", "00_s-3", "00_s-0.25"], reason="x")
    assert dataset.companion(2) is not None
    after = next(iter(loader))[2]
    gone = [0, 2]
    assert not after["used"][gone].any() and after["used"].sum() == len(COVERED) - 2 and dataset.companion(2) is None
    kept = [record for record in range(ORIGINALS) if record not in gone]
    assert torch.equal(after["used"][kept], before["used"][kept])
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["generation"][0] == 0 and state["generation"][1] > 0 and len(dataset) == ORIGINALS
    assert torch.equal(dataset.sample(2)[0], ShardDataset(copies[0], RECIPE, seed=5).sample(2)[0])
    restore(copies[1], ["02"], reason="x")
    assert dataset.pack.refresh() and dataset.companion(2) is not None


def test_resume_and_other_ways_to_a_sample(companion_packs: tuple[Path, Path]) -> None:
    dataset = dataset_of(companion_packs)
    loader = DataLoader(dataset, 4, shuffle=True, num_workers=1)
    want = [views[0] for views, *_ in loader]
    loader = DataLoader(dataset, 4, shuffle=True)
    next(iter(loader))
    resumed = DataLoader(pickle.loads(pickle.dumps(dataset)), 4, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    assert all(torch.equal(views[0], other) for (views, *_), other in zip(resumed, want[1:]))
    dataset.set_epoch(0)
    assert torch.equal(dataset.as_map()[3][0][1], dataset.sample(3)[1]) and len(next(iter(dataset))) == 2
    with pytest.raises(ValueError, match="does not fit: the pack"):
        DataLoader(ShardDataset(companion_packs[0], RECIPE, seed=5), 4, shuffle=True).load_state_dict(
            loader.state_dict()
        )
    with pytest.raises(ValueError, match="the recipe: companion was 1.0, here 0.5"):
        other = dataset_of(companion_packs, with_companion(RECIPE, 0.5))
        DataLoader(other, 4, shuffle=True).load_state_dict(loader.state_dict())
    assert len(dataset) == ORIGINALS and dataset.record_of("03") == 3, "a companion of the same id is not served"
    draws = {dataset.companion(0, epoch, draw)[:2] for epoch in range(8) for draw in range(8)}  # type: ignore[index]
    assert len(draws) == 4, "both views, both companions"


def test_without_companions_the_recipe_gives_originals(companion_packs: tuple[Path, Path]) -> None:
    plain = ShardDataset(companion_packs[0], RECIPE, seed=5)
    views, labels, told = next(iter(DataLoader(plain, ORIGINALS)))
    assert not told["used"].any() and told["view"].dtype == torch.int64 and told["scale"].dtype == torch.float32
    bare = dataclasses.replace(RECIPE, companion=0.0, batch="views_labels")
    for ours, theirs in zip(
        views, next(iter(DataLoader(ShardDataset(companion_packs[0], bare, seed=5), ORIGINALS)))[0]
    ):
        assert torch.equal(ours, theirs), "a companion's draws move no other"
    assert plain.companion(3) is None and "companions" not in next(iter(DataLoader(plain, 2, return_info=True)))[3]


def test_pairs_by_columns(companion_packs: tuple[Path, Path], tmp_path: Path) -> None:
    """The metadata says whose companion each is, and its noise level."""
    table = {"hash": ["x", "y", "z", "w"], "source": ["03", "01", "nobody", "03"], "level": ["100", "", "300", "400"],
             "kind": ["a", "b", "c", "d"]}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    source = write_tree(tmp_path / "in", {f"{name}.jpg": jpeg(noise(16, 16, i)) for i, name in enumerate("xyzw")})
    build([source], tmp_path / "c", metadata=tmp_path / "m.parquet", workers=1)
    dataset = ShardDataset(
        companion_packs[0], RECIPE, companions=Companions(tmp_path / "c", original="source", scale="level")
    )
    found = {dataset.companion(3, epoch)[1:] for epoch in range(30)}  # type: ignore[index]
    records = {name: ORIGINALS + Pack(tmp_path / "c").record_of(name) for name in "xyzw"}
    assert found == {(records["x"], 100.0), (records["w"], 400.0)}
    one = dataset.companion(1)
    assert one is not None and one.record == records["y"] and np.isnan(one.scale)
    with pytest.raises(PackError, match="column 'kind' .* holds other than numbers"):
        ShardDataset(companion_packs[0], RECIPE, companions=Companions(tmp_path / "c", original="source", scale="kind"))
    assert sum(dataset.companion(record) is not None for record in range(ORIGINALS)) == 2
    with pytest.raises(PackError, match="no picture of .* goes with one of .*: want equal ids"):
        ShardDataset(companion_packs[0], RECIPE, companions=tmp_path / "c")
    with pytest.raises(PackError, match=r"no column 'noise'; its metadata has \['source', 'level', 'kind'\]"):
        Companions(tmp_path / "c", scale="noise")


def test_of_several_packs(companion_packs: tuple[Path, Path], tiny: Path) -> None:
    """Each with companions of its own, or without."""
    middle = ShardDataset(tiny, RECIPE, seed=5, records=range(20))
    parts = [
        dataset_of(companion_packs),
        middle,
        dataset_of(companion_packs, records=[9, 3, 4]),
        dataset_of((tiny, companion_packs[1]), records=[5]),
    ]
    dataset, seen = ConcatDataset(parts), set()
    for views, _, told, info in DataLoader(dataset, 9, num_workers=2, return_info=True, shuffle=True):
        for slot, record in enumerate(info["records"].tolist()):
            companion, number = dataset.companion(record), int(info["datasets"][slot])
            has = companion is not None
            id = info["ids"][slot]
            assert told["used"][slot] == has == (number in (0, 2) and int(id) in COVERED or (number, id) == (3, "05"))
            if companion is not None:
                assert dataset.id_of(companion.record)[:2] == id and told["record"][slot] == companion.record
                own = parts[0].pack.packs[1].record_of(dataset.id_of(companion.record))  # type: ignore[union-attr]
                assert dataset.read(companion.record) == parts[0].read(ORIGINALS + own)
            pictures = [
                reference.decode(dataset.read(one)) for one in (record, companion.record if companion else record)
            ]
            oracle = reference.render_sample(
                pictures[0], info["plans"][slot], pictures[1] if has else None, companion.view if companion else -1
            )
            for view, want in zip(views, oracle):
                assert np.array_equal(view[slot].numpy(), reference.normalize(want, RECIPE))
            seen.add(number)
    assert seen == {0, 1, 2, 3} and len(dataset) == 36 and len(dataset.pack.packs) == 7  # type: ignore[union-attr]


def test_refused(companion_packs: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="mocov2 uses no companions: take recipes.genview"):
        dataset_of(companion_packs, recipes.mocov2())
    with pytest.raises(ValueError, match="companion is 1.5, want a probability"):
        with_companion(RECIPE, 1.5)
    with pytest.raises(ValueError, match="box_of"):
        Recipe("shared", (ViewSpec(16), ViewSpec(16, box_of=0)), companion=0.5)
    with pytest.raises(ValueError, match="want one companion and its view a record"):
        renderer = Renderer(ShardDataset(companion_packs[0], RECIPE), threads=0)
        keys = Keys.of(0, 0, 0)
        views = [np.empty((1, 3, 16, 16), np.float32)] * 2
        renderer._engine.submit(
            keys.records,
            keys.draws,
            keys.epochs,
            views,
            companions=np.zeros(2, np.int64),
            companion_views=np.zeros(2, np.int32),
        )
    with pytest.raises(ValueError, match="a companion's view is 2, want"):
        renderer._engine.submit(
            keys.records,
            keys.draws,
            keys.epochs,
            views,
            companions=np.zeros(1, np.int64),
            companion_views=np.full(1, 2, np.int32),
        )
