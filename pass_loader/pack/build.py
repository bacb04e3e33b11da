"""`pass-pack build`: sources to a pack. Pictures are stored untouched; equal input gives equal bytes, whatever the
number of workers: which entries share a shard depends on the list of entries only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from .. import _C
from ..errors import BadPictureError, PackError
from .inspect import Picture, inspect
from .layout import (
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    MANIFEST,
    TABLE_SCHEMA,
    UNFINISHED,
    append_member,
    end_tar,
    locked,
    member_name,
    publish,
    shard_names,
    write_manifest,
    write_table,
)
from .metadata import Metadata
from .reader import index_rows, write_index
from .report import Refusal, Report
from .sources import Entry, Source, open_sources

_BLOCK = tarfile.BLOCKSIZE
_OURS = re.compile(r"shard-\d{5,}\.(tar|parquet)(\.tmp)?|index\.arrow.*|pack\.json\.tmp")
_DUPLICATE = "its id was packed before"


def build(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    key: str = "hash",
    shard_bytes: int = 1 << 30,
    workers: int | None = None,
    transcode: bool = False,
    decode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Pack pictures from tars and folders into the new directory `out`.

    metadata: a CSV joined by its column `key` to the ids. shard_bytes: a shard's size, at the most but for one larger
    picture. workers: threads; None: one a core. decode: prove every picture by decoding it; without, headers are read,
    and files that do not end as JPEGs end are decoded. progress: called with the bytes of each entry done.
    Pictures that cannot be packed are refused and reported, not raised. Raises PackError for unusable sources,
    metadata or destination.
    """
    root = Path(out)
    opened = open_sources(list(sources))
    table = Metadata(metadata, key) if metadata is not None else None
    if shard_bytes < 1 or (workers is not None and workers < 1):
        raise ValueError(f"shard_bytes is {shard_bytes}, workers {workers}: want at least 1")
    with _workplace(root, opened):
        return _Build(root, opened, table, transcode, decode, progress or (lambda _: None)).run(
            shard_bytes, workers or os.cpu_count() or 1
        )


@contextlib.contextmanager
def _workplace(root: Path, sources: list[Source]) -> Iterator[None]:
    """The directory, made if missing, for this process alone. Deletes nothing but what an unfinished packing left."""
    for source in sources:
        inside, around = source.path.resolve(), root.resolve()
        if inside == around or around in inside.parents or (source.path.is_dir() and inside in around.parents):
            raise PackError(f"source {source.path} and pack {root} lie in one another")
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, wait_s=0):
        if (root / MANIFEST).exists():
            raise PackError(f"{root} is already a pack; give another --out")
        _clear(root)
        yield
        (root / UNFINISHED).unlink()


def _clear(root: Path) -> None:
    """Only files that we name so, and only where our mark says that they are parts of a pack."""
    found = list(root.iterdir())
    marked = (root / UNFINISHED).exists()
    for path in found:
        if not marked or not (path.name == UNFINISHED or _OURS.fullmatch(path.name)):
            raise PackError(f"{root} is not empty: it holds {path.name}")
    (root / UNFINISHED).touch()
    for path in found:
        if path.name != UNFINISHED:
            path.unlink()


@dataclass
class _Shard:
    """What a worker hands back of one shard."""

    number: int
    columns: dict[str, list[Any]]
    report: Report = field(default_factory=Report)


class _Build:
    def __init__(
        self, root: Path, sources: list[Source], metadata: Metadata | None, transcode: bool, decode: bool,
        progress: Callable[[int], None],
    ):  # fmt: skip
        self.root, self.sources, self.metadata = root, sources, metadata
        self.transcode, self.decode, self.progress = transcode, decode, progress
        self.classes = sorted({name for source in sources for name in source.classes()})
        self.labels = {name: label for label, name in enumerate(self.classes)}
        self.report = Report()
        self.later: list[Entry] = []
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
            write_table(table, self.root / parquet)
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
        pack_id = identity.hexdigest()[:32]
        write_index(self.root / INDEX, pa.concat_tables(index_parts), pack_id)
        write_manifest(self.root, self._manifest(shards, pack_id))
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
        """Shards in order; up to `workers` are written at a time. Entries whose id stood before come last, one after
        the other: whether they are duplicates depends on what became of the first."""
        following = 0
        free: set[str] = set()  # ids whose first entry was refused
        for shard in self._first_shards(shard_bytes, workers):
            free.update(refusal.id for refusal in shard.report.refused)
            following = shard.number + 1
            yield shard
        for number, entries in enumerate(_groups(iter(self.later), shard_bytes), following):
            yield self._write_shard(number, entries, lambda e: None if e.id in free else _DUPLICATE, free.discard)

    def _first_shards(self, shard_bytes: int, workers: int) -> Iterator[_Shard]:
        pending: deque[Future[_Shard]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="pass-pack")
        try:
            for number, entries in enumerate(_groups(self._first_entries(), shard_bytes)):
                pending.append(pool.submit(self._write_shard, number, entries, lambda _: None))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            pool.shutdown()

    def _first_entries(self) -> Iterator[Entry]:
        """Entries that may be packed; the others are refused, or set aside in self.later."""
        seen: set[str] = set()
        for source in self.sources:
            for entry in source.entries():
                reason = entry.problem or _bad_id(entry.id)
                if reason is not None:
                    self._refuse(self.report, entry, reason)
                elif entry.id in seen:
                    self.later.append(entry)
                else:
                    seen.add(entry.id)
                    yield entry

    def _refuse(self, report: Report, entry: Entry, reason: str) -> None:
        file, id = (
            text.encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
            for text in (f"{entry.source.name}: {entry.name}", entry.id)
        )
        report.refused.append(Refusal(file, id, reason))

    def _write_shard(
        self,
        number: int,
        entries: list[Entry],
        reject: Callable[[Entry], str | None],
        accepted: Callable[[str], None] = lambda id: None,
    ) -> _Shard:
        shard = _Shard(number, {name: [] for name in TABLE_SCHEMA.names if name != "record"})
        path = self.root / shard_names(number)[0]
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "wb") as file:
            for entry in entries:
                reason = reject(entry)
                try:
                    if reason is not None:
                        raise BadPictureError(reason)
                    picture = inspect(entry.read(), self.transcode, self.decode)
                except (BadPictureError, OSError) as error:
                    self._refuse(shard.report, entry, str(error))
                else:
                    offset = append_member(file, member_name(entry.id, "jpeg"), picture.data)
                    self._add_row(shard.columns, entry, picture, offset)
                    shard.report.count(picture)
                    accepted(entry.id)
                self.progress(entry.length)
            end_tar(file)
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
            "label": self.labels[entry.class_name] if entry.class_name is not None else -1,
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


def _groups(entries: Iterator[Entry], shard_bytes: int) -> Iterator[list[Entry]]:
    """A shard's entries. Depends on the listed sizes only, not on what is refused or on the number of workers."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        padded = _BLOCK + -(-entry.length // _BLOCK) * _BLOCK
        if group and size + padded > shard_bytes:
            yield group
            group, size = [], 0
        group.append(entry)
        size += padded
    if group:
        yield group


def _bad_id(id: str) -> str | None:
    if not id or id in (".", ".."):
        return "its name gives no id"
    try:
        id.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None
