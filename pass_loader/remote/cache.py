"""The cache folder: sparse files of shards with a table of what they hold, shared by processes, under one bound.

CACHE/lock                   flock of who changes what the folder holds
CACHE/processes              a byte for each process that uses the folder, which holds a lock of it
CACHE/used                   two int64: whether a change is under way; units that are used
CACHE/PACK/EDITION/NAME      metadata of a pack, whole files
CACHE/PACK/EDITION/NAME.tar  a sparse file of the shard's size; holes where nothing was fetched
CACHE/PACK/EDITION/NAME.tar.units   a byte for each unit of it, see ABSENT and the others
CACHE/PACK/EDITION/index.arrow         of a large pack: sparse too, with such a table
CACHE/PACK/EDITION/index.arrow.checks  the CRC32 of each unit of it that is there

Tables are written through mappings, so that the disk gives them all their room when they are made: where it is full, a
write to a hole would end the process with SIGBUS. On btrfs that holds for every write, as it copies what is changed.

Nothing here outlives a crash in a harmful way: locks end with their process, a change that was cut off has the units
counted anew, units that a dead process had reserved are dropped when room is needed or fetched by who needs them, and
what power loss has emptied has the wrong CRC and is fetched again.
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
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackError
from .owners import FIRST, NOBODY, Owners, are_reserved

UNIT = 16 << 10  # bytes
# Of a unit: not there; there, and used in this epoch; there, and not used; there for good; there for a coming sample.
# From 4 to 254 it is reserved: that process, see `Owners`, fetches it.
ABSENT, USED, KEPT, FIXED, NEEDED = 0, 1, 2, 3, 255
_ABSENT = bytes([ABSENT])
THERE = bytes([USED, KEPT, FIXED, NEEDED])
# What becomes of each state when no sample to come needs the unit: where it was used in this epoch, and where not.
_USED = bytes.maketrans(bytes([KEPT, NEEDED]), bytes([USED, USED]))
_KEPT = bytes.maketrans(bytes([NEEDED]), bytes([KEPT]))
_TABLE, _CHECKS = ".units", ".checks"
_OLD_S = 3600  # packs that nobody has opened or begun an epoch of for so long are dropped first
_KEPT_FILES = 128  # that a process keeps open for writing; many shards are opened for each write
_SHARE = 64  # one part in so many of the bound is dropped at a time
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TRIES = 8  # of a file that the disk has no room for
_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenFile:
    """A file that is open for writing, and closed with the last reference. Raises OSError."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Blocks:
    """A sparse file of a pack and the table of its units.

    pins: how often samples to come in this process need each unit, (units,) int32; below 0 where a signal cut off the
    counting. fetching: 1 for each that a thread of this process fetches, else 0.
    checked: of a file whose bytes nothing else checks: each unit has its CRC32 here, which `has` compares when it
        meets the unit for the first time. What it fetches stays.
    """

    def __init__(self, cache: Cache, path: Path, size: int, checked: bool = False):
        self.cache, self.path, self.size = cache, path, size
        count = -(-size // UNIT)
        tables = [(path.with_name(path.name + _TABLE), count)]
        if checked:
            tables.append((path.with_name(path.name + _CHECKS), 4 * count))
        with cache.locked():
            for table, table_size in tables:
                if not table.exists():
                    cache.with_room(table_size, partial(make_file, table, table_size))
                    cache.add(units_of(table_size))
                elif table.stat().st_size == table_size:  # an earlier version made it with holes
                    cache.with_room(table_size, partial(_allocate, table, table_size))
            self._map, self.units = _mapped(tables[0][0], np.uint8)
            cache.with_room(UNIT, self.make_anew)
            _grow(path, size)  # where it was cut; what is missing then has other checks
        for file, file_size in [(path, size), *tables]:
            if file.stat().st_size != file_size:
                raise PackError(f"{file} in the cache has another size than the pack's: delete {path.parent}")
        self._checks = _mapped(tables[1][0], np.uint32)[1] if checked else None
        self._unseen = np.ones(count if checked else 0, bool)  # not compared yet
        self.pins = np.zeros(count, np.int32)
        self._pins = self.pins.data  # of which single units are faster
        self.fetching = bytearray(count)
        self._file: _OpenFile | None = None
        self._pinning = threading.Lock()

    def unit_range(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first unit of these bytes and the one after the last."""
        begin, end, count = offset // UNIT, -(-(offset + length) // UNIT), len(self.units)
        if 0 <= begin <= end <= count:
            return begin, end
        begin = max(0, begin)  # an index may be damaged
        return begin, max(begin, min(end, count))

    def need_again(self, needed: np.ndarray | None = None) -> None:
        """Note that an epoch begins that needs units which were used. needed: (units,) bool, those alone. With the
        cache's lock."""
        used = self.units == USED
        self.units[used if needed is None else used & needed] = KEPT

    def units_of(self, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return which units have any of these bytes: bool (units,)."""
        begins = np.clip(offsets // UNIT, 0, len(self.units))  # an index may be damaged
        ends = np.clip(-(-(offsets + lengths) // UNIT), begins, len(self.units))
        changes = np.bincount(begins, minlength=len(self.units) + 1) - np.bincount(ends, minlength=len(self.units) + 1)
        return np.cumsum(changes[:-1]) > 0

    def pin(self, first: int, end: int, times: int) -> None:
        """Count samples that need these units."""
        with self._pinning:
            pins = self.pins[first:end]
            pins += times

    @property
    def there(self) -> int:
        """What a unit becomes that was fetched."""
        return NEEDED if self._checks is None else FIXED

    def states(self, first: int, end: int) -> bytes:
        """Return a byte for each of these units. Of few units this is several times faster than `units`."""
        return self._map[first:end]

    def free_before(self, first: int, least: int) -> int:
        """Return how many units right before `first`, from `least` on, are absent and not being fetched."""
        states = self._map[least:first]
        free = len(states) - len(states.rstrip(_ABSENT))
        found = self.fetching.rfind(1, first - free, first)
        return free if found < 0 else first - 1 - found

    def free_after(self, end: int, most: int) -> int:
        """Return how many units from `end` on, up to `most`, are absent and not being fetched."""
        states = self._map[end:most]
        free = len(states) - len(states.lstrip(_ABSENT))
        found = self.fetching.find(1, end, end + free)
        return free if found < 0 else found - end

    def has(self, first: int, end: int) -> bool:
        """Return True where all of these units are there."""
        if self._map[first:end].strip(THERE):
            return False
        return self._checks is None or self._is_as_fetched(first, end)

    def _is_as_fetched(self, first: int, end: int) -> bool:
        """Compare units with their checks. Power loss may have emptied those that another process has fetched."""
        places = np.flatnonzero(self._unseen[first:end]) + first
        if not len(places):
            return True
        assert self._checks is not None
        with open(self.path, "rb") as file:
            found = [zlib.crc32(os.pread(file.fileno(), UNIT, place * UNIT)) for place in places.tolist()]
        right = self._checks[places] == found
        self._unseen[places[right]] = False
        self.units[places[~right]] = NOBODY  # it is fetched anew, and counts already
        return bool(right.all())

    def let_go(self, first: int, end: int, used: bool, times: int) -> None:
        """Count samples that need these units no more. used: nor does anybody in this epoch. With the cache's lock."""
        pins, states, after = self._pins, self._map, _USED if used else _KEPT
        with self._pinning:
            for unit in range(first, end):
                pins[unit] = count = pins[unit] - times
                if count <= 0:
                    states[unit] = after[states[unit]]

    def write(self, first: int, pieces: Sequence[Any]) -> None:
        """Write buffers, one after another, the first of which begins with a unit. Raises OSError."""
        offset = first * UNIT
        file = self._file
        if file is None:
            file = _OpenFile(self.path)
            if len(self.cache.blocks) < _KEPT_FILES:
                self._file = file
        for piece in pieces:
            view = memoryview(piece)
            while view:
                done = os.pwrite(file.number, view, offset)
                view, offset = view[done:], offset + done
        if self._checks is not None:
            whole = memoryview(b"".join(pieces))
            for place, begin in enumerate(range(0, len(whole), UNIT)):
                self._checks[first + place] = zlib.crc32(whole[begin : begin + UNIT])

    def is_linked(self) -> bool:
        """Return False where the file that `write` writes to was deleted."""
        return self.path.exists() if self._file is None else os.fstat(self._file.number).st_nlink > 0

    def make_anew(self) -> None:
        """Make the file again where somebody has deleted it, with nothing in it. Raises FileNotFoundError where its
        folder is gone too."""
        with self.cache.locked():
            self._file = None
            if self.path.exists():
                return
            _grow(self.path, self.size)
            lost = np.flatnonzero((self.units != ABSENT) & ~are_reserved(self.units))
            self.units[lost] = ABSENT
            self.cache.add(-len(lost))

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


class _Locked:
    """Holds a cache's lock. A class, as several a request are too many for generators."""

    def __init__(self, cache: Cache):
        self._cache, self._depth = cache, 0

    def __enter__(self) -> None:
        cache = self._cache
        cache._thread.acquire()
        depth = self._depth
        try:
            if depth == 0:
                fcntl.flock(cache._lock, fcntl.LOCK_EX)
                if cache._used[0]:  # a change was cut off
                    cache._used[1] = cache._counted()
                cache._used[0] = 1
            self._depth = depth + 1
        except BaseException:  # a signal's, too
            self._depth = depth
            if depth == 0:
                fcntl.flock(cache._lock, fcntl.LOCK_UN)
            cache._thread.release()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        cache = self._cache
        try:
            self._depth -= 1
            if self._depth == 0:
                if kind is None:
                    cache._used[0] = 0
                fcntl.flock(cache._lock, fcntl.LOCK_UN)
        finally:
            cache._thread.release()


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
        self._locked = _Locked(self)
        self._making_room = False
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with self._flocked():
                _grow(root / "used", 16)
                _allocate(root / "used", 16)
                self._used = _mapped(root / "used", np.int64)[1]
                self._used[0] = 1  # the first change counts anew, whatever stands there
                self.owners = Owners(root / "processes")
                self._disown()
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
    def _flocked(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def locked(self) -> _Locked:
        """Hold the folder's lock: what it holds changes in no other process and thread."""
        return self._locked

    def add(self, units: int) -> None:
        """Count units. With the lock."""
        self._used[1] += units

    @property
    def used_bytes(self) -> int:
        return int(self._used[1]) * UNIT

    def open(self, path: Path, size: int, checked: bool = False) -> Blocks:
        """Return the blocks of a file, made where it is missing."""
        with self._thread:
            found = self.blocks.get(path)
            if found is None:
                checked = checked or path.with_name(path.name + _CHECKS).exists()
                found = self.blocks[path] = Blocks(self, path, size, checked)
            elif not path.exists():
                found.make_anew()
            return found

    def reserve(self, blocks: Blocks, first: int, end: int, *, urgent: bool = False) -> bool:
        """Reserve room for what is absent of these units. Returns False where samples to come need all there is.

        urgent: take it from them, as somebody waits; they will be fetched again.
        """
        with self.locked():
            blocks.pin(first, end, 2)  # until `settle`, no room comes from these
            states = blocks.states(first, end)
            absent = states.count(ABSENT)
            if not self.make_room(absent, urgent):
                blocks.pin(first, end, -2)
                return False
            units = blocks.units[first:end]
            if absent == len(states):
                units[:] = self.owners.own
            else:
                units[self.owners.of_the_dead(units)] = self.owners.own  # they count already
                units[units == ABSENT] = self.owners.own
            self.add(absent)
            return True

    def others_fetch(self, blocks: Blocks, first: int, end: int) -> bool:
        """Return True where processes that live are about all of these units. With the lock."""
        if not FIRST <= blocks.states(first, end)[0] <= NOBODY:
            return False
        units = blocks.units[first:end]
        return bool(are_reserved(units).all() and not self.owners.of_the_dead(units).any())

    def settle(self, blocks: Blocks, first: int, end: int, *, fetched: bool) -> None:
        """Mark units that `reserve` has reserved as there, or give them back."""
        with self.locked():
            blocks.pin(first, end, -2)
            units, states = blocks.units[first:end], blocks.states(first, end)
            if fetched and states.count(self.owners.own) == len(states):
                units[:] = blocks.there
            elif fetched:
                lost = np.flatnonzero(units == ABSENT) + first  # somebody needed the room meanwhile
                units[are_reserved(units)] = blocks.there
                blocks.drop(lost)
                self.add(len(lost))
            else:
                blocks.drop(np.flatnonzero(units == self.owners.own) + first)

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
        # Which of KEPT go first is all one, as they are needed once in this epoch: any is fetched anew.
        passes = [(old, (USED, KEPT, NEEDED), wanted), (tables, (USED,), wanted), (tables, (KEPT,), wanted)]
        passes.append((tables, (NEEDED,), least))
        for number, (among, values, goal) in enumerate([*passes, (tables, (KEPT, NEEDED), least * urgent)]):
            for table in among:
                if dropped >= goal:
                    break
                dropped += self._drop_from(table, values, goal - dropped, 1 if number < len(passes) else 2)
        self.dropped += dropped
        return dropped

    def _drop_from(self, table: Path, values: tuple[int, ...], most: int, pins: int) -> int:
        """Drop units that less than so many samples need: with these values, or reserved by a dead process."""
        path = table.with_name(table.name.removesuffix(_TABLE))
        try:
            blocks = self.blocks.get(path) or self.open(path, path.stat().st_size)
        except (OSError, PackError):
            return 0
        chosen = np.isin(blocks.units, values) | self.owners.of_the_dead(blocks.units)
        chosen &= blocks.pins < pins
        places = np.flatnonzero(chosen)[:most]
        blocks.drop(places)
        return len(places)

    def with_room(self, size: int, write: Callable[[], None]) -> None:
        """Write a file of so many bytes; where the disk is full, drop more and more and try again. With the lock.
        Raises OSError."""
        for more in range(1, _TRIES + 1):  # what others have reserved may take the room that one of them makes
            try:
                return write()
            except OSError as error:
                if error.errno not in NO_SPACE or self._making_room or size > self.limit or more == _TRIES:
                    raise
            self._making_room = True  # which opens other tables
            try:
                self.shrink(2 * more * units_of(size), 2 * more * units_of(size), urgent=True)
            finally:
                self._making_room = False

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

    def forget_file(self, path: Path) -> None:
        """Delete a file of metadata with all that it counts for, where it is there."""
        with self.locked():
            for file in (path, *(path.with_name(path.name + suffix) for suffix in (_TABLE, _CHECKS))):
                if file.exists():
                    self.add(-_counted_for(file))
                    file.unlink()
            self.blocks.pop(path, None)

    def _disown(self) -> None:
        """Leave to nobody what an earlier process with this one's number was about. With the lock."""
        for table in self._tables():
            with contextlib.suppress(OSError):  # deleted meanwhile
                if (found := np.flatnonzero(np.fromfile(table, np.uint8) == self.owners.own)).size:
                    _mapped(table, np.uint8)[1][found] = NOBODY  # only where the disk has given room already

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
    return sum(_counted_for(path) for path in folder.rglob("*") if path.is_file())


def _counted_for(path: Path) -> int:
    """Return the units that count for a file: a sparse one's with its table."""
    if is_sparse(path):
        return 0
    size = path.stat().st_size
    there = int(np.count_nonzero(np.fromfile(path, np.uint8))) if path.name.endswith(_TABLE) else 0
    return units_of(size) + there


def is_sparse(path: Path) -> bool:
    """Return whether a file has a table of the units that are there."""
    return path.with_name(path.name + _TABLE).exists()


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


def make_file(path: Path, size: int) -> None:
    """Make a file of zeros. It has its name when the disk has given it room."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(b"")
        _allocate(temporary, size)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _allocate(path: Path, size: int) -> None:
    """Have the disk give room to each byte of a file, whose content stays. Raises OSError that names it."""
    with open(path, "rb+") as file:
        try:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


def _mapped(path: Path, type: type) -> tuple[Any, np.ndarray]:
    """Map a file; return the mapping, whose short slices are faster, and the same as an array."""
    with open(path, "rb+") as file:
        if not os.fstat(file.fileno()).st_size:
            return b"", np.zeros(0, type)
        mapped = mmap.mmap(file.fileno(), 0)
        return mapped, np.frombuffer(mapped, type)


def _punch(descriptor: int, offset: int, length: int) -> None:
    sizes = map(ctypes.c_int64, (offset, length))
    if length and _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, *sizes) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
