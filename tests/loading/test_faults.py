"""on_error: what bad bytes do under each policy; storage that fails is read again and then raises."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pass_loader.loading.faults as faults
from pass_loader import DataLoader, RecordError, ShardDataset, ShardError
from pass_loader.loading.faults import replacement
from pass_loader.pack import build, remove

from ..helpers.corpus import jpeg, noise
from ..helpers.epochs import COUNT, TINY, Seen, seen
from ..helpers.packs import BAD, flip_a_bit
from ..helpers.trees import write_tree
from ..helpers.trials import trials


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses before a read is tried again."""
    monkeypatch.setattr(faults, "IO_RETRIES_S", (0.01, 0.02))


def loader_of(pack: Path, **arguments: Any) -> DataLoader:
    arguments = {"batch_size": 7, "shuffle": True, "return_info": True, "on_error": "replace", **arguments}
    return DataLoader(ShardDataset(pack, TINY, seed=5), **arguments)


def test_raise_names_the_record(broken_pack: Path) -> None:
    for record, cause in ((5, "CRC32C is"), (61, "JPEG: ")):
        loader = loader_of(broken_pack, on_error="raise", shuffle=None, sampler=[0, record, 1])
        with pytest.raises(RecordError) as caught:
            next(iter(loader))
        error = caught.value
        shard = loader.dataset.pack.shard_name(record)
        assert (error.record, error.id, error.shard) == (record, f"{record:02d}", shard)
        assert error.cause.startswith(cause) and loader.errors == [] and loader.stats()["errors"] == 0
    many = loader_of(broken_pack, on_error="raise", shuffle=None, sampler=[5, 17, 1])
    with pytest.raises(RecordError, match=r"record 5, .*\(and 1 more records of this batch failed\)"):
        next(iter(many))


