"""Sources in stores and on web servers: read once, as streams, never copied whole to memory or disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PackError
from ..remote.store import Known
from ..remote.stream import RemoteObject
from .archives import TarSource
from .parquet_source import ParquetSource
from .source import MAX_PICTURE_BYTES, PLAIN, Entry, HeldEntry, Naming, Source
from .source_file import StreamedFile
from .webdataset import key_of

_FOOTER_BYTES = 64 << 10  # that are asked for first
_MOST_HELD_BYTES = 1 << 30  # of the files of one sample


class _Streamed(Source):
    """What remote sources have in common: their entries bring their bytes."""

    of: RemoteObject
    streamed = True

    @property
    def place(self) -> str:
        return str(self.of)

    def stamp(self) -> list[Any]:
        return [self.of.url, *self.of.known]

    def size(self) -> int:
        return self.of.known.size

    def read(self, entry: Entry) -> bytes:
        if not isinstance(entry, HeldEntry) or entry.data is None:
            raise PackError(f"{self.place}: {entry.name} is too large to be held while a remote source is read once")
        return entry.data


class RemoteTarSource(_Streamed, TarSource):
    """A tar as TarSource reads it, in a store."""

    at_random = False

    def __init__(self, of: RemoteObject, naming: Naming = PLAIN):
        super().__init__(Path(of.base_name), naming)
        self.of = of
        self._key, self._held = "", 0  # bytes of the files that have come of the present sample

    def check(self) -> None:
        """What `check` would read comes when it comes."""

    def cuts(self, part_bytes: int) -> list[int]:
        return []

    def _files(self) -> Iterator[Entry]:
        with StreamedFile(self.of) as self._file:
            yield from super()._files()

    def _given(self, entry: Entry, data: bytes | None = None) -> Entry:
        if entry.problem is None and entry.length <= MAX_PICTURE_BYTES:
            self._hold(entry.name, entry.length)
            data = self._file.pread(entry.length, entry.offset)
            if len(data) != entry.length:
                raise PackError(f"{self.place} is cut off: {entry.name} wants {entry.length} bytes at {entry.offset}")
        return entry.holding(data)

    def _hold(self, name: str, length: int) -> None:
        """Raise PackError where the files of one sample, which are held until all have come, take too much memory."""
        if "." in name.rpartition("/")[2] and (key := key_of(name)) != self._key:
            self._key, self._held = key, 0
        self._held += length
        if self._held > _MOST_HELD_BYTES:
            raise PackError(
                f"{self.place}: the files of the sample {self._key} have more than {_MOST_HELD_BYTES:,} bytes, too "
                "many to be held while a remote tar is read once: download it, and pack it from a disk"
            )


class RemoteParquetSource(_Streamed, ParquetSource):
    """A Parquet file as ParquetSource reads it, in a store: its footer when it is opened, then each group of rows."""

    def __init__(self, of: RemoteObject):
        self.of = of
        super().__init__(Path(of.base_name))

    def _read_schema(self) -> pa.Schema:
        return self._footer().schema.to_arrow_schema()

    def _footer(self) -> pq.FileMetaData:
        size = self.of.known.size
        end = self.of.part(max(0, size - _FOOTER_BYTES), size)
        footer = int.from_bytes(end[-8:-4], "little") + 8  # Parquet's format: its length and b"PAR1" come last
        if len(end) < footer <= size:
            end = self.of.part(size - footer, size)
        return pq.read_metadata(pa.BufferReader(end))

    @contextlib.contextmanager
    def _file(self) -> Iterator[pq.ParquetFile]:
        footer = self._footer()
        with StreamedFile(self.of) as stream, pq.ParquetFile(stream, metadata=footer, pre_buffer=False) as file:
            yield file

    def _given(self, entry: Entry, data: bytes | None = None) -> Entry:
        return entry.holding(data)


def open_remote(of: RemoteObject, naming: Naming = PLAIN) -> Source:
    """Open a remote source. Its name decides what it is, so that nothing of a tar is read. Raises PackError."""
    if of.base_name.endswith(".tar"):
        return RemoteTarSource(of, naming)
    if of.base_name.endswith(".parquet"):
        return RemoteParquetSource(of)
    raise PackError(
        f"{of} is neither a tar nor Parquet by its name: remote sources are uncompressed tars, NAME.tar, and "
        "NAME.parquet; download others, and give their paths"
    )


def known_by(stamp: list[Any]) -> Known:
    """Return what an object is known by, from the stamp of the source that it is."""
    _, size, tag = stamp
    return Known(size, tag)
