"""A cache on a disk that is full to the last byte: errors in words, and no bus error of a mapped table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pass_loader import PackError, ShardDataset
from pass_loader.remote import fetcher
from pass_loader.remote.cache import Cache

from ..helpers.object_server import serving
from ..helpers.remote import RECIPE, digest
from ..helpers.small_disk import fill, on_a_small_disk

OPENED = """
import sys
from pathlib import Path
from tests.remote.test_full_disk import load_on_a_full_disk
load_on_a_full_disk(*map(Path, sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_cache_on_a_full_disk(pack: Path, tmp_path: Path) -> None:
    """Kills: tables with holes, whose first write ends the process; a table that stays half made; room that the cache
    could give up and does not."""
    for name in ("one", "other"):
        shutil.copytree(pack, tmp_path / "served" / name)
    on_a_small_disk("1000k", tmp_path / "disk", OPENED, tmp_path / "served")


def load_on_a_full_disk(disk: Path, served: Path) -> None:
    """What the process on the small disk does."""
    fetcher._STUCK_S = 120.0
    cache, local = disk / "cache", ShardDataset(served / "one", RECIPE)
    with serving(served) as server:
        dataset = ShardDataset(server.url + "one", RECIPE, cache=cache)
        filler = fill(disk)  # before the tables of shards are made
        for record in (0, 22):
            with pytest.raises(PackError, match=r"\.units.*No space left on device|No space left.*\.units.*room there"):
                dataset.read(record)
        filler.unlink()
        assert digest(dataset, epochs=2) == digest(local, epochs=2)
        assert dataset.pack.remote.cache.full > 0
        assert dataset.read(3) == local.read(3)
        for path in [*cache.rglob("*.units"), *cache.rglob("*.tar")]:  # an earlier version's tables: all of it a hole
            size = path.stat().st_size
            os.truncate(path, 0)
            os.truncate(path, size)
        (cache / "used").write_bytes((1).to_bytes(8, "little") * 2)  # counted anew
        Cache._known.clear()
        filler = fill(disk)
        again = ShardDataset(server.url + "one", RECIPE, cache=cache)
        with pytest.raises(PackError, match=r"No space left on device.*\.units.*make room there"):
            again.read(3)
        filler.unlink()
        assert again.read(3) == local.read(3)
        digest(again)
        fill(disk)
        assert digest(ShardDataset(server.url + "other", RECIPE, cache=cache)) == digest(local)
