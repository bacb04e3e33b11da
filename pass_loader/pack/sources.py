"""Where pictures come from: tars, read in place and never extracted, and folder trees."""

from __future__ import annotations

import os
import stat
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import PackError


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source, before anybody looked into it."""

    source: Source
    name: str  # as the source has it; error messages use it
    id: str
    class_name: str | None  # the class folder; None: no label
    offset: int  # bytes, in the tar; 0 in a folder
    length: int
    problem: str | None = None  # why it cannot be read: a link, no regular file

    def read(self) -> bytes:
        return self.source.read(self)


class Source(ABC):
    """A tar or a folder. `entries` lists in a fixed order: equal input gives equal packs."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    def classes(self) -> list[str]:
        return []

    @abstractmethod
    def size(self) -> int:
        """Bytes to be read, about; for a progress bar."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]: ...

    @abstractmethod
    def read(self, entry: Entry) -> bytes: ...


class TarSource(Source):
    """PASS's tars, `PASS_dataset/<n>/<hash>.jpg`: the id is the base name up to its first dot; the numbered folders
    mean nothing and give no label."""

    def entries(self) -> Iterator[Entry]:
        try:
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # else every header is kept: 1.4 million for PASS
                    if not member.isdir():
                        id = PurePosixPath(member.name).name.split(".")[0]
                        yield Entry(self, member.name, id, None, member.offset_data, member.size, _tar_problem(member))
                self._check_end(tar.offset)  # type: ignore[attr-defined]
        except tarfile.TarError as error:
            raise PackError(
                f"{self.path} is not a readable, uncompressed tar: {error}{_html_hint(self.path)}"
            ) from None

    def _check_end(self, offset: int) -> None:
        """tarfile takes anything that is no header for the end: a cut or damaged tar would lose pictures silently."""
        size = self.size()
        if not any(os.pread(self._file.fileno(), 512, offset)) and offset + 512 <= size:
            while offset < size and not any(rest := os.pread(self._file.fileno(), 1 << 20, offset)):
                offset += len(rest)
            if offset >= size:
                return
        raise PackError(
            f"{self.path} is cut off, damaged or two tars in one: of its {size} bytes those from {offset} on are "
            "neither a member nor the end of the archive"
        )

    def __init__(self, path: Path):
        super().__init__(path)
        self._file = open(path, "rb")  # read with pread only, so by any number of threads

    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, entry: Entry) -> bytes:
        data = os.pread(self._file.fileno(), entry.length, entry.offset)
        if len(data) != entry.length:
            raise PackError(f"{self.path} is cut off: {entry.name} wants {entry.length} bytes at {entry.offset}")
        return data


class FolderSource(Source):
    """A folder tree as torchvision's ImageFolder reads it: the first folder below the root is the class. The id is the
    path below the root without its suffix."""

    def __init__(self, path: Path):
        super().__init__(path.resolve())

    def classes(self) -> list[str]:
        return sorted(child.name for child in os.scandir(self.path) if child.is_dir())

    def entries(self) -> Iterator[Entry]:
        def unreadable(error: OSError) -> None:
            raise PackError(f"{error.filename}: {error.strerror}") from None

        for directory, folders, files in os.walk(self.path, followlinks=True, onerror=unreadable):
            folders.sort()
            for file in sorted(files):
                path = Path(directory, file)
                relative = path.relative_to(self.path)
                class_name = relative.parts[0] if len(relative.parts) > 1 else None
                length, problem = _file_length(path)
                id = str(relative.with_suffix(""))
                yield Entry(self, str(relative), id, class_name, 0, length, problem)

    def size(self) -> int:
        return sum(entry.length for entry in self.entries())

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


def _tar_problem(member: tarfile.TarInfo) -> str | None:
    if member.issparse():
        return "it is a sparse member"
    return None if member.isfile() else "it is a link or a device, no file"


def _file_length(path: Path) -> tuple[int, str | None]:
    try:
        status = path.stat()
    except OSError as error:  # a dangling link, a circle of links
        return 0, error.strerror
    return (status.st_size, None) if stat.S_ISREG(status.st_mode) else (0, "it is no regular file")


def open_sources(paths: list[str | Path]) -> list[Source]:
    """Raises PackError for what is neither a tar nor a folder."""
    sources: list[Source] = []
    for path in map(Path, paths):
        if path.is_dir():
            sources.append(FolderSource(path))
        elif not path.exists():
            raise PackError(f"{path} does not exist")
        elif path.stat().st_size == 0 or not tarfile.is_tarfile(path):
            raise PackError(f"{path} is neither a folder nor a tar{_html_hint(path)}")
        else:
            sources.append(TarSource(path))
    return sources


def _html_hint(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "; it is a web page: the download was redirected (curl needs -L)"
    if head.startswith(b"\x1f\x8b"):
        return "; it is gzip-compressed: decompress it first, so that records can be read in place"
    return ""
