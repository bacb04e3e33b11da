"""The end of a packing: makes tables, index and manifest from the rows that the shards have left."""

from __future__ import annotations

import hashlib
import itertools
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from . import arrow
from .columns import IndexColumns
from .destination import Destination, destination
from .foreign import remember
from .join import Join, Joined
from .layout import INDEX, REFUSED, TABLE_SCHEMA, TABLES, changing, publish, temporary_of, write_by_many, write_table
from .manifest import file_crc32c
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
        self._crcs: dict[str, int] = {}  # of tables
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
        joined = tables.join(self._out_of_tasks(how), how)
        self._crcs = self._write_tables(tables, how)
        missed = joined.missed if joined is not None else []
        missed_ids: list[str] = []
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
            begin, end = (bisect_left(missed, record) for record in (first, first + len(shard)))
            missed_ids += (shard.rows.column("id")[record - first].as_py() for record in missed[begin:end])
        pack_id = identity.hexdigest()[:32]
        report.same_bytes = self.count_same_bytes(index, shards, max(how.threads, self.out.at_once))
        write_index(root / INDEX, index.table(), pack_id)
        places = [place for source in self.foreign if isinstance(place := self.plan.place(source), Path)]
        if places:
            remember(root, {place.name: place for place in places})
        if self.metadata is not None and joined is not None:
            report.without_metadata = report.pictures - joined.used
            report.metadata_unused = joined.rows - joined.used
            report.hints += self.metadata.hints(missed_ids, joined.used)
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
            begins = [begin for _, begin in tasks[::_TABLES]]
            join = Join.of(
                self.metadata.file, (stamp[0], stamp[1]) if stamp else None, self.metadata.columns, first, begins,
                digest, kept,
            )  # fmt: skip
        return Tables(TableWriter(gps, tuple(self.classes), own, join), tasks, self.plan.inputs, digest)

    def _out_of_tasks(self, how: Running) -> Destination:
        """Return where tasks leave their files: where they are run here, nowhere but in the folder."""
        return Destination(self.root) if how.runner == "local" else self.out

    def _write_tables(self, tables: Tables, how: Running) -> dict[str, int]:
        """Write the tables that no share has written, and publish all. Returns CRCs of them, where tasks tell them."""
        for left in self.root.glob("shard-*.parquet.*.tmp"):  # by a run that was cut off
            left.unlink()
        names = {name: f"{name}.parquet" for name, _ in tables.tasks}
        if how.runner != "local":
            calls = [(self.out.at, tables.writer, tables.digest, group) for group in tables.groups()]
            crcs = itertools.chain.from_iterable(run_on_ray(write_tables, calls, address=how.ray_address))
            self.out.look_again()
            self.out.settle({of_task(name, tables.digest): names[name] for name in names})
            return dict(zip(names.values(), crcs))
        out = self._out_of_tasks(how)
        write, tasks = tables.writer.opened(out, tables.tasks), tables.left(out)
        written: dict[str, str] = {}
        in_order((partial(_named, write, *task) for task in tasks), how.threads, lambda found: written.update([found]))
        out.settle({written.get(name, of_task(name, tables.digest)): table for name, table in names.items()})
        self.out.send(*names.values())
        return {}

    def manifest(self, shards: list[dict[str, Any]], pack_id: str, report: Report) -> dict[str, Any]:
        columns = self.metadata.columns if self.metadata is not None else []
        refused = self.root / REFUSED
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
            "crc32c": self._crcs | ({REFUSED: file_crc32c(refused)} if refused.exists() else {}),
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

    gps: bool
    classes: tuple[str, ...]
    own: tuple[tuple[str, str], ...]
    join: Join | None

    def opened(self, out: Destination, tasks: Sequence[tuple[str, int]]) -> Callable[[str, int], str]:
        """Return what writes the table of a shard, and returns its temporary name in the folder.

        tasks: (name, first record) of shards in a row, one of which it is.
        """
        root, labels, own = out.folder, Labels(self.classes), OwnColumns(types=dict(self.own))
        joined = Joined(out, self.join) if self.join is not None else None
        out.bring_all(f"{name}.rows" for name, _ in tasks)
        if joined is not None:
            last, begin = tasks[-1]
            joined.bring(tasks[0][1], begin + len(Shard.load(root, last)))

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

    def left(self, out: Destination, chosen: Sequence[tuple[str, int]] | None = None) -> list[tuple[str, int]]:
        """Return those of the tasks, or of the chosen ones, that no share has done."""
        return [task for task in chosen or self.tasks if out.size_of(of_task(task[0], self.digest)) is None]

    def groups(self) -> list[list[tuple[str, int]]]:
        """Return the tasks, some together."""
        return [self.tasks[start : start + _TABLES] for start in range(0, len(self.tasks), _TABLES)]

    def join(self, out: Destination, how: Running) -> Joined | None:
        """Join the metadata, by tasks; None where there is none. Raises PackError where the table has a key twice."""
        join = self.writer.join
        if join is None:
            return None
        if not join.lasting:
            join.forget(out, left_over=True)
        join.run(out, self.groups(), how)
        if not join.lasting:
            join.forget(out)
        return Joined(out, join)

    def write_share(self, out: Destination, how: Running) -> int:
        """Write the tables of a share; return how many it has."""
        chosen = how.chosen(self.tasks)
        left = self.left(out, chosen) if chosen else []
        if not left:
            return len(chosen)
        self.join(out, how)
        write = self.writer.opened(out, self.tasks)

        def publish_one(name: str, first: int) -> None:
            publish((out.folder / write(name, first), out.folder / of_task(name, self.digest)))

        in_order((partial(publish_one, *task) for task in left), how.threads)
        return len(chosen)

    def save(self, root: Path) -> None:
        """Keep this for the shares, in the directory of the pack."""
        write_by_many(root / TABLES, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, root: Path, plan: Plan) -> Tables | None:
        """Return what was kept of this plan, None where nothing was."""
        try:
            found = json.loads((root / TABLES).read_bytes())
            writer, join = found["writer"], found["writer"]["join"]
            if join is not None:
                pieces = tuple(map(tuple, join["pieces"]))
                given = {name: tuple(join[name]) for name in ("columns", "begins")}
                join = Join(**join | given | {"stamp": join["stamp"] and tuple(join["stamp"]), "pieces": pieces})
            made = TableWriter(writer["gps"], tuple(writer["classes"]), tuple(map(tuple, writer["own"])), join)
            tables = cls(made, [(name, first) for name, first in found["tasks"]], found["inputs"], found["digest"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return tables if tables.inputs == plan.inputs else None


def of_task(name: str, digest: str) -> str:
    """Return the name of a shard's table that a task elsewhere has written. digest: Tables.digest."""
    return f"{name}.parquet.{digest}"


def write_tables(
    at: tuple[str, Mapping[str, Any] | None], writer: TableWriter, digest: str, tasks: list[tuple[str, int]]
) -> list[int]:
    """Write tables of shards in a row on another machine, those that are not there yet; return the CRC of each."""
    with destination(*at) as out, changing(out.folder):
        names = [of_task(name, digest) for name, _ in tasks]
        left = [(*task, name) for task, name in zip(tasks, names) if not out.bring(name)]
        if left:
            write = writer.opened(out, tasks)
            publish(*((out.folder / write(shard, first), out.folder / name) for shard, first, name in left))
            out.send(*(name for _, _, name in left))
        return [file_crc32c(out.folder / name) for name in names]


def identity_lines(table: pa.Table) -> Iterator[memoryview]:
    """Yield id, length, CRC and label of each record as lines: what the pack's id is a digest of."""
    columns = [table.column(name).cast(pa.string()) for name in ("id", "length", "crc32c", "label")]
    nothing, tab, newline = arrow.strings(["", "\t", "\n"])  # pa.scalar imports pandas
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, tab), nothing, newline)
    for chunk in lines.chunks:
        _, ends, text = chunk.buffers()
        end = np.frombuffer(ends, np.int32)[chunk.offset + len(chunk)]
        yield memoryview(text)[:end]  # a fresh array has no offset
