"""Which epoch's views a dataset gives under torch's own DataLoader, which tells a dataset nothing of epochs.

In this order: the epoch that the index brings (our EpochSampler); the one that `set_epoch` has set, which worker
processes see as well; else a number of its own for every request, made from torch's seeds.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import mmap
import os
import struct
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

from ..data.live import Generation
from ..keys import MAX_DRAWS
from ..pack.layout import MANIFEST, REMOVED
from ..pack.reader import Pack

_LOG = logging.getLogger(__name__)
_NUMBERS = MAX_DRAWS << 32  # (epoch, draw) pairs, each with views of its own
_STAMPS = itertools.count(1)  # of calls of set_epoch in this process, so that the latest one counts


class ViewsKey(NamedTuple):
    """The epoch and the draw whose views a sample shows: `dataset.sample(record, epoch, draw)` shows them again."""

    epoch: int
    draw: int


class SharedEpoch:
    """The epoch that was set last, in memory that a process shares with the workers it starts, by fork or spawn.

    The memory has no name (memfd_create(2)), so that a killed process leaves nothing.
    packs: how many generations go with the epoch. values: what the memory holds at first. descriptor: memory that
    exists already.
    """

    def __init__(self, packs: int, values: bytes = b"", descriptor: int | None = None):
        self._packs = packs
        self._format = struct.Struct(f"<QQ{packs}Q")  # stamp, epoch, generations
        self._descriptor = os.memfd_create("pass_loader-epoch") if descriptor is None else descriptor
        if descriptor is None:
            os.pwrite(self._descriptor, values or bytes(self._format.size), 0)
        self._memory = mmap.mmap(self._descriptor, self._format.size)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # modules may be gone at exit
        if hasattr(self, "_memory"):
            self._memory.close()
            close(self._descriptor)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if get_spawning_popen() is not None:  # a worker that starts; any other copy goes its own way
            return _attached, (self._packs, reduction.DupFd(self._descriptor))
        return SharedEpoch, (self._packs, self._memory[:])

    def set(self, epoch: int, generation: Generation) -> None:
        """Set the epoch, and with it the generations of the packs."""
        several = generation if isinstance(generation, tuple) else (generation,)
        # The stamp comes last: a worker that reads meanwhile sees the call before.
        self._memory[8:] = self._format.pack(0, epoch, *several)[8:]
        self._memory[:8] = struct.pack("<Q", next(_STAMPS))

    def get(self) -> tuple[int, int, tuple[int, ...]]:
        """Return the stamp (0: it was never set), the epoch and the generations of the packs."""
        stamp, epoch, *generations = self._format.unpack(self._memory[:])
        return stamp, epoch, tuple(generations)


def _attached(packs: int, duplicate: Any) -> SharedEpoch:
    return SharedEpoch(packs, descriptor=duplicate.detach())


class OwnNumbers:
    """Numbers for requests of which no epoch is known, so that no views come twice.

    A process counts its requests from a place among all 2^48 pairs of epoch and draw. The place depends on torch's seed
    (a worker's own, else torch.initial_seed()), the worker and the rank, so that a run under torch.manual_seed repeats
    itself, and two requests for a record show the same views with a chance of 2^-48. A line of level INFO tells it.
    """

    def __init__(self) -> None:
        self._process: tuple[int, int | None] | None = None
        self._next = 0

    def next(self, rank: int) -> ViewsKey:
        """Return the views of one more request in this process."""
        worker = get_worker_info()
        process = (os.getpid(), worker.seed if worker else None)
        if process != self._process:
            seed, id = (worker.seed, worker.id) if worker else (torch.initial_seed(), -1)
            digest = hashlib.blake2b(struct.pack("<Qqq", seed % 2**64, rank, id), digest_size=8).digest()
            self._process, self._next = process, int.from_bytes(digest, "little") % _NUMBERS
            words = "no set_epoch was called: rank %d, worker %d counts its views from epoch %d, draw %d on"
            _LOG.info(words, rank, id, *_key_of(self._next))
        number, self._next = self._next, (self._next + 1) % _NUMBERS
        return _key_of(number)


def _key_of(number: int) -> ViewsKey:
    return ViewsKey(number // MAX_DRAWS, number % MAX_DRAWS)


def files_stamp(packs: list[Pack]) -> list[tuple[int, int, int] | None]:
    """Return what changes when records of these packs are removed or restored. Costs two calls of stat(2) a pack."""
    found: list[tuple[int, int, int] | None] = []
    for path in (pack.path / name for pack in packs for name in (MANIFEST, REMOVED)):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
