"""The end of a packing: makes tables, index and manifest from the rows that the shards have left."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from . import arrow
from .columns import IndexColumns
from .destination import Destination
from .foreign import remember
from .join import Join, Joined
from .layout import INDEX, TABLE_SCHEMA, TABLES, publish, temporary_of, write_by_many, write_table
from .metadata import Metadata
from .own_columns import OwnColumns, own_rows
from .plan import Plan
from .ray_runner import run_on_ray
from .reader import index_rows, write_index
from .removed_log import counted_before_all
from .repeats import Firsts, alike, digest_of
from .report import Report
from .running import Running, in_order
from .shards import Shard

_TABLES = 64  # that a task writes on a cluster


class Finish:
    """Makes a pack of the shards with pictures, which are named in order.

    own: what the sources say of all of their pictures. foreign: stamps of tars in place, by source.
    """

    def __init__(
        self, out: Destination, plan: Plan, names: list[str], own: OwnColumns, foreign: dict[int, dict[str, Any]],
        metadata: Metadata | None,
    ):  # fmt: skip
        self.out, self.root = out, out.folder
        self.plan, self.names, self.own, self.foreign = plan, names, own, foreign
        self.metadata = metadata
        self.classes = self._classes()
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

    def tables(self, report: Report, how: Running) -> tuple[list[dict[str, Any]], str]:
        """Write the tables, by tasks, and the index. Returns the manifest's shards and the pack's id.

        Counts go into the report.
        """
        root, tables = self.root, self.planned(how)
        firsts = [first for _, first in tables.tasks]
        joined = tables.join(how)
        publish(*self._write_tables(tables, how))
        shards: list[dict[str, Any]] = []
        index = IndexColumns(root)
        identity = hashlib.sha256()
        labels = Labels(self.classes)
        for name, first in zip(self.names, firsts):
            shard = Shard.load(root, name)
            report.add(shard.rows)
            table = own_table(shard, first, labels)
            index.append(index_rows(table, len(shards)))
            entry = {"tar": shard.tar, "table": shard.table, "records": table.num_rows, "bytes": shard.tar_bytes}
            shards.append(entry | self._foreign(shard))
            for lines in identity_lines(table):
                identity.update(lines)
            if self.metadata is not None and joined is not None:
                missing = self.metadata.count(shard.rows.column("id"), joined.found(first, first + len(shard)))
                report.without_metadata = (report.without_metadata or 0) + missing
        pack_id = identity.hexdigest()[:32]
        report.same_bytes = self.count_same_bytes(index, shards, max(how.threads, self.out.at_once))
        write_index(root / INDEX, index.table(), pack_id)
        places = [place for source in self.foreign if isinstance(place := self.plan.place(source), Path)]
        if places:
            remember(root, {place.name: place for place in places})
        if self.metadata is not None and joined is not None:
            report.metadata_unused = joined.rows - joined.used
            report.hints += self.metadata.hints()
        self.out.send(*(shard["table"] for shard in shards))
        report.shards = len(shards)
        return shards, pack_id

    def planned(self, how: Running) -> Tables:
        """Return what the tables are made of, and by what tasks."""
        tasks, first, made_of = [], 0, hashlib.sha256()
        for name in self.names:
            shard = Shard.load(self.root, name)
            tasks.append((name, first))
            made_of.update(f"{name} {len(shard)} {shard.made_of} {shard.repeats_of}\n".encode())
            first += len(shard)
        gps, own = self.plan.options.gps, tuple(self.own.types.items())
        key = None if self.metadata is None else [self.metadata.key, *self.metadata.columns]
        told = [gps, self.classes, own, key, self.plan.inputs, made_of.hexdigest()]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        join = None
        if self.metadata is not None:
            kept = how.runner != "local" or how.share is not None or (self.root / TABLES).exists()
            _, *stamp = self.plan.metadata_stamp or [None]
            join = Join.of(
                self.root, self.metadata.file, (stamp[0], stamp[1]) if stamp else None, self.metadata.columns, first,
                -(-len(tasks) // _TABLES), digest, kept,
            )  # fmt: skip
        writer = TableWriter(os.path.abspath(self.root), gps, tuple(self.classes), own, join)
        return Tables(writer, tasks, self.plan.inputs, digest)

    def _write_tables(self, tables: Tables, how: Running) -> list[tuple[Path, Path]]:
        """Write the tables that no share has written; return the temporary names and names of all."""
        for left in self.root.glob("shard-*.parquet.*.tmp"):  # by a run that was cut off
            left.unlink()
        writer, tasks = tables.writer, tables.left()
        written: dict[str, str] = {}
        if how.runner == "local":
            write = writer.opened()
            calls = (partial(_named, write, *task) for task in tasks)
            in_order(calls, how.threads, lambda found: written.update([found]))
        else:
            groups = [tasks[start : start + _TABLES] for start in range(0, len(tasks), _TABLES)]
            for group, names in zip(
                groups, run_on_ray(write_tables, [(writer, group) for group in groups], address=how.ray_address)
            ):
                written.update(zip((name for name, _ in group), names))
        return [
            (self.root / written.get(name, tables.of_share(name)), self.root / f"{name}.parquet")
            for name, _ in tables.tasks
        ]

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
            "sources": self.plan.names,
            "index": INDEX,
            "shards": shards,
        }

    def _foreign(self, shard: Shard) -> dict[str, Any]:
        if shard.source is None:
            return {}
        known_by = self.foreign[shard.source]
        return {"tar": self.plan.names[shard.source], "bytes": known_by["bytes"], "foreign": known_by}

    def count_same_bytes(self, index: IndexColumns, shards: list[dict[str, Any]], threads: int) -> int:
        """Return pictures whose bytes come earlier in the pack: those of equal length and CRC are read again."""
        offset, length = (index.column(name) for name in ("offset", "length"))
        marked = alike(self.root, length, index.column("crc32c"))
        digests = Firsts(self.root, int(np.count_nonzero(marked)))

        def read(shard: dict[str, Any], first: int) -> np.ndarray:
            records = first + np.flatnonzero(marked[first : first + shard["records"]])
            places = zip(offset[records].tolist(), length[records].tolist())
            joined = b"".join(digest_of(self._read(shard, *place)) for place in places)
            return np.frombuffer(joined, np.uint64).reshape(-1, 2)

        firsts = itertools.accumulate((shard["records"] for shard in shards), initial=0)
        of_shards = ((shard, first, marked[first : first + shard["records"]]) for shard, first in zip(shards, firsts))
        calls = (partial(read, shard, first) for shard, first, some in of_shards if some.any())
        in_order(calls, threads, digests.add_pairs)
        return int(np.count_nonzero(digests.sort()))

    def _read(self, shard: dict[str, Any], offset: int, length: int) -> bytes:
        """Return a picture of a shard, which may be a source in place."""
        if "foreign" not in shard:
            return self.out.read(shard["tar"], offset, length)
        place = self.plan.place(self.plan.names.index(shard["tar"]))
        if isinstance(place, Path):
            return Destination(place.parent).read(place.name, offset, length)
        return bytes(place.part(offset, offset + length))


class Labels:
    """Labels of rows by the names of classes, which are numbered in their order."""

    def __init__(self, classes: Sequence[str]):
        self._number_of = {json.dumps(name): number for number, name in enumerate(classes)}

    def of(self, rows: pa.Table) -> pa.Array:
        """Return each row's number of its class, or its source's own number; -1 where it has none."""
        names, numbers = rows.column("class_name"), rows.column("label")
        if names.null_count == numbers.null_count == len(rows):
            return arrow.numbers(np.full(len(rows), -1, np.int32))
        values = [
            self._number_of[name] if name is not None else -1 if number is None else number
            for name, number in zip(names.to_pylist(), numbers.to_pylist())
        ]
        return arrow.numbers(np.array(values, np.int32))


def own_table(shard: Shard, first: int, labels: Labels) -> pa.Table:
    """Return the columns that every pack has, of a shard whose first record is `first`."""
    records = arrow.numbers(np.arange(first, first + len(shard), dtype=np.int64))
    made = {"record": records, "label": labels.of(shard.rows)}
    columns = [made[name] if name in made else shard.rows.column(name) for name in TABLE_SCHEMA.names]
    return pa.table(columns, schema=TABLE_SCHEMA).combine_chunks()


@dataclass(frozen=True)
class TableWriter:
    """Writes tables of shards, here or on another machine.

    gps: False leaves the sources' own coordinates out. own: the types of the sources' own columns. join: of a table of
    metadata, whose tasks are done.
    """

    root: str
    gps: bool
    classes: tuple[str, ...]
    own: tuple[tuple[str, str], ...]
    join: Join | None

    def opened(self) -> Callable[[str, int], str]:
        """Return what writes the table of a shard, by its name and first record, and returns its temporary name."""
        root, labels, own = Path(self.root), Labels(self.classes), OwnColumns(types=dict(self.own))
        joined = Joined(self.join) if self.join is not None else None

        def write(name: str, first: int) -> str:
            shard = Shard.load(root, name)
            table = own_table(shard, first, labels)
            if joined is not None:
                found = joined.take(first, first + len(shard))
                for column in found.column_names:
                    table = table.append_column(column, found.column(column))
            if own.types:
                for column, values in own.columns(own_rows(shard.rows, self.gps)).items():
                    table = table.append_column(column, values)
            path = root / shard.table
            return write_table(table, path, temporary_of(path)).name

        return write


def _named(write: Callable[[str, int], str], name: str, first: int) -> tuple[str, str]:
    return name, write(name, first)


@dataclass(frozen=True)
class Tables:
    """The tables of a pack, and what they are made of.

    tasks: (name of a shard, its first record) of each. inputs: Plan.inputs. digest: of all that the tables are made of.
    A table that a share of the tasks has written lies beside its place until the pack is made, with the digest in its
    name.
    """

    writer: TableWriter
    tasks: list[tuple[str, int]]
    inputs: str
    digest: str

    def of_share(self, name: str) -> str:
        """Return the name of a shard's table that a share has written."""
        return f"{name}.parquet.{self.digest}"

    def left(self, chosen: Sequence[tuple[str, int]] | None = None) -> list[tuple[str, int]]:
        """Return those of the tasks, or of the chosen ones, that no share has done."""
        root = Path(self.writer.root)
        return [task for task in chosen or self.tasks if not (root / self.of_share(task[0])).exists()]

    def groups(self) -> list[list[tuple[str, int]]]:
        """Return the tasks, some together."""
        return [self.tasks[start : start + _TABLES] for start in range(0, len(self.tasks), _TABLES)]

    def join(self, how: Running) -> Joined | None:
        """Join the metadata, by tasks; None where there is none. Raises PackError where the table has a key twice."""
        join = self.writer.join
        if join is None:
            return None
        if not join.lasting:
            join.forget(left_over=True)
        join.run(self.groups(), how)
        if not join.lasting:
            join.forget()
        return Joined(join)

    def write_share(self, how: Running) -> int:
        """Write the tables of a share; return how many it has."""
        chosen, root = how.chosen(self.tasks), Path(self.writer.root)
        left = self.left(chosen) if chosen else []
        if not left:
            return len(chosen)
        self.join(how)
        write = self.writer.opened()

        def publish_one(name: str, first: int) -> None:
            publish((root / write(name, first), root / self.of_share(name)))

        in_order((partial(publish_one, *task) for task in left), how.threads)
        return len(chosen)

    def save(self) -> None:
        """Keep this for the shares, in the directory of the pack."""
        write_by_many(Path(self.writer.root) / TABLES, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, root: Path, plan: Plan) -> Tables | None:
        """Return what was kept of this plan, None where nothing was."""
        try:
            found = json.loads((root / TABLES).read_bytes())
            writer, join, place = found["writer"], found["writer"]["join"], os.path.abspath(root)
            if join is not None:
                pieces = tuple(map(tuple, join["pieces"]))
                stamp = join["stamp"] and tuple(join["stamp"])
                join = Join(
                    **join | {"root": place, "stamp": stamp, "columns": tuple(join["columns"]), "pieces": pieces}
                )
            made = TableWriter(place, writer["gps"], tuple(writer["classes"]), tuple(map(tuple, writer["own"])), join)
            tables = cls(made, [(name, first) for name, first in found["tasks"]], found["inputs"], found["digest"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return tables if tables.inputs == plan.inputs else None


def write_tables(writer: TableWriter, tasks: list[tuple[str, int]]) -> list[str]:
    """Write tables on another machine, to last; return their temporary names."""
    write = _opened(writer)
    names = [write(name, first) for name, first in tasks]
    for name in names:
        with open(Path(writer.root) / name, "rb+") as file:
            os.fsync(file.fileno())
    return names


@lru_cache(maxsize=1)
def _opened(writer: TableWriter) -> Callable[[str, int], str]:
    return writer.opened()


def identity_lines(table: pa.Table) -> Iterator[memoryview]:
    """Yield id, length, CRC and label of each record as lines: what the pack's id is a digest of."""
    columns = [table.column(name).cast(pa.string()) for name in ("id", "length", "crc32c", "label")]
    nothing, tab, newline = arrow.strings(["", "\t", "\n"])  # pa.scalar imports pandas
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, tab), nothing, newline)
    for chunk in lines.chunks:
        _, ends, text = chunk.buffers()
        end = np.frombuffer(ends, np.int32)[chunk.offset + len(chunk)]
        yield memoryview(text)[:end]  # a fresh array has no offset
