"""What torch's own tests ask of a DataLoader (pytorch test/test_dataloader.py), asked of ours where it makes sense."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data as data
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    random_split,
)

import pass_loader
from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.loading import pinning

from ..helpers.epochs import COUNT, TINY, seen
from ..helpers.processes import native_threads


WORKERS = [0, 1, 4]


@pytest.fixture
def dataset(tiny: Path) -> ShardDataset:
    return ShardDataset(tiny, TINY, seed=5)


def records(loader: Any) -> list[int]:
    return [record for batch in loader for record, _ in seen(batch)]


def load(dataset: ShardDataset, *arguments: Any, **named: Any) -> DataLoader:
    return DataLoader(dataset, *arguments, return_info=True, **named)


def test_the_signature_is_torchs(dataset: ShardDataset) -> None:
    """Every argument, in torch's order and kind, with torch's defaults; ours come after them, by name."""
    theirs = inspect.signature(data.DataLoader.__init__).parameters
    ours = inspect.signature(DataLoader.__init__).parameters
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind and ours[name].default == parameter.default, name
    assert [name for name in ours if name in theirs] == list(theirs)
    assert all(p.kind == p.KEYWORD_ONLY for name, p in ours.items() if name not in theirs)
    loader = DataLoader(dataset, 4, True, None, None, 2, None, False, True, 5, None, None, None, prefetch_factor=3,
                        persistent_workers=True, pin_memory_device="cuda", in_order=False)  # fmt: skip
    assert (loader.batch_size, loader.num_workers, loader.drop_last, loader.timeout) == (4, 2, True, 5)
    assert loader.dataset is dataset and loader.prefetch_factor == 3 and loader.persistent_workers
    assert loader.worker_init_fn is None and loader.multiprocessing_context is None, "frameworks read them"
    assert loader.sampler is loader.batch_sampler.sampler and loader.pin_memory_device == "cuda"
    assert sum(1 for _ in loader) == len(loader) == 15


def test_pin_memory_without_an_accelerator(dataset: ShardDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning when an iterator is made, as torch's, at the caller's line; batches come all the same. With one:
    test_pinning.py."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for kind in (DataLoader, data.DataLoader):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loader = kind(dataset, 4, pin_memory=True)
            assert loader.pin_memory is True
            next(iter(kind(dataset, 4, pin_memory_device="cuda")))
        with pytest.warns(UserWarning, match="no accelerator") as caught:
            assert not next(iter(loader))[1].is_pinned()
    with pytest.warns(UserWarning, match="no accelerator") as caught:
        loader = DataLoader(dataset, 4, pin_memory=True)
        iter(loader)
    assert [one.filename for one in caught] == [__file__] and loader.stats()["pinned_bytes"] == 0
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    with pytest.warns(UserWarning, match="MPS"):
        assert not next(iter(loader))[1].is_pinned()


def test_pin_memory_under_a_torch_that_tells_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.4 and 2.5: for CUDA, or what pin_memory_device names."""
    monkeypatch.delattr(torch, "accelerator")
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pinning.accelerator_type("") == ("cuda" if there else None)
        assert pinning.accelerator_type("xpu") == "xpu"
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pinning, "torchs_pin_memory", lambda batch, device: asked.append(device) or batch)
    for named in ("", "xpu"):
        one = pinning.Pinning()
        one.decide(True, named)
        one.pinned([])
    assert asked == [None, "xpu"], "as torch's own loader asks"


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_sequential_and_shuffled(dataset: ShardDataset, workers: int, batch_size: int) -> None:
    """Every record once, in order or not in order; the samples are those records'."""
    loader = load(dataset, batch_size, num_workers=workers, prefetch_factor=3)
    assert records(loader) == list(range(COUNT)) and len(loader) == math.ceil(COUNT / batch_size)
    shuffled = load(dataset, batch_size, shuffle=True, num_workers=workers)
    assert Counter(records(shuffled)) == Counter(range(COUNT)) and records(shuffled) != list(range(COUNT))
    for batch in shuffled:
        for record, view in seen(batch):
            assert view in {dataset.sample(record, epoch)[0].numpy().tobytes() for epoch in range(4)}
            break


def test_shuffling_is_reproducible(dataset: ShardDataset) -> None:
    """By the generator's seed, whatever the number of workers; torch's global seed has no say."""
    torch.manual_seed(1)
    first = records(load(dataset, 4, shuffle=True, generator=torch.Generator().manual_seed(42)))
    torch.manual_seed(2)
    assert first == records(load(dataset, 4, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(42)))
    assert first != records(load(dataset, 4, shuffle=True, generator=torch.Generator().manual_seed(43)))


