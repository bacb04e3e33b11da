"""Memory of a running loader. Bytes, not time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import gc, json, re, sys
import torch
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
torch.empty(8).sum()
before = anonymous()
import pass_loader
from pass_loader import recipes
dataset = pass_loader.ShardDataset(sys.argv[1], recipes.dino())
drop = sys.argv[2] == "drop"
order = [position % len(dataset) for position in range(200)]
loader = pass_loader.DataLoader(dataset, batch_size=64, sampler=order, num_workers=2, drop_last=drop)
after = []
for epoch in range(10):
    for views, labels in loader:
        batch = max(sum(view.nbytes for view in views), batch if epoch else 0)
    after.append(anonymous() - before)
    del views, labels
json.dump({"batch": batch, "after": after, "held": loader.prefetch_factor + 1}, sys.stdout)
"""


@pytest.mark.parametrize("last", ["drop", "keep"])
def test_anonymous_memory_of_ten_epochs(pack: Path, last: str) -> None:
    """Two threads, batch 64: below 100 MB beyond torch's import and the live batches (those in work and the one held);
    flat from the second epoch on."""
    out = subprocess.run(
        [sys.executable, "-c", CODE, str(pack), last], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(out)
    live = found["batch"] * found["held"]
    assert max(found["after"]) - live < 100e6, found
    assert found["after"][-1] - found["after"][1] < 8e6, found


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
