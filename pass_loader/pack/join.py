"""The tasks that join a table of metadata with the pictures of a pack; no memory holds all of either.

Rows and pictures have digests of their ids. First each task takes a piece of the table, or the pictures of some shards,
and writes them out in the order of the first bits of the digests ("spread"). Then each task takes what begins with the
same bits, a share of the digests, and writes the rows that belong to pictures, in the order of the pictures ("joined").
Who writes a shard's table reads a run out of each of these files. What comes out does not depend on how it was cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import PackError
from . import arrow
from .layout import publish, temporary_of
from .metadata import Table
from .ray_runner import run_on_ray
from .repeats import KEY, bits_for, in_buckets, pairs_of, repeated
from .running import Running, in_order
from .shards import Shard

ROWS, PICTURES, JOINED = "metadata.spread", "pictures.spread", "metadata.joined"
NOT_LASTING = "unfinished"  # the token of files that no other command takes
_ROUND_ROWS, _ROUND_BYTES = 1 << 18, 64 << 20  # that are held until they are written
_WRITTEN_ROWS = 1 << 17  # of a batch of joined rows, and as many bytes as of a round


class JoinTask(NamedTuple):
    """A task of a join. kind: ROWS, PICTURES or JOINED. shards: (name, first record) of each, of PICTURES."""

    kind: str
    number: int
    shards: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Join:
    """What all tasks of a join know.

    root: the directory of the pack, which holds their files. table, key: the file, and its column of ids. stamp: size
    and time of the table, as the plan knows it; None: any. columns: those that go into the pack. pieces: of the table,
    as `Table.pieces`. groups: of shards. bits: of a digest, by which shares are told apart. token: in all names of
    files. lasting: they survive a loss of power, and the token is equal for equal inputs alone, so that another command
    can take them.
    """

    root: str
    table: str
    key: str
    stamp: tuple[int, int] | None
    columns: tuple[str, ...]
    pieces: tuple[tuple[int, int, int], ...]
    groups: int
    bits: int
    token: str
    lasting: bool

    @classmethod
    def of(
        cls, root: Path, table: Table, stamp: tuple[int, int] | None, columns: Sequence[str], pictures: int,
        groups: int, digest: str, lasting: bool,
    ) -> Join:  # fmt: skip
        """Cut the table into pieces. pictures: how many there are. digest: of all that the tables are made of.

        Raises PackError where the table has no row.
        """
        bits, pieces = bits_for(table.about_rows() + pictures), tuple(table.pieces())
        cut = hashlib.sha256(f"{digest} {bits} {pieces} {groups}".encode()).hexdigest()[:12]
        return cls(
            os.path.abspath(root), os.path.abspath(table.path), table.key, stamp, tuple(columns), pieces, groups, bits,
            cut if lasting else NOT_LASTING, lasting,
        )  # fmt: skip

    @property
    def shares(self) -> int:
        return 1 << self.bits

    def path(self, kind: str, number: int) -> Path:
        name, suffix = kind.split(".")
        return Path(self.root) / f"{name}-{number:05d}.{self.token}.{suffix}"

    def is_done(self, task: JoinTask) -> bool:
        return self.path(task.kind, task.number).exists()

    def run(self, groups: Sequence[Sequence[tuple[str, int]]], how: Running) -> None:
        """Run all tasks that are not done. groups: of shards, (name, first record) of each.

        A share of a batch system begins with tasks of its own and does those of others that nobody is about.
        """
        spread = [JoinTask(ROWS, piece) for piece in range(len(self.pieces))]
        spread += [JoinTask(PICTURES, number, tuple(group)) for number, group in enumerate(groups)]
        joined = [JoinTask(JOINED, share) for share in range(self.shares)]
        if all(map(self.is_done, joined)):
            return
        for tasks in (spread, joined):
            if how.share is not None:
                begin = len(tasks) * how.share[0] // how.share[1]
                in_turn = tasks[begin:] + tasks[:begin]
                for waiting in (False, True):
                    in_order((partial(self._run_claimed, task, waiting) for task in in_turn), how.threads)
                continue
            left = [task for task in tasks if not self.is_done(task)]
            if how.runner == "local":
                in_order((partial(self.run_one, task) for task in left), how.threads)
            else:
                run_on_ray(_run_there, [(self, task) for task in left], address=how.ray_address)

    def _run_claimed(self, task: JoinTask, waiting: bool) -> None:
        """Run a task unless it is done. waiting: for somebody else who is about it; else it is left to him."""
        if self.is_done(task):
            return
        path = self.path(task.kind, task.number)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waiting else fcntl.LOCK_NB))
                if not self.is_done(task):
                    self.run_one(task)
        finally:
            os.close(descriptor)

    def run_one(self, task: JoinTask) -> None:
        """Run a task; its file is there whole or not at all."""
        path = self.path(task.kind, task.number)
        temporary = temporary_of(path)
        write = {ROWS: self._spread_rows, PICTURES: self._spread_pictures, JOINED: self._join}[task.kind]
        try:
            write(task, temporary)
            if self.lasting:
                publish((temporary, path))
            else:
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def forget(self, left_over: bool = False) -> None:
        """Delete the files that the joined ones were made of. left_over: all that an earlier run has left."""
        suffix = "*" if left_over else "spread"
        for path in Path(self.root).glob(f"*.{self.token}.{suffix}"):
            path.unlink(missing_ok=True)

    def _spread_rows(self, task: JoinTask, path: Path) -> None:
        table = Table(Path(self.table), self.key)
        self._check_stamp()
        row, begin, end = self.pieces[task.number]
        fields = [pa.field(str(place), type) for place, type in enumerate(table.types(self.columns))]
        schema = pa.schema([*fields, ("digest", pa.binary(16)), ("row", pa.int64())])
        with table.words(), pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            held: list[pa.RecordBatch] = []

            def write() -> None:
                if held:
                    whole = pa.Table.from_batches(held).combine_chunks().to_batches()
                    for batch in whole:
                        self._write_round(writer, batch)
                    held.clear()

            for batch in table.batches(self.columns, row, (begin, end)):
                numbers = arrow.numbers(np.arange(row, row + len(batch), dtype=np.int64))
                columns = [batch.column(name) for name in self.columns]
                held.append(pa.RecordBatch.from_arrays([*columns, table.digests(batch), numbers], schema=schema))
                row += len(batch)
                if sum(map(len, held)) >= _ROUND_ROWS or sum(part.nbytes for part in held) >= _ROUND_BYTES:
                    write()
            write()
        self._check_stamp()

    def _check_stamp(self) -> None:
        with Table(Path(self.table), self.key).words():
            status = os.stat(self.table)
        if self.stamp not in (None, (status.st_size, status.st_mtime_ns)):
            raise PackError(
                f"{self.table} is not as it was when the plan was made: plan again with the same command; tasks that "
                "are done need not run again"
            )

    def _spread_pictures(self, task: JoinTask, path: Path) -> None:
        digests, numbers = [], []
        for name, first in task.shards:
            keys = Shard.load(Path(self.root), name).rows.column("key")
            digests += keys.chunks
            numbers.append(np.arange(first, first + len(keys), dtype=np.int64))
        columns = [pa.concat_arrays(digests), arrow.numbers(np.concatenate(numbers))]
        batch = pa.RecordBatch.from_arrays(columns, ["digest", "row"])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            self._write_round(writer, batch)

    def _write_round(self, writer: pa.ipc.RecordBatchFileWriter, batch: pa.RecordBatch) -> None:
        """Write rows in the order of their shares, a batch for each share."""
        order, ends = in_buckets(pairs_of(batch.column("digest"))[:, 0], self.bits)
        ordered = batch.take(arrow.numbers(order)) if self.bits else batch
        for start, end in zip([0, *ends[:-1]], ends):
            writer.write_batch(ordered.slice(start, end - start))

    def _of_share(self, kind: str, count: int, share: int) -> Iterator[pa.RecordBatch]:
        """Yield what the files of a kind have of a share, in their order; a mapping stays as long as its batches."""
        for number in range(count):
            with _opened(self.path(kind, number)) as file:
                for place in range(share, file.num_record_batches, self.shares):
                    if len(batch := file.get_batch(place)):
                        yield batch

    def _join(self, task: JoinTask, path: Path) -> None:
        rows = [*self._of_share(ROWS, len(self.pieces), task.number)]
        pictures = [*self._of_share(PICTURES, self.groups, task.number)]
        numbers, of_pictures = _numbers(rows), _numbers(pictures)
        later, firsts = repeated(_keys([*rows, *pictures]))
        twice = later[later < len(numbers)]
        belongs = (later >= len(numbers)) & (firsts < len(numbers))
        order = np.argsort(later[belongs])
        chosen, picture = firsts[belongs][order], of_pictures[later[belongs][order] - len(numbers)]
        told = {
            "rows": str(len(numbers)),
            "used": str(len(picture)),
            "twice": str(numbers[twice.min()] if len(twice) else -1),
        }
        types = Table(Path(self.table), self.key).types(self.columns)
        schema = pa.schema([pa.field("picture", pa.int64()), *map(pa.field, self.columns, types)], told)
        size = sum(batch.nbytes for batch in rows)
        step = max(1, min(_WRITTEN_ROWS, _ROUND_BYTES * len(numbers) // max(1, size)))
        begins = np.cumsum([0, *map(len, rows)])
        places = [str(place) for place in range(len(self.columns))]
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for start in range(0, len(picture), step):
                part = slice(start, start + step)
                columns = _taken(rows, begins, chosen[part], places)
                written = [arrow.numbers(np.ascontiguousarray(picture[part])), *columns]
                writer.write_batch(pa.RecordBatch.from_arrays(written, schema=schema))


class Joined:
    """What the tasks of a join have found; may be read by several threads.

    rows, used: of the table, and those of them that belong to pictures.
    """

    def __init__(self, join: Join):
        self.rows = self.used = 0
        self._columns = list(join.columns)
        self._shares: list[tuple[np.ndarray, list[pa.RecordBatch]]] = []  # the first picture of each batch
        twice = []
        for share in range(join.shares):
            with _opened(join.path(JOINED, share)) as file:
                batches = [file.get_batch(place) for place in range(file.num_record_batches)]
                self._empty = pa.Table.from_batches([], file.schema).select(self._columns)
                told = {name.decode(): int(value) for name, value in file.schema.metadata.items()}
            self.rows += told["rows"]
            self.used += told["used"]
            twice += [told["twice"]] if told["twice"] >= 0 else []
            self._shares.append((np.array([batch.column(0)[0].as_py() for batch in batches], np.int64), batches))
        if not self.rows:
            raise PackError(f"{join.table} has no row")
        if twice:
            key = Table(Path(join.table), join.key).key_at(min(twice))
            raise PackError(
                f"{join.table}: the column {join.key!r} has {key!r} more than once: which row is meant? Keep one"
            )

    def _parts(self, first: int, end: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Yield (pictures counted from the first on, their rows) of the pictures from `first` up to `end`."""
        for firsts, batches in self._shares:
            begin = max(0, int(np.searchsorted(firsts, first, side="right")) - 1)
            for batch in batches[begin : int(np.searchsorted(firsts, end))]:
                numbers = arrow.to_numpy(batch.column(0))
                start, stop = np.searchsorted(numbers, (first, end)).tolist()
                if start < stop:
                    yield numbers[start:stop] - first, batch.slice(start, stop - start)

    def found(self, first: int, end: int) -> np.ndarray:
        """Return which of these pictures have a row: (end - first,) bool."""
        found = np.zeros(end - first, bool)
        for numbers, _ in self._parts(first, end):
            found[numbers] = True
        return found

    def take(self, first: int, end: int) -> pa.Table:
        """Return the columns of these pictures' rows, nulls where a picture has none."""
        parts, place, count = [self._empty], np.full(end - first, -1, np.int64), 0
        for numbers, rows in self._parts(first, end) if self._columns else ():
            place[numbers] = np.arange(count, count + len(rows))
            parts.append(pa.Table.from_batches([rows]).select(self._columns))
            count += len(rows)
        if not self._columns:
            return self._empty
        return pa.concat_tables(parts).combine_chunks().take(arrow.numbers(np.maximum(place, 0), place >= 0))


