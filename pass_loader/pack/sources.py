"""Where pictures come from: folders, lists of paths, and which kind of source a path is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import PackError
from ..remote.address import is_url
from ..remote.stream import RemoteObject, Stores
from .archives import TarSource, ZipSource, is_tar, is_zip
from .beton import BetonSource, is_beton
from .layout import MANIFEST
from .parquet_source import ParquetSource
from .remote_sources import open_remote
from .source import PICTURE_SUFFIXES, PLAIN, Entry, Naming, Source, html_hint, id_and_class, without_suffix

_AT_ONCE = 32  # remote sources that are asked for
_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # beside pictures, as `datasets`' imagefolder has it


class FolderSource(Source):
    """A folder tree as torchvision's ImageFolder reads it: the first folder below the root is the class. The id is the
    path below the root without its suffix. A table metadata.csv (.jsonl, .parquet) in the root is no picture: give it
    as metadata."""

    has_files = True

    def __init__(self, path: Path, naming: Naming = PLAIN):
        super().__init__(path.resolve(), naming)

    def check_quickly(self) -> None:
        """Raise PackError for class folders without a picture's suffix, as ImageFolder does."""
        if self.naming.allow_empty:
            return
        empty = [name for name in self.classes() if not _holds_pictures(self.path / name)]
        if empty:
            raise PackError(
                f"{self.path}: the class folders {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''} hold no "
                "picture, and would shift the labels: delete them, or give --allow-empty to keep their labels"
            )

    def classes(self) -> list[str]:
        folders = (Path(child.path) for child in os.scandir(self.path) if os.path.isdir(child.path))
        return sorted(folder.name for folder in folders if not _leads_back(folder, self.path))

    def stamp(self) -> list[Any]:
        return [str(self.path)]  # its files are compared shard by shard

    def entries(self) -> Iterator[Entry]:
        def unreadable(error: OSError) -> None:
            raise PackError(f"{error.filename}: {error.strerror}") from None

        for directory, files in walk(self.path, unreadable):
            for file in files:
                if directory == str(self.path) and file in _TABLES:
                    continue
                path = Path(directory, file)
                relative = path.relative_to(self.path)
                length, changed_ns, problem = _status(path)
                posix = PurePosixPath(relative)
                id, class_name = id_and_class(posix)
                own = self.naming.id_of(posix) or id
                yield Entry(self, str(relative), own, class_name, 0, length, problem, changed_ns=changed_ns)

    def size(self) -> int:
        return self.survey()[0]

    def read(self, entry: Entry) -> bytes:
        return (self.path / entry.name).read_bytes()


def walk(root: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, list[str]]]:
    """The folders of a tree and the names of their files, in order. Links are followed; one to a folder that holds it
    counts as a file, for it has no end, and two of them have 2**40 ends before the kernel gives up."""
    for directory, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        around = [name for name in folders if _leads_back(Path(directory, name), root)]
        folders[:] = sorted({*folders} - {*around})
        yield directory, sorted(files + around)


def _leads_back(path: Path, root: Path) -> bool:
    if not path.is_symlink():
        return False
    target = path.resolve()
    above = [path.parent, *(folder for folder in path.parent.parents if folder == root or root in folder.parents)]
    return any(target == place or target in place.parents for place in (folder.resolve() for folder in above))


