"""Repeated augmentation: timm's and DeiT's order, on ranks, in mid-epoch, and under torch's own DataLoader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from pass_loader import ConcatDataset, DataLoader, EpochSampler, ShardDataset
from pass_loader.loading.replay import records_of_last_batch

from ..helpers.epochs import COUNT, TINY, Ranks, merged, seen


def as_deit(count: int, world: int, rank: int, epoch: int, repeats: int, shuffle: bool) -> list[int]:
    """DeiT's RASampler and timm's RepeatAugSampler in words of ours (facebookresearch/deit 7e160fe, samplers.py:30-60,
    timm 1.0.31, data/distributed_sampler.py:99-140, which selects from fewer than 256 pictures too)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch)) if shuffle else torch.arange(count)
    every = order.repeat_interleave(repeats).tolist()
    per_rank = math.ceil(len(every) / world)
    every += every[: per_rank * world - len(every)]
    selected = count // 256 * 256 // world if count >= 256 else math.ceil(count / world)
    return every[rank::world][:selected]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("count, repeats, world", [(1000, 3, 4), (1000, 3, 1), (300, 2, 7), (62, 3, 5), (3, 4, 7)])
def test_order(count: int, repeats: int, world: int, shuffle: bool) -> None:
    """Kills: an epoch of all repeats, ranks that have a picture's repeats one after the other, draws that repeat."""
    drawn = []
    for rank in range(world):
        sampler = EpochSampler(range(count), shuffle=shuffle, rank=rank, world_size=world, repeats=repeats)
        for epoch in (0, 5):
            sampler.set_epoch(epoch)
            found = [*sampler]
            assert [int(position) for position, _ in found] == as_deit(count, world, rank, epoch, repeats, shuffle)
            assert len(found) == len(sampler)
            drawn += [(epoch, int(position), draw) for position, draw in found]
    past_the_end = max(0, len(drawn) // 2 - count * repeats)
    assert len(drawn) - len({*drawn}) == 2 * past_the_end


@pytest.mark.parametrize("count, repeats, world", [(1000, 3, 4), (62, 3, 5), (300, 2, 7)])
def test_timms_own_sampler(count: int, repeats: int, world: int) -> None:
    theirs_of = pytest.importorskip("timm.data.distributed_sampler").RepeatAugSampler
    for rank in range(world):
        theirs = theirs_of(range(count), world, rank, num_repeats=repeats)
        ours = EpochSampler(range(count), shuffle=True, rank=rank, world_size=world, repeats=repeats)
        for epoch in (0, 3):
            theirs.set_epoch(epoch)
            ours.set_epoch(epoch)
            assert [int(position) for position, _ in ours] == [*theirs] and len(ours) == len(theirs)


def test_loader(tiny: Path) -> None:
    """Repeats have other views, those of their draw; the last batch of a state is found again."""
    dataset = ShardDataset(tiny, TINY, seed=5)
    loader = DataLoader(dataset, 8, shuffle=True, repeats=3, return_info=True)
    assert len(loader) == math.ceil(COUNT / 8)
    views: dict[int, set[bytes]] = {}
    for batch in loader:
        for (record, view), draw in zip(seen(batch), batch[2]["draws"].tolist()):
            assert dataset.sample(record, 0, draw)[0].numpy().tobytes() == view
            views.setdefault(record, set()).add(view)
        assert np.array_equal(records_of_last_batch(dataset, loader.state_dict()), batch[2]["records"].numpy())
        assert not batch[2]["padding"].any()
    assert len(views) == math.ceil(COUNT / 3) and sum(map(len, views.values())) == COUNT


@pytest.mark.parametrize("order", ["torch", "permute"])
@pytest.mark.parametrize("worlds", [(2, 3), (3, 1), (1, 6)])
def test_resume_on_other_ranks(tiny: Path, worlds: tuple[int, int], order: str) -> None:
    """Kills: draws that begin anew, an end that moves with the ranks, a state without repeats."""
    before, after = (Ranks(tiny, world, 12, repeats=3, order=order) for world in worlds)
    whole = [merged(batches) for batches in Ranks(tiny, worlds[0], 12, repeats=3, order=order).steps()]
    steps = before.steps()
    assert [merged(next(steps)) for _ in range(2)] == whole[:2]
    state = before.state()
    assert state["order"]["repeats"] == 3
    rest = [sample for batches in after.load(state).steps() for sample in merged(batches)]
    want = [sample for step in whole[2:] for sample in step]
    assert rest[: len(want)] == want and len(rest) - len(want) == max(0, worlds[1] - COUNT % 12)  # one a rank at least


def test_states_without_repeats_are_refused(tiny: Path) -> None:
    dataset = ShardDataset(tiny, TINY)
    plain, repeated = DataLoader(dataset, 4, shuffle=True), DataLoader(dataset, 4, shuffle=True, repeats=2)
    assert "repeats" not in plain.state_dict()["order"]
    for loader, state in ((plain, repeated.state_dict()), (repeated, plain.state_dict())):
        with pytest.raises(ValueError, match="the order was"):
            loader.load_state_dict(state)


@pytest.mark.slow
def test_under_torchs_loader(tiny: Path) -> None:
    """The same views as ours, with worker processes."""
    dataset = ShardDataset(tiny, TINY, seed=5)
    view_map = dataset.as_map(return_info=True)
    sampler = EpochSampler(view_map, shuffle=True, repeats=3)
    sampler.set_epoch(2)
    loader = DataLoader(dataset, 8, shuffle=True, repeats=3, return_info=True)
    loader.sampler.set_epoch(2)
    theirs = data.DataLoader(view_map, 8, sampler=sampler, num_workers=2)
    for (views, _, info), (found, _, told) in zip(loader, theirs, strict=True):
        assert torch.equal(views[0], found[0]) and told["draw"].tolist() == info["draws"].tolist()


def test_refusals(tiny: Path) -> None:
    dataset = ShardDataset(tiny, TINY)
    for arguments in ({"infinite": True}, {"order": "blocks"}):
        with pytest.raises(ValueError, match="repeats go with epochs"):
            DataLoader(dataset, 4, shuffle=True, repeats=2, **arguments)  # type: ignore[arg-type]
    for repeats in (0, 70_000):
        with pytest.raises(ValueError, match=f"repeats is {repeats}"):
            DataLoader(dataset, 4, repeats=repeats)
    with pytest.raises(ValueError, match="a sampler decides"):
        DataLoader(dataset, 4, repeats=2, sampler=[0, 1])
    for name in ("RASampler", "RepeatAugSampler"):  # timm's and DeiT's
        theirs = type(name, (list,), {"num_repeats": 3, "num_selected_samples": 62})([0, 0, 0])
        with pytest.raises(ValueError, match=f"{name} yields .* shuffle=True, repeats=3"):
            DataLoader(dataset, 4, sampler=theirs)
        theirs.num_repeats = 1
        assert len(DataLoader(dataset, 4, sampler=theirs)) == 1
    weighted = ConcatDataset([dataset, dataset], weights=[1, 2])
    for given in (weighted, weighted.as_map()):
        with pytest.raises(ValueError, match="repeats and weights"):
            EpochSampler(given, shuffle=True, repeats=2)


@pytest.mark.parametrize("world", [1, 2, 3, 5, 7])
def test_padding_is_told(tiny: Path, world: int) -> None:
    """Without it, all ranks together have each picture once. Kills: a rank's first samples taken for padding, one that
    is told on the wrong rank."""
    arguments: dict[str, Any] = {"world_size": world, "return_info": True, "shuffle": True}
    counted: list[int] = []
    padded = 0
    for rank in range(world):
        for _, _, info in DataLoader(ShardDataset(tiny, TINY), 4, rank=rank, **arguments):
            counted += info["records"][~info["padding"]].tolist()
            padded += int(info["padding"].sum())
    assert sorted(counted) == [*range(COUNT)] and padded == -COUNT % world


def test_padding_after_resuming_on_more_ranks(tiny: Path) -> None:
    """The last step has 2 samples left, on 3 ranks."""
    before, after = Ranks(tiny, 2, 12), Ranks(tiny, 3, 12)
    steps = before.steps()
    counted = []
    for _ in range(3):
        counted += [record for batch in next(steps) for record in batch[2]["records"].tolist()]
    for batches in after.load(before.state()).steps():
        for _, _, info in batches:
            counted += info["records"][~info["padding"]].tolist()
    assert sorted(counted) == [*range(COUNT)]


def test_padding_of_skipped_batches(broken_pack: Path) -> None:
    (batch,) = DataLoader(ShardDataset(broken_pack, TINY), 64, return_info=True, on_error="skip")
    assert len(batch[2]["padding"]) == len(batch[2]["records"]) < 62 and not batch[2]["padding"].any()
