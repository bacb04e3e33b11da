"""What a loader does to its process and says of itself: no CUDA, forks, statistics, beside 8-bit optimizers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.loading.iteration import Meter
from pass_loader.loading.statistics import statistics

from ..helpers.epochs import COUNT, TINY


ROOT = Path(__file__).parents[2]


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_no_cuda_context_and_no_threads_at_import(tiny: Path) -> None:
    code = """
import os, sys, torch, pyarrow
before = len(os.listdir("/proc/self/task"))
import pass_loader
from pass_loader import recipes, drop_in
assert "pandas" not in sys.modules and not torch.cuda.is_initialized()
assert len(os.listdir("/proc/self/task")) == before
dataset = pass_loader.ShardDataset(sys.argv[1], recipes.mocov2(size=8))
loader = pass_loader.DataLoader(dataset, 4, shuffle=True, num_workers=2, dtype=torch.float16)
print(sum(len(labels) for _, labels in loader), torch.cuda.is_initialized())
"""
    assert run(code, tiny) == f"{COUNT} False"


@pytest.mark.slow
def test_a_fork_in_the_middle_of_an_epoch(tiny: Path) -> None:
    """Threads do not survive a fork: the child makes its own, the parent's go on, what is held dies quietly in both."""
    code = """
import os, sys, pass_loader
from pass_loader import recipes
dataset = pass_loader.ShardDataset(sys.argv[1], recipes.mocov2(size=8))
loader = pass_loader.DataLoader(dataset, 4, shuffle=True, num_workers=3, prefetch_factor=4, return_info=True)
iterator = iter(loader)
held = next(iterator)
records = lambda batches: [int(record) for *_, info in batches for record in info["records"]]
want = records(loader)
child = os.fork()
if child == 0:
    code = 0 if records(loader) == want else 3
    try:
        next(iterator)
        code = 4
    except ValueError as error:
        code = code or (0 if "live in the process that forked this one" in str(error) else 5)
    del iterator, held, loader
    os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert records([held, *iterator]) == want
print("both")
"""
    assert run(code, tiny) == "both"


FIELDS = {"batches", "samples", "seconds", "samples_per_second", "views_per_second", "data_wait", "stage_seconds",
          "errors", "private_bytes", "pinned_bytes", "device_bytes", "nvjpeg", "cuda", "blocks", "advice", "busy",
          "batches_ahead", "batches_ahead_most", "read_ahead", "remote"}  # fmt: skip


def test_statistics(pack: Path) -> None:
    dataset = ShardDataset(pack, recipes.mocov2(size=32))
    loader = DataLoader(dataset, 4, num_workers=1)
    before = loader.stats()
    assert set(before) == FIELDS and before["samples"] == 0 and before["advice"] == "nothing measured so far"
    began = time.perf_counter()
    for _ in range(2):
        for _ in loader:
            time.sleep(0.002)
    seconds = time.perf_counter() - began
    found = loader.stats()
    assert (found["batches"], found["samples"], found["errors"], found["pinned_bytes"]) == (12, 46, 0, 0)
    assert 0.5 * seconds < found["seconds"] <= seconds
    assert found["samples_per_second"] == pytest.approx(46 / found["seconds"])
    assert found["views_per_second"] == pytest.approx(92 / found["seconds"])
    stages = found["stage_seconds"]
    assert all(stages[name] > 0 for name in ("read", "decode", "plan", "resize", "normalize")), stages
    assert sum(stages.values()) < seconds and 1e7 < found["private_bytes"] < 1e11
    assert 0 < found["data_wait"] < 1


