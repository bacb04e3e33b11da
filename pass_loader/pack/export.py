"""`pass-pack export`: the live records of a pack as a folder, as WebDataset's tars or as Hugging Face's Parquet."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import _C
from ..errors import PackError
from . import arrow
from .layout import SUFFIX, TABLE_SCHEMA, append_member, changing, end_tar, make_directory, member_name, sync_directory
from .reader import Pack

FORMATS = ("folder", "webdataset", "parquet")
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
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write the live records, with their metadata, into the new directory `out`; it appears when it is complete.

    format: "folder": id.jpg, and metadata.csv (file_name, id, class, metadata), as the imagefolder of the `datasets`
    library reads it; `build` takes it as metadata with the key "id". Metadata that is named file_name or class itself
    is named source_...; it is left out where it says the same, after an earlier export. "webdataset":
    00000.tar, ...: KEY.jpg, KEY.json (id and metadata) and, where there is a label, KEY.cls. "parquet":
    train-00000-of-00009.parquet, ...: image, id, label and metadata, with the features that `datasets` reads.
    Records of the codec "dct" become JPEGs again. shard_bytes: of packed pictures in a file, at the most but for one
    larger. progress: called with the bytes of each record.
    Every record's CRC is checked. Raises PackError where `out` exists or a record is not as it was packed.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, want one of {FORMATS}")
    out = Path(out)
    temporary = out.with_name(out.name + ".unfinished")
    for path in (out, temporary):
        if path.exists():
            raise PackError(f"{path} exists; give another --out, or delete it")
    records = _Records(pack, progress or (lambda _: None))
    writers: dict[str, Callable[[_Records, Path, int], None]] = {"folder": _folder, "webdataset": _webdataset}
    write = writers.get(format) or partial(_parquet, schema=_schema(pack))  # a clash of names shows before any writing
    with changing(out):
        make_directory(temporary)
        try:
            write(records, temporary, shard_bytes)
            temporary.rename(out)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk is not left full
            raise
        sync_directory(out.parent)
    return Exported(records.count, records.bytes, sum(path.is_file() for path in out.rglob("*")))


class _Records:
    """Reads the live records, in order."""

    def __init__(self, pack: Pack, progress: Callable[[int], None]):
        self.pack, self.progress = pack, progress
        self.reader = pack.open_reader()
        self.live = np.setdiff1d(np.arange(pack.records), pack.removed, assume_unique=True)
        self.count = self.bytes = 0

    def groups(self, group_bytes: int) -> list[np.ndarray]:
        """Yield the records that share a file."""
        lengths = self.pack.column("length")[self.live]
        groups: list[list[int]] = []
        size = group_bytes
        for record, length in zip(self.live.tolist(), lengths.tolist()):
            if size + length > group_bytes or not groups:
                groups.append([])
                size = 0
            groups[-1].append(record)
            size += length
        return [np.array(group) for group in groups if group]

    def rows(self, records: np.ndarray) -> Iterator[tuple[dict[str, Any], dict[str, Any], bytes]]:
        """Yield (the pack's own columns, metadata, bytes) of each record."""
        for record in records.tolist():
            row = self.pack.row(record)
            try:
                data = self.pack.read(record, partial(self.reader.read, record))
                if row["codec"] == "dct":
                    data, row["codec"] = _C.dct_to_jpeg(data), "jpeg"
            except (OSError, ValueError) as error:
                raise PackError(f"{self.pack.shard_name(record)}, record {record}, id {row['id']}: {error}") from None
            metadata = {name: row[name] for name in self.pack.manifest.get("metadata", [])}
            self.count += 1
            self.bytes += len(data)
            yield {name: row[name] for name in TABLE_SCHEMA.names}, metadata, data
            self.progress(len(data))


def _folder(records: _Records, out: Path, shard_bytes: int) -> None:
    named = _table_names(records)
    with open(out / "metadata.csv", "w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file_name", "id", "class", *named.values()])
        for row, metadata, data in records.rows(records.live):
            name = _file_name(row["id"], row["codec"])
            path = out / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise PackError(
                    f"the id {row['id'][:40]!r} ... of {len(row['id']):,} characters is too long for the name of a "
                    "file: --format webdataset or parquet holds it"
                ) from None
            values = (metadata[column] for column in named)
            writer.writerow([name, row["id"], _class(records.pack, row), *("" if v is None else v for v in values)])


def _table_names(records: _Records) -> dict[str, str]:
    """Return the names that the metadata's columns get in metadata.csv.

    Columns that the table of an earlier export brought into the pack are left out where they repeat what is written.
    """
    names = records.pack.manifest.get("metadata", [])
    named = {}
    for name in names:
        new = name
        if name in ("file_name", "class"):
            if _written_anyway(records, name):
                continue
            while new == name or new in names:
                new = f"source_{new}"
        named[name] = new
    return named


def _written_anyway(records: _Records, name: str) -> bool:
    pack = records.pack
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


def _webdataset(records: _Records, out: Path, shard_bytes: int) -> None:
    for number, group in enumerate(records.groups(shard_bytes)):
        with open(out / f"{number:05d}.tar", "wb") as file:
            for row, metadata, data in records.rows(group):
                _write_sample(file, row, metadata, data)
            end_tar(file)


def _write_sample(file: BinaryIO, row: dict[str, Any], metadata: dict[str, Any], data: bytes) -> None:
    suffix = SUFFIX[row["codec"]]
    key = member_name(row["id"], row["codec"]).removesuffix(suffix)
    about = {"id": row["id"]} | {name: value for name, value in metadata.items() if name != "id"}
    append_member(file, key + suffix, data)
    append_member(file, key + ".json", json.dumps(about, ensure_ascii=False, default=str).encode())
    if row["label"] >= 0:
        append_member(file, key + ".cls", str(row["label"]).encode())


def _parquet(records: _Records, out: Path, shard_bytes: int, schema: pa.Schema) -> None:
    groups, pack = records.groups(shard_bytes), records.pack
    for number, group in enumerate(groups):
        name = f"train-{number:05d}-of-{len(groups):05d}.parquet"
        with pq.ParquetWriter(out / name, schema, compression="none", use_dictionary=False) as writer:
            for start in range(0, len(group), _ROW_GROUP):
                rows = []
                for row, metadata, data in records.rows(group[start : start + _ROW_GROUP]):
                    path = PurePosixPath(_file_name(row["id"], row["codec"])).name
                    own = {"image": {"bytes": data, "path": path}, "id": row["id"], "label": row["label"]}
                    rows.append({**metadata, **own})
                try:
                    table = pa.Table.from_pylist(rows, schema=schema)
                except pa.ArrowException as error:
                    raise PackError(
                        f"{pack.path}: the metadata of its shards differ in their types ({error})"
                    ) from None
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
