"""Memory of a running loader. Bytes, not time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("last", [[], pytest.param(["--drop-last"], marks=pytest.mark.long)], ids=["keep", "drop"])
def test_anonymous_memory_of_ten_epochs(pack: Path, last: list[str]) -> None:
    """Two threads, batch 64: below 100 MB beyond torch's import and the live batches (those in work and the one held);
    flat from the second epoch on."""
    command = [sys.executable, "-m", "benchmarks.cpu.fresh_process", str(pack), "--epochs", "10"]
    out = subprocess.run(command + last, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(out)
    private = found["private_bytes"]
    assert max(private) - found["live_bytes"] < 100e6, found
    assert private[-1] - private[1] < 8e6, found


ANEW = """
import sys
import pass_loader
from benchmarks.memory import private_bytes
found = []
for epoch in range(30):
    loader = pass_loader.DataLoader(pass_loader.ShardDataset(sys.argv[1], pass_loader.recipes.dino()), 16, shuffle=True,
                                    num_workers=2)
    for _, batch in zip(range(4), loader):
        pass
    del loader, batch
    found.append(private_bytes())
print(found)
"""


@pytest.mark.slow
def test_a_new_loader_each_epoch(pack: Path) -> None:
    """Flat from the fifth on. Kills: memory from the heap, in whose holes the next loader's does not fit."""
    command = [sys.executable, "-c", ANEW, str(pack)]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert max(found[5:]) - found[4] < 50e6, found


@pytest.mark.parametrize("threads", [0, 2])
def test_memory_is_asked_for_what_comes(pack: Path, threads: int) -> None:
    """Kills: room for batch_size samples, which are never there."""
    import pass_loader

    dataset = pass_loader.ShardDataset(pack, pass_loader.recipes.dino())
    (batch,) = pass_loader.DataLoader(dataset, 1_000_000, num_workers=threads)
    assert len(batch[0][0]) == len(dataset)


def test_the_pool_gives_a_buffer_of_the_size_asked_for() -> None:
    """Kills: a waiting buffer of another size, which a larger batch would overrun."""
    from pass_loader import _C

    pool = _C.BufferPool(keep=2)
    small = pool.take(400)
    place = small.ctypes.data
    del small
    large = pool.take(4_000_000)
    assert large.shape == (4_000_000,) and large.ctypes.data != place
    large[:] = 1
    assert pool.take(400).ctypes.data == place
    for _ in range(4):
        assert pool.take(0).size == 0