@pytest.mark.parametrize("waited,threads,words", [
    (0.01, 2, "consumer-bound: 1% of the time waited for data; a faster loader would change nothing"),
    (0.06, 0, "balanced: 6% of the time"), (0.5, 0, r"loader-bound: 50% .*raise num_workers \(now 0, \d+ CPUs\)"),
    (0.9, 10**6, r"loader-bound: 90% of the time waited for data; all \d+ CPUs render already"),
])  # fmt: skip
def test_advice_in_the_clear_cases(waited: float, threads: int, words: str) -> None:
    import re

    meter = Meter(batches=10, samples=100, waited_s=waited, worked_s=1 - waited)
    stages = {"read": 1.0, "decode": 2.0, "samples": 100}
    found = statistics(meter, stages, views=3, threads=threads, depth=None, read_ahead=None, errors=2, pinned_bytes=7)
    assert re.fullmatch(words + ".*", found["advice"]) and found["data_wait"] == pytest.approx(waited)
    assert found["stage_seconds"] == {"read": 1.0, "decode": 2.0}
    assert found["errors"] == 2 and found["pinned_bytes"] == 7
    assert found["samples_per_second"] == pytest.approx(100) and found["views_per_second"] == pytest.approx(300)


@pytest.mark.slow
def test_who_waits_is_told_apart(pack: Path) -> None:
    """A consumer that computes all the time and one that only waits. Shares, not seconds."""
    dataset = ShardDataset(pack, recipes.dino(local_crops=4))
    starved = DataLoader(dataset, 4, num_workers=1)
    for _ in starved:
        pass
    assert starved.stats()["data_wait"] > 0.9 and starved.stats()["advice"].startswith("loader-bound")
    fed = DataLoader(ShardDataset(pack, TINY), 4, num_workers=1, prefetch_factor=4)
    for _ in fed:
        time.sleep(0.1)
    assert fed.stats()["data_wait"] < starved.stats()["data_wait"] / 2


@pytest.mark.slow
def test_private_memory_grows_with_what_is_held() -> None:
    """Fresh pages of the kernel's, in a process that does nothing else: an allocator may give out what it has kept."""
    code = """
import mmap
from pass_loader.loading.statistics import private_bytes
before = private_bytes()
with mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE) as held:
    held.write(b"x" * 50_000_000)
    print(private_bytes() - before)
"""
    assert 4e7 < int(run(code)) < 7e7


@pytest.mark.slow
def test_a_moco_step_with_8_bit_adam(tiny: Path) -> None:
    """bitsandbytes in the process of a loader: MoCo-v2's step (a momentum encoder, a queue) with its 8-bit Adam."""
    bnb: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install bitsandbytes")
    loader = DataLoader(ShardDataset(tiny, recipes.mocov2(size=24)), 16, shuffle=True, num_workers=2, drop_last=True)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def encoder() -> torch.nn.Sequential:
        layers = (torch.nn.Conv2d(3, 64, 5, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64 * 49, 128))
        return torch.nn.Sequential(*layers).to(device)

    query, key = encoder(), encoder()
    key.load_state_dict(query.state_dict())
    queue = F.normalize(torch.randn(256, 128, device=device), dim=1)
    optimizer = bnb.optim.Adam8bit(query.parameters(), lr=1e-3)
    losses = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for images, _ in loader:
            images[0], images[1] = images[0].to(device), images[1].to(device)
            q = F.normalize(query(images[0]), dim=1)
            with torch.no_grad():
                for slow, fast in zip(key.parameters(), query.parameters()):
                    slow.mul_(0.9).add_(fast, alpha=0.1)
                k = F.normalize(key(images[1]), dim=1)
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
            loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=device))
            optimizer.zero_grad()
            loss.backward()
            try:
                optimizer.step()
            except (NotImplementedError, RuntimeError) as error:
                pytest.skip(f"bitsandbytes {bnb.__version__} has no 8-bit Adam on {device}: {error}")
            queue = torch.cat([k, queue])[:256]
            losses.append(loss.item())
    kinds = {value.dtype for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)}
    assert torch.uint8 in kinds, "the state is in 8 bits"
    assert len(losses) == 6 and all(map(torch.isfinite, torch.tensor(losses)))
    assert any(not torch.equal(a, b) for a, b in zip(query.parameters(), encoder().parameters()))