def _run_there(join: Join, task: JoinTask) -> None:
    if not join.is_done(task):
        join.run_one(task)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an Arrow file by a memory map. Raises PackError where it is missing or damaged."""
    try:
        mapped = pa.memory_map(str(path))
        file = pa.ipc.open_file(mapped)
    except (pa.ArrowException, OSError) as error:
        raise PackError(f"{path} cannot be read ({error}): run the same command again") from None
    with mapped:
        yield file


def _numbers(batches: list[pa.RecordBatch]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(arrow.to_numpy(batch.column("row")) for batch in batches)])


def _keys(batches: list[pa.RecordBatch]) -> np.ndarray:
    """Return the keys of the rows of these batches, numbered in their order; of a row without an id there is none."""
    keys = np.empty(sum(map(len, batches)), KEY)
    valid = np.ones(len(keys), bool)
    row = 0
    for batch in batches:
        digests, part = batch.column("digest"), slice(row, row + len(batch))
        pairs = pairs_of(digests)
        keys["high"][part], keys["low"][part] = pairs[:, 0], pairs[:, 1]
        if digests.null_count:
            valid[part] = digests.is_valid().to_numpy(zero_copy_only=False)
        row += len(batch)
    keys["row"] = np.arange(len(keys))
    return keys if valid.all() else keys[valid]


def _taken(batches: list[pa.RecordBatch], begins: np.ndarray, rows: np.ndarray, columns: list[str]) -> list[pa.Array]:
    """Return columns of rows, which are numbered over all batches. begins: of each batch, and the end."""
    order = np.argsort(rows, kind="stable")
    in_order = rows[order]
    found, starts = np.unique(np.searchsorted(begins, in_order, side="right") - 1, return_index=True)
    parts = [
        batches[batch].select(columns).take(arrow.numbers(in_order[start:end] - begins[batch]))
        for batch, start, end in zip(found.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)])
    ]
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    places = arrow.numbers(back)
    return [pa.concat_arrays([part.column(place) for part in parts]).take(places) for place in range(len(columns))]
