"""What a request is for, and what becomes of its units, beside the same by a loop over units."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pass_loader.pack import Pack
from pass_loader.remote import fetcher as fetching
from pass_loader.remote.cache import ABSENT, FIXED, KEPT, NEEDED, UNIT, USED, Blocks, Cache
from pass_loader.remote.fetcher import Fetcher, Piece
from pass_loader.remote.owners import NOBODY, are_reserved

from ..helpers.object_server import ObjectServer

UNITS, BLOCK = 90, 32
STATES = [ABSENT, USED, KEPT, FIXED, NEEDED, NOBODY, 77]


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """Of 90 units, in blocks of 32, in an empty cache with room for all."""
    monkeypatch.setattr(fetching, "BLOCK_UNITS", BLOCK)
    (tmp_path / "pack" / "edition").mkdir(parents=True)
    cache = Cache(tmp_path, 1000 * UNIT)
    return cache.open(tmp_path / "pack" / "edition" / "a.tar", UNITS * UNIT)


def fetcher_of(blocks: Blocks, answered_s: float = 0.05) -> Fetcher:
    """A fetcher that starts no threads."""
    store: Any = SimpleNamespace(address="http://a/", answered_s=deque([answered_s]))
    made = Fetcher(store, blocks.cache, whole=False)
    made._start_threads = lambda: None  # type: ignore[method-assign]
    made._threads = [threading.Thread() for _ in range(4)]
    return made


def run_by_a_loop(blocks: Blocks, piece: Piece, beside: int, gap: int) -> tuple[int, int] | None:
    lacks = [unit for unit in range(piece.first, piece.end) if blocks.units[unit] in (ABSENT, NOBODY, 77)]
    if not lacks:
        return None
    first, end = lacks[0], lacks[-1] + 1
    reached = {}
    for step, start in ((-1, first), (1, end - 1)):
        at = last = start
        while abs(at + step - start) <= beside and (at + step) // BLOCK == first // BLOCK and 0 <= at + step < UNITS:
            at += step
            if blocks.units[at] != ABSENT or blocks.fetching[at] or abs(at - last) > gap + 1:
                break
            last = at if blocks.pins[at] else last
        reached[step] = last
    return reached[-1], reached[1] + 1


def test_what_a_request_is_for(blocks: Blocks) -> None:
    """Kills: units that are there or on their way, beyond a block or a gap, in a request; wanted ones left out."""
    drawn = np.random.default_rng(0)
    asks, lengths = fetcher_of(blocks), set()
    for _ in range(1500):
        gap = asks._gap = int(drawn.integers(0, 4))
        blocks.units[:] = np.where(drawn.random(UNITS) < drawn.choice([0.03, 0.4]), drawn.choice(STATES, UNITS), ABSENT)
        blocks.fetching[:] = (drawn.random(UNITS) < 0.03).tobytes()
        blocks.pins[:] = (drawn.random(UNITS) < 0.6) * drawn.choice([1, 256], UNITS)
        first = int(drawn.integers(0, UNITS - 1))
        piece = Piece(blocks, "a.tar", first, min(UNITS, first + int(drawn.integers(1, 9))))
        beside = int(drawn.choice([0, 1, 8, 100]))
        found = asks._run_of(piece, beside)
        assert found == run_by_a_loop(blocks, piece, beside, gap)
        lengths.add(0 if found is None else found[1] - found[0])
    assert {0, 1, BLOCK} <= lengths


def test_units_that_are_reserved_and_settled(blocks: Blocks) -> None:
    """Kills: units that are there and count twice; a dead process's that stay its own; a lost one that is there."""
    cache, drawn = blocks.cache, np.random.default_rng(1)
    for number in range(300):
        with cache.locked():
            states = drawn.choice(STATES, UNITS) if number % 3 else np.full(UNITS, ABSENT)
            cache.add(int(np.count_nonzero(states)) - int(np.count_nonzero(blocks.units)))
            blocks.units[:] = states
        first, end = sorted(drawn.choice(UNITS, 2, replace=False).tolist())
        want = np.where(are_reserved(states) | (states == ABSENT), cache.owners.own, states)
        assert cache.reserve(blocks, first, end)
        assert (blocks.units[first:end] == want[first:end]).all() and (blocks.pins[first:end] == 2).all()
        assert cache.others_fetch(blocks, first, end) == (want[first:end] == cache.owners.own).all()
        if number % 2:
            with cache.locked():
                blocks.drop(np.array([first]))
        fetched = number % 5 > 0
        cache.settle(blocks, first, end, fetched=fetched)
        absent = want == cache.owners.own
        want[absent] = NEEDED if fetched else ABSENT
        if number % 2:
            want[first] = ABSENT
        assert (blocks.units[first:end] == want[first:end]).all() and not blocks.pins.any()
        assert (blocks.units[:first] == states[:first]).all() and (blocks.units[end:] == states[end:]).all()
        with cache.locked():
            assert int(cache._used[1]) == cache._counted()


