"""Where pictures come from: what every source gives, and which kind a path is."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import PackError

_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # beside pictures, as `datasets`' imagefolder has it
MAX_PICTURE_BYTES = 256 << 20  # 178,956,970 pixels at 12 bits each: a larger file is no picture that is packed


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source, before anybody looked into it."""

    source: Source
    name: str  # as the source has it; error messages use it
    id: str
    class_name: str | None  # the class folder; None: no label
    offset: int  # bytes, in a tar; a table's row; 0 in a folder
    length: int
    problem: str | None = None  # why it cannot be read: a link, no regular file
    label: int | None = None  # where the source has numbers, not names
    metadata: dict[str, Any] | None = None  # where the source brings its own

    def read(self) -> bytes:
        return self.source.read(self)


class EntryFile:
    """Entries in a nameless file below `root`, first in, first out: memory does not grow with them."""

    def __init__(self, root: Path, sources: Sequence[Source]):
        self._sources = sources
        self._file = tempfile.TemporaryFile(dir=root)

    def append(self, entry: Entry) -> None:
        """Before the first is read again."""
        values = [getattr(entry, name) for name in _ENTRY_FIELDS]
        row = json.dumps([self._sources.index(entry.source), *values], default=str)  # as Shard.save
        self._file.write(row.encode("ascii") + b"\n")

    def __iter__(self) -> Iterator[Entry]:
        self._file.seek(0)
        for row in self._file:
            place, *values = json.loads(row)
            yield Entry(self._sources[place], *values)


_ENTRY_FIELDS = [field.name for field in fields(Entry)[1:]]


class Source(ABC):
    """`entries` lists in a fixed order: equal input gives equal packs. `read` is called by any number of threads."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    def classes(self) -> list[str]:
        """Names of classes, in the order of their labels, as far as known before the entries are listed."""
        return []

    def stamp(self) -> list[Any]:
        """Changes when the source does; of a packing that goes on where it was cut off."""
        status = self.path.stat()
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]

    @abstractmethod
    def size(self) -> int:
        """Bytes to be read, about; for a progress bar."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]: ...

    @abstractmethod
    def read(self, entry: Entry) -> bytes: ...


class FolderSource(Source):
    """A folder tree as torchvision's ImageFolder reads it: the first folder below the root is the class. The id is the
    path below the root without its suffix. A table metadata.csv (.jsonl, .parquet) in the root is no picture: give it
    as metadata."""

    def __init__(self, path: Path):
        super().__init__(path.resolve())

    def classes(self) -> list[str]:
        return sorted(child.name for child in os.scandir(self.path) if child.is_dir())

    def stamp(self) -> list[Any]:
        return [str(self.path)]  # its files' sizes are compared shard by shard

    def entries(self) -> Iterator[Entry]:
        def unreadable(error: OSError) -> None:
            raise PackError(f"{error.filename}: {error.strerror}") from None

        for directory, folders, files in os.walk(self.path, followlinks=True, onerror=unreadable):
            folders.sort()
            for file in sorted(files):
                if directory == str(self.path) and file in _TABLES:
                    continue
                path = Path(directory, file)
                relative = path.relative_to(self.path)
                length, problem = _file_length(path)
                id, class_name = id_and_class(PurePosixPath(relative))
                yield Entry(self, str(relative), id, class_name, 0, length, problem)

    def size(self) -> int:
        return sum(entry.length for entry in self.entries())

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


class ListSource(Source):
    """A text file of paths, one a line, below the folder that holds it or absolute. The id is the path as it stands
    there without its suffix; there are no labels."""

    def entries(self) -> Iterator[Entry]:
        with open(self.path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                name = line.rstrip("\r\n")
                if name:
                    length, problem = _file_length(self.path.parent / name)
                    id = str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name
                    yield Entry(self, name, id.lstrip("/"), None, 0, length, problem)

    def size(self) -> int:
        return sum(entry.length for entry in self.entries())

    def read(self, entry: Entry) -> bytes:
        return (self.path.parent / entry.name).read_bytes()


def id_and_class(path: PurePosixPath) -> tuple[str, str | None]:
    """As ImageFolder has it."""
    return str(path.with_suffix("")), path.parts[0] if len(path.parts) > 1 else None


def _file_length(path: Path) -> tuple[int, str | None]:
    try:
        status = path.stat()
    except OSError as error:  # a dangling link, a circle of links
        return 0, error.strerror
    return (status.st_size, None) if stat.S_ISREG(status.st_mode) else (0, "it is no regular file")


def open_sources(paths: Sequence[str | Path]) -> list[Source]:
    """Raises PackError for what is no source, with what it seems to be and the remedy."""
    return [_open_source(Path(path)) for path in paths]


def _open_source(path: Path) -> Source:
    import tarfile
    import zipfile

    from .archives import TarSource, ZipSource
    from .parquet_source import ParquetSource

    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise PackError(f"{path} does not exist")
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return ParquetSource(path)
    if magic and tarfile.is_tarfile(path) and not magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX")):
        return TarSource(path)
    if zipfile.is_zipfile(path):
        return ZipSource(path)
    if path.suffix == ".txt" and magic and not html_hint(path):
        return ListSource(path)
    raise PackError(
        f"{path} is neither a folder nor a tar, zip, Parquet file or .txt list of paths"
        f"{html_hint(path) or ('; it is empty: download it again' if not magic else '')}"
    )


def html_hint(path: Path) -> str:
    """What a file that cannot be read seems to be, and what to do; empty for what is not known."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "; it is a web page: the download was redirected (curl needs -L)"
    if head.startswith((b"\x1f\x8b", b"bzh", b"\xfd7zx", b"\x28\xb5\x2f\xfd")):
        kind = {b"\x1f": "gzip", b"b": "bzip2", b"\xfd": "xz", b"\x28": "zstd"}[head[:1]]
        return f"; it is {kind}-compressed: decompress it first, so that records can be read in place"
    return ""
