"""order="blocks" in loaders: resume on other ranks, weights, removals, subsets, states, warnings, refusals."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from pass_loader import ConcatDataset, DataLoader, EpochSampler, MixedLoader, PackError, ShardDataset
from pass_loader.loading.replay import records_of_last_batch
from pass_loader.pack import Pack, purge, remove
from pass_loader.pack.manifest import read_manifest, write_manifest

from ..helpers.epochs import COUNT, TINY, Ranks, merged, seen, whole_epoch
from ..helpers.packs import flip_a_bit
from ..helpers.processes import on_ranks

# A record of `tiny` has about 2,200 bytes with what lies around it: blocks of 3, windows of 4 lanes of 5 records each.
SMALL = {"order": "blocks", "block_bytes": 6_600, "window_bytes": 44_000, "lanes": 4}
pytestmark = pytest.mark.filterwarnings("ignore:order='blocks'. the windows hold")


def small(tiny: Path, **arguments: Any) -> DataLoader:
    given = {"shuffle": True, "return_info": True, "rank": 0, "world_size": 1, **SMALL, **arguments}
    return DataLoader(ShardDataset(tiny, TINY, seed=5), 4, **given)


def concat(tiny: Path, weights: list[float] | None = None, **arguments: Any) -> Callable[[], ConcatDataset]:
    def make() -> ConcatDataset:
        parts = [range(0, 20), range(10, 45), range(40, COUNT)]
        return ConcatDataset([ShardDataset(tiny, TINY, seed=5, records=part) for part in parts], weights, **arguments)

    return make


def records_of(loader: DataLoader, count: int | None = None) -> list[int]:
    return [record for batch in itertools.islice(loader, count) for record, _ in seen(batch)]


def test_an_epoch(tiny: Path) -> None:
    """Every record once, another order each epoch, and runs of neighbours: a window of 20 records has blocks of 3."""
    loader = small(tiny)
    epochs = [records_of(loader)]
    sizes = loader.sampler.sizes
    assert sizes.lanes == 4 and (sizes.block, sizes.window) == (3, 5) and loader.stats()["blocks"]["times_read"] == 1
    loader.sampler.set_epoch(1)
    epochs.append(records_of(loader))
    for records in epochs:
        assert sorted(records) == list(range(COUNT))
        blocks = [len({record // 3 for record in records[begin : begin + 16]}) for begin in range(0, 48, 16)]
        assert max(blocks) <= 12, "16 samples of 4 lanes of 3-record blocks: a shuffled order has about 15"
    assert epochs[0] != epochs[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pack", "concatenation", "weights"])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_resume_on_other_ranks(tiny: Path, kind: str, before: int, drop_last: bool) -> None:
    """The lanes are those of the run that began, whatever ranks go on with it: none is named here. All samples of the
    whole global batches are those of the uninterrupted run, views too; without drop_last every record is served."""
    pack: Any = tiny if kind == "pack" else concat(tiny, [2, 1, 3] if kind == "weights" else None)
    given = {**SMALL, "drop_last": drop_last}
    del given["lanes"]
    want = whole_epoch(Ranks(pack, before, 12, **given))
    count = COUNT if kind == "pack" else len(pack())
    draw = random.Random(before)
    for after in (1, 2, 3, 4, 6):
        first = Ranks(pack, before, 12, 2, **given)
        steps, got = first.steps(), []
        for _ in range(draw.randint(1, 4)):
            got += merged(next(steps))
        state = first.state()
        assert state["order"]["lanes"] == before
        got += whole_epoch(Ranks(pack, after, 12, **given).load(state))
        assert got[:count] == want[:count] and len(got) - len(want) < (1 if drop_last else after), after
        if kind == "pack" and not drop_last:
            assert {record for record, _ in got} == set(range(COUNT))


def test_an_endless_order(tiny: Path) -> None:
    """Pass after pass the order of its epoch, on any ranks, and after a resume in the middle of a batch of two."""
    epochs = []
    for epoch in range(3):
        ranks = Ranks(tiny, 1, 62, **SMALL)
        ranks.loaders[0].sampler.set_epoch(epoch)
        epochs += whole_epoch(ranks)
    for pack in (tiny, concat(tiny, [1, 1, 2], num_samples=62)):
        for world in (1, 3):
            ranks = Ranks(pack, world, 12, infinite=True, **SMALL)
            steps = ranks.steps()
            got = [sample for _ in range(10) for sample in merged(next(steps))]
            assert got == epochs[:120] or pack != tiny
            for after in (1, 2, 4):
                rest = Ranks(pack, after, 12, infinite=True, **SMALL).load(ranks.state()).steps()
                again = Ranks(pack, 1, 12, infinite=True, **SMALL)
                again.loaders[0].advance(10)
                assert merged(next(rest)) == merged(next(again.steps()))


@pytest.mark.parametrize("infinite", [False, True])
def test_weights(tiny: Path, infinite: bool) -> None:
    """Counts are exact, no sample comes twice, records come in turns; replay and single samples agree."""
    dataset = concat(tiny, [0.5, 0.3, 0.2], num_samples=50)()
    loader = DataLoader(dataset, 5, shuffle=True, return_info=True, infinite=infinite, num_workers=2, **SMALL)
    times: Counter[int] = Counter()
    batches = iter(loader)
    for epoch in range(5):
        if not infinite:
            loader.sampler.set_epoch(epoch)
            batches = iter(loader)
        samples = []
        for views, _, info in itertools.islice(batches, 10):
            samples += [*zip(info["records"].tolist(), info["draws"].tolist(), info["datasets"].tolist())]
            record, draw = int(info["records"][3]), int(info["draws"][3])
            assert torch.equal(views[0][3], dataset.sample(record, epoch, draw)[0])
            state = json.loads(json.dumps(loader.state_dict()))
            assert sorted(records_of_last_batch(dataset, state)) == sorted(info["records"].tolist())
        assert [sum(own == number for *_, own in samples) for number in range(3)] == [25, 15, 10]
        assert len({(record, draw) for record, draw, _ in samples}) == 50
        times.update(record for record, *_ in samples)
    for begin, end in ((0, 20), (72, 107), (164, 186)):
        counts = [times[record] for record in range(begin, end)]
        assert max(counts) - min(counts) <= 1, (begin, counts)
    assert isinstance(loader.sampler.sizes.block, tuple) and len(loader.sampler.sizes.block) == 3


def test_removals(tiny: Path, tmp_path: Path) -> None:
    """An epoch keeps what it began with; the next serves each live record once; numbers of records stay, also after a
    purge that changes the mean record."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    loader = small(copy)
    batches = iter(loader)
    got = [record for record, _ in seen(next(batches))]
    remove(copy, ["03", "17", "40"], reason="x")
    got += [record for batch in batches for record, _ in seen(batch)]
    assert sorted(got) == list(range(COUNT))
    sizes = loader.sampler.sizes
    purge(copy)
    batches = iter(loader)
    got = [record for record, _ in seen(next(batches))]
    state = json.loads(json.dumps(loader.state_dict()))
    want = got + [record for batch in batches for record, _ in seen(batch)]
    assert sorted(want) == sorted({*range(COUNT)} - {3, 17, 40}) and loader.sampler.sizes == sizes
    resumed = small(copy)
    resumed.load_state_dict(state)
    assert got + records_of(resumed) == want and resumed.sampler.sizes == sizes
    fewer = small(copy, window_bytes=40_000, block_bytes=6_600)
    with pytest.raises(ValueError, match="'window_bytes': 44000.*, here .*'window_bytes': 40000"):
        fewer.load_state_dict(state)