def test_after_an_error_the_next_batch_comes(broken_pack: Path) -> None:
    """The position stays before the failed batch until the next one is asked for: a state taken then tries it again."""
    loader = loader_of(broken_pack, on_error="raise", shuffle=False, batch_size=4, num_workers=2)
    iterator, got, failed = iter(loader), [], []
    while True:
        try:
            got += [record for record, _ in seen(next(iterator))]
        except StopIteration:
            break
        except RecordError as error:
            failed.append(error.record)
            assert loader.state_dict()["position"] == error.record // 4 * 4
    assert failed == [5, 17, 40, 61] and loader.state_dict()["epoch"] == 1
    assert got == [record for record in range(COUNT) if record // 4 not in {1, 4, 10, 15}]
    again = loader_of(broken_pack, on_error="raise", shuffle=False, batch_size=4)
    iterator = iter(again)
    next(iterator)
    with pytest.raises(RecordError):
        next(iterator)
    resumed = loader_of(broken_pack, shuffle=False, batch_size=4)
    resumed.load_state_dict(again.state_dict())
    first = next(iter(resumed))
    assert [record for record, _ in seen(first)][0] == 4 and first[-1]["valid"].tolist() == [True, False, True, True]


def replaced(pack: Path, world: int, threads: int, batch_size: int) -> dict[int, tuple[int, bytes]]:
    """Return, for each place of the epoch where something was replaced, what stands there."""
    out = {}
    for rank in range(world):
        loader = loader_of(pack, batch_size=batch_size, num_workers=threads, rank=rank, world_size=world)
        place = rank
        for batch in loader:
            info = batch[-1]
            assert len(batch[1]) == len(info["valid"]) == len(info["ids"]) == len(info["plans"])
            for slot, (record, view) in enumerate(seen(batch)):
                assert info["ids"][slot] == f"{record:02d}"
                if not info["valid"][slot] and place < COUNT:
                    out[place] = record, view
                place += world
            assert info["valid"].all() or len(batch[1]) in (batch_size, -(-COUNT // world) % batch_size)
    return out


def test_replacements_are_the_same_everywhere(broken_pack: Path) -> None:
    """A pure function of (seed, epoch, record): on any ranks, threads and batch sizes, the next run too."""
    want = replaced(broken_pack, 1, 0, COUNT)
    dataset = ShardDataset(broken_pack, TINY, seed=5)
    assert len(want) == 5
    for record, view in want.values():
        assert record not in (*BAD, 61) and dataset.sample(record)[0].numpy().tobytes() == view
    for world, threads, batch_size in ((1, 3, 1), (2, 1, 7), (3, 2, 4), (4, 0, 16)):
        assert replaced(broken_pack, world, threads, batch_size) == want


def test_the_function_of_a_replacement() -> None:
    keys = itertools.product((0, 2**64 - 1), (0, 2**32 - 1), (0, 10**9), (0, 1))
    found = [replacement(*key, count=10**6) for key in keys]
    assert len(set(found)) == 16 and all(0 <= place < 10**6 for place in found)
    assert replacement(3, 1, 5, 0, 10**6) == 768426
    places = [replacement(0, 0, record, 0, 10) for record in range(1000)]
    assert min(np.bincount(places, minlength=10)) > 60


def test_a_replacement_is_never_a_removed_record(tiny: Path, tmp_path: Path) -> None:
    """Removed since the resumed epoch began: neither served in its own place nor in another's."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    first = loader_of(copy, shuffle=False, batch_size=4)
    next(iter(first))
    drawn = ((record, replacement(5, 0, record, 0, COUNT)) for record in range(4, COUNT))
    bad, other = next((record, place) for record, place in drawn if record != place)
    remove(copy, [f"{bad:02d}", f"{other:02d}"], reason="since")
    resumed = loader_of(copy, shuffle=False, batch_size=4)
    resumed.load_state_dict(first.state_dict())
    got = [record for batch in resumed for record, _ in seen(batch)]
    assert len(got) == COUNT - 4 and not {bad, other} & {*got}


def test_a_replacement_has_its_own_label_plan_and_views(tmp_path: Path) -> None:
    files = {f"{'ab'[number % 2]}/{number:02d}.jpg": jpeg(noise(12, 16, number)) for number in range(12)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    dataset = ShardDataset(tmp_path / "pack", TINY, seed=5)
    flip_a_bit(dataset.pack, 3)
    batch = next(iter(DataLoader(dataset, 12, on_error="replace", return_info=True)))
    views, labels, info = batch
    assert info["valid"].tolist() == [slot != 3 for slot in range(12)]
    record = int(info["records"][3])
    assert record != 3 and labels.tolist() == [dataset.pack.column("label")[r] for r in info["records"].tolist()]
    assert info["ids"][3] == dataset.id_of(record) and np.array_equal(info["plans"][3], dataset.plan(record))
    assert torch.equal(views[0][3], dataset.sample(record)[0])
    collated = next(iter(DataLoader(dataset, 12, on_error="replace", collate_fn=list)))
    assert int(collated[3][1]) == labels[3] and torch.equal(collated[3][0][0], views[0][3])


def test_errors_are_listed(broken_pack: Path) -> None:
    import pickle

    loader = loader_of(broken_pack, num_workers=2)
    for epoch in (1, 2):
        assert all(len(labels) in (7, 6) for _, labels, _ in loader)
        assert [error.record for error in loader.errors].count(5) >= epoch
        assert {error.record for error in loader.errors} == {*BAD, 61}
    assert loader.stats()["errors"] == len(loader.errors) >= 10
    assert {error.record for error in pickle.loads(pickle.dumps(loader)).errors} == {*BAD, 61}
    assert all(isinstance(error, RecordError) and error.cause for error in loader.errors)


def test_skip_shrinks_batches(broken_pack: Path) -> None:
    for collate in (None, list):
        loader = loader_of(broken_pack, on_error="skip", shuffle=False, batch_size=2, num_workers=1,
                           **({"collate_fn": collate, "return_info": False} if collate else {}))  # fmt: skip
        batches = list(loader)
        assert sorted(error.record for error in loader.errors) == [*BAD, 61]
        if collate:
            assert [len(batch) for batch in batches].count(1) == 5 and sum(map(len, batches)) == COUNT - 5
            continue
        got: Seen = [sample for batch in batches for sample in seen(batch)]
        assert [record for record, _ in got] == [r for r in range(COUNT) if r not in (*BAD, 61)]
        for record, view in got:
            assert loader.dataset.sample(record)[0].numpy().tobytes() == view
        for views, labels, info in batches:
            assert len(views[0]) == len(labels) == len(info["plans"]) == len(info["ids"]) and info["valid"].all()
    whole = DataLoader(ShardDataset(broken_pack, TINY), sampler=[1, 2, 17, 18, 3, 4], batch_size=2, on_error="skip",
                       return_info=True)  # fmt: skip
    iterator = iter(whole)
    assert [[record for record, _ in seen(batch)] for batch in iterator] == [[1, 2], [3, 4]], "no empty batch"
    assert whole.state_dict()["epoch"] == 1


def test_too_many_in_a_row(broken_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "IN_A_ROW", 6)
    for policy in ("replace", "skip"):
        ok = DataLoader(ShardDataset(broken_pack, TINY), 4, sampler=[5, 17, 18, 5, 40, 5, 1] * 3, on_error=policy)
        assert len(list(ok)) >= 3, "a good one between them begins to count anew"
        bad = DataLoader(ShardDataset(broken_pack, TINY), 4, sampler=[1, *([5] * 7)], on_error=policy)
        with pytest.raises(RuntimeError, match="more than 6 records in a row failed, the last one: .*record 5"):
            list(bad)
    sampler = [5, 5, 5, 1, 2, 3, 5, 5, 5, 5, 5, 5]
    batches = DataLoader(ShardDataset(broken_pack, TINY), 3, sampler=sampler, on_error="replace")
    assert len(list(batches)) == 4, "a good batch counts too"


def test_replacements_that_fail_as_well(broken_pack: Path) -> None:
    """Nearly all are bad: it is said, not tried for ever."""
    data = ShardDataset(broken_pack, TINY, records=[5, 17, 18, 40])
    with pytest.raises(RuntimeError, match=r"16 replacements for record 5 failed as well, the last one: .*CRC32C"):
        list(DataLoader(data, 2, on_error="replace"))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("policy", ["raise", "replace", "skip"])
def test_storage_that_fails_for_good_raises(tiny: Path, tmp_path: Path, quick: None, policy: str, threads: int) -> None:
    """Under every policy, after it was read again; the others are served, and the position is not lost."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    loader = loader_of(copy, on_error=policy, shuffle=False, num_workers=threads)
    shard = copy / loader.dataset.pack.shards[1]["tar"]
    first = int(loader.dataset.pack.first_record[1])
    shard.unlink()
    iterator = iter(loader)
    got = []
    with pytest.raises(ShardError, match=rf"{shard.name}, record {first}, .*cannot open the shard: No such file"):
        for batch in iterator:
            got += [record for record, _ in seen(batch)]
    assert got == list(range(first // 7 * 7)) and loader.state_dict()["position"] == len(got)
    assert loader.errors == []


class Meanwhile:
    """Does something a moment after a read has failed for the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, then: Any):
        self.pauses: list[float] = []

        def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            then(len(self.pauses))

        monkeypatch.setattr(faults.time, "sleep", sleep)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("how", ["vanished", "cut off", "moved away and cut off"])
def test_storage_that_comes_back_is_read(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, threads: int
) -> None:
    """Within the pauses: no sample is lost, none is counted as bad. Also where the file is another one by then: what
    was open is the one that was cut off."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    loader = loader_of(copy, on_error="skip", shuffle=False, num_workers=threads)
    want = [sample for batch in loader for sample in seen(batch)]
    shard = copy / loader.dataset.pack.shards[1]["tar"]
    whole = shard.read_bytes()
    if how == "vanished":
        shard.unlink()
        loader = loader_of(copy, on_error="skip", shuffle=False, num_workers=threads)
    else:
        shard.write_bytes(whole[:700])
    if how.startswith("moved"):
        shard.rename(copy / "away")

    def back(times: int) -> None:
        if times == 2:
            shard.write_bytes(whole)

    meanwhile = Meanwhile(monkeypatch, back)
    got = [sample for batch in loader for sample in seen(batch)]
    assert [record for record, _ in got] == [record for record, _ in want]
    assert meanwhile.pauses[:2] == [0.05, 0.5] and loader.errors == [] and loader.stats()["errors"] == 0


def test_continuing_after_the_storage_came_back(tiny: Path, tmp_path: Path, quick: None) -> None:
    """A state that was taken after the error begins with the failed batch."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    want = [sample for batch in loader_of(copy) for sample in seen(batch)]
    loader = loader_of(copy, num_workers=2)
    iterator = iter(loader)
    got = seen(next(iterator))
    hidden = {shard: shard.read_bytes() for shard in copy.glob("*.tar")}
    for shard in hidden:
        shard.write_bytes(b"")
    with pytest.raises(ShardError, match="it was cut off or replaced"):
        while True:
            got += seen(next(iterator))
    state = loader.state_dict()
    assert state["position"] == len(got)
    for shard, data in hidden.items():
        shard.write_bytes(data)
    resumed = loader_of(copy)
    resumed.load_state_dict(state)
    assert got + [sample for batch in resumed for sample in seen(batch)] == want


@pytest.mark.slow
def test_shards_that_change_under_many_threads(tiny: Path, tmp_path: Path, quick: None) -> None:
    """Cut off, exchanged, removed and written again all the time: errors or the right pixels, never a crash."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    dataset = ShardDataset(tiny, TINY, seed=5)
    want = {record: dataset.sample(record)[0].numpy().tobytes() for record in range(COUNT)}
    shards = {shard: shard.read_bytes() for shard in copy.glob("*.tar")}
    stop = threading.Event()

    def change() -> None:
        rng = np.random.default_rng(0)
        while not stop.is_set():
            for shard, data in shards.items():
                kind = rng.integers(4)
                if kind == 0:
                    shard.write_bytes(data[: rng.integers(len(data))])
                elif kind == 1:
                    shard.unlink(missing_ok=True)
                elif kind == 2:
                    shard.with_name("new").write_bytes(bytes(rng.integers(0, 256, len(data), np.uint8)))
                    shard.with_name("new").rename(shard)
                else:
                    shard.write_bytes(data)

    thread = threading.Thread(target=change)
    thread.start()
    served = 0
    try:
        for _ in range(trials(6, 300)):
            iterator = iter(loader_of(copy, num_workers=3, batch_size=4, on_error="skip"))
            while True:
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
                except (RuntimeError, OSError):
                    continue
                for record, view in seen(batch):
                    served += 1
                    assert want[record] == view
    finally:
        stop.set()
        thread.join()
    assert served > 0


def test_policies_have_names(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"on_error is 'ignore', want one of \('raise', 'replace', 'skip'\)"):
        loader_of(tiny, on_error="ignore")
