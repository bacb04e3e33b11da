"""Brings what samples to come need into the cache, in the order in which they need it, many requests at a time."""

from __future__ import annotations

import atexit
import collections
import heapq
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .cache import ABSENT, NO_SPACE, THERE, UNIT, Blocks, Cache
from .store import Store, StoreError

MOST_THREADS, _LEAST_THREADS = 64, 4
_INTERPRETER_S = 0.25e-3  # of the interpreter's lock, for a piece
BLOCK_UNITS = (8 << 20) // UNIT  # of a request, at the most
HELD_UNITS = (256 << 20) // UNIT  # of all requests together, but for the one that reaches it
_GAP_UNITS = 4  # between units that are needed: cheaper to read than to ask twice
_RECORD_BY_RECORD = 4  # calls of `announce` at the start, whose samples are waited for
_MORE_UNITS = 16  # that may be fetched beside a piece of each later call: what is needed late must not come first
_PINNED_SHARE = 2  # one part in so many of the bound is for samples to come
_URGENT_S = 0.5  # waited for
_OTHERS_S = 2.0  # so long another process may take for what it has reserved
_POLL_S = 0.05
_AT_A_TIME = 8  # pieces that a thread takes together, at the most
_LOOKED_AT = 64  # for them
_OTHER_THREADS_S = 0.01  # after which, at the least, to look again for what another thread fetches
_SETTLED_S = 0.02  # so long pieces that came may wait until others of their thread have come
_STUCK_S = 20.0  # without room: longer than a loaded machine takes for a batch
_EXIT_S = 2.0
_IDLE_S = 5.0  # after which a thread without work ends: while it lives, so does its fetcher


class Piece(NamedTuple):
    """Bytes of a file that one sample needs. name: of the object. record: for messages. etag: that it must have."""

    blocks: Blocks
    name: str
    first: int
    end: int  # in units
    record: int = -1
    etag: str | None = None


class PieceError(StoreError):
    """A piece could not be fetched. record: which one needs it."""

    def __init__(self, record: int, cause: str):
        super().__init__(cause)
        self.record = record


class Awaited:
    """Pieces that samples to come need: they are being fetched, and stay in the cache until `done`."""

    def __init__(self, fetcher: Fetcher, pieces: list[Piece]):
        self._fetcher, self.pieces = fetcher, pieces
        self.errors: list[PieceError] = []
        self.left = False  # done, or nobody waits any more
        self.asked = 0  # pieces that are queued or being fetched
        self.stuck_since = math.inf  # there is no room, though all was dropped that nobody waits for
        self._came = 0  # so many of the first pieces were there
        self.pins = 0  # of each piece, which stays in the cache: one; two where somebody waits
        self.then: Callable[[], None] | None = None  # called once, by any thread, when all of it is there

    @property
    def ready(self) -> bool:
        """True where all of it is there, or an error waits to be raised."""
        if self.errors:
            return True
        before = self._came
        while self._came < len(self.pieces):  # often asked for while they come
            piece = self.pieces[self._came]
            if not piece.blocks.has(piece.first, piece.end):
                return False
            self._came += 1
        return all(piece.blocks.has(piece.first, piece.end) for piece in self.pieces[:before])  # dropped since, perhaps

    def wait(self, timeout: float = math.inf) -> None:
        """Wait until all of it is there. Raises PieceError, TimeoutError. Another call tries again."""
        self._fetcher.wait_for(self, timeout)
        if self.errors:
            error, self.errors = self.errors[0], []
            self._fetcher.ask_again(self)
            raise error

    def done(self, used: bool) -> None:
        """Let go of the pieces. used: they were needed, and are not needed again in this epoch."""
        if not self.left:
            self.left = True
            self._fetcher.let_go(self, used)

    def __del__(self) -> None:
        if not self.left:
            self.left = True
            self._fetcher.dropped.append(self)  # any lock may be held by this very thread


@dataclass
class _Asked:
    """A piece that a thread fetches. number, beside: as it was queued. run: the units that nobody else is to fetch.
    units: those that are fetched. again: it has to be fetched once more. told: no longer this thread's."""

    number: int
    piece: Piece
    coming: Awaited
    beside: int
    run: tuple[int, int]
    units: tuple[int, int]
    reserved: bool = False
    again: bool = False
    told: bool = False
    full_before: int = 0  # how often the disk was, when room was reserved
    error: Exception | None = None

    def attempt(self, call: Callable[[_Asked], None]) -> None:
        """Call, and keep what it raises."""
        try:
            call(self)
        except Exception as error:
            self.error = error


