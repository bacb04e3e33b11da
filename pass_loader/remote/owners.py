"""Which processes fetch what, in a cache folder that they share: numbers that end with their process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import numpy as np

FIRST, NOBODY = 4, 254  # a unit's state from the one to before the other: the number of the process that fetches it


class Owners:
    """Numbers of processes: a lock on one byte of a file for each, which the kernel drops when its process ends.

    It is a lock of the process (`fcntl`), not of the open file (`flock`): a forked child does not keep it.

    own: this process's. Raises OSError where there are too many.
    """

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # closing it would drop the lock
        free = (number for number in range(FIRST, NOBODY) if self._take(number))
        self.own = next(free, NOBODY)
        if self.own == NOBODY:
            raise OSError(errno.EUSERS, f"{NOBODY - FIRST} processes use it already")

    def _take(self, number: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # two words for it
            return False
        return True

    def _lives(self, number: int) -> bool:
        if number in (self.own, NOBODY):
            return number == self.own
        if not self._take(number):
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
        return False

    def of_the_dead(self, units: np.ndarray) -> np.ndarray:
        """Return which units a process was about that has ended, as booleans of the same shape. With the cache's
        lock."""
        found = are_reserved(units)
        if found.any():
            dead = [number for number in np.unique(units[found]).tolist() if not self._lives(number)]
            found &= np.isin(units, dead)
        return found


def are_reserved(units: np.ndarray) -> np.ndarray:
    """Return which units a process fetches, or has fetched until its end, as booleans of the same shape."""
    return (units >= FIRST) & (units <= NOBODY)
