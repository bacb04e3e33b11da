"""A source's file, read in place by any number of threads; each keeps one open, whatever the number of sources."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path


class _Descriptor:
    """A descriptor that is closed with its last reference: when its thread ends or turns to another file."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _LastRead(threading.local):
    file: SourceFile | None = None
    descriptor: _Descriptor | None = None


_last_read = _LastRead()


class SourceFile(io.RawIOBase):
    """A binary file for reading. `pread` may be called by any number of threads; the file's position, which zipfile
    uses, by one at a time."""

    def __init__(self, path: Path):
        self.path = path
        self._position = 0

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the file. Raises OSError."""
        if _last_read.file is not self or _last_read.descriptor is None:
            _last_read.file, _last_read.descriptor = self, _Descriptor(self.path)
        return os.pread(_last_read.descriptor.number, length, offset)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        position = offset + (os.stat(self.path).st_size if start is None else start)
        if position < 0:
            raise ValueError(f"negative position {position}")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.pread(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
