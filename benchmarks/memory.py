"""Private memory of this process: anonymous (RssAnon), which the kernel cannot take back. What free memory costs."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from pathlib import Path

_LOOKED_S = 0.02  # between two looks
_FREE_S = 5.0  # after which a host has taken back what is free
_BLOCK = 8 << 20  # bytes read or written at a time
_LEFT_FREE = 192 << 20  # bytes: little more than what the kernel keeps free itself
_FREED = 2 << 30  # bytes that a run frees, at the most


def private_bytes() -> int:
    """Return how much there is now."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Peak:
    """The most that there was while it was entered: `most`, in bytes."""

    def __enter__(self) -> Peak:
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOKED_S):
            self.most = max(self.most, private_bytes())


def gib_written_s(folder: Path) -> tuple[float, float]:
    """Return the seconds that it takes to write a GiB to a file: where memory was free for some time, and where it has
    just been freed."""
    took = []
    for wait_s in (_FREE_S, 0.0):
        time.sleep(wait_s)
        with tempfile.TemporaryFile(buffering=0, dir=folder) as file:
            block, began = bytes(_BLOCK), time.perf_counter()
            for _ in range((1 << 30) // _BLOCK):
                file.write(block)
            took.append(time.perf_counter() - began)
    return took[0], took[1]


class FullPageCache:
    """Keeps the page cache full of an empty file's pages, as on a machine that has worked for long.

    A host may take back the memory that stays free in a virtual machine, and to get it anew takes longer than to write
    to it: figures would depend on what the run before has freed. Pages that the kernel takes from a file stay the
    machine's own.
    """

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)
        os.truncate(self._file.fileno(), 1 << 43)  # has no blocks
        self._place, self._memory = 0, bytearray(_BLOCK)
        self._most = _of_machine("MemTotal")

    def fill(self) -> None:
        """Call it before each run, as soon as the one before has ended."""
        end, self._most = self._place + self._most, _FREED
        while self._place < end and _of_machine("MemFree") > _LEFT_FREE:
            self._place += os.preadv(self._file.fileno(), [self._memory], self._place)


def _of_machine(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024
