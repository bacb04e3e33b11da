"""Epochs and removals under torch's own DataLoader, which tells a dataset nothing of either."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data
from torch.utils.data import DistributedSampler, RandomSampler

from pass_loader import ConcatDataset, EpochSampler, ShardDataset
from pass_loader.loading import dataset as dataset_module
from pass_loader.loading.sampler import Position
from pass_loader.loading.torch_epochs import OwnNumbers, SharedEpoch
from pass_loader.pack import remove, restore

from ..helpers.epochs import TINY
from ..helpers.forked import ready

SPAWN = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn"}
SERVED = {**SPAWN, "multiprocessing_context": ready()}
WORKERS = [
    pytest.param({"num_workers": 0}, id="main"),
    pytest.param({"num_workers": 2}, id="fork", marks=pytest.mark.slow),
    pytest.param({"num_workers": 2, "persistent_workers": True}, id="persistent", marks=pytest.mark.slow),
    pytest.param(SERVED, id="forkserver", marks=pytest.mark.slow),
    pytest.param(SPAWN, id="spawn", marks=pytest.mark.long),
]
Shown = tuple[int, int, int, bytes]  # record, epoch, draw, the view


def bare(batch: list[Any]) -> list[Any]:
    return batch


def shown(loader: Any) -> list[Shown]:
    return [
        (info["record"], info["epoch"], info["draw"], views[0].numpy().tobytes())
        for batch in loader
        for views, _, info in batch
    ]


def torchs(data: Any, **given: Any) -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(data, 4, collate_fn=bare, **given)


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "own"))


def expected(dataset: ShardDataset, records: list[int], epoch: int) -> list[bytes]:
    return [dataset.sample(record, epoch)[0].numpy().tobytes() for record in records]


@pytest.mark.parametrize("workers", [*WORKERS[:4], pytest.param(SPAWN, id="spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("which", ["map", "dataset"])
def test_set_epoch_reaches_workers(tiny: Path, workers: dict[str, Any], which: str) -> None:
    """Exactly the views of our own loader, in every epoch."""
    dataset = ShardDataset(tiny, TINY, seed=5, records=range(12))
    samples = dataset.as_map(return_info=True)
    loader = torchs(samples, **workers)
    for epoch in (3, 0, 7):
        (samples if which == "map" else dataset).set_epoch(epoch)
        found = shown(loader)
        assert [one[:3] for one in found] == [(record, epoch, 0) for record in range(12)]
        assert [one[3] for one in found] == expected(dataset, list(range(12)), epoch)
    assert samples.epoch == 7


@pytest.mark.parametrize("workers", WORKERS)
def test_set_epoch_reaches_workers_of_an_iterable(tiny: Path, workers: dict[str, Any]) -> None:
    dataset = ShardDataset(tiny, TINY, seed=5, records=range(12))
    loader = torchs(dataset, **workers)
    for epoch in (3, 0):
        dataset.set_epoch(epoch)
        found = sorted(views[0].numpy().tobytes() for batch in loader for views, _ in batch)
        assert found == sorted(expected(dataset, list(range(12)), epoch))


def test_the_last_call_counts(tiny: Path) -> None:
    dataset = ShardDataset(tiny, TINY)
    first, second = dataset.as_map(), dataset.as_map()
    dataset.set_epoch(1)
    first.set_epoch(2)
    assert (first.epoch, second.epoch, dataset.epoch) == (2, 1, 1)
    dataset.set_epoch(3)
    assert (first.epoch, second.epoch) == (3, 3)
    for wrong in (-1, 2**32):
        for one in (dataset, first):
            with pytest.raises(ValueError, match="epoch is"):
                one.set_epoch(wrong)
    assert first.epoch == 3


@pytest.mark.parametrize("workers", WORKERS[:3])
def test_our_sampler_brings_its_epoch(tiny: Path, workers: dict[str, Any]) -> None:
    """Order and views of our own loader; an epoch that was gone through brings the next views when it comes again."""
    dataset = ShardDataset(tiny, TINY, seed=5, records=range(12))
    samples = dataset.as_map(return_info=True)
    sampler = EpochSampler(samples, shuffle=True, rank=0, world_size=1)
    loader = torchs(samples, sampler=sampler, **workers)
    for order_epoch, epoch in ((0, 0), (4, 4), (4, 5), (5, 6), (1, 1)):
        sampler.set_epoch(order_epoch)
        found = shown(loader)
        theirs = DistributedSampler(samples, num_replicas=1, rank=0, shuffle=True)
        theirs.set_epoch(order_epoch)
        assert [one[:3] for one in found] == [(record, epoch, 0) for record in theirs]
        assert [one[3] for one in found] == expected(dataset, list(theirs), epoch)


def test_positions_are_numbers(tiny: Path) -> None:
    sampler = EpochSampler(range(5), shuffle=False, rank=0, world_size=1)
    assert not any(isinstance(position, Position) for position in sampler)
    sampler.set_epoch(3)
    positions = list(sampler)
    assert positions == [0, 1, 2, 3, 4] and all(type(position) is Position for position in positions)
    twin = pickle.loads(pickle.dumps(positions[2]))
    assert (twin, twin.epoch, type(twin)) == (2, 3, Position)
    endless = EpochSampler(range(3), shuffle=False, rank=0, world_size=1, infinite=True)
    endless.set_epoch(2)
    assert [position.epoch for position, _ in zip(endless, range(7))] == [2, 2, 2, 3, 3, 3, 4]  # type: ignore[attr-defined]


def samplers(samples: Any) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "none": dict,
        "random": lambda: {"sampler": RandomSampler(samples)},
        "distributed": lambda: {"sampler": DistributedSampler(samples, num_replicas=1, rank=0)},
        "subset": lambda: {},
    }


def run(tiny: Path, sampler: str, workers: dict[str, Any], epochs: int = 3) -> tuple[ShardDataset, list[Shown]]:
    torch.manual_seed(11)
    dataset = ShardDataset(tiny, TINY, seed=5, records=range(12))
    samples: Any = dataset.as_map(return_info=True)
    given = samplers(samples)[sampler]()
    if sampler == "subset":
        samples = torch.utils.data.Subset(samples, range(2, 9))
    loader = torchs(samples, **given, **workers)
    return dataset, [one for _ in range(epochs) for one in shown(loader)]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("sampler", ["none", "random", "distributed", "subset"])
def test_views_never_repeat_by_themselves(tiny: Path, sampler: str, workers: dict[str, Any]) -> None:
    """Nobody calls set_epoch. A run under torch.manual_seed repeats itself, and its info replays every view."""
    dataset, found = run(tiny, sampler, workers)
    assert len({(record, view) for record, _, _, view in found}) == len(found) in (36, 21)
    assert len({(epoch, draw) for _, epoch, draw, _ in found}) == len(found)
    for record, epoch, draw, view in found:
        assert dataset.sample(record, epoch, draw)[0].numpy().tobytes() == view
    assert run(tiny, sampler, workers)[1] == found


@pytest.mark.parametrize("workers", WORKERS[:3])
def test_views_of_an_iterable_never_repeat(tiny: Path, workers: dict[str, Any]) -> None:
    def views() -> list[bytes]:
        torch.manual_seed(11)
        loader = torchs(ShardDataset(tiny, TINY, seed=5, records=range(12)), **workers)
        return [views[0].numpy().tobytes() for _ in range(3) for batch in loader for views, _ in batch]

    found = views()
    assert len(set(found)) == len(found) == 36 and views() == found


def test_numbers_differ_by_rank_and_worker_and_count(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(3)
    with caplog.at_level(logging.INFO, logger="pass_loader"):
        numbers = [OwnNumbers() for _ in range(2)]
        first = [numbers[0].next(rank=0) for _ in range(3)]
        other = numbers[1].next(rank=1)
    epoch, draw = first[0]
    assert [(e * 65536 + d) - (epoch * 65536 + draw) for e, d in first] == [0, 1, 2] and other not in first
    assert [record.args for record in caplog.records] == [(0, -1, *first[0]), (1, -1, *other)]
    torch.manual_seed(4)
    assert OwnNumbers().next(rank=0) != first[0]


@pytest.mark.slow
def test_ranks_have_numbers_of_their_own(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks with one seed, as scripts have it that seed before they know their rank."""
    found = []
    for rank in range(3):
        monkeypatch.setattr(dataset_module, "initialized_rank", lambda rank=rank: (rank, 3))
        found += run(tiny, "none", {"num_workers": 2})[1]
    assert len({one[:3] for one in found}) == len(found)


