"""Ranks: equal numbers of batches, endless order, and processes of torch.distributed that agree on removals."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from pass_loader import DataLoader, EpochSampler, RecordError, ShardDataset, _C
from pass_loader.permutation import permute
from pass_loader.loading.sampler import EpochOrder
from pass_loader.pack import Pack, remove
from pass_loader.loading.replay import records_of_last_batch

from ..helpers.epochs import COUNT, TINY, Ranks, merged, seen, whole_epoch
from ..helpers.processes import on_ranks


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 31])
def test_every_rank_gets_as_many_batches(tiny: Path, count: int) -> None:
    """Also where there are fewer records than ranks; none is empty (`Ranks.steps` looks)."""
    for world in (1, 2, 5, 8):
        for drop_last in (False, True):
            ranks = Ranks(tiny, world, 3 * world, drop_last=drop_last)
            for loader in ranks.loaders:
                loader.__dict__["dataset"] = loader.sampler.data = ShardDataset(tiny, TINY, records=range(count))
            steps = [merged(batches) for batches in ranks.steps()]
            records = [record for step in steps for record, _ in step]
            padded = math.ceil(count / world) * world
            assert len(steps) == len(ranks.loaders[0])
            if drop_last:
                assert len(records) == padded // (3 * world) * 3 * world
            else:
                order = records[:count]
                assert sorted(order) == list(range(count)) and len(records) == padded
                assert records[count:] == (order * world)[: padded - count], "the padding wraps around"


def test_a_sampler_that_drops_the_last(tiny: Path) -> None:
    data = ShardDataset(tiny, TINY)
    for rank in range(4):
        sampler = EpochSampler(data, shuffle=True, rank=rank, world_size=4, drop_last=True)
        theirs = torch.utils.data.DistributedSampler(data, num_replicas=4, rank=rank, drop_last=True)
        assert list(sampler) == list(theirs) and len(sampler) == len(theirs) == 15


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_endless_order(tiny: Path, shuffle: bool) -> None:
    """Pass after pass, each the order and the views of its epoch, dealt without padding: a batch may lie in two."""
    epochs = []
    for epoch in range(3):
        ranks = Ranks(tiny, 1, 62, shuffle=shuffle)
        ranks.loaders[0].sampler.set_epoch(epoch)
        epochs += whole_epoch(ranks)
    for world in (1, 3):
        ranks = Ranks(tiny, world, 12, infinite=True, shuffle=shuffle)
        steps = ranks.steps()
        assert [sample for _ in range(15) for sample in merged(next(steps))] == epochs[:180]
        state = ranks.state()
        assert (state["epoch"], state["position"]) == (0, 180)
        for after in (1, 2, 4):
            resumed = Ranks(tiny, after, 12, infinite=True, shuffle=shuffle).load(json.loads(json.dumps(state)))
            rest = resumed.steps()
            assert merged(next(rest))[:6] == epochs[180:186]
        with pytest.raises(TypeError, match="endless"):
            len(ranks.loaders[0])
    with pytest.raises(ValueError, match="fit.*the order"):
        Ranks(tiny, 1, 12).load(state)
    record, view = merged(next(ranks.steps()))[0]  # 180 samples are two whole passes and a part: the next is the fourth
    assert view == ShardDataset(tiny, TINY, seed=5).sample(record, epoch=3)[0].numpy().tobytes()


@pytest.mark.parametrize("infinite", [True, False])
def test_advance(tiny: Path, infinite: bool) -> None:
    """Restart by the number of the step, as DINOv2 does."""
    for world in (1, 2):
        plain = Ranks(tiny, world, 12, infinite=infinite).steps()
        want = [merged(next(plain)) for _ in range(6)]
        ranks = Ranks(tiny, world, 12, infinite=infinite)
        for loader in ranks.loaders:
            loader.advance(4)
        assert ranks.state()["position"] == 48
        steps = ranks.steps()
        assert [merged(next(steps)) for _ in range(2)] == want[4:]
        assert ranks.state()["generation"] == 0
    loader = ranks.loaders[0]
    with pytest.raises(ValueError, match="advance by -1 batches"):
        loader.advance(-1)
    if not infinite:
        with pytest.raises(ValueError, match="advance by 7 batches"):
            loader.advance(7)
    with pytest.raises(TypeError, match="list decides where it begins"):
        DataLoader(ShardDataset(tiny, TINY), 4, sampler=[1]).advance(1)


def test_far_out_in_an_endless_order_costs_nothing(tiny: Path) -> None:
    """A position of 10^15: a loader that walked there would never end."""
    loader = Ranks(tiny, 1, 4, infinite=True, order="permute").loaders[0]
    loader.load_state_dict({**loader.state_dict(), "position": 10**15 // 4 * 4, "epoch": 0})
    with pytest.raises(ValueError, match=r"epoch is \d+, want"):
        next(iter(loader))
    place = (2**32 - 5) * COUNT // 4 * 4
    loader.load_state_dict({**loader.state_dict(), "position": place})
    records = [record for record, _ in seen(next(iter(loader)))]
    order = EpochOrder("permute", COUNT, place // COUNT)
    assert records[0] == order.at(np.array([place]))[0] and loader.state_dict()["position"] == place + 4


def test_permutations() -> None:
    """A bijection for every count, other for every seed, and no neighbour stays one."""
    for count in (*range(1, 70), 1000, 4096, 4097):
        for seed in (0, 1, 2**64 - 1):
            assert np.array_equal(np.sort(permute(np.arange(count), count, seed)), np.arange(count))
    found = permute(np.arange(4096), 4096, 3)
    assert not np.array_equal(found, permute(np.arange(4096), 4096, 4))
    assert abs(np.corrcoef(found, np.arange(4096))[0, 1]) < 0.06
    assert (np.abs(np.diff(found)) < 40).mean() < 0.05
    assert permute(np.arange(6), 10**8, 0).tolist() == permute(np.arange(6), 10**8, 2**64).tolist()
    large = permute(np.arange(1000), 10**8, 7)
    assert len(set(large.tolist())) == 1000 and large.max() < 10**8 and large.max() > 9 * 10**7


def test_permutations_stay_as_they_are() -> None:
    """Runs are resumed with the next version of this package and of numpy."""
    assert permute(np.arange(6), 10**8, 7).tolist() == GOLDEN


GOLDEN = [69662479, 39249176, 11652487, 3098899, 47037336, 43706211]


def test_permute_is_for_shuffling(tiny: Path) -> None:
    with pytest.raises(ValueError, match="order='permute' is an order of shuffling: give shuffle=True"):
        DataLoader(ShardDataset(tiny, TINY), 4, order="permute")
    with pytest.raises(ValueError, match="order is 'random', want 'torch', 'permute' or 'blocks'"):
        DataLoader(ShardDataset(tiny, TINY), 4, shuffle=True, order="random")


def test_seeds_at_the_end_of_their_range(tiny: Path) -> None:
    for order in ("torch", "permute"):
        sampler = EpochSampler(range(9), shuffle=True, seed=2**64 - 1, order=order)
        sampler.set_epoch(3)
        assert sorted(sampler) == list(range(9))
    for epoch in (-1, 2**32):
        with pytest.raises(ValueError, match=f"epoch is {epoch}, want"):
            sampler.set_epoch(epoch)


def test_a_pickled_sampler_keeps_its_rank(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawned process has no process group. One that is pickled before there is any takes it up where it wakes."""
    from pass_loader.loading import sampler

    early = pickle.dumps(DataLoader(ShardDataset(tiny, TINY), 4))
    monkeypatch.setattr(sampler, "initialized_rank", lambda: (1, 3))
    late = pickle.dumps(DataLoader(ShardDataset(tiny, TINY), 4))
    assert pickle.loads(early).sampler.place == (1, 3)
    monkeypatch.setattr(sampler, "initialized_rank", lambda: None)
    assert pickle.loads(late).sampler.place == (1, 3) and pickle.loads(early).sampler.place == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_removal_under_an_endless_order(tiny: Path, tmp_path: Path, world: int) -> None:
    """From the next pass on; each pass has the order and the views of its epoch, and states go on exactly."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))

    def finite(epoch: int) -> Any:
        ranks = Ranks(copy, 1, 12)
        ranks.loaders[0].sampler.set_epoch(epoch)
        return whole_epoch(ranks)

    want = finite(0)
    steps = (ranks := Ranks(copy, world, 12, infinite=True)).steps()
    got = [sample for _ in range(2) for sample in merged(next(steps))]
    early = ranks.state()
    remove(copy, ["07"], reason="in the first pass")
    want += finite(1)
    states: list[dict[str, Any]] = []
    for step in range(2, 22):
        got += merged(next(steps))
        states.append(ranks.state())
        if step == 7:  # in the second pass
            remove(copy, ["11"], reason="in the second pass")
            want += finite(2) + finite(3) + finite(4) + finite(5)
    assert got == want[: len(got)] and len(got) == 264
    assert Counter(record for record, _ in got)[7] == 1 and Counter(record for record, _ in got)[11] == 2
    records = np.sort([record for record, _ in got[-12:]])
    assert np.array_equal(np.sort(records_of_last_batch(ranks.loaders[0].dataset, states[-1])), records)

    for after, state in itertools.product((1, 2), states[8:]):  # the third pass has begun
        assert state["samples"] == COUNT - 2 and state["generation"] == Pack(copy).generation
        rest = Ranks(copy, after, 12, infinite=True).load(state).steps()
        place = state["position"]
        assert [s for _ in range(6) for s in merged(next(rest))] == want[place : place + 72], (after, place)
    replaced = Ranks(copy, 2, 12, infinite=True, on_error="replace").load(early)
    rest = replaced.steps()
    resumed = [s for _ in range(10) for s in merged(next(rest))]
    gone = [record for record, _ in want[24:62]].count(7) + [record for record, _ in want[24:62]].count(11)
    assert sum(len(loader.errors) for loader in replaced.loaders) == gone
    assert resumed[38:98] == [sample for sample in finite(1)], "without both"


def test_a_removal_does_not_raise_for_ever(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    first = Ranks(copy, 1, 2, infinite=True)
    next(first.steps())
    state = first.state()
    gone = whole_epoch(Ranks(copy, 1, 2))[20][0]
    remove(copy, [f"{gone:02d}"], reason="x")
    iterator, raised, records = iter(Ranks(copy, 1, 2, infinite=True).load(state).loaders[0]), 0, []
    while len(records) < 3 * COUNT:
        try:
            records += [record for record, _ in seen(next(iterator))]
        except RecordError:
            raised += 1
    assert raised == 1 and gone not in records


def test_torchs_loader_after_a_removal(tiny: Path, tmp_path: Path) -> None:
    """set_epoch of the dataset or of a map. The map keeps its positions: parts that were split stay apart."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    data, other = ShardDataset(copy, TINY, seed=5), ShardDataset(copy, TINY, seed=5)
    mapped = other.as_map()
    data.set_epoch(0)
    mapped.set_epoch(0)
    kept = [view.clone() for (view,), _ in mapped]
    remove(copy, ["07"], reason="x")
    assert len(list(data)) == COUNT and len(list(mapped)) == COUNT, "not before"
    data.set_epoch(0)
    mapped.set_epoch(0)
    assert len(list(data)) == len(data) == COUNT - 1 and len(mapped) == COUNT
    now = [view for (view,), _ in mapped]
    assert [torch.equal(a, b) for a, b in zip(now, kept)] == [record != 7 for record in range(COUNT)]
    assert any(torch.equal(now[7], view) for record, view in enumerate(kept) if record != 7)
    other.set_epoch(0)
    assert torch.equal(other.as_map()[7][0][0], kept[8]), "a new one has the records of now"


