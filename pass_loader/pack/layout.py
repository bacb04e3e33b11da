"""The pack on disk: names and schemas. docs/format.md is the page for people.

pack.json                manifest; its rename is the commit point of every change
shard-00000-000.tar      plain uncompressed tar of the pictures. The numbers: of a task, and of a shard in it
shard-00000-000.parquet  one row a record: where it is, what it is, who made it
index.arrow              the fixed-width columns of all records, memory-mapped; derived from the Parquet files
refused.jsonl            one line a file that was not packed; missing where there was none
removed.jsonl            one line a removal, restoration or purge; lines are only ever added, each with a check
finished                 for the command that made the pack, should it be run again; no part of the pack
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import PackError
from .direct import DirectWriter

MANIFEST, INDEX, REMOVED, REFUSED = "pack.json", "index.arrow", "removed.jsonl", "refused.jsonl"
PURGING = "purging"  # stands there while a purge exchanges files: which ones go, whether or not it gets to its end
PLAN = "plan.json"  # while a pack is made: its tasks (plan.py)
TABLES = "tables.json"  # while tables are written in shares: what they hold (finish.py)
UNFINISHED = "unfinished"  # stands in a directory while a pack is made there: its files may be made anew
FINISHED = "finished"  # what becomes of it: of the command that made the pack, a digest and the report
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF)  # of flock
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_SHARD = re.compile(r"shard-\d{5,}(-\d{3,})?(-r\d+)?\.(tar|parquet)")
_PURGED = re.compile(r"shard-\d{5,}-r\d+\.parquet")
SUFFIX = {"jpeg": ".jpg", "dct": ".dct", "png": ".png"}  # of a member's name, by codec

# Of a shard's Parquet file; the metadata's columns follow. label: -1 where there is none.
TABLE_SCHEMA = pa.schema(
    [
        ("record", pa.int64()),
        ("id", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("crc32c", pa.uint32()),
        ("label", pa.int32()),
    ]
)

# "jpeg", "png": the file as it was. "dct": docs/dct-codec.md. index.arrow holds a codec's place in this list.
CODECS = ("jpeg", "dct", "png")
# What a JPEG may be asked to become; a PNG stays one. "dct-zstd" makes records of the codec "dct" with zstd's layer.
JPEG_CODECS = ("jpeg", "dct", "dct-zstd")
INDEX_SCHEMA = pa.schema(
    [
        ("record", pa.int64()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("codec", pa.uint8()),
        ("crc32c", pa.uint32()),
        ("label", pa.int32()),
    ]
)


def member_name(id: str, codec: str) -> str:
    """Return the tar member's name of an id.

    Percent-encoded, since WebDataset cuts a key at the first dot, and none may leave a folder.
    """
    if id.isascii() and id.isalnum():
        return id + SUFFIX[codec]
    encoded = "".join(
        "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        if c in ".%\\" or not c.isprintable() or c.isspace()
        else c
        for c in id
    )
    return encoded.lstrip("/") + SUFFIX[codec]


def shard_names(number: int, revision: int = 0) -> tuple[str, str]:
    """Return the names of a shard's tar and table, by its place in the pack, as `convert` and `purge` give them.

    revision: the pack's when `purge` wrote the shard; 0: it was not.
    """
    stem = f"shard-{number:05d}" + (f"-r{revision}" if revision else "")
    return f"{stem}.tar", f"{stem}.parquet"


def is_shard_file(name: str) -> bool:
    """Return whether a name is that of a shard's tar or table."""
    return _SHARD.fullmatch(name) is not None


def written_by_purge(table: str) -> bool:
    """Return whether `purge` wrote a shard, by its table's name."""
    return _PURGED.fullmatch(table) is not None


def temporary_of(path: Path) -> Path:
    """Return a temporary name for a file that several processes may write at a time."""
    return path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp")


def index_name(revision: int) -> str:
    return f"index-r{revision}.arrow" if revision else INDEX


class LockedError(PackError):
    """Another process keeps the lock of a directory."""


@contextlib.contextmanager
def locked(root: Path, wait_s: float = 10, shared: bool = False) -> Iterator[None]:
    """Hold the pack's lock, which every change takes. Raises LockedError where another process keeps it.

    shared: hold it together with others who share it.
    """
    if _was_url(root):
        raise PackError(f"{root} was a URL before it became a Path: give it as text")
    descriptor = os.open(root, os.O_RDONLY)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(f"another process is changing {root}; try again when it is done") from None
                time.sleep(0.05)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                raise PackError(
                    f"the file system of {root} has no locks (flock: {error.strerror}), so that nothing would keep two "
                    "processes from changing the pack at once. Mount it with them (Lustre: `-o flock`; NFS: version 4, "
                    "or version 3 with lockd running), or write the pack on a local disk and copy it there"
                ) from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def changing(root: Path, then: str = "") -> Iterator[None]:
    """Raise PackError with the remedy where `root` has no room or may not be written. then: what comes after it."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or root)
        if error.errno in NO_SPACE:
            raise PackError(
                f"no space is left for {root} ({error.strerror}): make room there, then run the same command "
                f"again{then}"
            ) from None
        if error.errno in _READ_ONLY and (place.startswith(str(root)) or str(root).startswith(place)):
            raise PackError(
                f"{place} cannot be changed ({error.strerror}): run the command as its owner, on a machine that has it "
                "mounted for writing"
            ) from None
        raise


def _was_url(path: Path) -> bool:
    """Return whether a Path was made from a URL, whose two slashes it has made one."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]", str(path)) is not None


