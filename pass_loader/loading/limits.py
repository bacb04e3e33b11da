"""Which of storage, decoding and rendering limits a loader: each measured by itself, and in words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..pack.reader import Pack
from ..remote.fetcher import MOST_THREADS

READERS = 32  # records that are read at a time; of a pack in a store MOST_THREADS
_DECODING = "decode"  # of the engine's stages; all others but "read" are rendering


@dataclass(frozen=True, slots=True)
class Limits:
    """Samples a second that each part of the work would allow, if it were the only one.

    storage: records read in a random order, many at a time, past the page cache or the cache of a pack in a store.
    decoding, rendering: on all threads of the measurement. longest: the longest stage of rendering. keeps: why later
    epochs do not read from storage again; "" where they do. remote: the pack lies in a store.
    """

    storage: float
    decoding: float
    rendering: float
    threads: int
    longest: str
    keeps: str
    remote: bool

    @property
    def threads_give(self) -> float:
        """Samples a second of decoding and rendering together."""
        return 1 / (1 / self.decoding + 1 / self.rendering)

    @property
    def first(self) -> str:
        """What limits the first epoch: "storage", "decoding" or "rendering"."""
        return "storage" if self.storage < self.threads_give else self.later

    @property
    def later(self) -> str:
        """What limits where storage does not."""
        return "decoding" if self.decoding < self.rendering else "rendering"

    def words(self) -> str:
        """Return what the limit is and what helps, in sentences."""
        if self.first != "storage":
            return f"The limit is {self.later}: {self._of_threads()}"
        place = "the store sends" if self.remote else "storage gives"
        said = (
            f"The limit is storage: {place} {self.storage:,.0f} samples/s, and {self._threads()} could take "
            f"{self.threads_give:,.0f}."
        )
        if self.keeps:
            return f"{said} That is the first epoch: {self.keeps}. Then the limit is {self.later}: {self._of_threads()}"
        helps = "a larger --cache-bytes, or " if self.remote else "a faster disk, or "
        return f"{said} More threads do not help: {helps}order='blocks' where storage reads large blocks."

    def _of_threads(self) -> str:
        share = self.threads_give / (self.decoding if self.later == "decoding" else self.rendering)
        said = f"it takes {share:.0%} of the time of {self._threads()}. More threads help while there are idle cores"
        if self.later == "decoding":
            return f"{said}; so does a pack that is decoded faster: `pass-pack convert --codec dct`."
        return f"{said}; so do fewer or smaller views. Most of it is {self.longest}."

    def _threads(self) -> str:
        return "one thread" if self.threads == 1 else f"{self.threads} threads"


def limits_of(pack: Pack, stages: dict[str, float], samples_per_second: float, threads: int, seconds: float) -> Limits:
    """Measure how fast storage is, and take the rest from a measurement of the loader.

    stages: the share of the threads' time that each stage took at `samples_per_second`. Raises OSError.
    """
    rendering = {name: share for name, share in stages.items() if name not in ("read", _DECODING)}
    longest = max(rendering, key=rendering.__getitem__)
    shares = stages[_DECODING], sum(rendering.values())
    decoding, alone = (samples_per_second / max(share, 1e-9) for share in shares)
    storage = storage_rate(pack, seconds)
    return Limits(storage, decoding, alone, threads, longest, _keeps(pack), pack.remote is not None)


def storage_rate(pack: Pack, seconds: float) -> float:
    """Return the records a second that come from storage, in a random order, many at a time, for so many seconds.

    Of a pack in a store nothing goes through its cache; of one in a directory the page cache forgets them before.
    Raises OSError.
    """
    readers = READERS if pack.remote is None else MOST_THREADS
    reads = _from_disk(pack) if pack.remote is None else _from_store(pack)
    until = time.perf_counter() + seconds

    def read(_: int) -> int:
        done = 0
        while time.perf_counter() < until:
            next(reads)()
            done += 1
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        done = sum(pool.map(read, range(readers)))
    return done / (time.perf_counter() - began)


class _Reads(Iterator[Callable[[], object]]):
    """Gives what reads a random record, to any number of threads."""

    def __init__(self, pack: Pack, make: Callable[[int], Callable[[], object]]):
        self._pack, self._make = pack, make
        self._drawn = np.random.default_rng(0)

    def __next__(self) -> Callable[[], object]:
        while True:
            record = int(self._drawn.integers(self._pack.records))
            if not self._pack.is_removed(np.array(record)):
                return self._make(record)


def _from_store(pack: Pack) -> _Reads:
    return _Reads(pack, lambda record: lambda: pack.read_from_store(record))


def _from_disk(pack: Pack) -> _Reads:
    paths = pack.tar_paths()
    columns = [pack.column(name) for name in ("shard", "offset", "length")]

    def made(record: int) -> Callable[[], object]:
        shard, offset, length = (int(column[record]) for column in columns)

        def read() -> None:
            descriptor = os.open(paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)

        return read

    return _Reads(pack, made)


def pack_bytes(pack: Pack) -> int:
    """Return the bytes of a pack's tars."""
    return sum({shard["tar"]: shard.get("bytes", 0) for shard in pack.shards}.values())


def _keeps(pack: Pack) -> str:
    """Return why later epochs do not read from storage again; "" where they do."""
    total = pack_bytes(pack)
    if pack.remote is not None:
        fits = 2 * total <= pack.remote.address.cache_bytes
        return "the cache then has the whole pack" if fits else ""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "the page cache then has the whole pack" if 2 * total <= free else ""