# ---- processes ----


def records_of(loader: DataLoader) -> list[int]:
    return [int(record) for *_, info in loader for record in info["records"]]


def resumed_and_removing(rank: int, world: int, copy: Path, state: dict[str, Any]) -> dict[str, Any]:
    """One process of two: goes on with a state of three ranks, then epochs between which pictures are removed."""
    out: dict[str, Any] = {}
    loader = DataLoader(ShardDataset(copy, TINY, seed=5), 6, shuffle=True, num_workers=1, return_info=True)
    out["alone"] = len(loader)  # before the group is there, as a script that reads its schedule early
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    barrier = torch.distributed.barrier
    if rank == 0:  # what only the first rank does: another loader, a look at a batch, evaluation on its own
        next(iter(DataLoader(ShardDataset(copy, TINY, seed=1), 6, num_workers=0)))
        records_of(DataLoader(ShardDataset(copy, TINY, seed=5), 6, rank=0, world_size=1, return_info=True))
    loader.load_state_dict(state)
    out["resumed"] = [seen(batch) for batch in loader]
    out["state"] = loader.state_dict()
    out["length"] = len(loader)

    loader.sampler.set_epoch(1)
    if rank == 1:
        remove(copy, ["07"], reason="between two epochs, by one process")
    barrier()
    out["removed"] = records_of(loader)

    loader.sampler.set_epoch(2)
    if rank == 0:
        next(iter(loader))  # a look at one batch, on one rank alone
    loader.sampler.set_epoch(3)
    if rank == 0:  # begins before the removal, the other one after it
        iterator = iter(loader)
        first = next(iterator)
        barrier()
        remove(copy, ["11"], reason="a race")
        barrier()
        out["race"] = records_of([first, *iterator])  # type: ignore[arg-type]
    else:
        barrier()
        barrier()
        out["race"] = records_of(loader)
    out["served"] = len(loader.dataset)
    barrier()
    loader.sampler.set_epoch(4)
    if rank == 1:  # the pack of this process was refreshed before, the other one's not
        Pack(copy)
        loader.dataset.pack.refresh()
    barrier()
    out["after"] = records_of(loader)
    barrier()
    return out