def test_units_that_two_samples_need(blocks: Blocks) -> None:
    """Kills: what another sample needs, dropped first."""
    with blocks.cache.locked():
        blocks.units[:] = NEEDED
        blocks.pin(0, 5, 1), blocks.pin(3, 8, 1)
        blocks.let_go(0, 5, used=True, times=1)
        assert blocks.states(0, 9) == bytes([USED] * 3 + [NEEDED] * 6)
        blocks.let_go(3, 8, used=True, times=1)
        assert blocks.states(0, 9) == bytes([USED] * 8 + [NEEDED]) and not blocks.pins.any()
        blocks.units[:] = NEEDED
        blocks.pin(0, 5, 1), blocks.pin(3, 8, 1)
        blocks.let_go(3, 8, used=True, times=1)
        assert blocks.states(0, 9) == bytes([NEEDED] * 5 + [USED] * 3 + [NEEDED])


def test_units_that_samples_let_go(blocks: Blocks) -> None:
    """Kills: units of other states that can be dropped then; units that were needed late, dropped late."""
    drawn = np.random.default_rng(2)
    for number in range(200):
        states, pins = drawn.choice(STATES, UNITS), drawn.integers(1, 4, UNITS)
        blocks.units[:], blocks.pins[:] = states, pins
        first, end = sorted(drawn.choice(UNITS, 2, replace=False).tolist())
        times, used = number % 2 + 1, number % 4 < 2
        with blocks.cache.locked():
            blocks.let_go(first, end, used, times)
        among = (np.arange(UNITS) >= first) & (np.arange(UNITS) < end)
        free = among & (pins <= times)
        want = np.where(free & np.isin(states, [NEEDED, KEPT] if used else [NEEDED]), USED if used else KEPT, states)
        assert (blocks.units == want).all() and (blocks.pins == pins - times * among).all()


@pytest.mark.parametrize(
    ("offset", "length", "want"),
    [
        (0, 1, (0, 1)), (UNIT - 1, 2, (0, 2)), (UNIT, UNIT, (1, 2)), (89 * UNIT, UNIT, (89, 90)),
        (89 * UNIT, 5 * UNIT, (89, 90)), (200 * UNIT, 5, (200, 200)), (5 * UNIT, -3 * UNIT, (5, 5)),
        (-5, 10, (0, 1)), (-9 * UNIT, 10, (0, 0)), (-9 * UNIT, 200 * UNIT, (0, 90)),
    ],
)  # fmt: skip
def test_units_of_bytes(blocks: Blocks, offset: int, length: int, want: tuple[int, int]) -> None:
    """Kills: units that a damaged index names and the file does not have."""
    assert blocks.unit_range(offset, length) == want


def test_a_count_that_a_signal_cut_off(blocks: Blocks) -> None:
    """Kills: an error in a later epoch; units that stay in the cache for good."""
    with blocks.cache.locked():
        blocks.units[:] = NEEDED
        blocks.pin(0, 3, 1)  # of 0 to 5
        blocks.let_go(0, 5, used=True, times=1)
        assert blocks.states(0, 5) == bytes([USED] * 5)
        blocks.units[:] = NEEDED
        blocks.pin(2, 4, 1)
        blocks.let_go(0, 1, used=True, times=0)
        blocks.let_go(2, 4, used=False, times=1)
        assert blocks.states(0, 5) == bytes([USED, NEEDED, KEPT, KEPT, NEEDED])


def test_a_cache_is_locked(blocks: Blocks) -> None:
    """Kills: a change that was cut off and is not counted anew; a lock that is given back too early, or never."""
    cache = blocks.cache
    other = os.open(cache.root / "lock", os.O_RDWR)

    def is_free() -> bool:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(other, fcntl.LOCK_UN)
        return True

    with cache.locked():
        right = int(cache._used[1])
        with pytest.raises(KeyError), cache.locked():  # noqa: PT012
            raise KeyError
        assert not is_free() and cache._used[0] == 1
    assert is_free() and cache._used[0] == 0
    with pytest.raises(KeyError), cache.locked():  # noqa: PT012
        cache.add(5)
        raise KeyError
    assert is_free() and cache._used[0] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_counted", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError), cache.locked():
            pass
    assert is_free()
    with cache.locked():
        assert int(cache._used[1]) == right
    os.close(other)