class _Queue:
    """Pieces to fetch, by their numbers. One that is put off comes back to its place: who announced it waits first."""

    def __init__(self) -> None:
        self._ready: list[tuple[int, Piece, Awaited, int]] = []  # number; piece; for; beside
        self._put_off: list[tuple[float, int, Piece, Awaited, int]] = []  # not before; and the same

    def __len__(self) -> int:
        return len(self._ready) + len(self._put_off)

    def push(self, number: int, piece: Piece, coming: Awaited, beside: int, not_before: float = 0.0) -> None:
        if not_before:
            heapq.heappush(self._put_off, (not_before, number, piece, coming, beside))
        else:
            heapq.heappush(self._ready, (number, piece, coming, beside))

    def until_next(self) -> float | None:
        """Return the seconds until there is a piece to take; None where there is none."""
        if self._ready:
            return 0.0
        return self._put_off[0][0] - time.monotonic() if self._put_off else None

    def take(self, now: float) -> tuple[int, Piece, Awaited, int] | None:
        """Remove and return the first piece whose time has come; None where there is none."""
        while self._put_off and self._put_off[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._put_off)[1:])
        return heapq.heappop(self._ready) if self._ready else None


class Fetcher:
    """Fetches pieces of one pack's shards, on threads that start when they are needed and end when they are not.

    hits, misses: pieces that were there, and that were not, when they were announced. waited_s: of callers, for pieces.
    whole: everything that the pack has has room in the cache, so that a wider gap is read too.
    """

    def __init__(self, store: Store, cache: Cache, whole: bool):
        self.store, self.cache = store, cache
        self.hits = self.misses = 0
        self.waited_s = 0.0
        self.dropped: collections.deque[Awaited] = collections.deque()  # nobody waits any more
        self._gap = BLOCK_UNITS // 8 if whole else _GAP_UNITS
        self._lock = threading.Lock()  # guards what follows
        self._work, self._arrived = threading.Condition(self._lock), threading.Condition(self._lock)
        self._queue = _Queue()
        self._numbers = itertools.count()
        self._waiting: collections.deque[weakref.ref[Awaited]] = collections.deque()  # announced, not begun
        self._begun = 0
        self._idle = 0
        self._held = 0  # units that threads have taken
        self._threads: list[threading.Thread] = []
        self._stopping = False
        atexit.register(_stop, weakref.ref(self))
        self._reserved: dict[tuple[int, int], float] = {}  # by another process, since when

    def announce(self, pieces: Sequence[Piece], then: Callable[[], None] | None = None) -> Awaited:
        """Begin to fetch what is missing. Keep what this returns until the pieces were used.

        then: called once, by any thread, when all of it is there. Such pieces are no samples'.
        """
        self._let_go_dropped()
        coming = Awaited(self, list(pieces))
        coming.then = then
        with self._lock:
            self._waiting.append(weakref.ref(coming))
            self._begin_waiting()
        self._call_then(coming)
        return coming

    def _call_then(self, coming: Awaited) -> None:
        if coming.then is None or coming.left or coming.errors or not coming.ready:
            return
        with self._lock:
            then, coming.then = coming.then, None
        if then is not None:
            then()

    def _begin_waiting(self) -> None:
        """Begin with as many announcements as the cache has room for beside what it keeps."""
        most = self.cache.limit // UNIT // _PINNED_SHARE
        while self._waiting and self.cache.pinned < most:
            if (coming := self._waiting.popleft()()) is not None:
                self._begin(coming)

    def _begin(self, coming: Awaited) -> None:
        if coming.pins or coming.left:
            return
        self._pin(coming)
        missing = [piece for piece in coming.pieces if not piece.blocks.has(piece.first, piece.end)]
        self.misses += len(missing)
        self.hits += len(coming.pieces) - len(missing)
        self._begun += coming.then is None
        self._ask(missing, coming, max(0, self._begun - _RECORD_BY_RECORD) * _MORE_UNITS)

    def ask_again(self, coming: Awaited) -> None:
        with self._lock:
            self._ask([piece for piece in coming.pieces if not piece.blocks.has(piece.first, piece.end)], coming, 0)

    def _pin(self, coming: Awaited) -> None:
        coming.pins += 1
        for piece in coming.pieces:
            piece.blocks.pin(piece.first, piece.end, 1)
            self.cache.pinned += piece.end - piece.first

    def wait_for(self, coming: Awaited, timeout: float) -> None:
        with self._lock:
            self._begin(coming)
        if coming.ready:
            return
        began = time.monotonic()
        urgent = began + _URGENT_S
        try:
            while not coming.ready:
                now = time.monotonic()
                if now - began > timeout:
                    raise TimeoutError(f"no samples from {self.store.address} within timeout={timeout:g} s")
                self._let_go_dropped()
                with self._lock:
                    if now >= urgent and coming.pins == 1 and not coming.left:  # samples to come have taken the room
                        self._pin(coming)
                    if not coming.asked:  # somebody has dropped what was there
                        self._ask([one for one in coming.pieces if not one.blocks.has(one.first, one.end)], coming, 0)
                    self._arrived.wait(_POLL_S)
        finally:
            self.waited_s += time.monotonic() - began

    def let_go(self, coming: Awaited, used: bool) -> None:
        """Let go of pieces that are `left`. From then on nothing is begun for them, and a second call does nothing."""
        with self.cache.locked(), self._lock:  # another thread may have been about to begin
            pins, coming.pins = coming.pins, 0
            for piece in coming.pieces if pins else ():
                piece.blocks.let_go(piece.first, piece.end, used, pins)
                self.cache.pinned -= pins * (piece.end - piece.first)
            self._begin_waiting()
            self._work.notify_all()

    def _let_go_dropped(self) -> None:
        while self.dropped:
            try:
                coming = self.dropped.popleft()
            except IndexError:  # another thread was faster
                return
            self.let_go(coming, used=False)

    def fetch_now(self, piece: Piece) -> bool:
        """Fetch a piece anew in this thread, whatever is there. Returns False where others fetch into all the room.

        With the cache's lock. Raises StoreError, FileNotFoundError.
        """
        blocks, first, end = piece.blocks, piece.first, piece.end
        self._make_anew(blocks)
        blocks.drop(np.flatnonzero(blocks.units[first:end] != ABSENT) + first)
        if not self.cache.reserve(blocks, first, end, urgent=True):
            return False
        fetched = False
        try:
            self._bring(piece, first, end)
            fetched = True
        finally:
            self.cache.settle(blocks, first, end, fetched=fetched)
        return True

    def until_room(self, attempt: Callable[[], bool]) -> None:
        """Call, with the cache's lock, until there was room and this returns True. Raises StoreError after long."""
        began = time.monotonic()
        while True:
            with self.cache.locked():
                if attempt():
                    return
            if time.monotonic() - began > _STUCK_S:
                raise StoreError(self._no_room())
            time.sleep(_POLL_S)

    def stop(self, wait_s: float) -> None:
        """End the threads, as soon as their requests have."""
        with self._lock:
            self._stopping = True
            self._work.notify_all()
        deadline = time.monotonic() + wait_s
        for thread in self._threads.copy():  # they take themselves out
            thread.join(max(0.0, deadline - time.monotonic()))

    def _ask(self, pieces: list[Piece], coming: Awaited, beside: int) -> None:
        """Queue pieces. beside: units of neighbours that may be fetched with each."""
        coming.asked += len(pieces)
        for piece in pieces:
            self._queue.push(next(self._numbers), piece, coming, beside)
        self._start_threads()
        self._work.notify(len(pieces))

    def _start_threads(self) -> None:
        """Start as many threads as there is work for, and as the store's answers take time.

        More threads than the time of an answer over that which each of them holds the interpreter's lock for it would
        wait for that lock.
        """
        if len(self._queue) <= self._idle or len(self._threads) >= MOST_THREADS:
            return
        most = int(min(MOST_THREADS, max(_LEAST_THREADS, self._answer_s() / _INTERPRETER_S)))
        for _ in range(min(len(self._queue) - self._idle, most - len(self._threads))):
            self._threads.append(threading.Thread(target=self._run, name="pass-loader-fetch", daemon=True))
            self._threads[-1].start()

    def _answer_s(self) -> float:
        """Return the seconds that the fastest of the last answers took."""
        return max(1e-6, min(self.store.answered_s.copy()))  # other threads add to it

    def _run(self) -> None:
        while True:
            with self._lock:
                while (later_s := self._until_work()) is None or later_s > 0:
                    if self._stopping:
                        return
                    self._idle += 1
                    told = self._work.wait(_IDLE_S if later_s is None else max(0.001, later_s))
                    self._idle -= 1
                    if later_s is None and not (told or len(self._queue) or self._stopping):
                        self._threads.remove(threading.current_thread())
                        return
                if self._stopping:
                    return
                parts, there = self._take()
            for coming in there:
                self._call_then(coming)
            try:
                if parts:
                    self._fetch(parts)
            except Exception as error:  # the cache's lock cannot be had, say
                self._tell([part for part in parts if not part.told], error)

    def _until_work(self) -> float | None:
        """Return the seconds until there is a piece to take; None where somebody has to say so."""
        return None if self._held >= HELD_UNITS else self._queue.until_next()

    def _take(self) -> tuple[list[_Asked], list[Awaited]]:
        """Take pieces from the queue that this thread fetches, one after another. Few where the queue is short or the
        store slow: other threads are to have some. Returns also for whom one was there already."""
        answer_s = self._answer_s()
        fast = int(_SETTLED_S / answer_s)
        most = max(1, min(_AT_A_TIME, fast, len(self._queue) // len(self._threads)))
        parts: list[_Asked] = []
        there: list[Awaited] = []
        now = time.monotonic()
        later = now + min(max(_OTHER_THREADS_S, answer_s), _OTHERS_S)
        for _ in range(_LOOKED_AT):  # with the lock, which who settles what others fetch needs
            if len(parts) >= most or self._held >= HELD_UNITS or (taken := self._queue.take(now)) is None:
                break
            number, piece, coming, beside = taken
            if not coming.left and piece.blocks.fetching.find(1, piece.first, piece.end) >= 0:
                self._queue.push(number, piece, coming, beside, later)
            elif coming.left or (run := self._run_of(piece, beside)) is None:
                coming.asked -= 1
                self._arrived.notify_all()
                there.append(coming)
            else:
                piece.blocks.fetching[slice(*run)] = b"\1" * (run[1] - run[0])
                parts.append(_Asked(number, piece, coming, beside, run, run))
                self._held += run[1] - run[0]
                most = most if beside else 1
        return parts, there

    def _run_of(self, piece: Piece, beside: int) -> tuple[int, int] | None:
        """Return which units to fetch for a piece: those that it lacks, and neighbours in its block of 8 MiB that other
        samples to come lack, `beside` of them at the most on each side. None where it lacks nothing."""
        blocks = piece.blocks
        lacking = blocks.states(piece.first, piece.end).lstrip(THERE)
        if not lacking:
            return None
        first = piece.end - len(lacking)
        end = first + len(lacking.rstrip(THERE))
        if not beside:
            return first, end
        block = first // BLOCK_UNITS * BLOCK_UNITS
        before = blocks.free_before(first, max(block, first - beside))
        after = blocks.free_after(end, max(end, min(block + BLOCK_UNITS, end + beside, len(blocks.units))))
        wanted = blocks.pins[first - before : end + after] > 0
        first -= _reach(wanted[:before][::-1].tobytes(), self._gap)
        end += _reach(wanted[len(wanted) - after :].tobytes(), self._gap)
        return first, end

    def _fetch(self, parts: list[_Asked]) -> None:
        """Fetch parts one after another. The cache's lock is taken for several together where they come fast."""
        self._let_go_dropped()
        with self.cache.locked():
            for part in parts:
                part.full_before = self.cache.full
                part.attempt(self._reserve)
        self._settle([part for part in parts if not part.reserved])
        done: list[_Asked] = []
        since = time.monotonic()
        for part in (part for part in parts if part.reserved):
            part.attempt(self._bring_part)
            done.append(part)
            if time.monotonic() - since > _SETTLED_S:
                self._settle(done)
                done, since = [], time.monotonic()
        self._settle(done)

    def _bring_part(self, part: _Asked) -> None:
        part.again = not self._bring(part.piece, *part.units)

    def _reserve(self, part: _Asked) -> None:
        """Reserve room for a part, or for what its piece alone needs. With the cache's lock."""
        piece, coming, (first, end) = part.piece, part.coming, part.run
        if self.cache.others_fetch(piece.blocks, first, end) and not self._is_stale(piece.blocks, first):
            return
        if not self.cache.reserve(piece.blocks, first, end):
            part.units = first, end = piece.first, piece.end
            if not self.cache.reserve(piece.blocks, first, end, urgent=coming.pins > 1):
                self._note_stuck(coming)
                return  # until samples are done with
        part.reserved = True

    def _settle(self, parts: list[_Asked]) -> None:
        """Mark what came as there, and say so to those who wait."""
        if not parts:
            return
        with self.cache.locked():
            for part in parts:
                if part.reserved:
                    self._settle_one(part)
        self._tell(parts)

    def _tell(self, parts: list[_Asked], failure: Exception | None = None) -> None:
        """Say what became of parts to those who wait. failure: of all that have no error of their own."""
        with self._lock:
            if self._held >= HELD_UNITS:
                self._work.notify_all()
            for part in parts:
                part.told, part.error = True, part.error or failure
                self._held -= part.run[1] - part.run[0]
                part.piece.blocks.fetching[slice(*part.run)] = bytes(part.run[1] - part.run[0])
                if part.error is not None:
                    part.coming.errors.append(PieceError(part.piece.record, str(part.error)))
                elif part.again or not part.reserved:
                    later = time.monotonic() + _POLL_S
                    self._queue.push(part.number, part.piece, part.coming, part.beside, later)
                    continue
                else:
                    part.coming.stuck_since = math.inf
                part.coming.asked -= 1
            self._start_threads()
            self._arrived.notify_all()
        for part in parts:
            self._call_then(part.coming)

    def _settle_one(self, part: _Asked) -> None:
        blocks, error = part.piece.blocks, part.error
        full = isinstance(error, OSError) and not isinstance(error, StoreError) and error.errno in NO_SPACE
        gone = error is None and not blocks.is_linked()  # somebody has deleted the file that was written to
        self.cache.settle(blocks, *part.units, fetched=error is None and not gone and not part.again)
        if gone:
            part.attempt(lambda part: self._make_anew(part.piece.blocks))
        if full:
            part.error = None
            self._lower_bound(part)
            part.attempt(lambda part: self._note_stuck(part.coming))
        part.again |= gone or full

    def _note_stuck(self, coming: Awaited) -> None:
        """Raise StoreError where somebody waits, and there has been no room for long."""
        if coming.pins < 2:
            return
        coming.stuck_since = min(coming.stuck_since, time.monotonic())
        if time.monotonic() - coming.stuck_since > _STUCK_S:
            raise StoreError(self._no_room())

    def _no_room(self) -> str:
        return (
            f"the cache folder {self.cache.root} holds {self.cache.used_bytes:,} bytes and has no room for the samples "
            "of one batch, as cache_bytes is too small or the disk is full: raise cache_bytes, make room there, or "
            "give another cache="
        )

    def _is_stale(self, blocks: Blocks, unit: int) -> bool:
        """Return True where what is reserved has been so for long: its process has died, or is slow."""
        with self._lock:
            since = self._reserved.setdefault((id(blocks), unit), time.monotonic())
            return time.monotonic() - since > _OTHERS_S

    def _bring(self, piece: Piece, first: int, end: int) -> bool:
        """Fetch units and write them. Returns False, and writes nothing, where another process has taken the room since
        it was reserved, as it took this one for dead. Raises OSError."""
        found = self.store.pieces(piece.name, first * UNIT, min(end * UNIT, piece.blocks.size), piece.etag)
        if ABSENT in piece.blocks.states(first, end):
            return False
        try:
            piece.blocks.write(first, found)
        except FileNotFoundError:
            self._make_anew(piece.blocks)
            piece.blocks.write(first, found)
        return True

    def _make_anew(self, blocks: Blocks) -> None:
        try:
            blocks.make_anew()
        except FileNotFoundError:
            raise StoreError(
                f"the cache folder {self.cache.root} was deleted while it was in use: start the job again"
            ) from None

    def _lower_bound(self, part: _Asked) -> None:
        """Lower the bound to what the disk has room for, unless another thread has since this part was reserved. With
        the cache's lock."""
        cache, (first, end) = self.cache, part.units
        if cache.full == part.full_before:
            cache.full += 1
            cache.limit = min(cache.limit, cache.used_bytes)
            cache.shrink(end - first, 2 * (end - first), part.coming.pins > 1)


def _reach(wanted: bytes, gap: int) -> int:
    """Return how many units from the first one on to read too: up to the last that is wanted (1), with no more than
    `gap` between two that are."""
    wide = wanted.find(bytes(gap + 1))
    return wanted.rfind(1, 0, len(wanted) if wide < 0 else wide) + 1


def _stop(fetcher: weakref.ref[Fetcher]) -> None:
    """At the end of the process: a thread that comes back from a request to an interpreter that is gone would abort."""
    if (found := fetcher()) is not None:
        found.stop(_EXIT_S)
