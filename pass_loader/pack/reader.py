"""Opens packs: index by memory map, ids and metadata from the Parquet files when they are asked for."""

from __future__ import annotations

import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import PackError
from .layout import CODECS, INDEX, INDEX_SCHEMA, REMOVED, publish, read_manifest


class Pack:
    """A pack, read-only. Records are numbered over all shards, positions over the live (not removed) records.

    Raises PackError where the directory is no pack or contradicts itself.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.pack_id: str = self.manifest["pack_id"]
        self.classes: list[str] = self.manifest.get("classes", [])
        self.shards: list[dict[str, Any]] = self.manifest["shards"]
        counts = [shard["records"] for shard in self.shards]
        self.first_record = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # of each shard, and the end
        self.index = _open_index(self.path, self.shards, self.pack_id)
        self.removed = _read_removed(self.path / REMOVED, self.records)
        self._table = lru_cache(maxsize=4)(self._read_table)
        self._ids: pa.LargeStringArray | None = None

    def __repr__(self) -> str:
        return f"Pack({str(self.path)!r}: {len(self)} live of {self.records} records, {len(self.shards)} shards)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (str(self.path),)

    @property
    def records(self) -> int:
        return int(self.first_record[-1])

    def __len__(self) -> int:
        """Live records."""
        return self.records - len(self.removed)

    def column(self, name: str) -> np.ndarray:
        """A column of the index, (records,), a read-only view of the memory map."""
        # pyarrow's own conversions import pandas where it is installed, which takes time and swallows a Ctrl-C.
        chunk = self.index.column(name).chunk(0)
        dtype = np.dtype(str(chunk.type))
        return np.frombuffer(chunk.buffers()[1], dtype=dtype, count=len(chunk), offset=chunk.offset * dtype.itemsize)

    def records_at(self, positions: np.ndarray) -> np.ndarray:
        """Positions, int64, to records: the k-th live record is k plus the removed ones before it."""
        if len(self.removed) == 0:
            return positions
        live_before = self.removed - np.arange(len(self.removed))
        return positions + np.searchsorted(live_before, positions, side="right")

    def shard_of(self, record: int) -> int:
        self._check(record)
        return int(np.searchsorted(self.first_record, record, side="right")) - 1

    def shard_name(self, record: int) -> str:
        return self.shards[self.shard_of(record)]["tar"]

    def tar_paths(self) -> list[str]:
        return [str(self.path / shard["tar"]) for shard in self.shards]

    def row(self, record: int) -> dict[str, Any]:
        """The record's row of its shard's Parquet file."""
        shard = self.shard_of(record)
        return self._table(shard).slice(record - int(self.first_record[shard]), 1).to_pylist()[0]

    def id_of(self, record: int) -> str:
        return self.row(record)["id"]

    def ids(self, records: np.ndarray) -> list[str]:
        """Many ids at once. The first call reads all ids into memory, about 40 bytes a record."""
        if self._ids is None:
            tables = [self.table(shard, columns=["id"]) for shard in range(len(self.shards))]
            self._ids = pa.concat_tables(tables).column("id").cast(pa.large_string()).combine_chunks()
        return self._ids.take(pa.array(records)).to_pylist()

    def record_of(self, id: str) -> int:
        """Raises KeyError for an id that the pack does not have, removed ones included."""
        for shard in range(len(self.shards)):
            found = pc.index(self.table(shard, columns=["id"]).column("id"), pa.scalar(id, pa.string())).as_py()
            if found >= 0:
                return int(self.first_record[shard]) + found
        raise KeyError(id)

    def table(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """A shard's Parquet file. Raises PackError where it has another number of rows than the manifest says."""
        table = read_table(self.path / self.shards[shard]["table"], columns)
        if table.num_rows != self.shards[shard]["records"]:
            raise PackError(
                f"{self.path / self.shards[shard]['table']} has {table.num_rows} rows, "
                f"the manifest says {self.shards[shard]['records']}"
            )
        return table

    def _read_table(self, shard: int) -> pa.Table:
        return self.table(shard)

    def _check(self, record: int) -> None:
        if not 0 <= record < self.records:
            raise IndexError(f"record {record} is not in [0, {self.records})")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file. Raises PackError where it is missing or damaged."""
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise PackError(f"{path}: {error}") from None


def _open_index(root: Path, shards: list[dict[str, Any]], pack_id: str) -> pa.Table:
    """O(1) in time and private memory: the columns stay on disk until they are touched."""
    path = root / INDEX
    if not path.exists():
        index = index_from_tables(root, shards)
        try:
            write_index(root, index, pack_id)
        except OSError:  # a pack that may only be read
            return index.combine_chunks()
    try:
        index = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise PackError(f"{path} is damaged ({error}); delete it to have it rebuilt") from None
    records = sum(shard["records"] for shard in shards)
    identity = (index.schema.metadata or {}).get(b"pack_id")
    if index.schema != INDEX_SCHEMA or index.num_rows != records or identity != pack_id.encode():
        raise PackError(f"{path} does not fit the manifest; delete it to have it rebuilt")
    if index.column(0).num_chunks != 1:
        raise PackError(f"{path} is not one record batch; delete it to have it rebuilt")
    return index


def index_from_tables(root: Path, shards: list[dict[str, Any]]) -> pa.Table:
    """The index's columns from the shards' Parquet files."""
    names = [name for name in INDEX_SCHEMA.names if name != "shard"]
    tables = [read_table(root / shard["table"], names) for shard in shards]
    return pa.concat_tables([index_rows(table, number) for number, table in enumerate(tables)])


def index_rows(table: pa.Table, shard: int) -> pa.Table:
    """A shard's rows of the index."""
    codec = pc.index_in(table.column("codec"), pa.array(CODECS))
    if codec.null_count:
        raise PackError(f"shard {shard} holds a codec that this pass-loader does not know; it knows {list(CODECS)}")
    columns = {name: table.column(name) for name in INDEX_SCHEMA.names if name not in ("shard", "codec")}
    columns["shard"] = pa.chunked_array([pa.array(np.full(table.num_rows, shard, np.int32))])
    columns["codec"] = codec
    return pa.table([columns[name].cast(type) for name, type in zip(INDEX_SCHEMA.names, INDEX_SCHEMA.types)],
                    schema=INDEX_SCHEMA)  # fmt: skip


def write_index(root: Path, index: pa.Table, pack_id: str) -> None:
    """One record batch, so that a column is one array; the pack's id in the schema's metadata."""
    table = index.combine_chunks().replace_schema_metadata({"pack_id": pack_id})
    descriptor, temporary = tempfile.mkstemp(prefix=INDEX, suffix=".tmp", dir=root)  # several openers may rebuild
    os.close(descriptor)
    os.chmod(temporary, 0o644)
    with pa.OSFile(temporary, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    publish(Path(temporary), root / INDEX)


def _read_removed(path: Path, records: int) -> np.ndarray:
    """The removed records, sorted. A line: {"id", "record", "date", "reason"}; "restored": true where it undoes."""
    removed: set[int] = set()
    if path.exists():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                entry = json.loads(line)
                record = int(entry["record"])
            except (ValueError, KeyError, TypeError) as error:
                raise PackError(f"{path}, line {number}: {error!r}") from None
            if not 0 <= record < records:
                raise PackError(f"{path}, line {number}: record {record} is not in the pack")
            removed.discard(record) if entry.get("restored") else removed.add(record)
    return np.array(sorted(removed), dtype=np.int64)
