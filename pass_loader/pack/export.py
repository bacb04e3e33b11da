"""`pass-pack export`: the live records of a pack as a folder, as WebDataset's tars or as Hugging Face's Parquet."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import _C
from ..errors import PackError
from ..remote.address import is_url
from . import arrow
from .export_files import ExportFiles, export_files
from .layout import SUFFIX, TABLE_SCHEMA, append_member, end_tar, member_name
from .reader import Pack
from .running import Running, known_as, run

FORMATS = ("folder", "webdataset", "parquet")
_CHUNK = 1 << 20  # records looked at together
_ROW_GROUP = 100  # pictures: some megabytes, as the `datasets` library has it


@dataclass(frozen=True)
class Exported:
    """Counts of what was written: live records, bytes of pictures, files."""

    records: int
    bytes: int
    files: int

    def __str__(self) -> str:
        return f"{self.records:,} live records, {self.bytes:,} bytes of pictures, {self.files:,} files"


def export(
    pack: str | Path | Pack,
    out: str | Path,
    format: str,
    *,
    shard_bytes: int = 1 << 30,
    workers: int | None = None,
    runner: str = "local",
    ray_address: str | None = None,
    share: tuple[int, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write the live records, with their metadata, into the new directory `out`; it appears when it is complete.

    out: or a URL of a new folder in a store (s3://, gs://, az://; docs/clusters.md), which storage_options are for. Its
    files appear one by one; it is complete when nothing lies at `out`.unfinished any more.

    format: "folder": id.jpg, and metadata.csv (file_name, id, class, metadata), as the imagefolder of the `datasets`
    library reads it; `build` takes it as metadata with the key "id". Metadata that is named file_name or class itself
    is named source_...; it is left out where it says the same, after an earlier export. "webdataset":
    00000.tar, ...: KEY.jpg, KEY.json (id and metadata) and, where there is a label, KEY.cls. "parquet":
    train-00000-of-00009.parquet, ...: image, id, label and metadata, with the features that `datasets` reads.
    Records of the codec "dct" become JPEGs again. shard_bytes: of packed pictures in a file, at the most but for one
    larger. workers: threads, a file each; None: one a core. runner, ray_address: as of `build`; a task is a file, of
    "folder" the pictures of a shard. share: (index, of): write every of-th of them from index on, and count these
    alone; any number of machines may do so at a time, and the same call without a share then writes what is left.
    progress: called with the bytes of each record.

    Cut off at any moment, the same call goes on, from the folder `out`.unfinished. Every record's CRC is checked.
    Raises PackError where `out` exists or a record is not as it was packed.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, want one of {FORMATS}")
    how = Running(workers, runner, ray_address, share)
    named = _table_names(pack) if format == "folder" else {}
    schema = _schema(pack) if format == "parquet" else None  # a clash of names shows before any writing
    tasks = _tasks(pack, None if format == "folder" else shard_bytes)
    done = Exported(0, 0, 0)

    def add(found: list[int]) -> None:
        nonlocal done
        files = found[0] if format == "folder" else 1
        done = Exported(done.records + found[0], done.bytes + found[1], done.files + files)

    def bytes_of(task: _Task) -> int:
        return int(_live_lengths(pack, task.first, task.end).sum())

    command = {"export": known_as(pack), "format": format, "shard_bytes": shard_bytes}
    with (
        export_files(out, command, storage_options) as place,
        place.begun(shared=share is not None) as before,
    ):
        if before is not None:
            return Exported(**before)
        path = str(out) if is_url(out) else os.path.abspath(out)
        files = place if runner == "local" else None
        job = _Export(path, json.dumps(command), format, tuple(named.items()), schema, storage_options, files)
        run(job, pack, tasks, how, add, bytes_of, progress or (lambda _: None))
        if share is None:
            if format == "folder":
                place.join_rows(["file_name", "id", "class", *named.values()], len(tasks))
                done = replace(done, files=done.files + 1)
            place.complete(asdict(done))
    return done


class _Task(NamedTuple):
    """The records from `first` up to `end` as a file, or as pictures in the folder. of: how many tasks there are."""

    number: int
    first: int
    end: int
    of: int


def _tasks(pack: Pack, file_bytes: int | None) -> list[_Task]:
    """Return a task a file of live records of about so many bytes; None: a task a shard."""
    first = pack.first_record.tolist() if file_bytes is None else [*_firsts(pack, file_bytes), pack.records]
    return [_Task(number, *span, len(first) - 1) for number, span in enumerate(zip(first, first[1:]))]


def _firsts(pack: Pack, file_bytes: int) -> list[int]:
    """Return the first record of each file: a new one begins where the next live record would make it too large."""
    firsts: list[int] = []
    filled = file_bytes  # bytes of the file that grows; none does yet
    for start in range(0, pack.records, _CHUNK):
        ends = np.cumsum(_live_lengths(pack, start, min(start + _CHUNK, pack.records)))
        begun, most = 0, max(file_bytes - filled, 0)  # bytes of the chunk before the file, and up to where it may grow
        while (place := int(np.searchsorted(ends, most, "right"))) < len(ends):
            firsts.append(start + place)
            begun, filled = int(ends[place - 1]) if place else 0, 0
            most = max(begun + file_bytes, int(ends[place]))
        filled += int(ends[-1]) - begun
    return firsts


def _live_lengths(pack: Pack, first: int, end: int) -> np.ndarray:
    """Return the bytes of each record, 0 where it was removed."""
    return np.where(pack.is_removed(np.arange(first, end)), 0, pack.column("length")[first:end])


@dataclass(frozen=True)
class _Export:
    """The tasks of `export`; each returns counts of its records and of their bytes.

    out, command, options: of `export_files`; command as JSON. named: of a folder, the columns of metadata and their
    names there. schema: of Parquet files. files: of this process, where they are opened.
    """

    out: str
    command: str
    format: str
    named: tuple[tuple[str, str], ...]
    schema: pa.Schema | None
    options: Mapping[str, Any] | None = field(default=None, compare=False)
    files: ExportFiles | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[_Export]:
        if not is_url(self.out):
            yield self
            return
        with export_files(self.out, json.loads(self.command), self.options) as files:
            yield replace(self, files=files)

    def on(self, pack: Pack, progress: Callable[[int], None]) -> Callable[[_Task], list[int]]:
        files = self.files or ExportFiles(Path(self.out), json.loads(self.command))
        reader = pack.open_reader()
        write = {"folder": self._pictures, "webdataset": self._tar, "parquet": self._table}[self.format]

        def export_task(task: _Task) -> list[int]:
            found = files.kept(task.number)
            if found is not None:
                progress(int(_live_lengths(pack, task.first, task.end).sum()))
                return found
            records = _Records(pack, reader, task, progress)
            write(files, records, task)
            return files.keep(task.number, [records.count, records.bytes])

        return export_task

    def _pictures(self, files: ExportFiles, records: _Records, task: _Task) -> None:
        with files.rows(task.number) as path, open(path, "w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table, lineterminator="\n")

            def pictures() -> Iterator[tuple[str, bytes, str]]:
                for row, metadata, data in records.rows():
                    name = _file_name(row["id"], row["codec"])
                    values = ("" if metadata[column] is None else metadata[column] for column, _ in self.named)
                    writer.writerow([name, row["id"], _class(records.pack, row), *values])
                    yield name, data, row["id"]

            files.write_pictures(pictures())

    def _tar(self, files: ExportFiles, records: _Records, task: _Task) -> None:
        with files.file(f"{task.number:05d}.tar") as path, open(path, "wb") as file:
            for row, metadata, data in records.rows():
                _write_sample(file, row, metadata, data)
            end_tar(file)

    def _table(self, files: ExportFiles, records: _Records, task: _Task) -> None:
        with files.file(f"train-{task.number:05d}-of-{task.of:05d}.parquet") as path:
            with pq.ParquetWriter(path, self.schema, compression="none", use_dictionary=False) as writer:
                _write_rows(writer, records, self.schema)


class _Records:
    """Reads the live records of a task, in order."""

    def __init__(self, pack: Pack, reader: _C.ShardReader, task: _Task, progress: Callable[[int], None]):
        self.pack, self.reader, self.task, self.progress = pack, reader, task, progress
        self.count = self.bytes = 0

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, Any], bytes]]:
        """Yield (the pack's own columns, metadata, bytes) of each record."""
        names = self.pack.manifest.get("metadata", [])
        for row in self._table_rows():
            record = row["record"]
            try:
                data = self.pack.read(record, partial(self.reader.read, record))
                if row["codec"] == "dct":
                    data, row["codec"] = _C.dct_to_jpeg(data), "jpeg"
            except (OSError, ValueError) as error:
                raise PackError(f"{self.pack.shard_name(record)}, record {record}, id {row['id']}: {error}") from None
            self.count += 1
            self.bytes += len(data)
            yield {name: row[name] for name in TABLE_SCHEMA.names}, {name: row[name] for name in names}, data
            self.progress(len(data))

    def _table_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the records' rows of the Parquet files, each of which is read once."""
        pack, first, end = self.pack, self.task.first, self.task.end
        for shard in range(pack.shard_of(first), pack.shard_of(end - 1) + 1):
            table, begin = pack.table(shard), int(pack.first_record[shard])
            live = np.arange(max(first, begin), min(end, begin + table.num_rows))
            live = live[~pack.is_removed(live)]
            for start in range(0, len(live), _ROW_GROUP):
                records = live[start : start + _ROW_GROUP]
                try:
                    rows = table.take(arrow.numbers(records - begin)).to_pylist()
                except (ValueError, OverflowError):  # a date beyond 9999: which record has it?
                    rows = [pack.row(record) for record in records.tolist()]
                for record, row in zip(records.tolist(), rows):
                    yield row | {"record": record}


def _table_names(pack: Pack) -> dict[str, str]:
    """Return the names that the metadata's columns get in metadata.csv.

    Columns that the table of an earlier export brought into the pack are left out where they repeat what is written.
    """
    names = pack.manifest.get("metadata", [])
    named = {}
    for name in names:
        new = name
        if name in ("file_name", "class"):
            if _written_anyway(pack, name):
                continue
            while new == name or new in names:
                new = f"source_{new}"
        named[name] = new
    return named


def _written_anyway(pack: Pack, name: str) -> bool:
    for shard in range(len(pack.shards)):
        rows = pack.table(shard, columns=["record", "id", "label", "codec", name])
        live = ~pack.is_removed(arrow.to_numpy(rows.column("record")))
        for row in rows.filter(pa.array(live.tolist())).to_pylist():
            codec = "jpeg" if row["codec"] == "dct" else row["codec"]  # of the file
            own = _class(pack, row) if name == "class" else _file_name(row["id"], codec)
            if (row[name] or "") != own:
                return False
    return True


def _file_name(id: str, codec: str) -> str:
    """Return the id where it is a path below the folder, so that `build` gives it back; else percent-encode it."""
    parts = id.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) < 250 for part in parts) and id.isprintable()
    return id + SUFFIX[codec] if plain else member_name(id, codec)


