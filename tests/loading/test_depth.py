"""How many batches are in work: bounds in bytes, growth where threads wait, and nothing else that depends on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu.busy_threads import compile_shim
from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.loading.depth import Bounds, Depth, bounds, sample_bytes
from pass_loader.loading.iteration import Meter
from pass_loader.loading.rendering import Renderer
from pass_loader.loading.statistics import statistics

TINY = recipes.mocov2(size=8)


def test_bytes_of_a_sample() -> None:
    dino = recipes.dino()
    assert sample_bytes(dino, 4, False) == (2 * 224**2 + 8 * 96**2) * 3 * 4
    assert sample_bytes(TINY, 2, True) == 2 * 8 * 8 * (3 * 2 + 4)


@pytest.mark.parametrize("threads,pinned,batch_size,most", [
    (8, False, 64, 5), (16, False, 64, 8), (32, False, 64, 14), (64, False, 64, 26), (64, True, 64, 18),
    (64, False, 256, 8), (64, True, 256, 6), (1, False, 64, 2), (0, False, 64, 2),
])  # fmt: skip
def test_the_default_room_holds_what_dino_needs(threads: int, pinned: bool, batch_size: int, most: int) -> None:
    found = bounds(2, threads, None, None, pinned, sample_bytes(recipes.dino(), 4, False))
    assert found.most(batch_size) == most
    assert found.records == 128 * threads and found.record_bytes == (16 << 20 if found.records else 0) * threads


def test_given_bytes_are_kept_to() -> None:
    """Batches and records share them. Never more samples than threads can use."""
    assert bounds(2, 4, 1000, None, False, 100) == Bounds(2, 7, 512, 250)
    assert bounds(2, 4, 1000, 0, False, 100) == Bounds(2, 10, 0, 0)
    assert bounds(2, 4, 1000, 33, True, 100) == Bounds(2, 5, 33, 250, 7, 1400)
    assert bounds(5, 4, 0, None, False, 100) == Bounds(5, 0, 0, 0)
    assert bounds(2, 4, 10**12, 0, False, 100) == Bounds(2, 128, 0, 0)


def test_an_endless_order_is_drawn_a_quarter_of_a_pass_ahead(tiny: Path) -> None:
    """Because a pass serves what is live when it is drawn."""
    assert Bounds(2, 100, 50, 9).within(120) == Bounds(2, 100, 20, 9)
    assert Bounds(2, 100, 50, 9).within(30) == Bounds(2, 30, 0, 9)
    assert Bounds(2, 50, 50, 9, 80, 7).within(60) == Bounds(2, 50, 10, 9, 60, 7)
    loader = DataLoader(ShardDataset(tiny, TINY), 2, shuffle=True, infinite=True, num_workers=4)
    iterator = iter(loader)
    next(iterator)
    drawn = len(iterator._under_way) + len(iterator._coming)
    assert 2 * drawn <= 2 * 2 + len(loader.dataset) // 4 + 2


def test_depth_grows_only_where_threads_wait() -> None:
    depth = Depth(Bounds(2, 100, 0, 0), 10)
    for _ in range(50):
        depth.note(idle_s=0.01, thread_s=1.0)
    assert depth.batches == 2
    seen = []
    for _ in range(100):
        depth.note(idle_s=0.5, thread_s=1.0)
        seen.append(depth.batches)
    assert seen == sorted(seen) and seen[0] == 3 and seen[-1] == depth.most == 12


def test_a_batch_too_large_for_the_room_waits() -> None:
    depth = Depth(Bounds(2, 100, 0, 0), 10)
    depth.batches = depth.most
    assert depth.allows(1, 10**9) and depth.allows(2, 100)
    assert not depth.allows(2, 101) and not depth.allows(12, 0)


def batches_of(loader: DataLoader, count: int) -> list[Any]:
    found = iter(loader)
    return [next(found) for _ in range(count)]


def test_bytes_bound_the_batches_in_work(tiny: Path) -> None:
    """Kills: a bound that counts batches; one that forgets the size of the batch that comes."""
    size = sample_bytes(TINY, 4, False)
    loader = DataLoader(ShardDataset(tiny, TINY), 4, num_workers=2, prefetch_bytes=11 * size, read_ahead=0)
    iterator = iter(loader)
    depth = loader._get_depth()
    assert depth.most == 4
    depth.batches = 99  # as if threads had waited
    for _ in range(5):
        next(iterator)
        assert len(iterator._under_way) == 3
    assert loader.stats()["batches_ahead_most"] == 4


class Asked:
    """A sampler that knows how often it was asked."""

    def __init__(self, size: int):
        self.size, self.times = size, 0

    def __iter__(self) -> Iterator[int]:
        for position in range(10_000):
            self.times += 1
            yield position % self.size


@pytest.mark.parametrize("grown", [2, 5])
def test_a_sampler_is_asked_for_a_fixed_number(tiny: Path, grown: int) -> None:
    """However many batches are in work. Kills: samples that are drawn when there is work for them."""
    dataset = ShardDataset(tiny, TINY)
    sampler = Asked(len(dataset))
    room = 16 * sample_bytes(TINY, 4, False)
    loader = DataLoader(dataset, 4, sampler=sampler, num_workers=1, prefetch_bytes=room, read_ahead=8)
    loader._get_depth().batches = grown
    iterator = iter(loader)
    seen = []
    for _ in range(4):
        next(iterator)
        seen.append(sampler.times)
    assert seen == [28, 32, 36, 40]


class Stateful(Asked):
    def __init__(self, size: int):
        super().__init__(size)
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.at += 1
            yield (7 * self.at) % self.size

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


@pytest.mark.parametrize("order", ["shuffle", "infinite", "stateful"])
def test_states_and_batches_do_not_depend_on_depth(tiny: Path, order: str) -> None:
    found = []
    for prefetch_bytes, grown, workers in ((0, 2, 0), (0, 2, 1), (10**9, 40, 2)):
        dataset = ShardDataset(tiny, TINY)
        how: dict[str, Any] = {"shuffle": True, "infinite": order == "infinite"}
        if order == "stateful":
            how = {"sampler": Stateful(len(dataset))}
        loader = DataLoader(dataset, 8, num_workers=workers, prefetch_bytes=prefetch_bytes, return_info=True, **how)
        loader._get_depth().batches = grown
        iterator = iter(loader)
        records, states = [], []
        for _ in range(len(dataset) // 8 - 1):
            *_, info = next(iterator)
            records.append(info["records"].tolist())
            states.append(loader.state_dict())
        resumed = DataLoader(dataset, 8, num_workers=1, return_info=True,
                             **(how if order != "stateful" else {"sampler": Stateful(len(dataset))}))  # fmt: skip
        resumed.load_state_dict(states[1])
        *_, info = next(iter(resumed))
        assert info["records"].tolist() == records[2]
        found.append((records, states))
    assert found[0] == found[1] == found[2]


def test_an_error_of_the_sampler_comes_at_its_turn(tiny: Path) -> None:
    """Kills: an error that is raised where its batch is drawn, before the batches ahead of it are given."""
    loader = DataLoader(ShardDataset(tiny, TINY), 2, sampler=[0, 1, 2, 3, 4, 10**6, 5, 6], num_workers=1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    with pytest.raises(IndexError, match="outside"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


@pytest.mark.slow
def test_threads_without_batches_are_told(pack: Path) -> None:
    """One batch of one sample for four threads. Shares, not seconds."""
    loader = DataLoader(ShardDataset(pack, recipes.dino()), 1, num_workers=4, prefetch_factor=1, prefetch_bytes=0)
    for _ in loader:
        pass
    found = loader.stats()
    assert "threads waited for batches" in found["advice"] and "prefetch_bytes" in found["advice"]
    assert 0 < found["busy"] < 0.5 and found["batches_ahead"] == found["batches_ahead_most"] == 1


@pytest.mark.parametrize("pinned,grown,words", [
    (True, True, r"pinned memory allows 18 of 26 batches, prefetch_bytes=(\d+) all of them"),
    (False, True, r"raise prefetch_bytes or prefetch_factor \(now 26 batches in work\)"),
    (True, False, "more are in work from now on"),
])  # fmt: skip
def test_what_pinned_memory_costs_is_told(pinned: bool, grown: bool, words: str) -> None:
    """64 threads without batches for half of the time waited. Kills: advice before the depth is at its most; of loaders
    that are not pinned; bytes that do not give as many batches."""
    size = sample_bytes(recipes.dino(), 4, False)
    depth = Depth(bounds(2, 64, None, None, pinned, size), 64)
    depth.batches = depth.most if grown else 2
    meter = Meter(batches=10, samples=640, waited_s=0.5, worked_s=0.5, idle_s=64 * 0.25)
    told = statistics(meter, {}, views=10, threads=64, depth=depth, read_ahead=None, errors=0, pinned_bytes=7)
    found = re.fullmatch(rf"loader-bound: 50% of the time waited for data; .*50% of that.*{words}", told["advice"])
    assert found, told["advice"]
    if found.groups():
        assert bounds(2, 64, int(found[1]), None, True, size).most(64) == 26


@pytest.mark.slow
def test_threads_that_are_all_busy_are_told(pack: Path) -> None:
    dataset = ShardDataset(pack, recipes.dino())
    order = [position % len(dataset) for position in range(160)]
    loader = DataLoader(dataset, 16, sampler=order, num_workers=1, prefetch_factor=4)
    for _ in loader:
        pass
    found = loader.stats()
    assert found["advice"].startswith("loader-bound") and "waited for batches" not in found["advice"]
    assert "storage" not in found["advice"] and 0.7 < found["busy"] <= 1.01


@pytest.mark.slow
def test_a_slow_consumer_is_told(tiny: Path) -> None:
    loader = DataLoader(ShardDataset(tiny, TINY), 8, num_workers=1)
    for _ in loader:
        time.sleep(0.5)
    found = loader.stats()
    assert (
        found["advice"].startswith(("consumer-bound", "balanced"))
        and found["busy"] < 0.2
        and found["batches_ahead"] == 2
    )


SLOW = """
import sys
from pass_loader import DataLoader, ShardDataset, recipes
loader = DataLoader(ShardDataset(sys.argv[1], recipes.mocov2(size=8)), 4, num_workers=8, read_ahead=0)
for _ in loader:
    pass
