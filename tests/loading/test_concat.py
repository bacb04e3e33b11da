"""Several packs as one dataset: order, views, resume, removals, errors, weights."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from pass_loader import ConcatDataset, DataLoader, PackError, Recipe, RecordError, ShardDataset, _C, recipes
from pass_loader.recipes import reference
from pass_loader.loading.dataset import agree_on_generation
from pass_loader.data.live import ConcatLive, Live
from pass_loader.data.weights import MAX_PASSES, Mixture
from pass_loader.pack import Pack, build, remove
from pass_loader.permutation import permute_each

from ..helpers.corpus import jpeg, noise
from ..helpers.epochs import COUNT, TINY, Ranks, merged, seen, whole_epoch
from ..helpers.packs import flip_a_bit
from ..helpers.trees import write_tree


SIZES = (21, 30, 11)  # together as many as `tiny` has, whose grid of ranks they go through
FIRST = (0, 21, 51)


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Packs of several shards, each with the ids 00, 01, ...; tests do not write into them."""
    place = tmp_path_factory.mktemp("three")
    for number, count in enumerate(SIZES):
        files = {f"{i:02d}.jpg": jpeg(noise(12 + number, 16 - number, 100 * number + i)) for i in range(count)}
        with open(place / "credits.csv", "w", newline="") as table:
            rows = [[f"{i:02d}", f"c{number}-{i}", "Attribution License"] for i in range(count)]
            csv.writer(table).writerows([["hash", "unickname", "licensename"], *rows])
        source = write_tree(place / f"in{number}", files)
        build([source], place / f"pack{number}", metadata=place / "credits.csv", shard_bytes=9_000, workers=1)
    return [place / f"pack{number}" for number in range(3)]


@pytest.fixture
def copies(three: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(pack, tmp_path / pack.name)) for pack in three]


def maker(packs: list[Path], recipe: Recipe = TINY, **arguments: Any) -> Callable[[], ConcatDataset]:
    return lambda: ConcatDataset([ShardDataset(pack, recipe, seed=5) for pack in packs], **arguments)


def own(record: int) -> tuple[int, int]:
    """(which pack, its own number)."""
    number = int(np.searchsorted(FIRST, record, side="right")) - 1
    return number, record - FIRST[number]


def test_batches_equal_pillow(three: list[Path]) -> None:
    """One batch holds records of all packs: Pillow's pixels of the right file, by the plan of the number in all."""
    recipe = recipes.swav(global_size=32, local_size=16)
    dataset = maker(three, recipe)()
    assert all(len(part.pack.shards) > 1 for part in dataset.datasets) and dataset.cumulative_sizes == [21, 51, 62]
    for views, info in DataLoader(dataset, 31, shuffle=True, num_workers=2, return_info=True):
        assert set(info["datasets"].tolist()) == {0, 1, 2}
        for slot, record in enumerate(info["records"].tolist()):
            number, inside = own(record)
            assert info["datasets"][slot] == number and info["ids"][slot] == f"{inside:02d}" == dataset.id_of(record)
            picture = reference.decode(dataset.datasets[number].read(inside))
            assert picture.size == (16 - number, 12 + number) and dataset.read(record) == dataset.datasets[number].read(
                inside
            )
            plans = _C.plan_views(
                recipe.rows(), seed=5, epoch=0, record=record, height=picture.height, width=picture.width
            )
            assert np.array_equal(plans, info["plans"][slot]) and np.array_equal(plans, dataset.plan(record))
            for view, single, plan in zip(views, dataset.sample(record), plans):
                want = reference.normalize(reference.render(picture, plan), recipe)
                assert np.array_equal(view[slot].numpy(), want) and np.array_equal(single.numpy(), want)


def test_views_do_not_collide_between_packs(three: list[Path]) -> None:
    """The same pack twice: every record has other views under its second number."""
    dataset = maker([three[0], three[0]], recipes.mocov2())()
    plans = {dataset.plan(record).tobytes() for record in range(42)}
    assert len(plans) == 42 and np.array_equal(dataset.plan(3), dataset.datasets[0].plan(3))
    assert dataset.read(3) == dataset.read(24)


