"""The cache folder: sparse files of shards with a table of what they hold, shared by processes, under one bound.

CACHE/lock                   flock of who changes what the folder holds
CACHE/used                   two int64: whether a change is under way; units that are used
CACHE/PACK/EDITION/NAME      metadata of a pack, whole files
CACHE/PACK/EDITION/NAME.tar  a sparse file of the shard's size; holes where nothing was fetched
CACHE/PACK/EDITION/NAME.tar.units   a byte for each unit of it, see ABSENT and the others

Nothing here outlives a crash in a harmful way: locks end with their process, a change that was cut off has the units
counted anew, units that a dead process had reserved are dropped when room is needed, and what power loss has emptied
has the wrong CRC and is fetched again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import PackError

UNIT = 16 << 10  # bytes
# Of a unit: not there; there, and used in this epoch; there, and not used; being fetched; there for a coming sample.
ABSENT, USED, KEPT, RESERVED, NEEDED = 0, 1, 2, 254, 255
_TABLE = ".units"
_OLD_S = 3600  # packs that nobody has opened or begun an epoch of for so long are dropped first
_DEAD_S = 120  # what a process has reserved for so long it does not fetch any more
_SHARE = 64  # one part in so many of the bound is dropped at a time
_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Blocks:
    """A shard's sparse file and the table of its units.

    pins: how often samples to come in this process need each unit, (units,) uint16.
    """

    def __init__(self, cache: Cache, path: Path, size: int):
        self.cache, self.path, self.size = cache, path, size
        count = -(-size // UNIT)
        table = path.with_name(path.name + _TABLE)
        with cache.locked():
            _grow(path, size)
            if not table.exists():
                _grow(table, count)
                cache.add(units_of(count))
        if table.stat().st_size != count or path.stat().st_size != size:
            raise PackError(f"{path} in the cache has another size than the shard: delete {path.parent}")
        self.units = _mapped(table, np.uint8)
        self.pins = np.zeros(count, np.uint16)
        self._pinning = threading.Lock()
        self.reserved = np.zeros(0, np.int64), time.monotonic()  # by others, as seen then

    def unit_range(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first unit of these bytes and the one after the last."""
        begin, end = max(0, offset), min(self.size, offset + length)
        return begin // UNIT, max(begin // UNIT, -(-end // UNIT))

    def pin(self, first: int, end: int, times: int) -> None:
        """Count samples that need these units."""
        with self._pinning:
            self.pins[first:end] += np.uint16(times % 65536)

    def has(self, first: int, end: int) -> bool:
        units = self.units[first:end]
        return bool(((units != ABSENT) & (units != RESERVED)).all())

    def write(self, first: int, content: bytes | memoryview) -> None:
        """Write bytes that begin with a unit. Raises OSError."""
        view, offset = memoryview(content), first * UNIT
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            while view:
                done = os.pwrite(descriptor, view, offset)
                view, offset = view[done:], offset + done
        finally:
            os.close(descriptor)

    def in_flight(self) -> np.ndarray:
        """Return the units that somebody seems to fetch: those that were not reserved for _DEAD_S already."""
        now = np.flatnonzero(self.units == RESERVED)
        before, since = self.reserved
        if time.monotonic() - since < _DEAD_S:
            return now
        self.reserved = now, time.monotonic()
        return np.setdiff1d(now, before)

    def drop(self, places: np.ndarray) -> None:
        """Forget these units, sorted. With the cache's lock."""
        if not len(places):
            return
        self.units[places] = ABSENT
        self.cache.add(-len(places))
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # the folder was deleted
            return
        try:
            for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
                _punch(descriptor, int(run[0]) * UNIT, len(run) * UNIT)
        finally:
            os.close(descriptor)