@pytest.mark.slow
def test_weights_have_their_shares(tiny: Path, own: Path) -> None:
    parts = [ShardDataset(tiny, TINY, seed=5), ShardDataset(own, TINY, seed=5)]
    dataset = ConcatDataset(parts, weights=[3, 1], num_samples=40)
    found = [one for _ in range(3) for one in shown(torchs(dataset.as_map(return_info=True), num_workers=2))]
    assert sum(record < 62 for record, *_ in found) == 90 and len(found) == 120
    assert len({one[:3] for one in found}) == len(found)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("how", ["nobody", "map", "dataset", "sampler", "iterable", "iterable, set"])
def test_removals_reach_workers(own: Path, workers: dict[str, Any], how: str) -> None:
    """A picture that was removed is not served in the next epoch, and comes back when it is restored."""
    dataset = ShardDataset(own, TINY, seed=5, labels=list(range(62)))  # a label tells its record
    samples: Any = dataset if how.startswith("iterable") else dataset.as_map()
    sampler = EpochSampler(samples, shuffle=True, rank=0, world_size=1) if how == "sampler" else None
    loader = torchs(samples, sampler=sampler, **workers)
    setter: Any = {"map": samples, "dataset": dataset, "sampler": sampler, "iterable, set": dataset}.get(how)

    def records(epoch: int) -> list[int]:
        if setter is not None:
            setter.set_epoch(epoch)
        return [int(label) for batch in loader for _, label in batch]

    assert sorted(records(0)) == list(range(62))
    remove(own, ["03", "04"], reason="x")
    without = records(1)
    assert set(without) == {*range(62)} - {3, 4}
    assert len(without) == (60 if how == "iterable, set" else 62), "positions stay"
    restore(own, ["03", "04"], reason="x")
    assert sorted(records(2)) == list(range(62))


def test_nothing_is_left_and_copies_go_their_own_way() -> None:
    before = set(os.listdir("/dev/shm"))
    shared = SharedEpoch(2)
    shared.set(5, (7, 8))
    twin, other = copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))
    assert shared.get() == twin.get() == other.get() and shared.get()[1:] == (5, (7, 8))
    twin.set(6, (0, 0))
    assert shared.get()[1] == other.get()[1] == 5
    assert set(os.listdir("/dev/shm")) <= before, "other programs may take theirs away meanwhile"
