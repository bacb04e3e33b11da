"""Several loaders as one: which is drawn, on which ranks, and resuming."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import DataLoader, MixedLoader, RecordError, ShardDataset, recipes
from pass_loader.pack import Pack

from ..helpers.epochs import TINY
from ..helpers.packs import flip_a_bit
from ..helpers.trials import trials

TRIALS = trials(70, 2000)  # of three kinds


def loaders_of(pack: Path, **options: Any) -> list[DataLoader]:
    return [
        DataLoader(ShardDataset(pack, recipes.dino(local_crops=1, global_size=size, local_size=8)), 3, shuffle=True,
                   infinite=True, **options)
        for size in (16, 24, 32)
    ]  # fmt: skip


def test_equal_on_all_ranks_and_as_probable_as_asked(pack: Path) -> None:
    by_rank = [
        [batch[0][0].shape[-1] for batch in itertools.islice(
            MixedLoader(loaders_of(pack, rank=rank, world_size=2), [0.5, 0.2, 0.3]), 12)]
        for rank in range(2)
    ]  # fmt: skip
    assert by_rank[0] == by_rank[1] and len(set(by_rank[0])) > 1
    mixed = MixedLoader(loaders_of(pack), [0.5, 0.2, 0.3], seed=4)
    counts = np.bincount([mixed.which(step) for step in range(10_000)], minlength=3) / 10_000
    assert np.abs(counts - [0.5, 0.2, 0.3]).max() < 0.02
    assert [mixed.which(step) for step in range(50)] != [
        MixedLoader(loaders_of(pack), [0.5, 0.2, 0.3], seed=5).which(step) for step in range(50)
    ]


def test_resumes(pack: Path) -> None:
    want = [batch[0][0] for batch in itertools.islice(MixedLoader(loaders_of(pack), [0.4, 0.3, 0.3]), 15)]
    mixed = MixedLoader(loaders_of(pack), [0.4, 0.3, 0.3])
    running = iter(mixed)
    for _ in range(6):
        next(running)
    again = MixedLoader(loaders_of(pack), [0.4, 0.3, 0.3])
    again.load_state_dict(mixed.state_dict())
    for view, batch in zip(want[6:], again):
        assert torch.equal(view, batch[0][0])


def test_ends_with_a_loader(pack: Path) -> None:
    loader = DataLoader(ShardDataset(pack, recipes.mae(size=16)), 10)
    mixed = MixedLoader([loader], [1.0])
    assert len(list(mixed)) == len(list(mixed)) == 3


def test_refused(pack: Path) -> None:
    loaders = loaders_of(pack)
    for probabilities in ([0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.2, 0.2]):
        with pytest.raises(ValueError, match="probabilities"):
            MixedLoader(loaders, probabilities)
    with pytest.raises(ValueError, match="the state is of 1 loaders"):
        MixedLoader(loaders, [0.4, 0.3, 0.3]).load_state_dict({"step": 0, "loaders": [{}]})


def tiny_loaders(tiny: Path, copies: int = 2, **options: Any) -> list[DataLoader]:
    given = {"shuffle": True, "infinite": True, "return_info": True, **options}
    return [DataLoader(ShardDataset(tiny, TINY, seed=seed), 3 + seed, **given) for seed in range(copies)]


def records(batch: Any) -> list[int]:
    return batch[-1]["records"].tolist()


def test_a_state_of_another_stream_is_refused(tiny: Path) -> None:
    """And changes nothing. States of version 0.1.0 have neither seed nor probabilities."""
    mixed = MixedLoader(tiny_loaders(tiny), [0.4, 0.6], seed=3)
    running = iter(mixed)
    for _ in range(7):
        next(running)
    state = mixed.state_dict()
    target = MixedLoader(tiny_loaders(tiny), [0.4, 0.6], seed=3)
    before = target.state_dict()
    other_order = {**state["loaders"][1], "order": {"kind": "torch", "seed": 9, "infinite": True}}
    wrong: list[tuple[Any, str]] = [
        ({**state, "seed": 4}, "seed was 4, here 3"),
        ({**state, "probabilities": [0.6, 0.4]}, "probabilities was"),
        ({**state, "step": -3}, "step is -3"),
        ({**state, "step": 2.0}, "step is 2.0"),
        ({**state, "step": True}, "step is True"),
        ({**state, "step": 2**60}, "step is"),
        ({**state, "loaders": state["loaders"][:1]}, "of 1 loaders, here are 2"),
        ({**state, "loaders": 7}, "of no loaders"),
        ({**state, "loaders": [state["loaders"][0], other_order]}, "the order was"),
        ({"step": 3}, "it lacks step or loaders"),
    ]
    for one, words in wrong:
        with pytest.raises(ValueError, match=words):
            target.load_state_dict(one)
        assert target.state_dict() == before
    with pytest.raises(TypeError, match="a state is a dict, got list"):
        target.load_state_dict([])  # type: ignore[arg-type]
    target.load_state_dict({name: state[name] for name in ("step", "loaders")})
    assert [records(batch) for batch in itertools.islice(target, 3)] == [records(next(running)) for _ in range(3)]


def test_loaders_are_checked(tiny: Path) -> None:
    loader = tiny_loaders(tiny)[0]
    with pytest.raises(ValueError, match="one loader twice"):
        MixedLoader([loader, loader], [0.5, 0.5])
    with pytest.raises(TypeError, match="holds a list, want"):
        MixedLoader([[]], [1.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="seed is -1"):
        MixedLoader([loader], [1.0], seed=-1)
    with pytest.raises(ValueError, match="probabilities"):
        MixedLoader(tiny_loaders(tiny), [float("nan"), 1.0])


def test_goes_on_after_an_error(tiny: Path, tmp_path: Path) -> None:
    """As DataLoader: the next call gives the batch after the failed one, and a state taken between begins with it."""
    broken = Path(shutil.copytree(tiny, tmp_path / "broken"))
    for record in (5, 33):
        flip_a_bit(Pack(broken), record)

    def mixed_of(pack: Path) -> MixedLoader:
        return MixedLoader(tiny_loaders(pack), [0.5, 0.5], seed=1)

    want = [records(batch) for batch in itertools.islice(mixed_of(tiny), 40)]
    mixed = mixed_of(broken)
    running = iter(mixed)
    found: list[list[int] | None] = []
    for step in range(40):
        try:
            found.append(records(next(running)))
        except RecordError:
            found.append(None)
            resumed = mixed_of(tiny)
            resumed.load_state_dict(mixed.state_dict())
            assert records(next(iter(resumed))) == want[step], "the failed batch comes again from the state"
    assert [one for one in found if one is not None] == [batch for batch, one in zip(want, found) if one is not None]
    assert found.count(None) >= 2
    for batch, one in zip(want, found):
        assert (one is None) == bool({5, 33} & set(batch))


def test_a_loader_without_batches_ends_it_for_good(tiny: Path) -> None:
    loaders = [DataLoader(ShardDataset(tiny, TINY), 31), *tiny_loaders(tiny, 1)]
    running = iter(MixedLoader(loaders, [1.0, 0.0]))
    assert len(list(running)) == 2
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(running)


@pytest.mark.parametrize("kind", ["own", "mixed"])
def test_threads_get_each_batch_once(tiny: Path, kind: str) -> None:
    """Several Python threads on one iterator."""

    def loader() -> Any:
        own = DataLoader(ShardDataset(tiny, TINY), 2, shuffle=True, num_workers=2, return_info=True)
        return own if kind == "own" else MixedLoader([own], [1.0])

    want = sorted(records(batch) for batch in loader())
    for _ in range(5):
        running, found = iter(loader()), []

        def take(running: Any = running, found: list[list[int]] = found) -> None:
            for batch in running:
                found.append(records(batch))

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == want


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own", "endless", "mixed"])
def test_random_resumes(tiny: Path, kind: str) -> None:
    """Stop anywhere, save, begin again in another loader; again and again: the batches are those of one run."""
    rng = random.Random(kind)

    def make() -> Any:
        if kind == "mixed":
            return MixedLoader(tiny_loaders(tiny, 3), [0.3, 0.3, 0.4], seed=2)
        return tiny_loaders(tiny, 2, infinite=kind == "endless")[1]

    whole = [(records(batch), batch[0][0].numpy().tobytes()) for batch in itertools.islice(make(), 15)]
    for _ in range(TRIALS):
        state: Any = None
        done = 0
        while done < 15:
            loader = make()
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            running = iter(loader)
            for _ in range(min(rng.randint(0, 6), 15 - done)):
                batch = next(running)
                assert (records(batch), batch[0][0].numpy().tobytes()) == whole[done]
                done += 1
            state = loader.state_dict()


def test_dinov3s_pairs() -> None:
    found, probabilities = recipes.dinov3_high_resolution()
    sizes = [(recipe.views[0].height, recipe.views[-1].height) for recipe in found]
    assert sizes == [(512, 112), (768, 112), (768, 168), (768, 224), (768, 336)]
    assert probabilities == (0.3, 0.3, 0.3, 0.05, 0.05)
    assert all(recipe.roles()[2:4] == ["gram", "gram"] for recipe in found)