class Cache:
    """The folder, as one process sees it: one object for each folder. Any number of threads may use it.

    limit: bytes, of all packs together. dropped: units, by this process. pinned: units that samples to come in
    this process need. full: how often the disk was.
    """

    _known: dict[Path, Cache] = {}
    _guard = threading.Lock()

    def __init__(self, root: Path, limit: int):
        self.root, self.limit = root, limit
        self.dropped = self.full = self.pinned = 0
        self.blocks: dict[Path, Blocks] = {}
        self._thread = threading.RLock()
        self._depth = 0
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with self._held():
                _grow(root / "used", 16)
                self._used = _mapped(root / "used", np.int64)
                self._used[0] = 1  # the first change counts anew, whatever stands there
                _punch(self._lock, 0, UNIT)  # shows now whether it can
        except OSError as error:
            raise PackError(
                f"the cache folder {root} cannot be used ({error.strerror or error}): give cache= (--cache) a folder "
                "of a local disk with room, on a file system with locks and holes (ext4, xfs, btrfs, tmpfs)"
            ) from None

    @classmethod
    def at(cls, root: Path, limit: int) -> Cache:
        """Return the cache of a folder. The bound given last holds for the whole process."""
        with cls._guard:
            found = cls._known.get(root)
            if found is None:
                found = cls._known[root] = cls(root, limit)
            found.limit = limit
        with found.locked():
            found.make_room(0)
        return found

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        with self._thread:
            self._depth += 1
            try:
                if self._depth == 1:
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock: what it holds changes in no other process and thread."""
        with self._held():
            if self._depth > 1:
                yield
                return
            if self._used[0]:  # a change was cut off
                self._used[1] = self._counted()
            self._used[0] = 1
            yield
            self._used[0] = 0

    def add(self, units: int) -> None:
        """Count units. With the lock."""
        self._used[1] += units

    @property
    def used_bytes(self) -> int:
        return int(self._used[1]) * UNIT

    def open(self, path: Path, size: int) -> Blocks:
        """Return the blocks of a shard, its files made where they are missing."""
        with self._thread:
            found = self.blocks.get(path)
            if found is None or not path.exists():
                found = self.blocks[path] = Blocks(self, path, size)
            return found

    def reserve(self, blocks: Blocks, first: int, end: int, *, urgent: bool = False) -> bool:
        """Reserve room for what is absent of these units. Returns False where samples to come need all there is.

        urgent: take it from them, as somebody waits; they will be fetched again.
        """
        with self.locked():
            blocks.pin(first, end, 2)  # until `settle`, no room comes from these
            absent = np.flatnonzero(blocks.units[first:end] == ABSENT) + first
            if not self.make_room(len(absent), urgent):
                blocks.pin(first, end, -2)
                return False
            blocks.units[absent] = RESERVED
            self.add(len(absent))
            return True

    def settle(self, blocks: Blocks, first: int, end: int, *, fetched: bool) -> None:
        """Mark units that `reserve` has reserved as there, or give them back."""
        with self.locked():
            blocks.pin(first, end, -2)
            units = blocks.units[first:end]
            if fetched:
                lost = np.flatnonzero(units == ABSENT) + first  # somebody needed the room meanwhile
                units[units == RESERVED] = NEEDED
                blocks.drop(lost)
                self.add(len(lost))
            else:
                blocks.drop(np.flatnonzero(units == RESERVED) + first)

    def make_room(self, units: int, urgent: bool = False) -> bool:
        """Drop what is needed last until so many units are free under the bound. With the lock."""
        most = self.limit // UNIT
        if int(self._used[1]) + units <= most:
            return True
        if units > most:
            return False
        wanted = int(self._used[1]) + units - most
        return self.shrink(wanted, max(wanted, most // _SHARE), urgent) >= wanted

    def shrink(self, least: int, wanted: int, urgent: bool = False) -> int:
        """Drop so many units, `least` of them from what others need soon too, and if urgent what we need. Returns how
        many. With the lock."""
        now, dropped = time.time(), 0
        tables = sorted(self._tables(), key=lambda table: _touched(table.parent))
        old = [table for table in tables if now - _touched(table.parent) > _OLD_S]
        passes = [(old, (USED, KEPT, RESERVED, NEEDED), wanted), (tables, (USED,), wanted), (tables, (KEPT,), wanted)]
        passes.append((tables, (RESERVED, NEEDED), least))
        for number, (among, values, goal) in enumerate([*passes, (tables, (KEPT, NEEDED), least * urgent)]):
            for table in among:
                if dropped >= goal:
                    break
                dropped += self._drop_from(table, values, goal - dropped, 1 if number < len(passes) else 2)
        self.dropped += dropped
        return dropped

    def _drop_from(self, table: Path, values: tuple[int, ...], most: int, pins: int) -> int:
        """Drop units with these values that less than so many samples need."""
        path = table.with_name(table.name.removesuffix(_TABLE))
        try:
            blocks = self.blocks.get(path) or self.open(path, path.stat().st_size)
        except (OSError, PackError):
            return 0
        chosen = np.isin(blocks.units, values) & (blocks.pins < pins)
        if RESERVED in values:
            chosen[blocks.in_flight()] = False
        places = np.flatnonzero(chosen)[:most]
        blocks.drop(places)
        return len(places)

    def room_for_file(self, size: int, name: str) -> None:
        """Count a file of metadata that is about to be written. With the lock. Raises PackError where there is no
        room."""
        if not self.make_room(units_of(size), urgent=True):
            raise PackError(
                f"the cache folder {self.root} may hold {self.limit:,} bytes, too few for {name} of {size:,} bytes "
                "beside what else it has to hold: raise cache_bytes (--cache-bytes)"
            )
        self.add(units_of(size))

    def forget(self, folder: Path) -> None:
        """Delete a folder of the cache with all that it counts for."""
        with self.locked():
            before = _counted_in(folder)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
                self.blocks.pop(path, None)
            folder.rmdir()
            self.add(-before)

    def _tables(self) -> list[Path]:
        return list(self.root.glob(f"*/*/*{_TABLE}"))

    def _counted(self) -> int:
        return sum(_counted_in(folder) for folder in self.root.glob("*") if folder.is_dir())


def touch(folder: Path) -> None:
    """Note that a pack is in use."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def _touched(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _counted_in(folder: Path) -> int:
    """Return the units that count for a folder: of shards what is there, of other files their size."""
    found = 0
    for path in folder.rglob("*"):
        if not path.is_file() or path.with_name(path.name + _TABLE).exists():
            continue
        size = path.stat().st_size
        found += units_of(size)
        if path.name.endswith(_TABLE) and size:
            found += int(np.count_nonzero(_mapped(path, np.uint8)))
    return found


def units_of(size: int) -> int:
    """Return the units that so many bytes take."""
    return -(-size // UNIT)


def _grow(path: Path, size: int) -> None:
    """Make a sparse file of at least this size."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _mapped(path: Path, type: type) -> np.ndarray:
    with open(path, "rb+") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.zeros(0, type)
        return np.frombuffer(mmap.mmap(file.fileno(), 0), type)


def _punch(descriptor: int, offset: int, length: int) -> None:
    sizes = map(ctypes.c_int64, (offset, length))
    if length and _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, *sizes) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