@pytest.mark.parametrize("workers", [0, 2])
def test_samplers(dataset: ShardDataset, workers: int) -> None:
    """Any iterable of positions, in its order, as often as it says."""

    def with_seed(make: Any) -> list[Any]:
        return [make(torch.Generator().manual_seed(42)) for _ in range(2)]

    cases: list[list[Any]] = [
        [range(2, 12)] * 2, [[3, 3, 1]] * 2, [np.arange(5)] * 2, [torch.arange(5)] * 2, [(4,)] * 2,
        [SequentialSampler(dataset)] * 2, [DistributedSampler(dataset, 3, 1, seed=2)] * 2,
        with_seed(lambda g: RandomSampler(dataset, generator=g)),
        with_seed(lambda g: RandomSampler(dataset, replacement=True, num_samples=67, generator=g)),
        with_seed(lambda g: RandomSampler(dataset, num_samples=2 * COUNT, generator=g)),
        with_seed(lambda g: SubsetRandomSampler(range(10, 20), generator=g)),
        with_seed(lambda g: WeightedRandomSampler([0.1, 0.9, 0.4, 0.7, 3.0, 0.6], 5, generator=g)),
    ]  # fmt: skip
    for ours, theirs in cases:
        loader = load(dataset, 6, sampler=ours, num_workers=workers)
        want = [int(position) for position in theirs]
        assert records(loader) == want and loader.sampler is ours and len(loader) == math.ceil(len(want) / 6)


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_samplers(dataset: ShardDataset, workers: int) -> None:
    batches = [list(range(start, stop)) for i in range(0, 20, 5) for start, stop in ((i, i + 2), (i + 2, i + 5))]
    for given in (batches, tuple(map(tuple, batches)), [torch.tensor(batch) for batch in batches]):
        loader = load(dataset, batch_sampler=given, num_workers=workers)
        assert [[record for record, _ in seen(batch)] for batch in loader] == batches
        assert len(loader) == 8 and loader.batch_size is None and loader.batch_sampler is given
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    loader = load(dataset, batch_sampler=BatchSampler(sampler, 8, drop_last=True), num_workers=workers)
    assert [len(labels) for _, labels, _ in loader] == [8] * 7 and loader.sampler is sampler and not loader.drop_last
    assert Counter(records(loader)).most_common(1)[0][1] == 1


