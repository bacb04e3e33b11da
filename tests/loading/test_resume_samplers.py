"""Resume under samplers that are not ours: their own state is embedded, a known order replayed, any other refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from pass_loader import DataLoader, EpochSampler, ShardDataset
from pass_loader.pack import remove

from ..helpers.epochs import COUNT, TINY, Seen, seen


class Counting(Sampler[int]):
    """As torchdata's samplers: counts what it gave in this epoch; its state at the end of an epoch is its end."""

    def __init__(self) -> None:
        self.given, self.skipped = 0, 0

    def __iter__(self) -> Iterator[int]:
        self.given, self.skipped = self.skipped, 0
        for place in range(self.given, 30):
            self.given += 1
            yield place * 7 % COUNT

    def __len__(self) -> int:
        return 30

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped = state["given"]


class Drawing(Sampler[int]):
    """With random numbers of its own, that go on over epochs; its state at the end of an epoch begins the next."""

    def __init__(self) -> None:
        self.random, self.left = random.Random(torch.initial_seed()), []
        self.extra = 0

    def __iter__(self) -> Iterator[int]:
        if not self.left:
            self.left = self.random.sample(range(COUNT), 30)
        while self.left:
            yield self.left.pop()

    def __len__(self) -> int:
        return 30

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random.getstate(), "left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, numbers, gauss = state["random"]
        self.random.setstate((version, tuple(numbers), gauss))
        self.left = list(state["left"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# seed -> what is given to the loader. Another seed stands for another process: the state must bring back the first's.
SAMPLERS: dict[str, Callable[[ShardDataset, int], dict[str, Any]]] = {
    "list": lambda data, seed: {"sampler": [i * 5 % COUNT for i in range(50)]},
    "array": lambda data, seed: {"sampler": np.arange(50) % 9},
    "tensor": lambda data, seed: {"sampler": torch.arange(50) % 9},
    "draws": lambda data, seed: {"sampler": [(i % 9, i) for i in range(50)]},
    "sequential": lambda data, seed: {"sampler": SequentialSampler(data)},
    "distributed": lambda data, seed: {"sampler": DistributedSampler(data, num_replicas=2, rank=1, seed=4)},
    "random": lambda data, seed: {"sampler": RandomSampler(data, generator=seeded(seed))},
    "with replacement": lambda data, seed: {
        "sampler": RandomSampler(data, replacement=True, num_samples=70, generator=seeded(seed))
    },
    "subset": lambda data, seed: {"sampler": SubsetRandomSampler(range(3, 40), generator=seeded(seed))},
    "weighted": lambda data, seed: {"sampler": WeightedRandomSampler([1.0] * COUNT, 41, generator=seeded(seed))},
    "batches": lambda data, seed: {"batch_sampler": [[1, 2], [3], [4, 5, 6], [7], [8, 9]]},
    "batches of random": lambda data, seed: {
        "batch_sampler": BatchSampler(RandomSampler(data, generator=seeded(seed)), 7, drop_last=True)
    },
    "counting": lambda data, seed: {"sampler": Counting()},
    "batches of counting": lambda data, seed: {"batch_sampler": BatchSampler(Counting(), 4, drop_last=False)},
    "drawing": lambda data, seed: [torch.manual_seed(seed), {"sampler": Drawing()}][1],
}


def make(tiny: Path, name: str, seed: int, threads: int = 2) -> DataLoader:
    data = ShardDataset(tiny, TINY, seed=5)
    arguments = SAMPLERS[name](data, seed)
    if "batch_sampler" not in arguments:
        arguments["batch_size"] = 4
    return DataLoader(data, num_workers=threads, return_info=True, **arguments)


def samples(loader: DataLoader) -> Seen:
    return [sample for batch in loader for sample in seen(batch)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_two_epochs_cut_off_anywhere(tiny: Path, name: str) -> None:
    """States from the start, the middle, the last batch and after it: the rest of two epochs is the same."""
    want = make(tiny, name, seed=1)
    epochs = [samples(want), samples(want)]
    assert epochs[0] != epochs[1] and epochs[0]
    batches = len(want)
    for number, threads in ((0, 0), (1, 2), (batches // 2, 0), (batches, 1)):
        first = make(tiny, name, seed=1, threads=threads)
        if number == 0:
            state = json.loads(json.dumps(first.state_dict()))
            assert state["position"] == 0
            iterator: Any = iter(first)
            after_iter = json.loads(json.dumps(first.state_dict()))
        else:
            iterator = iter(first)
        got = [sample for _ in range(number) for sample in seen(next(iterator))]
        if number:
            state = after_iter = json.loads(json.dumps(first.state_dict()))
        for taken in (state, after_iter):
            resumed = make(tiny, name, seed=2)
            resumed.load_state_dict(taken)
            assert resumed.state_dict() == taken, "a state that was loaded is the one to be saved again"
            rest = [] if number == batches else samples(resumed)
            assert got + rest == epochs[0], (number, "the rest of the first epoch")
            assert samples(resumed) == epochs[1], (number, "the second epoch")
    second = make(tiny, name, seed=1)
    samples(second)
    iterator = iter(second)
    got = seen(next(iterator))
    resumed = make(tiny, name, seed=2)
    resumed.load_state_dict(json.loads(json.dumps(second.state_dict())))
    assert got + samples(resumed) == epochs[1]


class Shuffled(Sampler[int]):
    def __init__(self) -> None:
        pass

    def __iter__(self) -> Iterator[int]:
        return iter(random.sample(range(COUNT), COUNT))

    def __len__(self) -> int:
        return COUNT


@pytest.mark.parametrize("sampler", [lambda d: RandomSampler(d), lambda d: Shuffled(), lambda d: iter([1, 2]),
                                     lambda d: SubsetRandomSampler([1, 2])])  # fmt: skip
def test_an_order_that_cannot_come_back_is_refused(tiny: Path, sampler: Callable[[ShardDataset], Any]) -> None:
    data = ShardDataset(tiny, TINY)
    given = sampler(data)
    loader = DataLoader(data, 4, sampler=given)
    next(iter(loader))
    with pytest.raises(TypeError, match=f"the order of {type(given).__name__} cannot be brought back: give it a gen"):
        loader.state_dict()
    assert list(loader) or type(given).__name__ == "list_iterator", "it is served nevertheless"


def test_distributed_samplers_of_other_worlds_are_refused(tiny: Path) -> None:
    """Its position counts one rank's samples: on two ranks it means other ones than on three."""
    data = ShardDataset(tiny, TINY)

    def loader(**changed: Any) -> DataLoader:
        arguments = {"num_replicas": 2, "rank": 0, "seed": 0, "shuffle": True, "drop_last": False, **changed}
        return DataLoader(data, 4, sampler=DistributedSampler(data, **arguments))

    first = loader()
    next(iter(first))
    state = first.state_dict()
    for changed in ({"num_replicas": 3}, {"num_replicas": 1}, {"seed": 1}, {"shuffle": False}, {"drop_last": True}):
        target = loader(**changed)
        if changed == {"drop_last": True}:
            assert len(target.sampler) == len(first.sampler)
        with pytest.raises(ValueError, match="the sampler was .*DistributedSampler.*, here "):
            target.load_state_dict(state)
    loader(rank=1).load_state_dict(state)
    with pytest.raises(
        ValueError, match="the order was not told, here it is given; .*the sampler was given, here it is not"
    ):
        DataLoader(data, 4, shuffle=True).load_state_dict(state)
    with pytest.raises(ValueError, match="'length': 3.*'length': 4"):
        DataLoader(data, 4, sampler=[1, 2, 3, 4]).load_state_dict(DataLoader(data, 4, sampler=[1, 2, 3]).state_dict())


def test_set_epoch_of_a_distributed_sampler(tiny: Path) -> None:
    """DINO's script: the sampler is torch's, its epoch is set before every epoch."""
    data = ShardDataset(tiny, TINY, seed=5)

    def loader() -> DataLoader:
        return DataLoader(data, 4, sampler=DistributedSampler(data, num_replicas=1, rank=0), return_info=True)

    first = loader()
    first.sampler.set_epoch(3)
    want = samples(first)
    other = loader()
    other.sampler.set_epoch(3)
    iterator = iter(other)
    next(iterator)
    state = other.state_dict()
    assert (state["epoch"], state["order_epoch"], state["position"]) == (3, 3, 4)
    resumed = loader()
    resumed.load_state_dict(state)
    assert resumed.sampler.epoch == 3
    resumed.sampler.set_epoch(3)
    assert samples(resumed) == want[4:]
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(4)
    with pytest.warns(UserWarning, match="dropped"):
        assert len(samples(resumed)) == COUNT


def test_a_removal_under_a_foreign_sampler(tiny: Path, tmp_path: Path) -> None:
    """RandomSampler asks the dataset for its length: a resumed epoch has the length it began with."""
    import shutil

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))

    def loader(seed: int) -> DataLoader:
        data = ShardDataset(copy, TINY)
        sampler = RandomSampler(data, generator=seeded(seed))
        return DataLoader(data, 4, sampler=sampler, on_error="replace", return_info=True)

    want = [record for record, _ in samples(loader(1))]
    first = loader(1)
    next(iter(first))
    state = first.state_dict()
    remove(copy, [f"{want[20]:02d}"], reason="since")
    resumed = loader(2)
    resumed.load_state_dict(state)
    got = [record for record, _ in samples(resumed)]
    assert len(got) == COUNT - 4
    assert [a for a, b in zip(got, want[4:]) if b != want[20]] == [b for b in want[4:] if b != want[20]]
    assert want[20] not in got
    assert len(samples(resumed)) == COUNT - 1 == len(resumed.dataset)


def test_our_sampler_given_as_a_sampler_is_ours(tiny: Path) -> None:
    data = ShardDataset(tiny, TINY, seed=5)

    def loader() -> DataLoader:
        return DataLoader(data, 4, sampler=EpochSampler(data, shuffle=True, rank=0, world_size=2), return_info=True)

    want = samples(loader())
    assert want == samples(DataLoader(data, 4, shuffle=True, rank=0, world_size=2, return_info=True))
    first = loader()
    next(iter(first))
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    assert samples(resumed) == want[4:] and len(resumed) == 8


def test_a_batch_sampler_that_gives_nothing(tiny: Path) -> None:
    data = ShardDataset(tiny, TINY)
    loader = DataLoader(data, batch_sampler=[[1], [], [2]])
    with pytest.raises(ValueError, match="the batch sampler list gave an empty batch"):
        list(loader)
    assert list(DataLoader(data, batch_sampler=[])) == []
    assert [len(labels) for _, labels in DataLoader(data, batch_sampler=[(0, 1), (2, 3, 4)])] == [2, 3]


def test_a_generator_used_by_others_meanwhile(tiny: Path) -> None:
    """The epoch's order is drawn when the iteration begins, so that the state kept is the one it was drawn from."""
    data = ShardDataset(tiny, TINY, seed=5)
    generator = seeded(3)
    loader = DataLoader(data, 4, sampler=RandomSampler(data, generator=generator), return_info=True)
    iterator = iter(loader)
    got = seen(next(iterator))
    torch.rand(5, generator=generator)
    got += seen(next(iterator))
    resumed = make(tiny, "random", seed=9)
    resumed.load_state_dict(loader.state_dict())
    assert got + samples(resumed) == samples(make(tiny, "random", seed=3))