found = loader.stats()
assert found["advice"].startswith("storage-bound") and found["stage_seconds"]["read"] > 0, found
"""


@pytest.mark.slow
def test_slow_storage_is_told(tiny: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(compile_shim(tmp_path)), "SLOW_READS": "20"}
    subprocess.run([sys.executable, "-c", SLOW, str(tiny)], env=environment, check=True)


@pytest.mark.slow
def test_more_batches_keep_threads_busy(tiny: Path, tmp_path: Path) -> None:
    """Sixteen threads whose reads sleep, two batches of eight. Shares, not seconds."""
    code = (
        "import sys, numpy as np\nfrom pass_loader import DataLoader, ShardDataset, recipes\n"
        "d = ShardDataset(sys.argv[1], recipes.mocov2(size=8))\n"
        "order = np.random.default_rng(0).integers(0, len(d), 16 * 300).tolist()\n"
        "def found(**how):\n"
        "    loader = DataLoader(d, 8, sampler=order, num_workers=16, read_ahead=0, **how)\n"
        "    for _ in loader: pass\n"
        "    return loader.stats()\n"
        "two, more = found(prefetch_bytes=0), found()\n"
        "assert two['batches_ahead'] == 2 and 'threads waited for batches' in two['advice'], two\n"
        "assert more['busy'] > two['busy'] + 0.2 and more['batches_ahead'] > 4, (two, more)\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(compile_shim(tmp_path)), "SLOW_READS": "x10"}
    subprocess.run([sys.executable, "-c", code, str(tiny)], env=environment, check=True)


def test_a_batch_that_cannot_be_submitted_comes_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for a batch, `next` raises; the next call gives that very batch."""
    loader: Any = DataLoader(ShardDataset(tiny, TINY), 10, num_workers=2, return_info=True)
    want = [info["records"].tolist() for *_, info in loader]
    submit, calls = Renderer.submit, iter(range(100))

    def without_memory(self: Renderer, *given: Any) -> Any:
        if next(calls) in (0, 3):
            raise MemoryError("no room")
        return submit(self, *given)

    monkeypatch.setattr(Renderer, "submit", without_memory)
    iterator, found, failed = iter(loader), [], 0
    while len(found) < len(want):
        try:
            found.append(next(iterator)[-1]["records"].tolist())
        except MemoryError:
            failed += 1
    assert found == want and failed == 2 and next(iterator, None) is None
