"""DataLoader and ShardDataset: order, structures, determinism, memory that is never overwritten."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler

import pass_loader
from pass_loader import DataLoader, Recipe, ShardDataset, ViewSpec, _C, recipes
from pass_loader.recipes import reference

from ..helpers.forked import ready

SMALL = recipes.dino(local_crops=2, global_size=32, local_size=16)


@pytest.fixture
def dataset(pack: Path) -> ShardDataset:
    return ShardDataset(pack, SMALL, seed=7)


def records_of(loader: DataLoader) -> list[int]:
    assert loader.return_info
    return [int(r) for *_, info in loader for r in info["records"]]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("shuffle", [True, False])
def test_order_is_torchs_distributed_samplers(dataset: ShardDataset, world: int, shuffle: bool) -> None:
    """Index for index, padding included (23 records on 2, 3 and 5 ranks)."""
    for rank in range(world):
        ours = DataLoader(dataset, 4, shuffle=shuffle, num_workers=1, rank=rank, world_size=world, return_info=True)
        theirs = DistributedSampler(dataset, num_replicas=world, rank=rank, shuffle=shuffle)
        for epoch in (0, 3):
            ours.sampler.set_epoch(epoch)
            theirs.set_epoch(epoch)
            assert records_of(ours) == list(theirs)
        assert len(ours) == math.ceil(len(theirs) / 4)


def test_more_ranks_than_records(tmp_path: Path, dataset: ShardDataset) -> None:
    sampler = pass_loader.EpochSampler(range(3), shuffle=False, rank=6, world_size=8)
    assert list(sampler) == list(DistributedSampler(range(3), num_replicas=8, rank=6, shuffle=False)) == [0]


def test_generator_seeds_the_order(dataset: ShardDataset) -> None:
    loader = DataLoader(dataset, 5, shuffle=True, generator=torch.Generator().manual_seed(11), return_info=True)
    theirs = DistributedSampler(dataset, num_replicas=1, rank=0, seed=11)
    assert records_of(loader) == list(theirs)


def test_lengths_and_drop_last(dataset: ShardDataset) -> None:
    for batch_size in (1, 4, 23, 24):
        for drop_last in (False, True):
            loader = DataLoader(dataset, batch_size, num_workers=2, drop_last=drop_last)
            sizes = [len(labels) for _, labels in loader]
            assert len(sizes) == len(loader)
            assert all(size == batch_size for size in sizes[:-1]) and sum(sizes) == (
                23 // batch_size * batch_size if drop_last else 23
            )


@pytest.mark.parametrize("name", ["dino", "swav", "mocov2"])
def test_batches_have_the_official_structure(pack: Path, name: str) -> None:
    """DINO and MoCo: (list, labels); SwAV: a bare list. Lists, so that scripts may assign into them; views of one size
    are neighbours in memory."""
    recipe = recipes.PRESETS[name]()
    batch = next(iter(DataLoader(ShardDataset(pack, recipe), 2, num_workers=2)))
    if name == "swav":
        views = batch
    else:
        views, labels = batch
        assert isinstance(batch, tuple) and labels.dtype == torch.int64 and labels.tolist() == [-1, -1]
    assert type(views) is list
    want = {"dino": [224] * 2 + [96] * 8, "swav": [224] * 2 + [96] * 6, "mocov2": [224] * 2}[name]
    assert [tuple(view.shape) for view in views] == [(2, 3, side, side) for side in want]
    for view, following in zip(views, views[1:]):
        assert view.dtype == torch.float32 and view.is_contiguous() and not view.is_pinned()
        if view.shape == following.shape:
            assert following.data_ptr() == view.data_ptr() + view.nbytes
    views[0] = views[0].clone()


def test_batches_equal_pillow(pack: Path) -> None:
    """The whole way at once: what a batch holds is Pillow's decode, steps and torch's normalisation of the plan."""
    dataset = ShardDataset(pack, recipes.swav(), seed=123)
    for views, info in DataLoader(dataset, 6, shuffle=True, num_workers=2, return_info=True):
        for slot, record in enumerate(info["records"].tolist()):
            picture = reference.decode(dataset.read(record))
            assert np.array_equal(info["plans"][slot], dataset.plan(record, epoch=0))
            for view, plan in zip(views, info["plans"][slot]):
                want = reference.normalize(reference.render(picture, plan), dataset.recipe)
                assert np.array_equal(view[slot].numpy(), want)


def test_return_info(dataset: ShardDataset) -> None:
    views, labels, info = next(iter(DataLoader(dataset, 3, shuffle=True, return_info=True)))
    assert set(info) == {"records", "epochs", "draws", "ids", "valid", "padding", "plans", "boxes"}
    assert info["ids"] == [dataset.id_of(int(r)) for r in info["records"]]
    assert info["valid"].all() and not info["padding"].any() and info["plans"].shape == (3, 4)
    assert info["boxes"][2, 1].tolist() == [
        int(info["plans"][2, 1][f"crop_{name}"]) for name in ("x", "y", "width", "height")
    ]
    views, labels, plans = next(iter(DataLoader(dataset, 3, shuffle=True, return_plan=True)))
    assert np.array_equal(plans, info["plans"])
    *_, plans, again = next(iter(DataLoader(dataset, 3, shuffle=True, return_plan=True, return_info=True)))
    assert np.array_equal(plans, again["plans"]) and torch.equal(again["boxes"], info["boxes"])


def test_single_samples_are_what_batches_hold(dataset: ShardDataset) -> None:
    loader = DataLoader(dataset, 4, shuffle=True, num_workers=2, return_info=True)
    loader.sampler.set_epoch(2)
    for views, _, info in loader:
        for slot, record in enumerate(info["records"].tolist()):
            sample = dataset.sample(record, epoch=2)
            assert all(torch.equal(view[slot], one) for view, one in zip(views, sample))
    rendered = dataset.render(5, epoch=2)
    for one, view in zip(dataset.sample(5, epoch=2), rendered):
        assert np.array_equal(reference.normalize(view, SMALL), one.numpy())
    assert not torch.equal(dataset.sample(5, epoch=2)[0], dataset.sample(5, epoch=2, draw=1)[0])


def epoch_of(loader: DataLoader) -> dict[int, list[torch.Tensor]]:
    out = {}
    for views, _, info in loader:
        for slot, record in enumerate(info["records"].tolist()):
            out[record] = [view[slot].clone() for view in views]
    return out


def test_same_views_on_any_threads_ranks_batches_and_levels(dataset: ShardDataset) -> None:
    want = epoch_of(DataLoader(dataset, 23, return_info=True))
    for isa in _C.supported_isas():
        _C.set_isa(isa)
        for threads, batch_size, world in ((0, 3, 1), (1, 4, 2), (3, 5, 1), (2, 1, 3)):
            for rank in range(world):
                loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=threads, rank=rank, world_size=world,
                                    return_info=True)  # fmt: skip
                for record, views in epoch_of(loader).items():
                    assert all(torch.equal(a, b) for a, b in zip(views, want[record])), (isa, threads, record)
    _C.set_isa("best")


def test_epochs(dataset: ShardDataset) -> None:
    """A forgotten set_epoch repeats the order, as in torch, but not the views."""
    loader = DataLoader(dataset, 8, shuffle=True, return_info=True)
    first, second = epoch_of(loader), epoch_of(loader)
    assert list(first) == list(second)
    assert not torch.equal(first[3][0], second[3][0])
    assert torch.equal(second[3][0], dataset.sample(3, epoch=1)[0])
    loader.sampler.set_epoch(9)
    third = epoch_of(loader)
    assert list(third) != list(first) and torch.equal(third[3][0], dataset.sample(3, epoch=9)[0])
    again = DataLoader(dataset, 8, shuffle=True, return_info=True)
    assert torch.equal(epoch_of(again)[3][0], first[3][0])


def test_foreign_samplers(dataset: ShardDataset) -> None:
    loader = DataLoader(dataset, 2, sampler=[4, 4, 0, 22, 1], num_workers=1, return_info=True)
    assert records_of(loader) == [4, 4, 0, 22, 1] and len(loader) == 3
    draws = DataLoader(dataset, 2, sampler=[(4, 0), (4, 1)], return_info=True)
    views, _, info = next(iter(draws))
    assert torch.equal(views[0][0], dataset.sample(4)[0]) and torch.equal(views[0][1], dataset.sample(4, draw=1)[0])
    with pytest.raises(IndexError, match=r"outside \[0, 23\)\. Were records removed .*make the sampler anew"):
        list(DataLoader(dataset, 2, sampler=[3, 23]))
    endless = DataLoader(dataset, 2, sampler=iter([1, 2, 3]))
    with pytest.raises(TypeError, match="no length"):
        len(endless)
    assert sum(len(labels) for _, labels in endless) == 3


@pytest.mark.slow
def test_a_held_batch_is_never_overwritten(dataset: ShardDataset) -> None:
    """Kills: a ring that reuses buffers by counting. Also memory that came from a part of a batch only."""
    loader = DataLoader(dataset, 4, shuffle=True, num_workers=2, prefetch_factor=1)
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    for _ in range(3):
        for views, _ in loader:
            held.append((views[1], views[1].clone()))  # one view keeps the allocation of its size alive
        gc.collect()
    assert all(torch.equal(a, b) for a, b in held)


def test_memory_returns_and_is_reused(dataset: ShardDataset) -> None:
    loader = DataLoader(dataset, 23, num_workers=1)
    pointers = set()
    for _ in range(10):
        for views, _ in loader:
            pointers.add(views[0].data_ptr())
        del views
    assert len(pointers) <= 3


@pytest.mark.slow
def test_abandoned_and_nested_iterators(dataset: ShardDataset) -> None:
    before = {*threading.enumerate()}
    loader = DataLoader(dataset, 2, shuffle=True, num_workers=2, return_info=True)
    whole = records_of(loader)
    for _ in range(20):
        iterator = iter(loader)
        next(iterator)
        del iterator  # the threads are still writing into the next batches
    outer = [int(info["records"][0]) for *_, info in loader if records_of(loader) == whole]
    assert outer == whole[::2]
    loaders = [iter(DataLoader(dataset, 3, num_workers=2, return_info=True)) for _ in range(4)]
    for batches in zip(*loaders):
        assert len({views[0].data_ptr() for views, *_ in batches}) == 4
        assert len({tuple(info["records"].tolist()) for *_, info in batches}) == 1
    del loader, loaders
    gc.collect()
    assert {*threading.enumerate()} <= before, "native threads are not Python's"


def test_arguments_without_a_meaning_are_refused(dataset: ShardDataset) -> None:
    for argument, value in {"worker_init_fn": print, "multiprocessing_context": "spawn"}.items():
        with pytest.raises(TypeError, match=f"{argument} has no meaning here: "):
            DataLoader(dataset, 2, **{argument: value})
    for arguments, message in (
        ({"batch_size": 0}, "batch_size is 0"), ({"num_workers": -1}, "num_workers is -1"),
        ({"prefetch_factor": 0}, "prefetch_factor is 0"), ({"rank": 0}, "give both or neither"),
        ({"rank": 2, "world_size": 2}, r"rank is 2, want \[0, 2\)"),
        ({"sampler": [0], "shuffle": True}, "without shuffle"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            DataLoader(dataset, **{"batch_size": 2, **arguments})
    with pytest.raises(TypeError, match="want a pass_loader.ShardDataset"):
        DataLoader([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="want a pass_loader.Recipe"):
        ShardDataset(dataset.pack, "dino")  # type: ignore[arg-type]
    for call in (
        lambda: dataset.sample(3, epoch=-1),
        lambda: dataset.plan(3, epoch=2**32),
        lambda: dataset.plan(3, draw=-1),
    ):
        with pytest.raises(ValueError, match=r"want \[0, "):
            call()
    with pytest.raises(TypeError):
        list(DataLoader(dataset, 2, sampler=[0.7]))
    with pytest.raises(ValueError, match="seed is -1"):
        ShardDataset(dataset.pack, SMALL, seed=-1)


def test_python_threads_share_a_loader_without_threads(dataset: ShardDataset) -> None:
    """Kills: scratch memory used by two callers at once. A crash test."""
    want = [view.clone() for view in dataset.sample(3)]
    loader = DataLoader(dataset, 4, return_info=True)
    records = records_of(loader)
    failed: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(30):
                assert all(torch.equal(a, b) for a, b in zip(dataset.sample(3), want))
            assert records_of(loader) == records
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.slow
def test_too_many_threads_raise(pack: Path) -> None:
    code = (
        "import resource, sys, pass_loader\n"
        "from pass_loader import recipes\n"
        "dataset = pass_loader.ShardDataset(sys.argv[1], recipes.mocov2(size=8))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (resource.getrusage(0).ru_maxrss * 1024 + (12 << 30),) * 2)\n"
        "try:\n"
        "    list(pass_loader.DataLoader(dataset, 4, num_workers=1024))\n"
        "except OSError as error:\n"
        "    assert 'cannot start thread' in str(error), error\n"
    )
    subprocess.run([sys.executable, "-c", code, str(pack)], check=True, timeout=120)


def test_pickles(dataset: ShardDataset) -> None:
    dataset.sample(3)
    other = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(other.sample(3)[0], dataset.sample(3)[0])
    loader = DataLoader(dataset, 4, num_workers=1, return_info=True)
    want = records_of(loader)
    assert records_of(pickle.loads(pickle.dumps(loader))) == want


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_under_torchs_own_loader(dataset: ShardDataset, context: str) -> None:
    """Worker processes split the records; every sample is there once, and is ours."""
    dataset.set_epoch(4)
    iter(DataLoader(dataset, 4, num_workers=1)).__next__()  # threads exist before the fork
    how = ready() if context == "forkserver" else context
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=how)
    assert len(loader) == 6
    samples = [view for views, labels in loader for view in views[0]]
    assert len(samples) == 23
    want = [dataset.sample(record, epoch=4)[0] for record in range(23)]
    assert all(any(torch.equal(sample, one) for one in want) for sample in samples)
    assert len({sample.sum().item() for sample in samples}) == 23
    alone = torch.utils.data.DataLoader(ShardDataset(dataset.pack, recipes.mocov2(size=32)), batch_size=23)
    views, labels = next(iter(alone))
    assert type(views) is list and views[0].shape == (23, 3, 32, 32) and labels.shape == (23,)


def in_child(loader: DataLoader, queue: Any) -> None:
    queue.put([int(r) for *_, info in loader for r in info["records"]])


def test_after_a_fork(dataset: ShardDataset) -> None:
    """A loader that has threads here makes new ones in a forked child, and neither hangs nor crashes at its end."""
    loader = DataLoader(dataset, 4, num_workers=2, return_info=True)
    want = records_of(loader)
    iterator = iter(loader)
    next(iterator)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(loader, queue))
    child.start()
    assert queue.get(timeout=60) == want
    child.join(60)
    assert child.exitcode == 0
    assert len(list(iterator)) == 5


def rank_main(rank: int, world: int, port: str, pack: Path, queue: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    loader = DataLoader(ShardDataset(pack, SMALL), 4, shuffle=True, num_workers=1, return_info=True)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)  # after the loader was made
    loader.sampler.set_epoch(1)
    queue.put((rank, len(loader), records_of(loader)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_of_torch_distributed(pack: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = ready()
    queue = context.Queue()
    children = [context.Process(target=rank_main, args=(rank, 2, port, pack, queue)) for rank in range(2)]
    for child in children:
        child.start()
    found = dict((rank, (length, records)) for rank, length, records in (queue.get(timeout=120) for _ in children))
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    for rank in range(2):
        theirs = DistributedSampler(range(23), num_replicas=2, rank=rank)
        theirs.set_epoch(1)
        assert found[rank] == (3, list(theirs))


def test_views_of_several_sizes_in_any_order(pack: Path) -> None:
    views = tuple(ViewSpec(size, (0.2, 1.0)) for size in (16, (24, 40), 16, 8, (24, 40)))
    dataset = ShardDataset(pack, Recipe("mixed", views))
    batch, _ = next(iter(DataLoader(dataset, 3, num_workers=1)))
    assert [tuple(v.shape[2:]) for v in batch] == [(16, 16), (24, 40), (16, 16), (8, 8), (24, 40)]
    for slot in range(3):
        assert all(torch.equal(view[slot], one) for view, one in zip(batch, dataset.sample(slot)))