class ListSource(Source):
    """A text file of paths, one a line, below the folder that holds it or absolute. The id is the path as it stands
    there without its suffix; there are no labels."""

    has_files = True

    def entries(self) -> Iterator[Entry]:
        with open(self.path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                name = line.rstrip("\r\n")
                if name:
                    length, changed_ns, problem = _status(self.path.parent / name)
                    id = self.naming.id_of(PurePosixPath(name)) or without_suffix(PurePosixPath(name))
                    yield Entry(self, name, id.lstrip("/"), None, 0, length, problem, changed_ns=changed_ns)

    def size(self) -> int:
        return self.survey()[0]

    def read(self, entry: Entry) -> bytes:
        return (self.path.parent / entry.name).read_bytes()


def _status(path: Path) -> tuple[int, int, str | None]:
    """Return a file's bytes, when it was changed last, in nanoseconds, and why it cannot be read, None where it can."""
    try:
        status = path.stat()
    except OSError as error:  # a dangling link, a circle of links
        return 0, 0, error.strerror
    except ValueError as error:  # a NUL in the name
        return 0, 0, str(error)
    if not stat.S_ISREG(status.st_mode):
        return 0, 0, "it is no regular file"
    return status.st_size, status.st_mtime_ns, None


def _refuse_pack(path: Path) -> None:
    if (path / MANIFEST).is_file() and any(path.glob("index*.arrow")):
        raise PackError(
            f"{path} is a pack already: `pass-pack convert {path} --codec dct --out NEW` writes it in another codec, "
            f"`pass-pack export {path} --format webdataset --out DIR` makes tars that `build` reads"
        )


def _holds_pictures(folder: Path) -> bool:
    """Return True where a file below has a picture's suffix, or none and is not hidden."""
    for _, files in walk(folder):
        for file in files:
            suffix = PurePosixPath(file).suffix
            if suffix[1:].lower() in PICTURE_SUFFIXES or not (suffix or file.startswith(".")):
                return True
    return False


def open_sources(paths: Sequence[str | Path], naming: Naming = PLAIN) -> list[Source]:
    """Open sources of any kind. Raises PackError for what is no source, with what it seems to be and the remedy."""
    return open_places(places_of(paths), naming)


def open_places(places: Sequence[Path | RemoteObject], naming: Naming = PLAIN) -> list[Source]:
    """Open sources where they lie. Remote Parquet files are asked for their footers, many at a time."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pass-pack") as pool:
        remote = [pool.submit(open_remote, place, naming) for place in places if isinstance(place, RemoteObject)]
        opened = iter(remote)
        return [
            next(opened).result() if isinstance(place, RemoteObject) else open_source(place, naming) for place in places
        ]


def places_of(
    paths: Sequence[str | Path], source_options: Mapping[str, Any] | None = None
) -> list[Path | RemoteObject]:
    """Return where the sources lie that were asked for; a URL with *, ? or [] is as many as fit, sorted.

    source_options: obstore's configuration. Raises PackError for URLs of nothing.
    """
    urls = [path for path in paths if isinstance(path, str) and is_url(path)]
    found = iter(Stores(source_options, "source_options").find(urls) if urls else [])
    places: list[Path | RemoteObject] = []
    for path in paths:
        places += next(found) if is_url(path) else [Path(path)]
    return places


def open_source(path: Path | RemoteObject, naming: Naming = PLAIN, start: int = 0, end: int | None = None) -> Source:
    """Open a source as `open_sources` does. start, end: of a tar those members alone whose headers begin there.

    What is called .tar is one: nothing of it is read, and what is wrong with it is told by who lists it.
    """
    if isinstance(path, RemoteObject):
        return open_remote(path, naming)
    if path.is_dir():
        _refuse_pack(path)
        return FolderSource(path, naming)
    if not path.exists():
        raise PackError(f"{path} does not exist")
    if not path.is_file():
        raise PackError(f"{path} is no regular file, and no folder")
    if path.suffix.lower() == ".tar" and path.stat().st_size:
        return TarSource(path, naming, start, end)
    try:
        with open(path, "rb", buffering=0) as file:
            magic = file.read(4)
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror}") from None
    if magic == b"PAR1":
        return ParquetSource(path)
    if magic and is_beton(path):
        return BetonSource(path, naming)
    if magic and is_tar(path):
        return TarSource(path, naming, start, end)
    if is_zip(path):
        return ZipSource(path, naming)
    if path.suffix == ".txt" and magic and not html_hint(path):
        return ListSource(path, naming)
    raise PackError(
        f"{path} is neither a folder nor a tar, zip, Parquet file, FFCV's .beton or .txt list of paths"
        f"{html_hint(path) or ('; it is empty: download it again' if not magic else '')}"
    )