def test_order_is_that_of_torchs_concatenation(three: list[Path]) -> None:
    theirs = data.ConcatDataset([ShardDataset(pack, TINY, seed=5).as_map() for pack in three])
    dataset = maker(three)()
    assert len(theirs) == len(dataset) == COUNT and theirs.cumulative_sizes == dataset.cumulative_sizes
    for shuffle in (False, True):
        sampler = data.DistributedSampler(theirs, 1, 0, shuffle=shuffle)
        batches = DataLoader(dataset, 8, shuffle=shuffle, return_info=True)
        assert [record for batch in batches for record, _ in seen(batch)] == list(sampler)
    mapped = dataset.as_map()
    mapped.set_epoch(0)
    assert [mapped[place][1] for place in (0, 61)] == [-1, -1] and len(pickle.loads(pickle.dumps(mapped))) == COUNT
    assert torch.equal(mapped[40][0][0], dataset.sample(40)[0])
    assert len(list(data.DataLoader(dataset, None, num_workers=2))) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, [2, 1, 3]])
@pytest.mark.parametrize("before", [1, 3])
def test_resume_on_other_ranks(three: list[Path], before: int, weights: Any) -> None:
    make = maker(three, weights=weights)
    want = whole_epoch(Ranks(make, before, 12))
    for after in (1, 2, 4):
        first = Ranks(make, before, 12, 2)
        steps = first.steps()
        got = [sample for _ in range(2) for sample in merged(next(steps))]
        state = first.state()
        assert len(state["pack"]) == 3 and state["generation"] == [0, 0, 0]
        got += whole_epoch(Ranks(make, after, 12).load(json.loads(json.dumps(state))))
        assert got[: len(want)] == want and len(got) - len(want) < after
    if weights is None:
        assert {record for record, _ in want} == set(range(COUNT))


