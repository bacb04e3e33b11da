"""A source's file: read in place by any number of threads, each of which keeps one open, or as a stream."""

from __future__ import annotations

import io
import os
import threading
from abc import abstractmethod
from pathlib import Path

from ..remote.stream import RemoteObject, Stream


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


class ReadableFile(io.RawIOBase):
    """A binary file for reading. Its position, which tarfile and zipfile use, is one thread's at a time.

    place: its path or URL, for messages.
    """

    def __init__(self, place: str):
        self.place = place
        self._position = 0

    @abstractmethod
    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the file. Raises OSError, PackError."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The file's bytes."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        position = offset + (self.size if start is None else start)
        if position < 0:
            raise ValueError(f"negative position {position}")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.pread(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class SourceFile(ReadableFile):
    """A file of the file system. `pread` may be called by any number of threads."""

    def __init__(self, path: Path):
        super().__init__(str(path))
        self._path = path

    def pread(self, length: int, offset: int) -> bytes:
        if _last_read.file is not self or _last_read.descriptor is None:
            _last_read.file, _last_read.descriptor = self, _Descriptor(self._path)
        return os.pread(_last_read.descriptor.number, length, offset)

    @property
    def size(self) -> int:
        return os.stat(self._path).st_size


class StreamedFile(ReadableFile):
    """An object in a store, for one thread that goes forward. Close it in the end."""

    def __init__(self, of: RemoteObject):
        super().__init__(str(of))
        self._stream = Stream(of)

    def pread(self, length: int, offset: int) -> bytes:
        return self._stream.pread(length, offset)

    @property
    def size(self) -> int:
        return self._stream.size

    def close(self) -> None:
        self._stream.close()
        super().close()