def test_how_many_are_taken_at_a_time(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a thread that takes pieces it comes to much later; memory without a bound; pieces taken by two."""
    pieces = [Piece(blocks, "a.tar", unit, unit + 1, unit) for unit in range(0, UNITS, 2)]
    monkeypatch.setattr(fetching, "_RECORD_BY_RECORD", 0)
    monkeypatch.setattr(fetching, "_MORE_UNITS", 1)
    for answered_s, most in ((0.05, 1), (0.0004, 8)):
        asks = fetcher_of(blocks, answered_s)
        coming = asks.announce(pieces * 2)
        taken = [asks._take()[0] for _ in range(2)]
        assert [len(parts) for parts in taken] == [most, most]
        assert len({part.piece.record for parts in taken for part in parts}) == 2 * most
        assert asks._held == 2 * most and asks._until_work() is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetching, "HELD_UNITS", 2 * most + 1)
            taken.append(asks._take()[0])
            assert len(taken[-1]) == 1 and asks._take() == ([], []) and asks._until_work() is None
        while taken[-1]:
            taken.append(asks._take()[0])
        assert sum(map(len, taken)) == len(pieces)
        coming.done(used=False)
        asks._threads.clear()
        blocks.fetching[:] = bytes(UNITS)


@pytest.mark.parametrize("explicitly", [True, False])
def test_what_is_begun_while_it_is_left_is_let_go(
    blocks: Blocks, explicitly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `done`, or by `__del__`, during which a weak reference still leads to what dies. Kills: pins that are read
    before another thread has ended its beginning; a beginning afterwards. Units would stay in the cache for ever."""
    asks, cache, locked = fetcher_of(blocks), blocks.cache, blocks.cache.locked
    cache.pinned = 1000  # units: nothing is begun before its turn
    coming = asks.announce([Piece(blocks, "a.tar", 3, 7, 0)])
    cache.pinned = 0

    def begun_by_another_thread() -> Any:
        monkeypatch.setattr(cache, "locked", locked)
        asks._pin(coming)
        return locked()

    monkeypatch.setattr(cache, "locked", begun_by_another_thread)
    if explicitly:
        coming.done(used=False)
    else:
        coming.__del__()
        asks._let_go_dropped()
    asks._begin(coming)
    asks.let_go(coming, used=False)  # as where two threads call `done` at once
    assert coming.left and not blocks.pins.any() and cache.pinned == 0


def test_threads_without_work_end(tmp_path: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with them what fetched for a pack that nobody has any more. New work starts new ones. Kills: threads of each
    pack that was ever opened."""
    monkeypatch.setattr(fetching, "_IDLE_S", 0.05)
    pack = Pack(server.url + "pack", cache=tmp_path / "cache")
    assert pack.remote is not None
    asks = pack.remote.fetcher
    for records in ([0, 1], [2, 3, 4]):
        coming = pack.coming(records)
        assert coming is not None
        coming.wait(30)
        coming.done(used=True)
        threads, until = [*asks._threads], time.monotonic() + 30
        assert threads
        while asks._threads:
            assert time.monotonic() < until
            time.sleep(0.01)
        for thread in threads:
            thread.join(30)
    gone = weakref.ref(asks)
    del pack, coming, asks
    gc.collect()
    assert gone() is None


def test_a_thread_that_cannot_go_on(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a wait for ever, for a thread that has ended; units that nobody may fetch any more."""
    asks, locked = fetcher_of(blocks), blocks.cache.locked
    coming = asks.announce([Piece(blocks, "a.tar", 3, 7, 0)])
    asks._threads = [thread := threading.Thread(target=asks._run)]

    def without_locks() -> Any:
        if threading.current_thread() is thread:
            raise OSError(errno.ENOLCK, "No locks available")
        return locked()

    monkeypatch.setattr(blocks.cache, "locked", without_locks)
    thread.start()
    with pytest.raises(fetching.PieceError, match="No locks available"):
        coming.wait(5)
    assert asks._held == 0 and blocks.fetching.find(1) < 0 and thread.is_alive()
    asks.stop(60)
    coming.done(used=False)
    assert not thread.is_alive()