def test_a_state_knows_all_packs(three: list[Path]) -> None:
    state = DataLoader(maker(three)(), 4, shuffle=True).state_dict()
    subset = ConcatDataset([ShardDataset(pack, TINY, seed=5, records=[1, 2]) for pack in three])
    for other, words in (
        (maker(three[:2])(), "the pack was"), (maker(three[::-1])(), "the pack was"), (subset, "choice of records"),
        (ShardDataset(three[0], TINY, seed=5), "the pack was"), (maker(three, weights=[1, 1, 1])(), "the weights was"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"does not fit.*{words}"):
            DataLoader(other, 4, shuffle=True).load_state_dict(state)
    with pytest.raises(ValueError, match="damaged: generation"):
        DataLoader(maker(three)(), 4, shuffle=True).load_state_dict({**state, "generation": [0, -1, 0]})
    loader = DataLoader(maker(three, weights=[1, 1, 1])(), 4, shuffle=True)
    with pytest.raises(ValueError, match="the weights was"):
        loader.load_state_dict(DataLoader(maker(three, weights=[1, 1, 2])(), 4, shuffle=True).state_dict())


def test_chosen_records_keep_their_numbers(three: list[Path], tmp_path: Path) -> None:
    """An id may be in several packs: each dataset has its own list."""
    (tmp_path / "list.txt").write_text("03\n\n10\r\n00\n")
    parts = [ShardDataset(three[0], TINY, ids=str(tmp_path / "list.txt")), ShardDataset(three[1], TINY),
             ShardDataset(three[2], TINY, ids=tmp_path / "list.txt")]  # fmt: skip
    dataset = ConcatDataset(parts)
    served = [record for batch in DataLoader(dataset, 8, return_info=True) for record, _ in seen(batch)]
    assert served == [3, 10, 0, *range(21, 51), 54, 61, 51]
    with pytest.raises(KeyError, match="'03' is in .*pack0 and in .*pack1"):
        dataset.record_of("03")
    assert dataset.record_of("29") == 50
    with pytest.raises(KeyError, match="nobody"):
        dataset.record_of("nobody")
    (tmp_path / "list.txt").write_text("03\n" + "".join(f"x{i}\n" for i in range(1200)))
    with pytest.raises(
        KeyError, match=r"pack0 has no id 'x0', 'x1', 'x2', ...: it lacks 1,200 of the 1,201 ids in .*list"
    ):
        ShardDataset(three[0], TINY, ids=tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match="for one id give a list"):
        ShardDataset(three[0], TINY, ids="03")


def test_removals_of_each_pack(copies: list[Path]) -> None:
    """A removal takes effect at the next epoch; a resumed epoch knows each pack's generation of its beginning."""
    dataset = maker(copies)()
    loader = DataLoader(dataset, 8, return_info=True)
    iterator = iter(loader)
    next(iterator), next(iterator)
    remove(copies[1], ["04"], reason="x")
    assert len([record for batch in iterator for record, _ in seen(batch)]) == COUNT - 16
    iterator = iter(loader)
    next(iterator)
    remove(copies[2], ["00"], reason="x")
    next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["samples"] == 61 and [bool(one) for one in state["generation"]] == [False, True, False]
    resumed = DataLoader(maker(copies)(), 8, return_info=True, on_error="replace")
    resumed.load_state_dict(state)
    batches = list(resumed)
    records = [int(record) for *_, info in batches for record in info["records"]]
    valid = [bool(one) for *_, info in batches for one in info["valid"]]
    assert len(records) == 45 and 25 not in records and 51 not in records and valid.count(False) == 1
    assert resumed.errors[0].record == 51 and "removed from the pack after" in resumed.errors[0].cause
    assert len(resumed.dataset) == 61 and len(list(resumed)) == 8 and len(resumed.dataset) == 60
    with pytest.raises(RecordError, match="record 25, id 04: it was removed"):
        dataset.sample(25)


def test_a_refresh_looks_at_every_pack(copies: list[Path]) -> None:
    dataset = maker(copies)()
    for number in (0, 2):
        remove(copies[number], ["00"], reason="x")
    assert dataset.pack.refresh() and len(dataset) == 60 and not dataset.pack.refresh()


def test_ranks_agree_on_all_generations(copies: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rank that comes first decides for all packs."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr("pass_loader.loading.ranks.initialized_rank", lambda: (0, 2))
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    first, second = maker(copies)(), maker(copies)()
    agreed = agree_on_generation(first.pack, "epoch 0")
    remove(copies[1], ["04"], reason="x")
    second.pack.refresh()
    assert agreed == (0, 0, 0) == agree_on_generation(second.pack, "epoch 0") and len(second) == 61
    assert len(second.live_then(agreed)) == 62
    assert agree_on_generation(second.pack, "epoch 1") == second.pack.generation != agreed


def test_errors_name_the_pack(copies: list[Path]) -> None:
    dataset = maker(copies)()
    flip_a_bit(dataset.datasets[2].pack, 4)
    shard = f"{copies[2] / dataset.datasets[2].pack.shard_name(4)}"
    with pytest.raises(RecordError, match=r"\(there record 4\), record 55, id 04: CRC32C") as caught:
        list(DataLoader(dataset, 8))
    assert caught.value.shard.startswith(shard) and caught.value.record == 55
    loader = DataLoader(dataset, 8, on_error="replace", return_info=True)
    records = [record for batch in loader for record, _ in seen(batch)]
    assert len(records) == COUNT and 55 not in records and loader.errors[0].record == 55
    with pytest.raises(IndexError, match=r"record 62 is not in \[0, 62\)"):
        dataset.sample(62)


def test_credits_are_those_of_each_pack(three: list[Path]) -> None:
    credits = maker(three)().attribution([3, 22, 61]).table.to_pylist()
    assert [(row["record"], row["id"], row["creator"]) for row in credits] == [
        (3, "03", "c0-3"), (22, "01", "c1-1"), (61, "10", "c2-10"),
    ]  # fmt: skip
    assert len(maker(three)().attribution()) == COUNT
    assert maker(three)().metadata(22)["unickname"] == "c1-1"


# ---- weights ----


def drawn(dataset: ConcatDataset, epoch: int, **arguments: Any) -> list[tuple[int, bytes]]:
    loader = DataLoader(dataset, 8, return_info=True, **arguments)
    loader.sampler.set_epoch(epoch)
    return [sample for batch in loader for sample in seen(batch)]


def test_shares_are_exact_and_records_come_in_turns(three: list[Path]) -> None:
    dataset = maker(three, weights=[0.5, 0.3, 0.2], num_samples=50)()
    assert len(dataset) == 50 and dataset.cumulative_sizes == [25, 40, 50]
    times: Counter[int] = Counter()
    for epoch in range(6):
        samples = drawn(dataset, epoch)
        assert [sum(own(record)[0] == number for record, _ in samples) for number in range(3)] == [25, 15, 10]
        assert len(set(samples)) == 50, "a record that comes twice has other views"
        times.update(record for record, _ in samples)
    for first, size in zip(FIRST, SIZES):
        counts = [times[record] for record in range(first, first + size)]
        assert max(counts) - min(counts) <= 1, "no record comes again before all others have come"
    one, other = ({record for record, _ in drawn(dataset, epoch)} for epoch in (0, 1))
    assert one != other


def test_an_epochs_draw_is_a_pure_function(three: list[Path]) -> None:
    """Of (seed, epoch): the same in any process, in any order of epochs, on ranks together, shuffled or not."""
    make = maker(three, weights=[1, 1, 4])
    fifth = drawn(make(), 5)
    dataset = make()
    drawn(dataset, 2)
    assert drawn(dataset, 5, num_workers=2) == fifth == drawn(pickle.loads(pickle.dumps(make())), 5)
    assert sorted(drawn(make(), 5, shuffle=True)) == sorted(fifth) != sorted(drawn(make(), 6))
    parts = [drawn(make(), 5, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(fifth)
    other = ConcatDataset([ShardDataset(pack, TINY, seed=6) for pack in three], [1, 1, 4])
    assert {record for record, _ in drawn(other, 5)} != {record for record, _ in fifth}
    live, epochs = make().live, np.array([5], np.uint32)
    record, draw = live.at(np.array([61]), np.zeros(1, np.uint32), epochs)
    assert own(int(record[0]))[0] == 2 and draw[0] in (3, 4) and len(fifth) == COUNT
    single = make().sample(int(record[0]), epoch=5, draw=int(draw[0]))[0]
    assert (int(record[0]), single.numpy().tobytes()) == fifth[61]


def test_weights_with_other_samplers(three: list[Path]) -> None:
    dataset = maker(three, weights=[1, 0, 1])()
    loader = DataLoader(dataset, 8, sampler=data.DistributedSampler(dataset, 1, 0), return_info=True)
    records = [record for batch in loader for record, _ in seen(batch)]
    assert Counter(own(record)[0] for record in records) == {0: 31, 2: 31}
    with pytest.raises(ValueError, match="draws itself"):
        list(DataLoader(dataset, 2, sampler=[(0, 1), (1, 0)]))
    mapped = dataset.as_map()
    mapped.set_epoch(3)
    assert mapped[7][0][0].numpy().tobytes() == drawn(dataset, 3)[7][1]
    endless = DataLoader(dataset, 62, infinite=True, shuffle=True, return_info=True)
    assert sorted(seen(next(iter(endless)))) == sorted(drawn(dataset, 0))


@pytest.mark.parametrize("options", [{}, {"infinite": True}, {"on_error": "replace"}], ids=str)
def test_the_info_tells_how_to_see_a_sample_again(copies: list[Path], options: dict[str, Any]) -> None:
    """Also the second time that an epoch has a record, past the end of an epoch within a batch, and in the place of a
    bad record."""
    for record in (1, 4):
        flip_a_bit(Pack(copies[2]), record) if "on_error" in options else None
    dataset, told = maker(copies, weights=[1, 1, 8], num_samples=50)(), set()
    batches = iter(DataLoader(dataset, 8, shuffle=True, num_workers=1, return_info=True, **options))
    for views, _, info in itertools.islice(batches, 14):
        for slot, keys in enumerate(zip(*(info[name].tolist() for name in ("records", "epochs", "draws")))):
            assert all(torch.equal(view[slot], one) for view, one in zip(views, dataset.sample(*keys)))
            assert np.array_equal(info["plans"][slot], dataset.plan(*keys))
            told.add(keys[1:])
    assert {draw for _, draw in told} >= {0, 1, 2} and len({epoch for epoch, _ in told}) == 1 + (
        "infinite" in options
    ) * 2


def test_every_pass_is_another_order() -> None:
    """All passes at once: each a permutation, no two alike, in any place evenly distributed."""
    count, passes = 11, 4000
    number = np.repeat(np.arange(passes), count)
    orders = permute_each(np.tile(np.arange(count), passes), count, 3, number).reshape(passes, count)
    assert (np.sort(orders, axis=1) == np.arange(count)).all() and len({row.tobytes() for row in orders}) == passes
    for place in range(count):  # 4 sigma of a rate of 1 / 11 in 4,000
        assert abs(np.bincount(orders[:, place], minlength=count) / passes - 1 / count).max() < 0.0182
    assert permute_each(np.array([3, 9]), 10**12, 7, np.array([5, 2**40])).max() < 10**12


def test_counts_and_refusals(three: list[Path]) -> None:
    assert Mixture.of([1, 1, 1], 10, 0, 3).counts(99).tolist() == [4, 3, 3]
    assert Mixture.of([0.7, 0.3], None, 0, 2).counts(10).tolist() == [7, 3]
    lives = tuple(Live(count, np.empty(0, np.int64), None) for count in (1, 1000))
    live = ConcatLive(lives, np.array([0, 1]), (0, 0))
    with pytest.raises(ValueError, match=f"dataset 0 has 1 live records .* at most {MAX_PASSES} times"):
        Mixture.of([1, 1], 200_000, 0, 2).over(live)
    last = Mixture.of([1, 1], 2 * MAX_PASSES, 0, 2).over(live)
    _, draws = last.at(np.arange(MAX_PASSES), np.zeros(MAX_PASSES, np.uint32), np.full(MAX_PASSES, 7, np.uint32))
    assert draws.max() < 2**16 and len(np.unique(draws)) == MAX_PASSES
    for arguments, words in (
        ({"weights": [1, 2]}, "2 weights for 3 datasets"), ({"weights": [1, -1, 1]}, "finite numbers from 0"),
        ({"weights": [0, 0, 0]}, "not all of them 0"), ({"weights": [1, 1, float("nan")]}, "finite numbers"),
        ({"num_samples": 5}, "goes with weights"), ({"weights": [1, 1, 1], "num_samples": 0}, "num_samples is 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            maker(three, **arguments)()


def test_datasets_that_do_not_fit(three: list[Path]) -> None:
    first = ShardDataset(three[0], TINY)
    for second, error, words in (
        (ShardDataset(three[1], TINY, seed=1), ValueError, "dataset 0 has seed 0, dataset 1 1"),
        (ShardDataset(three[1], TINY.override(flip=0.1)), ValueError, "0 and 1 have other recipes"),
        (ShardDataset(three[1], dataclasses.replace(TINY, channels=1, mean=0.5, std=0.2)), ValueError, "other recipes"),
        (ShardDataset(three[1], TINY, labels=np.zeros((30, 14))), ValueError, r"\(\) a record, of dataset 1 \(14,\)"),
        (maker(three)(), TypeError, "holds a ConcatDataset"), (first.as_map(), TypeError, "holds a MapDataset"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            ConcatDataset([first, second])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is empty"):
        ConcatDataset([])
    with pytest.raises(TypeError, match="for several pass_loader.ConcatDataset"):
        DataLoader(data.ConcatDataset([first.as_map()]), 2)  # type: ignore[arg-type]
    assert issubclass(PackError, ValueError) and "weights (1.0," in repr(maker(three, weights=[1, 1, 1])())