def test_bad_records_are_replaced(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    flip_a_bit(Pack(copy), 9)
    make = concat(copy, [1, 1, 1])
    loader = DataLoader(make(), 4, shuffle=True, on_error="replace", return_info=True, **SMALL)
    assert len(records_of(loader)) == len(make()) and {error.record for error in loader.errors} == {9}


def test_numbers_are_fixed_when_a_run_begins(tiny: Path) -> None:
    """Not when the loader is made; by the ranks that begin it unless lanes are named, and for all epochs."""
    loader = small(tiny, lanes=None, world_size=2)
    assert loader.stats()["blocks"] is None and loader.sampler.sizes_so_far is None
    len(loader)
    assert loader.sampler.sizes_so_far is None
    records_of(loader, 1)
    told = loader.stats()["blocks"]
    assert told["lanes"] == 2 and told["block"] == 3 and told["window"] == 10 and told["times_read"] == 1
    state = loader.state_dict()
    assert {name: state["order"][name] for name in told if name != "times_read"} == {
        name: value for name, value in told.items() if name != "times_read"
    }
    three = small(tiny, lanes=None, rank=0, world_size=3)
    three.__dict__["batch_size"] = 4
    assert pickle.loads(pickle.dumps(loader.sampler)).sizes == loader.sampler.sizes
    assert records_of(three, 1) and three.stats()["blocks"]["times_read"] == 1
    three.sampler.adopt(loader.sampler.sizes)
    assert three.stats()["blocks"]["times_read"] == 3, "three ranks on two lanes"


@pytest.mark.parametrize(
    "given,words",
    [
        ({"lanes": 2}, "'lanes': 4.*, here .*'lanes': 2"),
        ({"block_bytes": 8_000}, "'block_bytes': 6600.*, here .*'block_bytes': 8000"),
        ({"window_bytes": 60_000}, "'window_bytes': 44000.*, here .*'window_bytes': 60000"),
        ({"order": "torch", "block_bytes": None, "window_bytes": None, "lanes": None}, "'kind': 'blocks'.*, here"),
        ({"generator": torch.Generator().manual_seed(8)}, "'seed': 0.*, here .*'seed': 8"),
    ],
)
def test_a_state_of_other_numbers_is_refused(tiny: Path, given: dict[str, Any], words: str) -> None:
    state = small(tiny).state_dict()
    target = small(tiny, **given)
    before = target.state_dict()
    with pytest.raises(ValueError, match=f"does not fit: the order was .*{words}"):
        target.load_state_dict(state)
    assert target.state_dict() == before, "a refused state changes nothing"
    with pytest.raises(ValueError, match="does not fit: the order was"):
        small(tiny).load_state_dict(before)


def test_what_is_not_given_is_the_states(tiny: Path) -> None:
    """A loader that names no numbers goes on with those of the state, though its own would be others."""
    first = small(tiny)
    want = records_of(first)
    loader = small(tiny)
    records_of(loader, 3)
    state = loader.state_dict()
    plain = small(tiny, block_bytes=None, window_bytes=None, lanes=None)
    assert plain.state_dict()["order"]["block"] == COUNT * 100 or plain.sampler.sizes.block > 1000
    plain.load_state_dict(state)
    assert plain.state_dict() == state and records_of(plain) == want[12:]
    mixed = [MixedLoader([small(tiny, infinite=True), small(tiny, lanes=2, infinite=True)], [0.5, 0.5]) for _ in "ab"]
    batches = iter(mixed[0])
    for _ in range(7):
        next(batches)
    mixed[1].load_state_dict(mixed[0].state_dict())
    assert [seen(batch) for batch in itertools.islice(mixed[1], 5)] == [seen(next(batches)) for _ in range(5)]


def test_a_damaged_state(tiny: Path) -> None:
    loader = small(tiny)
    state = loader.state_dict()
    for name, value in (("block", 0), ("block", [3]), ("block", []), ("window", "5"), ("lanes", True), ("lanes", None),
                        ("window_bytes", 2.5)):  # fmt: skip
        with pytest.raises(ValueError, match="the state is damaged: its order is"):
            loader.load_state_dict({**state, "order": {**state["order"], name: value}})
    weighted = DataLoader(concat(tiny, [1, 1, 1])(), 4, shuffle=True, **SMALL)
    state = weighted.state_dict()
    for value in (3, [3, 3]):
        with pytest.raises(ValueError, match="the state is damaged: its order is .* for 3 datasets"):
            weighted.load_state_dict({**state, "order": {**state["order"], "block": value}})


def test_small_windows_are_told(tiny: Path) -> None:
    """Once a loader; not where the windows hold as many blocks as the batch, nor where one window is the epoch."""
    words = r"windows hold 5 blocks at a time, and the global batch is 8: each sample shares its block with 1.4 others"
    loader = small(tiny, world_size=2)
    with pytest.warns(UserWarning, match=words):
        records_of(loader, 1)
    with pytest.warns(UserWarning, match="windows hold"):
        next(iter(small(tiny, world_size=2, infinite=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records_of(loader, 1)
        records_of(small(tiny), 1)
        records_of(small(tiny, world_size=8, window_bytes=1 << 20), 1)


def test_a_shuffled_subset_is_told(tiny: Path) -> None:
    """Its blocks are no runs of bytes. Sorted ones, however sparse, are served without a word."""
    chosen = random.Random(3).sample(range(COUNT), 40)
    for records, words in ((chosen, r"chosen records of .* lie in \d+ runs of [12].\d records each on average, and a"),
                           (sorted(chosen), None)):  # fmt: skip
        loader = DataLoader(ShardDataset(tiny, TINY, records=records), 4, shuffle=True, return_info=True, **SMALL)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert sorted(records_of(loader)) == sorted(chosen)
        told = [str(one.message) for one in caught if "chosen" in str(one.message)]
        assert len(told) == (words is not None)
        if words:
            with pytest.warns(UserWarning, match=words):
                EpochSampler(loader.dataset, **SMALL, shuffle=True).sizes  # noqa: B018


def test_under_torchs_own_loader(tiny: Path) -> None:
    """The sampler serves a map; what has no bytes a record, or draws by weights, is refused in words."""
    dataset = ShardDataset(tiny, TINY, seed=5)
    sampler = EpochSampler(dataset.as_map(), shuffle=True, rank=0, world_size=1, **SMALL)
    want = records_of(small(tiny))
    assert list(sampler) == want
    batches = data.DataLoader(dataset.as_map(return_info=True), 4, sampler=sampler, collate_fn=list)
    assert [int(info["record"]) for batch in batches for *_, info in batch] == want
    assert records_of(DataLoader(dataset, 4, sampler=sampler, return_info=True)) == want
    for other in (range(5), data.Subset(dataset.as_map(), [1, 2]), data.random_split(dataset.as_map(), [30, 32])[0]):
        with pytest.raises(TypeError, match="order='blocks' needs to know how many bytes a record has"):
            EpochSampler(other, shuffle=True, order="blocks")  # type: ignore[arg-type]
    weighted = EpochSampler(concat(tiny, [1, 1, 1])().as_map(), shuffle=True, **SMALL)
    with pytest.raises(TypeError, match="positions alone cannot bring order='blocks' to a dataset with weights"):
        next(iter(weighted))


def test_refusals(tiny: Path, tmp_path: Path) -> None:
    for given, words in (
        ({"order": "torch"}, "block_bytes, window_bytes, lanes: want order='blocks' with it"),
        ({"order": None}, "block_bytes, window_bytes, lanes: want order='blocks' with it"),
        ({"shuffle": False}, "order='blocks' is an order of shuffling"),
        ({"lanes": 0}, "lanes is 0, want at least 1"),
        ({"block_bytes": -1}, "block_bytes is -1, want at least 1"),
        ({"window_bytes": 4_000}, "window_bytes is 4000, less than a block of 6600 bytes"),
        ({"block_bytes": None}, "window_bytes is 44000, less than a block of 8388608 bytes"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            small(tiny, **given)
    with pytest.raises(ValueError, match="a sampler decides order and ranks"):
        DataLoader(ShardDataset(tiny, TINY), 4, sampler=[1], lanes=2)
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    manifest = read_manifest(copy)
    write_manifest(copy, {**manifest, "shards": [{**shard, "bytes": 0} for shard in manifest["shards"]]})
    with pytest.raises(PackError, match="its manifest does not tell the bytes of its shards"):
        next(iter(small(copy)))


def purging(rank: int, world: int, pack: Path, other: Path) -> tuple[dict[str, Any], list[int]]:
    """Ranks that open the pack before and after a purge, which makes records shorter on average."""
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    given = {name: value for name, value in SMALL.items() if name != "lanes"}
    # One rank has a loader of another pack besides, with the same arguments.
    if rank == 1:
        next(iter(DataLoader(ShardDataset(other, TINY, seed=5), 4, shuffle=True, **given)))
    dataset = None if rank == 1 else ShardDataset(pack, TINY, seed=5)
    torch.distributed.barrier()
    if rank == 0:
        remove(pack, [f"{number:02d}" for number in range(30)], reason="x")
        purge(pack)
    torch.distributed.barrier()
    loader = DataLoader(dataset or ShardDataset(pack, TINY, seed=5), 4, shuffle=True, return_info=True, **given)
    records = records_of(loader)
    torch.distributed.barrier()
    return loader.state_dict()["order"], records


@pytest.mark.slow
def test_ranks_agree_on_the_numbers(tiny: Path, pack: Path, tmp_path: Path) -> None:
    """Though they found other means in the manifest. Kills: each rank by itself."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    (first, one), (second, two) = on_ranks(purging, copy, pack)
    assert first == second and first["lanes"] == 2
    assert sorted(one + two) == list(range(30, COUNT))
    before, after = (ShardDataset(path, TINY).block_sizes(6_600, 44_000, 2).block for path in (tiny, copy))
    assert before != after and first["block"] in (before, after), "both saw the same"


def test_far_out_costs_nothing(tiny: Path) -> None:
    loader = small(tiny, infinite=True)
    place = (2**32 - 5) * COUNT // 4 * 4
    loader.load_state_dict({**loader.state_dict(), "position": place})
    record = records_of(loader, 1)[0]
    assert record == loader.sampler.order(COUNT, place // COUNT).at(np.array([place % COUNT]))[0]
