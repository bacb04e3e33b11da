"""The end of a packing: makes tables, index and manifest from the rows that the shards have left."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from . import arrow
from .columns import IndexColumns
from .foreign import remember
from .layout import INDEX, TABLE_SCHEMA, publish, write_table
from .metadata import Metadata
from .own_columns import OwnColumns, own_rows
from .plan import Plan
from .reader import index_rows, write_index
from .removed_log import counted_before_all
from .report import Report
from .shards import Shard, digest_of


class Finish:
    """Makes a pack of the shards with pictures, which are named in order.

    own: what the sources say of all of their pictures. foreign: stamps of tars in place, by source.
    """

    def __init__(
        self, root: Path, plan: Plan, names: list[str], own: OwnColumns, foreign: dict[int, dict[str, int]],
        metadata: Metadata | None,
    ):  # fmt: skip
        self.root, self.plan, self.names, self.own, self.foreign = root, plan, names, own, foreign
        self.metadata = metadata
        self.classes = self._classes()
        self._label_of = {json.dumps(name): number for number, name in enumerate(self.classes)}
        if metadata is not None and (clash := set(own.types) & set(metadata.columns)):
            raise PackError(f"the sources and {metadata.path} both have the columns {sorted(clash)}; rename them")

    def _classes(self) -> list[str]:
        known = [names for names in self.plan.classes if names]
        names = {*self.own.classes, *(name for listed in known for name in listed)}
        if self.own.numbered and names:
            raise PackError(
                f"some sources have numbers as labels, others names ({', '.join(sorted(names)[:5])}): pack them apart"
            )
        alike = known and all(listed == known[0] for listed in known) and names == set(known[0])
        return known[0] if alike else sorted(names)

    def tables(self, report: Report) -> tuple[list[dict[str, Any]], str]:
        """Write the tables and the index; return the manifest's shards and the pack's id. Counts in report."""
        shards: list[dict[str, Any]] = []
        index = IndexColumns(self.root)
        identity = hashlib.sha256()
        written: list[tuple[Path, Path]] = []
        first = 0
        for name in self.names:
            shard = Shard.load(self.root, name)
            report.add(shard.rows)
            table = self._table(shard, first, report)
            first += table.num_rows
            written.append((write_table(table, self.root / shard.table), self.root / shard.table))
            index.append(index_rows(table, len(shards)))
            entry = {"tar": shard.tar, "table": shard.table, "records": table.num_rows, "bytes": shard.tar_bytes}
            shards.append(entry | self._foreign(shard))
            for lines in identity_lines(table):
                identity.update(lines)
        publish(*written)
        pack_id = identity.hexdigest()[:32]
        report.same_bytes = self._count_same_bytes(index, shards)
        write_index(self.root / INDEX, index.table(), pack_id)
        if self.foreign:
            remember(self.root, {self._path(source).name: self._path(source) for source in self.foreign})
        if self.metadata is not None:
            report.metadata_unused = self.metadata.unused()
            report.hints += self.metadata.hints()
        report.shards = len(shards)
        return shards, pack_id

    def manifest(self, shards: list[dict[str, Any]], pack_id: str, report: Report) -> dict[str, Any]:
        columns = self.metadata.columns if self.metadata is not None else []
        return {
            "pack_id": pack_id,
            "removed": counted_before_all(pack_id),
            "codec": self.plan.options.codec,
            "records": report.pictures,
            "transcoded": report.transcoded,
            "classes": self.classes,
            "metadata": [*columns, *self.own.types],
            "sources": [path.name for path in self.plan.paths],
            "index": INDEX,
            "shards": shards,
        }

    def _table(self, shard: Shard, first: int, report: Report) -> pa.Table:
        rows = shard.rows
        records = arrow.numbers(np.arange(first, first + len(shard), dtype=np.int64))
        made = {"record": records, "label": self._labels(rows)}
        columns = [made[name] if name in made else rows.column(name) for name in TABLE_SCHEMA.names]
        table = pa.table(columns, schema=TABLE_SCHEMA).combine_chunks()
        if self.metadata is not None:
            found, missing = self.metadata.rows_of(rows.column("id").to_pylist())
            report.without_metadata = (report.without_metadata or 0) + missing
            for name in found.column_names:
                table = table.append_column(name, found.column(name))
        if self.own.types:
            for name, column in self.own.columns(own_rows(rows, self.plan.options.gps)).items():
                table = table.append_column(name, column)
        return table

    def _labels(self, rows: pa.Table) -> pa.Array:
        """Return each row's number of its class, or its source's own number; -1 where it has none."""
        names, numbers = rows.column("class_name"), rows.column("label")
        if names.null_count == numbers.null_count == len(rows):
            return arrow.numbers(np.full(len(rows), -1, np.int32))
        values = [
            self._label_of[name] if name is not None else -1 if number is None else number
            for name, number in zip(names.to_pylist(), numbers.to_pylist())
        ]
        return arrow.numbers(np.array(values, np.int32))

    def _path(self, source: int) -> Path:
        return self.plan.paths[source]

    def _foreign(self, shard: Shard) -> dict[str, Any]:
        if shard.source is None:
            return {}
        known_by = self.foreign[shard.source]
        return {"tar": self._path(shard.source).name, "bytes": known_by["bytes"], "foreign": known_by}

    def _count_same_bytes(self, index: IndexColumns, shards: list[dict[str, Any]]) -> int:
        """Return pictures whose bytes come earlier in the pack. Few have equal length and CRC: those are read again."""
        shard, offset, length = (index.column(name) for name in ("shard", "offset", "length"))
        by_name = {path.name: path for path in self.plan.paths}
        paths = [by_name[shard["tar"]] if "foreign" in shard else self.root / shard["tar"] for shard in shards]
        counts: Counter[bytes] = Counter()
        for record in index.of_equal_length_and_crc().tolist():
            with open(paths[shard[record]], "rb") as file:
                counts[digest_of(os.pread(file.fileno(), int(length[record]), int(offset[record])))] += 1
        return sum(counts.values()) - len(counts)


def identity_lines(table: pa.Table) -> Iterator[memoryview]:
    """Yield id, length, CRC and label of each record as lines: what the pack's id is a digest of."""
    columns = [table.column(name).cast(pa.string()) for name in ("id", "length", "crc32c", "label")]
    nothing, tab, newline = arrow.strings(["", "\t", "\n"])  # pa.scalar imports pandas
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, tab), nothing, newline)
    for chunk in lines.chunks:
        _, ends, text = chunk.buffers()
        end = np.frombuffer(ends, np.int32)[chunk.offset + len(chunk)]
        yield memoryview(text)[:end]  # a fresh array has no offset