def _class(pack: Pack, row: dict[str, Any]) -> str:
    label = row["label"]
    return "" if label < 0 else pack.classes[label] if label < len(pack.classes) else str(label)


def _write_sample(file: BinaryIO, row: dict[str, Any], metadata: dict[str, Any], data: bytes) -> None:
    suffix = SUFFIX[row["codec"]]
    key = member_name(row["id"], row["codec"]).removesuffix(suffix)
    about = {"id": row["id"]} | {name: value for name, value in metadata.items() if name != "id"}
    append_member(file, key + suffix, data)
    append_member(file, key + ".json", json.dumps(about, ensure_ascii=False, default=str).encode())
    if row["label"] >= 0:
        append_member(file, key + ".cls", str(row["label"]).encode())


def _write_rows(writer: pq.ParquetWriter, records: _Records, schema: pa.Schema | None) -> None:
    """Write the records in row groups."""
    every = records.rows()
    while group := [*itertools.islice(every, _ROW_GROUP)]:
        rows = []
        for row, metadata, data in group:
            path = PurePosixPath(_file_name(row["id"], row["codec"])).name
            own = {"image": {"bytes": data, "path": path}, "id": row["id"], "label": row["label"]}
            rows.append({**metadata, **own})
        try:
            table = pa.Table.from_pylist(rows, schema=schema)
        except pa.ArrowException as error:
            place = records.pack.path
            raise PackError(f"{place}: the metadata of its shards differ in their types ({error})") from None
        writer.write_table(table)


