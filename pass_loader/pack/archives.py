"""Tars, read in place and never extracted, PASS's and WebDataset's; zips."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import PackError
from ..remote.address import is_url
from .source import HINT_BYTES, PLAIN, Entry, Naming, Source, hint_of, id_and_class
from .source_file import ReadableFile, SourceFile
from .webdataset import SampleGrouping, UnclearSampleError, is_foreign, key_of

_BLOCK = tarfile.BLOCKSIZE
_OTHER_KINDS = {
    b"PK\x03\x04": "; it is a zip: give it a name that ends in .zip",
    b"PAR1": "; it is a Parquet file: give it a name that ends in .parquet",
}
_CHECKED = 1000  # entries of a tar that are looked at before anything is packed


class TarSource(Source):
    """A tar, PASS's or WebDataset's.

    PASS's, `PASS_dataset/<n>/<hash>.jpg`: the id is the base name up to its first dot; the numbered folders mean
    nothing and give no label.
    WebDataset's: files in a row with the same key are a sample (webdataset.py). A .cls, .json or .txt of it gives its
    picture label (a whole number) and metadata, and the id is the key, folder included; in a tar that `export` wrote,
    the id that it had. With class_folders every file is read as a folder's would be.

    start, end: bytes of the tar; the members whose headers begin there are the source. None: the tar's end.
    """

    def __init__(self, path: Path, naming: Naming = PLAIN, start: int = 0, end: int | None = None):
        super().__init__(path, naming)
        self._file: ReadableFile = SourceFile(path)
        self._start, self._end = start, end

    def size(self) -> int:
        return (self.path.stat().st_size if self._end is None else self._end) - self._start

    def cuts(self, part_bytes: int) -> list[int]:
        """Return the bytes at which the tar may be cut into parts of `part_bytes` and little more.

        A cut lies before a member, and never inside a sample. A tar with headers that hold for all that follows is not
        cut, and of a damaged one nothing after the damage.
        """
        found: list[int] = []
        key, last = "", self._start
        with contextlib.suppress(PackError, tarfile.TarError, ValueError, OSError, RecursionError, MemoryError):
            for member in members_of(self._file):
                if member.follows_global:
                    return []
                if "." not in member.name.rpartition("/")[2] or is_foreign(member.name):
                    continue
                before, key = key, key_of(member.name)
                if key != before and member.begin - last >= part_bytes:
                    found.append(member.begin)
                    last = member.begin
        return found

    def read(self, entry: Entry) -> bytes:
        data = self._file.pread(entry.length, entry.offset)
        if len(data) != entry.length:
            raise PackError(
                f"{self.place} is cut off: {entry.name} wants {entry.length} bytes at {entry.offset}; download it again"
            )
        return data

    def entries(self) -> Iterator[Entry]:
        if self.naming.class_folders:
            self.beside.clear()
            for file in self._files():
                if is_foreign(file.name):
                    self.beside[file.name.rpartition("/")[2]] += 1
                else:
                    yield file
            return
        samples = SampleGrouping(self.place, self.read, self.naming.id, self.naming.image_key)
        self.beside = samples.beside
        yield from samples.entries(self._files())

    def check(self) -> None:
        try:
            for _ in itertools.islice(self.entries(), _CHECKED):
                pass
        except UnclearSampleError:
            raise
        except (PackError, OSError):  # damage is told when the packing gets there: what came before it is kept
            pass

    def _files(self) -> Iterator[Entry]:
        try:
            for _, name, offset, length, problem, _ in members_of(self._file, self._start, self._end):
                path = PurePosixPath(name)
                id, class_name = name.rpartition("/")[2].split(".")[0], None
                if self.naming.class_folders:
                    id, class_name = id_and_class(path)
                own = self.naming.id_of(path) or id
                yield self._given(Entry(self, name, own, class_name, offset, length, problem))
        except PackError:
            raise
        except Exception as error:  # of a damaged header tarfile raises many kinds
            head = self._file.pread(HINT_BYTES, 0)
            hint = hint_of(head) or _OTHER_KINDS.get(head[:4], "; it is cut off or damaged: download it again")
            raise PackError(f"{self.place} is not a readable, uncompressed tar: {in_words(error)}{hint}") from None


def is_tar(path: Path) -> bool:
    """Return True where a file begins as an uncompressed tar does; damage in it shows itself when it is listed."""
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return False
    except Exception:  # a header that tarfile knows, with values that it does not expect
        return True
    return True


def in_words(error: Exception) -> str:
    """Return what an exception of a reader of archives says; its kind where that says nothing to a user."""
    if isinstance(error, RecursionError):
        return "thousands of headers for one member"
    if isinstance(error, MemoryError):
        return "a length that does not fit into memory"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Member(NamedTuple):
    """A member of a tar. begin, offset: bytes, of its first header and of its data. problem: why it is no file."""

    begin: int
    name: str
    offset: int
    length: int
    problem: str | None = None
    follows_global: bool = False  # after a Pax header that holds for all that follow


def members(path: Path) -> Iterator[Member]:
    """Yield the members of a tar in the file system, as `members_of` does."""
    return members_of(SourceFile(path))


def members_of(file: ReadableFile, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield a tar's members but folders, in order.

    start, end: those alone whose headers begin there; `start` is the beginning of one. None: up to the tar's end.
    Raises PackError where the tar is cut off or damaged, and whatever tarfile raises. Headers of plain files are read
    here, ten times as fast as by tarfile, which reads the others: long names, links, GNU's and Pax's extensions.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        offset = start
        while end is None or offset < end:
            header = file.pread(_BLOCK, offset)
            plain = None if tar.pax_headers else _plain_header(header)  # global Pax headers may say otherwise
            if plain is not None:
                name, length = plain
                yield Member(offset, name, offset + _BLOCK, length)
                offset += _BLOCK + -(-length // _BLOCK) * _BLOCK
                continue
            tar.members = []  # type: ignore[attr-defined]  # else every header is kept
            if offset > 0:  # the first member was read when the tar was opened
                tar.firstmember = None  # type: ignore[attr-defined]
                tar.offset = offset  # type: ignore[attr-defined]
            member = tar.next()
            if member is None:
                _check_end(file, offset)
                return
            following: int = tar.offset  # type: ignore[attr-defined]
            if member.size < 0 or not offset < following <= file.size:
                raise PackError(
                    f"{file.place} is cut off or damaged: {member.name!a} at byte {offset} claims {member.size} bytes; "
                    "download it again"
                )
            if not member.isdir():
                whole = bool(tar.pax_headers)
                yield Member(offset, member.name, member.offset_data, member.size, _tar_problem(member), whole)
            offset = following


def _plain_header(header: bytes) -> tuple[str, int] | None:
    """Return (name, length) of a regular file; None for anything else, damaged headers included.

    Takes ustar's and GNU's form (POSIX.1-1988; GNU tar manual, "Basic Tar Format").
    """
    if len(header) < _BLOCK or header[156] not in b"0\0" or header[257:262] != b"ustar" or header[345]:
        return None
    name, _, rest = header[:100].partition(b"\0")
    size, checksum = header[124:136].rstrip(b"\0 "), header[148:156].rstrip(b"\0 ")
    if rest.strip(b"\0") or not name or name.endswith(b"/") or not (size.isdigit() and checksum.isdigit()):
        return None
    try:
        whole = sum(header) - sum(header[148:156]) + 8 * 32 == int(checksum, 8)
        return (name.decode(), int(size, 8)) if whole else None
    except ValueError:
        return None


def _check_end(file: ReadableFile, offset: int) -> None:
    """Check that a tar ends where tarfile stops: it takes anything that is no header for the end, and pictures would be
    lost in silence."""
    size, place = file.size, file.place
    quoted = shlex.quote(place.rpartition("/")[2] if is_url(place) else place)
    if offset == size:
        raise PackError(
            f"{place} has no end: it is cut off after a whole member, or was never closed. Download it again; if you "
            f"know that nothing is missing, `truncate -s +{2 * _BLOCK} {quoted}` ends it"
        )
    if not any(file.pread(_BLOCK, offset)) and offset + _BLOCK <= size:
        while offset < size and not any(rest := file.pread(1 << 20, offset)):
            offset += len(rest)
        if offset >= size:
            return
        offset += (len(rest) - len(rest.lstrip(b"\0"))) // _BLOCK * _BLOCK
        if _is_header(file.pread(_BLOCK, offset)):
            raise PackError(
                f"{place} is two tars in one: after the end of the first another begins at byte {offset}. Make files "
                f"of them: `head -c {offset} {quoted}` gives the first, `tail -c +{offset + 1} {quoted}` the rest"
            )
    raise PackError(
        f"{place} is cut off or damaged: of its {size} bytes those from {offset} on are neither a member nor the end "
        "of the archive; download it again"
    )


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _tar_problem(member: tarfile.TarInfo) -> str | None:
    if member.issparse():
        return "it is a sparse member"
    return None if member.isfile() else "it is a link or a device, no file"


class ZipSource(Source):
    """A folder tree in a zip, stored or deflated; ids and labels as of a folder."""

    def __init__(self, path: Path, naming: Naming = PLAIN):
        super().__init__(path, naming)
        try:
            self._zip = zipfile.ZipFile(SourceFile(path))  # type: ignore[arg-type]
        except Exception as error:  # of a damaged directory zipfile raises many kinds
            raise PackError(f"{path} is not a readable zip: {in_words(error)}; download it again") from None
        self._infos = {info.header_offset: info for info in self._zip.infolist()}
        self._lock = threading.Lock()

    def size(self) -> int:
        return sum(info.file_size for info in self._zip.infolist())

    def entries(self) -> Iterator[Entry]:
        for info in self._zip.infolist():
            if not info.filename.endswith("/"):  # is_dir() fails for an empty name
                path = PurePosixPath(info.filename)
                id, class_name = id_and_class(path)
                problem = "it is encrypted" if info.flag_bits & 1 else None
                yield Entry(
                    self,
                    info.filename,
                    self.naming.id_of(path) or id,
                    class_name,
                    info.header_offset,
                    info.file_size,
                    problem,
                )

    def read(self, entry: Entry) -> bytes:
        with self._lock:
            try:
                return self._zip.read(self._infos[entry.offset])
            except Exception as error:  # of a damaged member zipfile and zlib raise many kinds
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the storage
                raise OSError(f"the zip is damaged here: {in_words(error)}") from None


def is_zip(path: Path) -> bool:
    """Return True where a file ends as a zip does; damage in it shows itself when it is opened."""
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # a directory that zipfile finds, with values that it does not expect
        return True
