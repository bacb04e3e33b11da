"""Exact, elastic resume under the loader's own order: nothing lost, nothing twice, the same views."""

from __future__ import annotations

import itertools
import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from pass_loader import DataLoader, PackError, RecordError, ShardDataset
from pass_loader.pack import remove, restore
from pass_loader.loading.rendering import Renderer
from pass_loader.keys import Keys

from ..helpers.epochs import COUNT, TINY, Ranks, Seen, merged, seen, whole_epoch
from ..helpers.forked import usual
from ..helpers.processes import native_threads
from ..helpers.trials import trials


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_grid_of_ranks_threads_and_positions(tiny: Path, before: int, drop_last: bool) -> None:
    """Ranks before and after from 1 to 4, threads from 0 to 4, a random position for each of them; the global batch is
    kept.

    The run that was cut off and the one that goes on give together what the uninterrupted one gives, in its order.
    Where there are more ranks than samples in the last step each still gets one; those alone come twice.
    """
    draw = random.Random(100 * before + drop_last)
    uninterrupted = whole_epoch(Ranks(tiny, before, 12, drop_last=drop_last))
    padded = -(-COUNT // before) * before
    assert len(uninterrupted) == (padded // 12 * 12 if drop_last else padded)
    for after, threads in [*itertools.product((1, 2, 3, 4), range(5))] * trials(1, 20):
        first = Ranks(tiny, before, 12, threads, drop_last=drop_last)
        steps, got = first.steps(), []
        for _ in range(draw.randint(1, 4)):
            got += merged(next(steps))
        state = first.state()
        assert (state["epoch"], state["position"]) == (0, len(got))
        got += whole_epoch(Ranks(tiny, after, 12, 4 - threads, drop_last=drop_last).load(state))
        assert got[: len(uninterrupted)] == uninterrupted, (before, after, threads, state["position"])
        assert len(got) - len(uninterrupted) < (1 if drop_last else after)
        if not drop_last:
            times = Counter(record for record, _ in got)
            assert set(times) == set(range(COUNT)) and sum(times.values()) - COUNT < before + after


@pytest.mark.parametrize("global_batch,cut", [(4, [(4, 3), (1, 2), (2, 99)]), (4, [(1, 5), (4, 99)]),
                                              (6, [(3, 1), (2, 1), (6, 1), (1, 99)])])  # fmt: skip
def test_resumed_more_than_once_on_other_worlds(tiny: Path, global_batch: int, cut: list[tuple[int, int]]) -> None:
    """The padding is that of the world that began the epoch: 62 on 4 ranks needs two more."""
    want = whole_epoch(Ranks(tiny, cut[0][0], global_batch))
    got: Seen = []
    state = None
    for world, stop in cut:
        ranks = Ranks(tiny, world, global_batch)
        if state is not None:
            ranks.load(state)
        for number, batches in enumerate(ranks.steps()):
            got += merged(batches)
            state = ranks.state()
            if number + 1 == stop:
                break
    assert got[: len(want)] == want and len(got) - len(want) < max(world for world, _ in cut)
    assert state is not None and (state["epoch"], state["position"]) == (1, 0)


@pytest.mark.parametrize("order", ["torch", "permute"])
def test_views_go_on_for_those_who_never_set_an_epoch(tiny: Path, order: str) -> None:
    """Third epoch, cut off: the order is the first epoch's as in torch, the views are the third's."""
    first = Ranks(tiny, 1, 4, 2, order=order)
    epochs = [whole_epoch(first), whole_epoch(first)]
    steps, got = first.steps(), []
    for _ in range(3):
        got += merged(next(steps))
    state = first.state()
    assert (state["epoch"], state["order_epoch"], state["position"]) == (2, 0, 12)
    got += [sample for batches in Ranks(tiny, 2, 4, order=order).load(state).steps() for sample in merged(batches)]
    third = [*whole_epoch(Ranks(tiny, 1, 4, order=order).load({**state, "position": 0}))]
    assert got[:COUNT] == third
    assert [record for record, _ in got[:COUNT]] == [record for record, _ in epochs[0]]
    assert all(view != old for (_, view), (_, old) in zip(third, epochs[0]))
    dataset = ShardDataset(tiny, TINY, seed=5)
    for record, view in third:
        assert dataset.sample(record, epoch=2)[0].numpy().tobytes() == view


def test_counts_batches_handed_out_not_those_in_work(tiny: Path) -> None:
    loader = Ranks(tiny, 1, 2, 3, prefetch_factor=6).loaders[0]
    iterator = iter(loader)
    assert loader.state_dict()["position"] == 0
    next(iterator)
    assert loader.state_dict()["position"] == 2
    next(iterator)
    assert loader.state_dict()["position"] == 4


def test_a_state_starts_no_threads(tiny: Path) -> None:
    before = native_threads()
    loader = Ranks(tiny, 1, 2, 4).loaders[0]
    state = loader.state_dict()
    loader.load_state_dict(state)
    assert not native_threads(but=before) and (state["epoch"], state["position"]) == (0, 0)
    iterator = iter(loader)
    assert not native_threads(but=before) and loader.state_dict() == state
    next(iterator)
    assert [len(native_threads(name, before)) for name in ("pass-render", "pass-scout")] == [4, 1]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [4, 62, 70])
def test_after_the_last_batch_is_the_next_epoch(tiny: Path, drop_last: bool, batch_size: int) -> None:
    """Already when the last batch is in hand, before StopIteration. With and without set_epoch."""
    loader = Ranks(tiny, 1, batch_size, drop_last=drop_last).loaders[0]
    loader.sampler.set_epoch(6)
    number = 0
    for number, _ in enumerate(loader, 1):
        state = loader.state_dict()
        assert (state["epoch"], state["position"]) == ((7, 0) if number == len(loader) else (6, number * batch_size))
    assert number == len(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (7, 0)

    again = Ranks(tiny, 1, batch_size, drop_last=drop_last).load(state)
    again.loaders[0].sampler.set_epoch(7)
    loader.sampler.set_epoch(7)
    want = [sample for batch in loader for sample in seen(batch)]
    assert whole_epoch(again) == want
    never = Ranks(tiny, 1, batch_size, drop_last=drop_last).load(state)
    got = whole_epoch(never)
    if got:
        assert [record for record, _ in got] != [record for record, _ in want] and got[0][1] != want[0][1]


def test_set_epoch_after_loading(tiny: Path) -> None:
    first = Ranks(tiny, 1, 4)
    first.loaders[0].sampler.set_epoch(3)
    epoch = whole_epoch(first)
    first.loaders[0].sampler.set_epoch(3)  # once more: the same order, other views
    steps = first.steps()
    next(steps)
    state = first.state()
    assert (state["epoch"], state["order_epoch"], state["position"]) == (4, 3, 4)
    state["epoch"] = 3

    kept = Ranks(tiny, 1, 4).load(state)
    assert kept.loaders[0].sampler.epoch == 3
    kept.loaders[0].sampler.set_epoch(3)
    assert kept.state() == state and whole_epoch(kept) == epoch[4:]

    dropped = Ranks(tiny, 1, 4).load(state)
    dropped.loaders[0].sampler.set_epoch(5)
    with pytest.warns(UserWarning, match="the state is of epoch 3, the sampler was set to 5: the position 4 .*dropped"):
        got = whole_epoch(dropped)
    other = Ranks(tiny, 1, 4)
    other.loaders[0].sampler.set_epoch(5)
    assert got == whole_epoch(other)
    dropped.loaders[0].sampler.set_epoch(3)
    assert len(whole_epoch(dropped)) == COUNT, "a dropped position does not come back"


def test_an_epoch_set_while_it_runs_changes_nothing(tiny: Path) -> None:
    want = whole_epoch(Ranks(tiny, 1, 4))
    ranks = Ranks(tiny, 1, 4)
    iterator = iter(ranks.loaders[0])
    head = seen(next(iterator))
    ranks.loaders[0].sampler.set_epoch(9)
    assert head + [sample for batch in iterator for sample in seen(batch)] == want
    endless = Ranks(tiny, 1, 4, infinite=True)
    iterator = iter(endless.loaders[0])
    head = [record for _ in range(6) for record, _ in seen(next(iterator))]
    endless.loaders[0].sampler.set_epoch(9)
    tail = [record for _ in range(12) for record, _ in seen(next(iterator))]  # into the next pass
    plain = iter(Ranks(tiny, 1, 4, infinite=True).loaders[0])
    assert head + tail == [record for _ in range(18) for record, _ in seen(next(plain))]


@pytest.mark.parametrize("change", ["pack", "recipe", "seed", "order", "batch", "subset", "kind", "format"])
def test_a_state_that_does_not_fit_is_refused_in_words(tiny: Path, pack: Path, change: str) -> None:
    def loader(**arguments: Any) -> DataLoader:
        dataset = ShardDataset(arguments.get("pack", tiny), arguments.get("recipe", TINY),
                               seed=arguments.get("seed", 1), records=arguments.get("records"))  # fmt: skip
        return DataLoader(
            dataset, 4, shuffle=True, order=arguments.get("order"), generator=arguments.get("generator"), rank=0,
            world_size=arguments.get("world", 2),
        )  # fmt: skip

    state = loader().state_dict()
    other, words = {
        "pack": ({"pack": pack}, "the pack was"),
        "recipe": ({"recipe": TINY.override(flip=0.4)}, "the recipe: flip of the views differs"),
        "seed": ({"seed": 2}, "the dataset's seed was 1, here 2"),
        "order": ({"generator": torch.Generator().manual_seed(8)}, "the order was .*'seed': 0.*, here .*'seed': 8"),
        "batch": ({"world": 3}, "batch_size times ranks was 8, here 12"),
        "subset": ({"records": range(COUNT)}, "the choice of records was None, here"),
        "kind": ({"order": "permute"}, "the order was"),
        "format": ({}, "the format of states was 99"),
    }[change]
    if change == "format":
        state["version"] = 99
    target = loader(**other)
    before = target.state_dict()
    with pytest.raises(ValueError, match=words):
        target.load_state_dict(state)
    assert target.state_dict() == before, "a refused state changes nothing"
    loader().load_state_dict(loader().state_dict())


def test_states_that_are_none(tiny: Path) -> None:
    loader = Ranks(tiny, 1, 4).loaders[0]
    with pytest.raises(ValueError, match="no state of a pass_loader.DataLoader: it lacks epoch, generation"):
        loader.load_state_dict({"_num_yielded": 3})
    with pytest.raises(TypeError, match="a state is a dict, got NoneType"):
        loader.load_state_dict(None)  # type: ignore[arg-type]
    for name, value in (("position", -4), ("epoch", "3"), ("samples", 2.5), ("world_size", None), ("generation", True)):
        with pytest.raises(ValueError, match=f"the state is damaged: {name} is {value!r}"):
            loader.load_state_dict({**loader.state_dict(), name: value})
    with pytest.raises(ValueError, match="the state is of 25 samples, the dataset had 62"):
        loader.load_state_dict({**loader.state_dict(), "samples": 25, "position": 4})
        next(iter(loader))
    with pytest.raises(PackError, match="tells of no time"):
        loader.load_state_dict({**loader.state_dict(), "samples": COUNT, "position": 4, "generation": 1 << 32 | 5})
        next(iter(loader))


def test_a_failed_start_does_not_lose_the_position(tiny: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    first = Ranks(copy, 1, 4)
    next(first.steps())
    ranks = Ranks(copy, 1, 4).load(first.state())
    (copy / "pack.json").rename(copy / "away.json")
    iterator = iter(ranks.loaders[0])
    with pytest.raises(PackError):
        next(iterator)
    (copy / "away.json").rename(copy / "pack.json")
    assert sum(len(seen(batch)) for batch in iterator) == COUNT - 4


def test_removed_since_is_bad_and_never_read(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed epoch keeps its permutation. Under "replace" the removed record's place is another's, marked."""
    import shutil

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    remove(copy, ["09"], reason="by mistake")
    restore(copy, ["09"], reason="by mistake")
    remove(copy, ["03"], reason="before")
    first = Ranks(copy, 1, 4)
    steps = first.steps()
    began = [record for record, _ in merged(next(steps))]
    state = first.state()
    rest = [record for batches in steps for record, _ in merged(batches)]
    gone = rest[5]
    remove(copy, [f"{gone:02d}"], reason="since")
    restore(copy, ["03"], reason="since")

    with pytest.raises(RecordError, match=f"record {gone}, id {gone:02d}: it was removed .*on_error='replace'"):
        whole_epoch(Ranks(copy, 1, 4).load(state))
    with pytest.raises(RecordError, match="it was removed from the pack"):
        ShardDataset(copy, TINY).sample(gone)
    start, read = Renderer._start, set()

    def watched(renderer: Renderer, keys: Keys, *others: Any) -> Any:
        read.update(keys.records.tolist())
        return start(renderer, keys, *others)

    monkeypatch.setattr(Renderer, "_start", watched)
    for world in (1, 2):
        ranks = Ranks(copy, world, 4, 1, on_error="replace").load(state)
        got = [record for batches in ranks.steps() for record, _ in merged(batches)]
        assert len(got) >= len(rest) and gone not in got
        assert [new for new, old in zip(got, rest) if old != gone] == [old for old in rest if old != gone]
        assert [error.record for loader in ranks.loaders for error in loader.errors] == [gone]
    assert 3 not in began + rest and gone not in read and -1 in read
    following = Ranks(copy, 1, 4)
    records = {record for record, _ in whole_epoch(following)}
    assert 3 in records and gone not in records and len(records) == COUNT - 1


KILLED = """
import json, os, sys
from pathlib import Path
from tests.helpers.epochs import Ranks, merged
ranks = Ranks(Path(sys.argv[1]), 2, 4, 1)
out = Path(sys.argv[2])
if out.exists():
    ranks.load(json.loads(out.read_text())["state"])
for number, batches in enumerate(ranks.steps()):
    records = [record for record, _ in merged(batches)]
    before = json.loads(out.read_text())["records"] if out.exists() else []
    fresh = out.with_name("fresh")
    fresh.write_text(json.dumps({"state": ranks.state(), "records": before + records}))
    os.replace(fresh, out)
    if number == 1 and not before[:1]:
        os.kill(os.getpid(), 9)
    if len(before) == 8 and len(sys.argv) > 3:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_kill_9_in_the_middle(tiny: Path, tmp_path: Path) -> None:
    """A run that writes its state to disk at each step and is killed, twice, goes on where it was."""
    script, out = KILLED.replace("not before[:1]", "len(before) < 8"), tmp_path / "state.json"
    assert usual().run(script, [tiny, out]).returncode == -signal.SIGKILL
    assert len(json.loads(out.read_text())["records"]) == 8
    assert usual().run(script, [tiny, out, "again"]).returncode == -signal.SIGKILL
    usual().run(script, [tiny, out]).check_returncode()
    found = json.loads(out.read_text())
    assert found["records"] == [record for record, _ in whole_epoch(Ranks(tiny, 2, 4))]
    assert (found["state"]["epoch"], found["state"]["position"]) == (1, 0)


def test_is_a_stateful(tiny: Path) -> None:
    """What Lightning, Accelerate, torchtitan and torch.distributed.checkpoint look for."""
    from torch.distributed.checkpoint.stateful import Stateful

    assert isinstance(Ranks(tiny, 1, 4).loaders[0], Stateful)