def _schema(pack: Pack) -> pa.Schema:
    """Return the schema with the features of the `datasets` library in its metadata."""
    metadata = pack.manifest.get("metadata", [])
    table = pack.table(0, columns=metadata).schema
    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("id", pa.string())]
    features: dict[str, Any] = {"image": {"_type": "Image"}, "id": {"dtype": "string", "_type": "Value"}}
    if (pack.column("label") >= 0).any():
        fields.append(("label", pa.int64()))
        features["label"] = {"dtype": "int64", "_type": "Value"}
        if pack.classes:
            features["label"] = {"names": pack.classes, "_type": "ClassLabel"}
    for name in _other(metadata, fields):
        type = table.field(name).type
        fields.append((name, type))
        features[name] = {"dtype": _DTYPES.get(type, str(type)), "_type": "Value"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


_DTYPES = {pa.float64(): "float64", pa.float32(): "float32"}  # Arrow prints double and float


def _other(names: Sequence[str], fields: list[tuple[str, pa.DataType]]) -> list[str]:
    taken = {name for name, _ in fields}
    if clash := taken & set(names):
        raise PackError(
            f"the metadata has columns {sorted(clash)}, which the Parquet export names so itself; "
            "give --format folder or webdataset, or build the pack with other names"
        )
    return list(names)
