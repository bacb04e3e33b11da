"""Room in a cache that processes have reserved which live, which were killed, and which have a killed one's number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pass_loader.pack import Pack
from pass_loader.remote.cache import UNIT, Cache
from pass_loader.remote.owners import Owners
from pass_loader.remote.store import StoreError

from ..helpers.object_server import ObjectServer
from ..helpers.packs import flip_a_bit

LIMIT, OF_OTHERS, WANTED, UNITS = 60, 50, 20, 100
HOLDER = f"""
import sys
from pathlib import Path
from pass_loader.remote.cache import UNIT, Cache
cache = Cache(Path(sys.argv[1]), {LIMIT} * UNIT)
first, end = map(int, sys.argv[2:])
assert cache.reserve(cache.open(cache.root / "pack" / "edition" / "a.tar", {UNITS} * UNIT), first, end)
print(cache.owners.own, flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(root: Path, first: int, end: int) -> Iterator[int]:
    """Give the number of a process that fetches these units; it is killed at the end."""
    command = [sys.executable, "-c", HOLDER, root, first, end]
    with subprocess.Popen(map(str, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    (tmp_path / "pack" / "edition").mkdir(parents=True)
    return Cache(tmp_path, LIMIT * UNIT)


@pytest.mark.slow
def test_room_of_processes(cache: Cache) -> None:
    """Kills: a dead process's room that stays taken for minutes; a living one's that is taken away, or given
    back by others; a dead one's that stays as long as the next process of its number."""
    blocks = cache.open(cache.root / "pack" / "edition" / "a.tar", UNITS * UNIT)
    first = UNITS - WANTED
    with holding(cache.root, 0, OF_OTHERS) as number:
        assert number != cache.owners.own
        assert not cache.reserve(blocks, first, UNITS) and not cache.reserve(blocks, first, UNITS, urgent=True)
        assert cache.reserve(blocks, OF_OTHERS - 1, OF_OTHERS + 1)
        cache.settle(blocks, OF_OTHERS - 1, OF_OTHERS + 1, fetched=False)
        assert cache.others_fetch(blocks, 0, OF_OTHERS) and not cache.others_fetch(blocks, 0, OF_OTHERS + 1)
    assert not cache.others_fetch(blocks, 0, OF_OTHERS)
    with holding(cache.root, 0, 1) as again:
        assert again == number and cache.others_fetch(blocks, 0, 1) and not cache.others_fetch(blocks, 0, 2)
        assert cache.reserve(blocks, first, UNITS)
        cache.settle(blocks, first, UNITS, fetched=True)
        assert (blocks.units[first:] == blocks.there).all() and blocks.units[0] == number
    with cache.locked():
        assert int(cache._used[1]) == cache._counted() <= LIMIT
    assert cache.reserve(blocks, 0, 2)  # what a dead process was about counts already
    with cache.locked():
        assert (blocks.units[:2] == cache.owners.own).all() and int(cache._used[1]) == cache._counted()
    cache.settle(blocks, 0, 2, fetched=False)
    with cache.locked():
        assert not blocks.units[:2].any() and int(cache._used[1]) == cache._counted()


def test_too_many_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: two processes of one number."""
    monkeypatch.setattr(Owners, "_take", lambda self, number: False)
    with pytest.raises(Exception, match=r"cannot be used \(250 processes use it already\)"):
        Cache(tmp_path, LIMIT * UNIT)


def test_bytes_that_are_wrong_while_others_fetch(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: an error at once where room is given back soon; a wait without end."""
    opened = Pack(server.url + "pack", cache=tmp_path)
    assert opened.remote is not None
    coming = opened.coming([0])
    assert coming is not None
    coming.wait(30)
    coming.done(used=True)
    cache, calls = opened.remote.cache, []  # not the class: threads of other tests may be at work
    reserve = cache.reserve

    def full_at_first(*arguments: object, **options: object) -> bool:
        calls.append(options)
        return len(calls) > 3 and reserve(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "reserve", full_at_first)
    flip_a_bit(opened, 0)
    opened.mend(0)
    assert calls == [{"urgent": True}] * 4
    assert opened.open_reader().read(0) == Pack(pack).open_reader().read(0)
    flip_a_bit(opened, 0)
    monkeypatch.setattr(cache, "reserve", lambda *arguments, **options: False)
    monkeypatch.setattr("pass_loader.remote.fetcher._STUCK_S", 0.1)
    with pytest.raises(StoreError, match="has no room for the samples of one batch.* raise cache_bytes"):
        opened.mend(0)