def test_no_duplicates_under_drop_last(dataset: ShardDataset) -> None:
    """torch#25162: ranks together see no record twice where the last batches are dropped."""
    found = []
    for rank in range(4):
        sampler = DistributedSampler(dataset, 4, rank)
        found += records(load(dataset, COUNT // 4, sampler=sampler, drop_last=True))
    assert len(found) == len(set(found)) == 60


def test_arguments_that_exclude_each_other(dataset: ShardDataset) -> None:
    sampler, batches = SequentialSampler(dataset), [[1], [2]]
    for arguments in (
        {"num_workers": -1}, {"timeout": -1}, {"batch_size": 0}, {"batch_size": -3}, {"prefetch_factor": 0},
        {"sampler": sampler, "shuffle": True}, {"batch_sampler": batches, "sampler": sampler},
        {"batch_sampler": batches, "batch_size": 3}, {"batch_sampler": batches, "shuffle": True},
        {"batch_sampler": batches, "drop_last": True}, {"batch_size": None}, {"batch_size": None, "drop_last": True},
        {"sampler": sampler, "infinite": True}, {"sampler": sampler, "order": "torch", "shuffle": True},
        {"sampler": sampler, "rank": 0, "world_size": 1}, {"rank": 1, "world_size": 1}, {"rank": -1, "world_size": 2},
        {"collate_fn": list, "return_info": True}, {"world_size": 2},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            DataLoader(dataset, **arguments)
    for arguments in ({"worker_init_fn": print}, {"multiprocessing_context": "spawn"}, {"batch_size": 2.5},
                      {"num_workers": "3"}, {"prefetch_factor": 1.5}):  # fmt: skip
        with pytest.raises(TypeError):
            DataLoader(dataset, **arguments)
    with pytest.raises(TypeError, match=r"dataset is Subset, want .*ShardDataset; for a part of one give it records="):
        DataLoader(Subset(dataset.as_map(), [1]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"batch_size=None would give single samples: take dataset.as_map\(\)"):
        DataLoader(dataset, None)


def test_what_is_fixed_once_it_is_made(dataset: ShardDataset) -> None:
    loader = DataLoader(dataset)
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset"):
        with pytest.raises(ValueError, match=f"{name} is fixed when the DataLoader is made"):
            setattr(loader, name, getattr(loader, name))
    loader.collate_fn = len
    assert next(iter(loader)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_timeout(pack: Path, workers: int) -> None:
    """RuntimeError with torch's words; the batch is not lost: the next call waits for it again."""
    dataset = ShardDataset(pack, recipes.dino(local_crops=120))  # more than 50 ms, the engine's slice
    loader = DataLoader(dataset, 23, num_workers=workers, timeout=1e-6, return_info=True, dtype=torch.uint8)
    iterator = iter(loader)
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 1e-06 seconds"):
        next(iterator)
    assert loader.state_dict()["position"] == 0
    iterator._settings = dataclasses.replace(iterator._settings, timeout=60)
    assert next(iterator)[-1]["records"].tolist() == list(range(23)), "timed out, not lost"
    assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_fn(dataset: ShardDataset, workers: int) -> None:
    """Called with what a map dataset gives; its result is what comes. default_collate gives our own structure."""
    plain = list(DataLoader(dataset, 5, num_workers=workers))
    collated = list(DataLoader(dataset, 5, num_workers=workers, collate_fn=data.default_collate))
    for (views, labels), (theirs, their_labels) in zip(plain, collated):
        assert all(torch.equal(a, b) for a, b in zip(views, theirs)) and torch.equal(labels, their_labels)
        assert labels.dtype == their_labels.dtype and type(views) is type(theirs) is list
    samples = next(iter(DataLoader(dataset, 5, num_workers=workers, collate_fn=lambda samples: samples)))
    mapped = dataset.as_map()
    mapped.set_epoch(0)
    for sample, want in zip(samples, (mapped[i] for i in range(5))):
        assert type(sample) is type(want) is tuple and sample[1] == want[1] and torch.equal(sample[0][0], want[0][0])
    swav = ShardDataset(dataset.pack, recipes.swav(global_size=4, local_size=4))
    assert [len(sample) for sample in next(iter(DataLoader(swav, 3, collate_fn=list)))] == [8, 8, 8]

    def fails(samples: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        next(iter(DataLoader(dataset, 5, num_workers=workers, collate_fn=fails)))


@pytest.mark.parametrize("workers", [0, 3])
def test_many_loaders_and_left_off_iterators(dataset: ShardDataset, workers: int) -> None:
    loaders = [load(dataset, 4, shuffle=True, num_workers=workers) for _ in range(3)]
    want = records(loaders[0])
    for batches in zip(*(iter(loader) for loader in loaders)):
        assert len({tuple(batch[-1]["records"].tolist()) for batch in batches}) == 1
    for number, _ in enumerate(loaders[0]):
        if number == 3:
            break
    assert records(loaders[0]) == want
    inner = [records(loaders[1]) for _ in loaders[1]]
    assert inner == [want] * len(loaders[1])
    first, second = iter(loaders[2]), iter(loaders[2])
    assert [record for pair in zip(first, second) for record, _ in seen(pair[0])] == want
    assert list(first) == [] and list(iter(first)) == [], "an exhausted iterator stays exhausted"


@pytest.mark.slow
def test_threads_end_with_the_loader(dataset: ShardDataset) -> None:
    import gc

    gc.collect()  # loaders of tests before
    before = native_threads()
    loader = load(dataset, 2, num_workers=4)
    iterator = iter(loader)
    next(iterator)
    assert [len(native_threads(name, before)) for name in ("pass-render", "pass-scout")] == [4, 1]
    records(loader)
    assert [len(native_threads(name, before)) for name in ("pass-render", "pass-scout")] == [4, 1], "they persist"
    del loader
    next(iterator)
    del iterator
    gc.collect()
    assert not native_threads(but=before)


def test_without_threads_nothing_is_in_work(dataset: ShardDataset) -> None:
    """One batch's memory, however large the prefetch factor; with threads as many batches as it says."""
    for workers, want in ((0, 0), (1, 4)):
        iterator = iter(DataLoader(dataset, 2, num_workers=workers, prefetch_factor=5))
        next(iterator)
        assert len(iterator._under_way) == want


def test_lengths(dataset: ShardDataset) -> None:
    for batch_size in (1, 4, 31, 62, 63):
        for drop_last in (False, True):
            theirs = data.DataLoader(dataset.as_map(), batch_size, drop_last=drop_last)
            assert len(DataLoader(dataset, batch_size, drop_last=drop_last)) == len(theirs)
            arguments: dict[str, Any] = {"drop_last": drop_last, "sampler": range(9)}
            theirs = data.DataLoader(dataset.as_map(), batch_size, **arguments)
            assert len(DataLoader(dataset, batch_size, **arguments)) == len(theirs)
    with pytest.raises(TypeError, match="has no length"):
        len(DataLoader(dataset, 2, sampler=iter([1])))


def test_under_torchs_loader_by_position(dataset: ShardDataset) -> None:
    """as_map: torch's DataLoader, samplers, Subset and random_split take it."""
    mapped = dataset.as_map()
    mapped.set_epoch(0)
    assert len(mapped) == COUNT and torch.equal(mapped[-1][0][0], dataset.sample(COUNT - 1)[0])
    for workers in (0, 2):
        sampler = WeightedRandomSampler([1.0] * COUNT, 13, generator=torch.Generator().manual_seed(3))
        want = list(WeightedRandomSampler([1.0] * COUNT, 13, generator=torch.Generator().manual_seed(3)))
        loader = data.DataLoader(mapped, 4, sampler=sampler, num_workers=workers)
        views = torch.cat([views[0] for views, _ in loader])
        assert all(torch.equal(view, dataset.sample(record)[0]) for view, record in zip(views, want))
    parts = random_split(mapped, [20, COUNT - 20], generator=torch.Generator().manual_seed(0))
    assert sorted([*parts[0].indices, *parts[1].indices]) == list(range(COUNT))
    views, _ = next(iter(data.DataLoader(Subset(parts[0], [3, 1]), 2)))
    assert torch.equal(views[0][1], dataset.sample(parts[0].indices[1])[0])
    mapped.set_epoch(6)
    assert torch.equal(mapped[4][0][0], dataset.sample(4, epoch=6)[0])
    assert torch.equal(mapped[(4, 2)][0][0], dataset.sample(4, epoch=6, draw=2)[0])
    other = pickle.loads(pickle.dumps(mapped))
    assert torch.equal(other[4][0][0], mapped[4][0][0]) and len(other) == COUNT
    for position in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError, match=f"position {position}, want"):
            mapped[position]


def test_subsets(dataset: ShardDataset) -> None:
    """records= or ids=: in their order, under their own numbers and with their own views; torch's loader sees them."""
    narrow = np.array([7, 3, 50], np.uint8)
    for arguments in ({"records": [7, 3, 50]}, {"ids": ["07", "03", "50"]}, {"records": narrow}):
        part = ShardDataset(dataset.pack, TINY, seed=5, **arguments)
        part.set_epoch(0)
        assert len(part) == 3 and records(load(part, 2)) == [7, 3, 50]
        assert torch.equal(part.as_map()[1][0][0], dataset.sample(3)[0])
        assert sorted(records(load(part, 2, shuffle=True))) == [3, 7, 50]
        assert len(list(data.DataLoader(part, 1))) == 3
        assert len(pickle.loads(pickle.dumps(part))) == 3
    assert records(load(ShardDataset(dataset.pack, TINY, records=[4, 4]), 2)) == [4, 4]
    for arguments, error, words in (
        ({"records": [62]}, IndexError, r"want numbers in \[0, 62\)"), ({"records": [-1]}, IndexError, "want numbers"),
        ({"records": [1.5]}, TypeError, "a list of whole numbers, got float64"),
        ({"records": [True, False]}, TypeError, "got bool"), ({"records": [[1]]}, TypeError, r"of shape \(1, 1\)"),
        ({"ids": ["07", "no", "none"]}, KeyError, "has no id 'no', 'none'"),
        ({"ids": ["07"], "records": [7]}, ValueError, "records or ids, not both"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            ShardDataset(dataset.pack, TINY, **arguments)
    empty = ShardDataset(dataset.pack, TINY, records=[])
    with pytest.raises(ValueError, match="serves no records"):
        next(iter(DataLoader(empty, 2)))


def served(loader: Any) -> list[int]:
    return records(loader)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_pickled_into_another_process(dataset: ShardDataset, context: str) -> None:
    """Dataset, recipe, loader and their position, with its sampler's generator."""
    loader = load(dataset, 4, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(3))
    want = records(loader)
    iterator = iter(loader)
    got = records([next(iterator)])
    state = loader.state_dict()
    with torch.multiprocessing.get_context(context).Pool(1) as pool:
        assert pool.apply(served, (loader,)) == want
        loader.load_state_dict(state)
        assert got + pool.apply(served, (loader,)) == want
    assert pickle.loads(pickle.dumps(TINY)) == TINY and pass_loader.__version__
