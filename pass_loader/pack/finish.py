"""The end of a packing: makes tables, index and manifest from the rows that the shards have left."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import PackError
from . import arrow
from .columns import IndexColumns
from .foreign import remember, stamp
from .layout import INDEX, TABLE_SCHEMA, publish, shard_names, write_table
from .metadata import Metadata, without_gps
from .reader import index_rows, write_index
from .removed_log import counted_before_all
from .report import Report
from .shards import Shard, digest_of
from .source import Source

_TYPES: dict[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


class Finish:
    """Reads the rows of the shards twice, one shard at a time: first for what all of them decide, then for tables."""

    def __init__(
        self, root: Path, sources: list[Source], numbers: list[int], metadata: Metadata | None, gps: bool = True
    ):
        """Take the numbers of the shards that hold pictures. gps: False leaves the sources' own coordinates out."""
        self.root, self.sources, self.numbers, self.metadata, self.gps = root, sources, numbers, metadata, gps
        self._stamps: dict[int, dict[str, int]] = {}  # of foreign tars, by place in sources
        self.classes, self.own_columns = self._survey()
        self.labels = {name: label for label, name in enumerate(self.classes)}

    def _shards(self) -> Iterator[Shard]:
        for number in self.numbers:
            yield Shard.load(self.root, number)

    def _survey(self) -> tuple[list[str], dict[str, pa.DataType]]:
        known = [names for names in (source.classes() for source in self.sources) if names]
        names = {name for listed in known for name in listed}
        numbered = False
        types: dict[str, pa.DataType] = {}
        for shard in self._shards():
            names.update(name for name in shard.columns["class_name"] if name is not None)
            numbered |= any(label is not None for label in shard.columns["label"])
            for row in shard.columns["metadata"]:
                for name, value in self._own(row).items():
                    _merge_type(types, name, value)
        if numbered and names:
            raise PackError(
                f"some sources have numbers as labels, others names ({', '.join(sorted(names)[:5])}): pack them apart"
            )
        alike = known and all(listed == known[0] for listed in known) and names == set(known[0])
        if self.metadata is not None and (clash := set(types) & set(self.metadata.columns)):
            raise PackError(f"the sources and {self.metadata.path} both have the columns {sorted(clash)}; rename them")
        return known[0] if alike else sorted(names), types

    def _own(self, row: dict[str, Any] | None) -> dict[str, Any]:
        """Return what the source says of a picture, by the pack's names of columns."""
        row = row or {}
        return {own_name(name): value for name, value in (row if self.gps else without_gps(row)).items()}

    def tables(self, report: Report) -> tuple[list[dict[str, Any]], str]:
        """Write the tables and the index; return the manifest's shards and the pack's id. Counts in report."""
        shards: list[dict[str, Any]] = []
        index = IndexColumns(self.root)
        identity = hashlib.sha256()
        written: list[tuple[Path, Path]] = []
        first = 0
        for shard in self._shards():
            table = self._table(shard, first, report)
            first += table.num_rows
            tar, parquet = shard_names(shard.number)
            written.append((write_table(table, self.root / parquet), self.root / parquet))
            index.append(index_rows(table, len(shards)))
            entry = {"tar": tar, "table": parquet, "records": table.num_rows, "bytes": shard.tar_bytes}
            shards.append(entry | self._foreign(shard))
            for row in zip(*(table.column(name).to_pylist() for name in ("id", "length", "crc32c", "label"))):
                identity.update("\t".join(map(str, row)).encode() + b"\n")
        publish(*written)
        pack_id = identity.hexdigest()[:32]
        report.same_bytes = self._count_same_bytes(index, shards)
        write_index(self.root / INDEX, index.table(), pack_id)
        if self._stamps:
            remember(self.root, {self.sources[place].name: self.sources[place].path for place in self._stamps})
        if self.metadata is not None:
            report.metadata_unused = self.metadata.unused()
        report.shards = len(shards)
        return shards, pack_id

    def manifest(self, shards: list[dict[str, Any]], pack_id: str, report: Report, codec: str) -> dict[str, Any]:
        columns = self.metadata.columns if self.metadata is not None else []
        return {
            "pack_id": pack_id,
            "removed": counted_before_all(pack_id),
            "codec": codec,
            "records": report.pictures,
            "transcoded": report.transcoded,
            "classes": self.classes,
            "metadata": [*columns, *self.own_columns],
            "sources": [source.name for source in self.sources],
            "index": INDEX,
            "shards": shards,
        }

    def _table(self, shard: Shard, first: int, report: Report) -> pa.Table:
        columns = dict(shard.columns)
        columns["record"] = list(range(first, first + len(shard)))
        columns["label"] = [
            self.labels[name] if name is not None else -1 if label is None else label
            for name, label in zip(columns["class_name"], columns["label"])
        ]
        arrays = [arrow.column(columns[name], type) for name, type in zip(TABLE_SCHEMA.names, TABLE_SCHEMA.types)]
        table = pa.table(arrays, schema=TABLE_SCHEMA)
        if self.metadata is not None:
            rows, missing = self.metadata.rows_of(columns["id"])
            report.without_metadata = (report.without_metadata or 0) + missing
            for name in rows.column_names:
                table = table.append_column(name, rows.column(name))
        own = [self._own(row) for row in columns["metadata"]]
        for name, type in self.own_columns.items():
            values = [_as_type(row.get(name), type) for row in own]
            table = table.append_column(name, pa.array(values, type))
        return table

    def _foreign(self, shard: Shard) -> dict[str, Any]:
        if shard.source is None:
            return {}
        source = self.sources[shard.source]
        known_by = self._stamps.get(shard.source) or stamp(source.path)
        self._stamps[shard.source] = known_by
        return {"tar": source.name, "bytes": known_by["bytes"], "foreign": known_by}

    def _paths(self, shards: list[dict[str, Any]]) -> list[Path]:
        by_name = {source.name: source.path for source in self.sources}
        return [by_name[shard["tar"]] if "foreign" in shard else self.root / shard["tar"] for shard in shards]

    def _count_same_bytes(self, index: IndexColumns, shards: list[dict[str, Any]]) -> int:
        """Return pictures whose bytes come earlier in the pack. Few have equal length and CRC: those are read again."""
        shard, offset, length = (index.column(name) for name in ("shard", "offset", "length"))
        paths = self._paths(shards)
        counts: Counter[bytes] = Counter()
        for record in index.of_equal_length_and_crc().tolist():
            with open(paths[shard[record]], "rb") as file:
                counts[digest_of(os.pread(file.fileno(), int(length[record]), int(offset[record])))] += 1
        return sum(counts.values()) - len(counts)


def own_name(name: str) -> str:
    """Return the name of a source's own column beside those that every pack has."""
    return f"source_{name}" if name in TABLE_SCHEMA.names else name


def _merge_type(types: dict[str, pa.DataType], name: str, value: Any) -> None:
    """Choose a type: whole numbers and fractions make fractions; anything else that is mixed or nested makes text."""
    if value is None:
        types.setdefault(name, pa.null())
        return
    new = _TYPES.get(type(value), pa.string())
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        new = pa.string()
    old = types.get(name, pa.null())
    if old == pa.null() or old == new:
        types[name] = new
    elif {old, new} == {pa.int64(), pa.float64()}:
        types[name] = pa.float64()
    else:
        types[name] = pa.string()


def _as_type(value: Any, type: pa.DataType) -> Any:
    if type == pa.float64() and value is not None:
        return float(value)  # Arrow refuses whole numbers beyond 2**53
    if value is None or type != pa.string() or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
