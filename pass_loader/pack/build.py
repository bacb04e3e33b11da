"""`pass-pack build`: sources to a pack. Pictures are stored untouched; equal input gives equal bytes, whatever the
number of workers: which entries share a shard depends on the list of entries only."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from .. import _C
from ..errors import BadPictureError, PackError
from .inspect import Picture, inspect
from .layout import (
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    MANIFEST,
    TABLE_SCHEMA,
    member_name,
    publish,
    shard_names,
    write_manifest,
)  # fmt: skip
from .metadata import Metadata
from .reader import index_rows, write_index
from .report import Refusal, Report
from .sources import Entry, Source, open_sources

_BLOCK = tarfile.BLOCKSIZE


def build(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    key: str = "hash",
    shard_bytes: int = 1 << 30,
    workers: int | None = None,
    transcode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Pack pictures from tars and folders into the new directory `out`.

    metadata: a CSV joined by its column `key` to the ids. shard_bytes: a shard's size, at the most but for one larger
    picture. workers: threads; None: one a core. progress: called with the bytes of each entry done.
    Pictures that cannot be packed are refused and reported, not raised. Raises PackError for unusable sources,
    metadata or destination.
    """
    root = Path(out)
    opened = open_sources(list(sources))
    table = Metadata(metadata, key) if metadata is not None else None
    with _locked(root):
        return _Build(root, opened, table, transcode, progress or (lambda _: None)).run(
            shard_bytes, workers or os.cpu_count() or 1
        )


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """The directory, made if missing, for this process alone."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PackError(f"another process is changing {root}") from None
        if (root / MANIFEST).exists():
            raise PackError(f"{root} is already a pack; give another --out")
        for path in root.iterdir():
            if not path.name.startswith("shard-") and path.name not in (INDEX, INDEX + ".tmp", MANIFEST + ".tmp"):
                raise PackError(f"{root} is not empty: it holds {path.name}")
            path.unlink()  # of a packing that was not finished
        yield
    finally:
        os.close(descriptor)


@dataclass
class _Shard:
    """What a worker hands back of one shard."""

    number: int
    columns: dict[str, list[Any]]
    report: Report = field(default_factory=Report)


class _Build:
    def __init__(
        self, root: Path, sources: list[Source], metadata: Metadata | None, transcode: bool,
        progress: Callable[[int], None],
    ):  # fmt: skip
        self.root, self.sources, self.metadata = root, sources, metadata
        self.transcode, self.progress = transcode, progress
        self.classes = sorted({name for source in sources for name in source.classes()})
        self.report = Report()
        if metadata is not None:
            self.report.without_metadata = 0

    def run(self, shard_bytes: int, workers: int) -> Report:
        shards: list[dict[str, Any]] = []
        index_parts: list[pa.Table] = []
        identity = hashlib.sha256()
        for done in self._written_shards(shard_bytes, workers):
            self.report.add(done.report)
            if not done.columns["id"]:
                continue
            table = self._table(done.columns, first_record=self.report.pictures - len(done.columns["id"]))
            tar, parquet = shard_names(done.number)
            self._write_table(table, self.root / parquet)
            index_parts.append(index_rows(table, len(shards)))
            shards.append({"tar": tar, "table": parquet, "records": table.num_rows,
                           "bytes": (self.root / tar).stat().st_size})  # fmt: skip
            for row in zip(*(done.columns[name] for name in ("id", "length", "crc32c", "label"))):
                identity.update("\t".join(map(str, row)).encode() + b"\n")
        if not shards:
            raise PackError(f"no picture could be packed:\n{self.report}")
        self.report.shards = len(shards)
        if self.metadata is not None:
            self.report.metadata_unused = self.metadata.unused()
        write_index(self.root, pa.concat_tables(index_parts))
        write_manifest(self.root, self._manifest(shards, identity.hexdigest()[:32]))
        return self.report

    def _manifest(self, shards: list[dict[str, Any]], pack_id: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "pack_id": pack_id,
            "codec": "jpeg",
            "records": self.report.pictures,
            "classes": self.classes,
            "metadata": self.metadata.columns if self.metadata is not None else [],
            "sources": [source.name for source in self.sources],
            "index": INDEX,
            "shards": shards,
        }

    def _written_shards(self, shard_bytes: int, workers: int) -> Iterator[_Shard]:
        """Shards in order; up to `workers` are written at a time."""
        pending: deque[Future[_Shard]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="pass-pack")
        try:
            for number, entries in enumerate(self._groups(shard_bytes)):
                pending.append(pool.submit(self._write_shard, number, entries))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            pool.shutdown()

    def _groups(self, shard_bytes: int) -> Iterator[list[Entry]]:
        group: list[Entry] = []
        size = 0
        for entry in self._unique_entries():
            padded = _BLOCK + -(-entry.length // _BLOCK) * _BLOCK
            if group and size + padded > shard_bytes:
                yield group
                group, size = [], 0
            group.append(entry)
            size += padded
        if group:
            yield group

    def _unique_entries(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for source in self.sources:
            for entry in source.entries():
                reason = _bad_id(entry.id) or ("its id was packed before" if entry.id in seen else None)
                if reason is not None:
                    self._refuse(self.report, entry, reason)
                    continue
                seen.add(entry.id)
                yield entry

    def _refuse(self, report: Report, entry: Entry, reason: str) -> None:
        file, id = (
            text.encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
            for text in (f"{entry.source.name}: {entry.name}", entry.id)
        )
        report.refused.append(Refusal(file, id, reason))

    def _write_shard(self, number: int, entries: list[Entry]) -> _Shard:
        shard = _Shard(number, {name: [] for name in TABLE_SCHEMA.names if name != "record"})
        path = self.root / shard_names(number)[0]
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "wb") as file:
            for entry in entries:
                try:
                    picture = inspect(entry.read(), self.transcode)
                except BadPictureError as error:
                    self._refuse(shard.report, entry, str(error))
                else:
                    offset = _append(file, member_name(entry.id, "jpeg"), picture.data)
                    self._add_row(shard.columns, entry, picture, offset)
                    shard.report.count(picture)
                self.progress(entry.length)
            file.write(bytes(-(file.tell() + 2 * _BLOCK) % tarfile.RECORDSIZE + 2 * _BLOCK))
        if shard.columns["id"]:
            publish(temporary, path)
        else:
            temporary.unlink()
        return shard

    def _add_row(self, columns: dict[str, list[Any]], entry: Entry, picture: Picture, offset: int) -> None:
        row = {
            "id": entry.id,
            "offset": offset,
            "length": len(picture.data),
            "width": picture.width,
            "height": picture.height,
            "codec": "jpeg",
            "crc32c": _C.crc32c(picture.data),
            "label": self.classes.index(entry.class_name) if entry.class_name is not None else -1,
        }
        for name, value in row.items():
            columns[name].append(value)

    def _table(self, columns: dict[str, list[Any]], first_record: int) -> pa.Table:
        records = pa.array(range(first_record, first_record + len(columns["id"])), pa.int64())
        arrays = [records if name == "record" else pa.array(columns[name], type)
                  for name, type in zip(TABLE_SCHEMA.names, TABLE_SCHEMA.types)]  # fmt: skip
        table = pa.table(arrays, schema=TABLE_SCHEMA)
        if self.metadata is None:
            return table
        rows, missing = self.metadata.rows_of(table.column("id").combine_chunks())
        self.report.without_metadata = (self.report.without_metadata or 0) + missing
        for name in rows.column_names:
            table = table.append_column(name, rows.column(name))
        return table

    def _write_table(self, table: pa.Table, path: Path) -> None:
        temporary = path.with_name(path.name + ".tmp")
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        publish(temporary, path)


def _bad_id(id: str) -> str | None:
    if not id or id in (".", ".."):
        return "its name gives no id"
    try:
        id.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def _append(file: BinaryIO, name: str, data: bytes) -> int:
    """Append a tar member; returns the offset of its data. No times, no owners: equal input gives equal bytes."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o644
    file.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8"))
    offset = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % _BLOCK))
    return offset
