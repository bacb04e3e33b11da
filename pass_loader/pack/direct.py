"""Writes large files past the page cache, which costs a copy and evicts what is of use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType

_BLOCK_BYTES = 4 << 20  # of one write; page-aligned in memory and in the file, as O_DIRECT wants it (open(2))
_O_DIRECT = getattr(os, "O_DIRECT", 0)


class DirectWriter:
    """A new file that is only appended to. Where the file system does not take O_DIRECT, through the page cache.

    Nothing is durable before an fsync. Left by an exception, the file lacks what was not written yet.
    """

    def __init__(self, path: Path):
        try:
            self._descriptor = _open_new(path, _O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = _open_new(path, 0)
        self._memory = mmap.mmap(-1, _BLOCK_BYTES)
        self._written = self._filled = 0

    def __enter__(self) -> DirectWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None and self._filled:
                self._through_the_cache()  # what is left need not be aligned
                self._flush()
        finally:
            os.close(self._descriptor)
            self._memory.close()

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            part = left[: _BLOCK_BYTES - self._filled]
            self._memory[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            left = left[len(part) :]
            if self._filled == _BLOCK_BYTES:
                self._flush()

    def tell(self) -> int:
        return self._written + self._filled

    def _flush(self) -> None:
        done = 0
        while done < self._filled:
            with memoryview(self._memory) as memory, memory[done : self._filled] as rest:
                try:
                    done += os.write(self._descriptor, rest)
                except OSError as error:  # a file system that refuses now, or a rest that is no longer aligned
                    if error.errno != errno.EINVAL or not self._through_the_cache():
                        raise
        self._written += self._filled
        self._filled = 0

    def _through_the_cache(self) -> bool:
        """Write through the cache from now on. Returns False where it was so before."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_O_DIRECT)
        return bool(flags & _O_DIRECT)


def _open_new(path: Path, flags: int) -> int:
    """Open a new file for writing. What has the name goes: a leftover, or a link to somewhere else."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.open(path, flags | os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
