"""Which epoch an iteration belongs to, by its order and its views, with set_epoch called at any time or never."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler

from pass_loader import DataLoader, ShardDataset

from ..helpers.epochs import TINY, Ranks, Seen, seen


def make(tiny: Path, own: bool = True) -> DataLoader:
    data = ShardDataset(tiny, TINY, seed=5)
    order: dict[str, Any] = {"shuffle": True, "rank": 0, "world_size": 1}
    if not own:
        order = {"sampler": DistributedSampler(data, num_replicas=1, rank=0)}
    return DataLoader(data, 4, return_info=True, num_workers=1, **order)


def samples(batches: Any) -> Seen:
    return [sample for batch in batches for sample in seen(batch)]


def epoch(tiny: Path, number: int) -> Seen:
    loader = make(tiny)
    loader.sampler.set_epoch(number)
    return samples(loader)


def as_lightning(
    loader: DataLoader, state: dict[str, Any] | None, epochs: range, stop: int | None = None
) -> list[Seen]:
    """The order of its calls: state, iterator, epoch, batches; from the second epoch on the epoch before the iterator
    (lightning 2.6.6: fit_loop.setup_data, on_advance_start, training_epoch_loop.on_run_start)."""
    got = []
    if state is not None:
        loader.load_state_dict(state)
    iterator = iter(loader)
    for number in epochs:
        loader.sampler.set_epoch(number)
        if number != epochs[0]:
            iterator = iter(loader)
        got.append(samples(itertools.islice(iterator, stop)))
    return got


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_the_iterator_before_the_epoch(tiny: Path, own: bool) -> None:
    """A state from an epoch's end resumes with the next epoch's order, one from its middle with the rest of it."""
    want = [epoch(tiny, number) for number in range(4)]
    assert as_lightning(make(tiny, own), None, range(3)) == want[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(3):
            first = make(tiny, own)
            as_lightning(first, None, range(number + 1))
            state = json.loads(json.dumps(first.state_dict()))
            assert as_lightning(make(tiny, own), state, range(number + 1, 4)) == want[number + 1 :]
        middle = make(tiny, own)
        (got,) = as_lightning(middle, None, range(2, 3), stop=5)
        rest = as_lightning(make(tiny, own), middle.state_dict(), range(2, 4))
    assert [got + rest[0], rest[1]] == want[2:]


def test_with_lightning(tiny: Path, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    got: dict[int, Seen] = {}

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch: Any, number: int) -> Any:
            got.setdefault(self.current_epoch, []).extend(seen(batch))
            return self.weight.sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(epochs: int, **arguments: Any) -> list[Seen]:
        got.clear()
        checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(
            tmp_path, filename="{step}", every_n_train_steps=8, save_top_k=-1, save_on_train_epoch_end=False
        )
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[checkpoint], use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(Model(), make(tiny), **arguments)
        return list(got.values())

    want = [epoch(tiny, number) for number in range(3)]
    assert fit(3) == want
    for step in (8, 16, 24, 32):  # of 16 an epoch
        begun, inside = divmod(step, 16)
        resumed = fit(3, ckpt_path=str(tmp_path / f"step={step}.ckpt"), weights_only=False)
        assert resumed == [want[begun][4 * inside :], *want[begun + 1 :]], step


def views_of(tiny: Path, batches: Seen) -> set[int]:
    """Return the epochs that these views belong to."""
    data = ShardDataset(tiny, TINY, seed=5)
    return {
        number for number in range(12) for record, view in batches
        if data.sample(record, epoch=number)[0].numpy().tobytes() == view
    }  # fmt: skip


@pytest.mark.parametrize("own", [True, False])
def test_a_look_at_a_batch(tiny: Path, own: bool) -> None:
    """It uses no epoch up: a rank that looks alone gets what the others get, and no views come twice."""
    for number in (3, 0) if own else (3,):
        loader = make(tiny, own)
        if number == 0:
            next(iter(loader))
        loader.sampler.set_epoch(number)
        look = seen(next(iter(loader)))
        for following in (number, number + 1):
            loader.sampler.set_epoch(following)
            got = samples(loader)
            assert got == epoch(tiny, following) and (following > number or got[:4] == look)


def test_views_are_used_once(tiny: Path) -> None:
    """An epoch is iterated twice, a state is taken in it or after it, and set_epoch goes back."""
    loader = make(tiny)

    def next_views(loader: DataLoader, number: int | None, stop: int | None = 1) -> set[int]:
        if number is not None:
            loader.sampler.set_epoch(number)
        return views_of(tiny, [s for batch in itertools.islice(loader, stop) for s in seen(batch)[:1]])

    assert next_views(loader, 3, None) == {3} and next_views(loader, 3) == {4}
    in_it = loader.state_dict()
    assert next_views(loader, 3, None) == {4}
    after = loader.state_dict()
    assert next_views(loader, 4) == {5} and next_views(loader, 5) == {6} and next_views(loader, 9) == {9}
    assert next_views(loader, 2) == {2} and next_views(loader, 3) == {3}
    resumed = make(tiny)
    resumed.load_state_dict(after)
    assert next_views(resumed, 4) == {5}
    resumed.load_state_dict(in_it)
    with pytest.warns(UserWarning, match="dropped"):
        assert next_views(resumed, 4) == {5}
    never = make(tiny)
    assert [next_views(never, None) for _ in range(3)] == [{0}, {1}, {2}]
    assert next_views(never, 1) == {3}, "1 and 2 are used"


def test_a_position_that_no_state_has(tiny: Path) -> None:
    """A position inside a batch or past the epoch is refused at once, and nothing is changed."""
    for arguments in ({}, {"drop_last": True}, {"infinite": True}):
        loader = Ranks(tiny, 1, 4, **arguments).loaders[0]
        state = loader.state_dict()
        with pytest.raises(ValueError, match="damaged: position 5 is no multiple of the global batch, 4"):
            loader.load_state_dict({**state, "position": 5})
        if not arguments.get("infinite"):
            with pytest.raises(ValueError, match=r"position 64 is past its epoch of 6[02] samples"):
                loader.load_state_dict({**state, "position": 64})
        assert loader.state_dict() == state
    with pytest.raises(ValueError, match="position 64 is before its pass, 124"):
        loader.load_state_dict({**state, "position": 64, "pass": [2, 124]})
    with pytest.raises(ValueError, match="damaged: pass is"):
        loader.load_state_dict({**state, "pass": [-2, 124]})
    data = ShardDataset(tiny, TINY)
    listed = DataLoader(data, 4, sampler=[1, 2, 3, 4, 5])
    listed.load_state_dict({**listed.state_dict(), "position": 8})
    with pytest.raises(ValueError, match="position is 8, and the sampler list ends 3 before it: is it the same one"):
        next(iter(listed))


def test_advance_by_a_whole_epoch(tiny: Path) -> None:
    loader = Ranks(tiny, 1, 4).loaders[0]
    loader.advance(16)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (1, 0) and list(loader) == []
    Ranks(tiny, 1, 4).load(state)