@pytest.mark.slow
def test_two_processes_resume_and_agree_on_removals(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    before = Ranks(copy, 3, 12)
    want = whole_epoch(Ranks(copy, 3, 12))
    steps = before.steps()
    got = [sample for _ in range(2) for sample in merged(next(steps))]
    first, second = on_ranks(resumed_and_removing, copy, before.state())

    assert first["alone"] == second["alone"] == 11 and first["length"] == second["length"] == 6
    for mine, theirs in zip(first["resumed"], second["resumed"]):
        got += [part[place] for place in range(len(mine)) for part in (mine, theirs) if place < len(part)]
    assert got[: len(want)] == want and len(first["resumed"]) == len(second["resumed"]) == 4
    assert first["state"] == second["state"] and first["state"]["epoch"] == 1

    for name, gone in (("removed", {7}), ("race", {7}), ("after", {7, 11})):
        assert len(first[name]) == len(second[name]), name
        assert set(first[name]) | set(second[name]) == set(range(COUNT)) - gone, name
    assert first["served"] == second["served"] == COUNT - 1


def skipping(rank: int, world: int, copy: Path) -> str:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    data = ShardDataset(copy, TINY)
    words = []
    for arguments in ({"shuffle": True}, {"sampler": [1, 2, 3]}, {"infinite": True}):
        with pytest.raises(ValueError, match="use 'replace' on several ranks"):
            iter(DataLoader(data, 2, on_error="skip", **arguments))
        words.append("refused")
    list(DataLoader(data, 2, on_error="skip", rank=0, world_size=1))
    return " ".join(words)


@pytest.mark.slow
def test_skip_is_refused_on_several_ranks(tiny: Path) -> None:
    assert on_ranks(skipping, tiny) == ["refused refused refused"] * 2
    for arguments in ({}, {"infinite": True}):
        with pytest.raises(ValueError, match="use 'replace' on several ranks"):
            iter(DataLoader(ShardDataset(tiny, TINY), 2, on_error="skip", rank=0, world_size=2, **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 2, 5])
def test_the_same_tensors_from_any_start(tiny: Path, threads: int) -> None:
    """Threads x ranks x batch sizes x first position x instruction sets: a sample depends on (seed, epoch, record)."""
    want = dict(whole_epoch(Ranks(tiny, 1, COUNT)))
    for isa in _C.supported_isas():
        _C.set_isa(isa)
        for world, batch in ((1, 1), (1, 7), (2, 4), (3, 9), (4, 20)):
            ranks = Ranks(tiny, world, batch // world * world, threads)
            for loader in ranks.loaders:
                loader.advance(2)
            for record, view in whole_epoch(ranks):
                assert want[record] == view, (isa, world, batch)
    _C.set_isa("best")


@pytest.mark.slow
@pytest.mark.parametrize("world,workers", [(2, 2), (2, 0), (3, 2), (5, 1)])
def test_torchs_loader_on_several_ranks(tiny: Path, monkeypatch: pytest.MonkeyPatch, world: int, workers: int) -> None:
    """Under DDP unequal numbers of batches hang. 17 records on two ranks with two workers, batches of four."""
    from pass_loader.loading import dataset

    data = ShardDataset(tiny, TINY, seed=5, records=range(17))
    data.set_epoch(0)
    found, shapes = [], []
    for rank in range(world):
        monkeypatch.setattr(dataset, "initialized_rank", lambda place=(rank, world): place)
        batches = list(torch.utils.data.DataLoader(data, 4, num_workers=workers))
        shapes.append([len(labels) for _, labels in batches])
        found += [view.numpy().tobytes() for views, _ in batches for view in views[0]]
    assert all(shape == shapes[0] for shape in shapes) and len(found) == math.ceil(17 / world) * world
    assert set(found) == {data.sample(record)[0].numpy().tobytes() for record in range(17)}