def make_directory(path: Path, exist_ok: bool = False) -> None:
    """Make a directory with those above it. Raises PackError for a URL, and where a file stands in the way."""
    if _was_url(path):
        raise PackError(f"{path} was a URL: this is written into directories alone; copy it there")
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except (FileExistsError, NotADirectoryError) as error:
        raise PackError(f"{path} cannot be made a directory ({error.strerror}); give another --out") from None


@contextlib.contextmanager
def deleted_on_error(temporary: Path) -> Iterator[None]:
    """Delete a file that could not be written or given its name."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def append_member(file: BinaryIO | DirectWriter, name: str, data: bytes) -> int:
    """Append a tar member and return the offset of its data. No times, no owners: equal input gives equal bytes."""
    file.write(_member_header(name, len(data)))
    offset = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    return offset


def _member_header(name: str, size: int) -> bytes:
    """Return a member's header as tarfile writes it; for plain names by a template, in a tenth of the time."""
    encoded = name.encode()
    if len(encoded) > 100 or len(encoded) != len(name) or size >= 8**11:
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        return header.tobuf(tarfile.PAX_FORMAT, "utf-8")
    digits = b"%011o" % size
    checksum = _EMPTY_SUM + sum(encoded) + sum(digits) - 11 * 48
    middle, end = _EMPTY_HEADER[100:124], _EMPTY_HEADER[135:148]
    return b"".join([encoded.ljust(100, b"\0"), middle, digits, end, b"%06o\0 " % checksum, _EMPTY_HEADER[156:]])


def _empty_header() -> bytes:
    header = tarfile.TarInfo("")
    header.mode = 0o644
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8")


_MOST_UNPACKED = 1 << 30  # bytes of a shard's table in memory, beside 20 times its file's
_EMPTY_HEADER = _empty_header()  # of no name and no byte
_EMPTY_SUM = int(_EMPTY_HEADER[148:154], 8)


def end_tar(file: BinaryIO | DirectWriter) -> None:
    """Write two empty blocks, and more up to a whole tar record."""
    end = 2 * tarfile.BLOCKSIZE
    file.write(bytes(-(file.tell() + end) % tarfile.RECORDSIZE + end))


def write_table(table: pa.Table, path: Path, temporary: Path | None = None) -> Path:
    """Write a table under a temporary name, and return that; `publish` gives it its own.

    temporary: where several processes may write the table at a time.
    """
    temporary = temporary or path.with_name(path.name + ".tmp")
    with deleted_on_error(temporary):
        pq.write_table(table, fresh(temporary), compression="zstd", write_page_checksum=True)
    return temporary


def check_regular(path: Path) -> None:
    """Raise PackError where a file is missing or none: a pipe would be waited for, a device read without end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise PackError(f"{path} is no regular file")


def read_whole(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a file of the pack. Raises FileNotFoundError, and PackError for what is no such file.

    A pipe would be waited for, a device or a file of many gigabytes would take all memory.
    """
    if not path.exists() and not path.is_symlink():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}") from None
    if len(content) > most_bytes:
        raise PackError(f"{path} has more than {most_bytes:,} bytes, which no file of this name has")
    return content


def fresh(path: Path) -> Path:
    """Make an empty file, and return its path. What has the name goes: a leftover, or a link to somewhere else."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    return path


def read_table(path: Path, rows: int, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some columns of it.

    rows: how many it must have. Raises PackError where it is missing or damaged, has another number of rows, or would
    unpack to far more bytes than any shard's table has.
    """
    check_regular(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:  # pq.read_table imports pandas
            missing = set(columns or ()) - {*file.schema_arrow.names}
            if missing:
                raise KeyError(f"it has no column {', '.join(sorted(missing))}")
            if file.metadata.num_rows != rows:
                raise ValueError(f"it has {file.metadata.num_rows} rows, the manifest says {rows}")
            unpacked = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
            if unpacked > _MOST_UNPACKED + 20 * path.stat().st_size:
                raise ValueError(f"it unpacks to {unpacked:,} bytes, which no table of a shard does")
            table = file.read(columns)
            table.validate(full=True)  # text that is not UTF-8 shows itself now, not when somebody wants it
            _check_columns(table)
            return table if columns is None else table.select(columns)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise PackError(f"{path}: {error}") from None


def _check_columns(table: pa.Table) -> None:
    """Raise ValueError where a column of TABLE_SCHEMA has another type or a null, or there is an unknown codec."""
    for name in {*table.schema.names} & {*TABLE_SCHEMA.names}:
        type, want = table.schema.field(name).type, TABLE_SCHEMA.field(name).type
        if type != want:
            raise ValueError(f"its column {name} holds {type}, not {want}")
        if table.column(name).null_count:
            raise ValueError(f"its column {name} has rows without a value")
        if name == "codec" and (unknown := {*pc.unique(table.column(name)).to_pylist()} - {*CODECS}):
            raise ValueError(f"it holds a codec that this pass-loader does not know, {min(unknown)!r}")


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever a file is exchanged; None where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that has either its old or its new content, whatever happens meanwhile."""
    temporary = path.with_name(path.name + ".tmp")
    with deleted_on_error(temporary):
        with open(fresh(temporary), "wb") as file:
            file.write(content)
        publish((temporary, path))


def write_by_many(path: Path, content: bytes) -> None:
    """As `write_durably`, of a file that several processes may write at a time."""
    temporary = temporary_of(path)
    temporary.write_bytes(content)
    publish((temporary, path))


def publish(*files: tuple[Path, Path]) -> None:
    """Give files of one directory, (temporary name, name), their names: fsync of all, renames in order, fsync of it.

    Several at a time cost little more than one, since the journal is written once.
    """
    for temporary, _ in files:
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
    for temporary, path in files:
        os.replace(temporary, path)
    sync_directory(files[0][1].parent)


def sync_directory(path: Path) -> None:
    """Make renames and deletions in a directory last."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
