"""What every source of pictures gives: entries, and their bytes."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

MAX_PICTURE_BYTES = 256 << 20  # 178,956,970 pixels at 12 bits each: a larger file is no picture that is packed


PICTURE_SUFFIXES = {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "tif", "tiff", "webp", "ppm", "pgm", "pnm"}
IDS = ("path", "stem")


@dataclass(frozen=True)
class Naming:
    """The choice of what ids and labels are taken from.

    id: "path", "stem", or "" for what the kind of source has. image_key: suffix of the picture in a WebDataset sample.
    class_folders: a tar's first folder is the class. allow_empty: class folders without pictures are classes.
    """

    id: str = ""
    image_key: str | None = None
    class_folders: bool = False
    allow_empty: bool = False

    def id_of(self, path: PurePosixPath) -> str:
        """Return the path, or its last part without suffix, or "" where the kind of source decides."""
        return str(path) if self.id == "path" else path.stem if self.id == "stem" else ""


PLAIN = Naming()
HINT_BYTES = 512


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
    changed_ns: int = 0  # when a file of its own was changed last; 0 where the source's stamp tells

    def read(self) -> bytes:
        return self.source.read(self)

    def holding(self, data: bytes | None) -> HeldEntry:
        return HeldEntry(**{field.name: getattr(self, field.name) for field in fields(self)}, data=data)


@dataclass(frozen=True, slots=True)
class HeldEntry(Entry):
    """An entry that brings its bytes: its source is read once, in order. data: None where nobody will want them."""

    data: bytes | None = None


class EntryFile:
    """A list of entries in nameless files below `root`: memory does not grow with them."""

    def __init__(self, root: Path, sources: Sequence[Source]):
        self._sources = sources
        self._file = tempfile.TemporaryFile(dir=root)
        self._begins = tempfile.TemporaryFile(dir=root)  # of the entries in _file, 8 bytes each
        self._count = 0

    def append(self, entry: Entry) -> None:
        """Add an entry, before the first one is read again."""
        values = [getattr(entry, name) for name in _ENTRY_FIELDS]
        row = json.dumps([self._sources.index(entry.source), *values], default=str)
        self._begins.write(struct.pack("<q", self._file.tell()))
        self._file.write(row.encode("ascii") + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        self._file.seek(0)
        for row in self._file:
            yield self._entry(row)

    def at(self, places: Iterable[int]) -> Iterator[Entry]:
        """Yield the entries of these places, in their order."""
        for place in places:
            self._begins.seek(8 * place)
            self._file.seek(struct.unpack("<q", self._begins.read(8))[0])
            yield self._entry(self._file.readline())

    def _entry(self, row: bytes) -> Entry:
        place, *values = json.loads(row)
        return Entry(self._sources[place], *values)


_ENTRY_FIELDS = [field.name for field in fields(Entry)[1:]]


class Source(ABC):
    """Where pictures come from.

    `entries` lists in a fixed order, so that equal input gives equal packs. `read` is called by any number of threads.
    path: where it lies, or of a remote one its name. at_random: entries may be read in any order, each at the price of
    its own bytes. has_files: its entries are files of their own, and only a listing of them tells whether it is as it
    was. streamed: it is remote, and its entries bring their bytes.
    """

    at_random = True
    has_files = False
    streamed = False

    def __init__(self, path: Path, naming: Naming = PLAIN):
        self.path, self.naming = path, naming
        self.beside: Counter[str] = Counter()  # files that were passed over when the entries were listed, by suffix

    def check_quickly(self) -> None:  # noqa: B027
        """Raise PackError, when the plan is made, for what would not be packed as it is meant."""

    def check(self) -> None:  # noqa: B027
        """Raise PackError, before anything of a task is packed, for what would not be packed as it is meant."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return str(self.path)

    def classes(self) -> list[str]:
        """Return the names of classes, in the order of their labels, as far as known before the entries are listed."""
        return []

    def stamp(self) -> list[Any]:
        """Return what changes when the source does, for a packing that goes on where it was cut off."""
        status = self.path.stat()
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]

    def survey(self) -> tuple[int, list[Any]]:
        """Return `size()`, and what changes whenever an entry does, as far as that shows without reading them."""
        if not self.has_files:
            return self.size(), self.stamp()
        listing = Listing(self)
        for entry in self.entries():
            listing.add(entry)
        return listing.survey()

    @abstractmethod
    def size(self) -> int:
        """Return about how many bytes will be read, for a progress bar."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]: ...

    def _given(self, entry: Entry, data: bytes | None = None) -> Entry:
        """Return a listed entry as the source gives it. data: its bytes, where the listing has read them."""
        return entry

    @abstractmethod
    def read(self, entry: Entry) -> bytes: ...


class Listing:
    """Adds up the entries of a source while they are listed; gives what `survey` does."""

    def __init__(self, source: Source):
        self._source, self._digest, self._size = source, hashlib.sha256(), 0

    def add(self, entry: Entry) -> None:
        self._size += entry.length
        self._digest.update(f"{entry.length} {entry.changed_ns} {entry.name!a}\n".encode())

    def survey(self) -> tuple[int, list[Any]]:
        return self._size, [str(self._source.path.resolve()), self._digest.hexdigest()]


def id_and_class(path: PurePosixPath) -> tuple[str, str | None]:
    """Return the id and the class of a path, as ImageFolder has it."""
    return without_suffix(path), path.parts[0] if len(path.parts) > 1 else None


def without_suffix(path: PurePosixPath) -> str:
    """Return the path without its last part's suffix; as it is where it has no last part: `/`, `.`."""
    return str(path.with_suffix("")) if path.name else str(path)


def label_problem(label: int) -> str | None:
    """Return why a number cannot be a pack's label, which has 32 bits; None where it can."""
    return None if -(2**31) <= label < 2**31 else f"its label {_short(label)} does not fit into 32 bits"


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**40 else "of more than 40 digits"


def html_hint(path: Path) -> str:
    """Return what a file that cannot be read seems to be, and what to do; "" where that is not known."""
    with open(path, "rb") as file:
        return hint_of(file.read(HINT_BYTES))


def hint_of(head: bytes) -> str:
    """Return the same by the first HINT_BYTES of a file."""
    head = head.lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "; it is a web page: the download was redirected (curl needs -L)"
    if head.startswith((b"\x1f\x8b", b"bzh", b"\xfd7zx", b"\x28\xb5\x2f\xfd")):
        kind = {b"\x1f": "gzip", b"b": "bzip2", b"\xfd": "xz", b"\x28": "zstd"}[head[:1]]
        return f"; it is {kind}-compressed: decompress it first, so that records can be read in place"
    return ""
