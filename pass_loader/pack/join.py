"""The tasks that join a table of metadata with the pictures of a pack; no memory holds all of either.

Rows and pictures have digests of their ids. First each task takes a piece of the table, or the pictures of some shards,
and writes them out in the order of the first bits of the digests ("spread"). Then each task takes what begins with the
same bits, a share of the digests, and writes the rows that belong to pictures, in the order of the pictures ("joined").
Who writes a shard's table reads a run out of each of these files. What comes out does not depend on how it was cut.

A task reads what others have left, and leaves its own file, in the destination that it is given: a directory that all
share, or its machine's way into a store, by which it fetches the parts of files that it needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import PackError
from . import arrow
from .batches import BatchFile, writing_batches
from .destination import Destination, destination
from .layout import changing, publish, temporary_of
from .metadata import HINTED, Table
from .ray_runner import run_on_ray
from .repeats import KEY, bits_for, in_buckets, pairs_of, repeated
from .running import Running, in_order
from .shards import Shard

ROWS, PICTURES, JOINED = "metadata.spread", "pictures.spread", "metadata.joined"
_TABLE = "metadata.table"  # the table itself, in a store
NOT_LASTING = "unfinished"  # the token of files that no other command takes
_FORMAT = 2  # of the files
_TOLD = b"told"  # in a joined file's schema: what `Joined` knows of it, as JSON
_HEAD_BYTES = 4  # of a table, which tell its kind
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

    table, key: the file, and its column of ids. stamp: size and time of the table, as the plan knows it; None: any.
    columns: those that go into the pack. pieces: of the table, as `Table.pieces`. begins: the first picture of each
    group of shards. bits: of a digest, by which shares are told apart. token: in all names of files. lasting: they
    survive a loss of power, and the token is equal for equal inputs alone, so that another command can take them.
    """

    table: str
    key: str
    stamp: tuple[int, int] | None
    columns: tuple[str, ...]
    pieces: tuple[tuple[int, int, int, int, int], ...]
    begins: tuple[int, ...]
    bits: int
    token: str
    lasting: bool

    @classmethod
    def of(
        cls, table: Table, stamp: tuple[int, int] | None, columns: Sequence[str], pictures: int, begins: Sequence[int],
        digest: str, lasting: bool,
    ) -> Join:  # fmt: skip
        """Cut the table into pieces. pictures: how many there are. digest: of all that the tables are made of.

        Raises PackError where the table has no row.
        """
        bits, pieces = bits_for(table.about_rows() + pictures), tuple(table.pieces())
        cut = hashlib.sha256(f"{_FORMAT} {digest} {bits} {pieces} {[*begins]}".encode()).hexdigest()[:12]
        return cls(
            os.path.abspath(table.path), table.key, stamp, tuple(columns), pieces, tuple(begins), bits,
            cut if lasting else NOT_LASTING, lasting,
        )  # fmt: skip

    @property
    def shares(self) -> int:
        return 1 << self.bits

    def name(self, kind: str, number: int) -> str:
        name, suffix = kind.split(".")
        return f"{name}-{number:05d}.{self.token}.{suffix}"

    def is_done(self, out: Destination, task: JoinTask) -> bool:
        return out.size_of(self.name(task.kind, task.number)) is not None

    def run(self, out: Destination, groups: Sequence[Sequence[tuple[str, int]]], how: Running) -> None:
        """Run all tasks that are not done. groups: of shards, (name, first record) of each.

        A share of a batch system begins with tasks of its own and does those of others that nobody is about.
        """
        spread = [JoinTask(ROWS, piece) for piece in range(len(self.pieces))]
        spread += [JoinTask(PICTURES, number, tuple(group)) for number, group in enumerate(groups)]
        joined = [JoinTask(JOINED, share) for share in range(self.shares)]
        if all(self.is_done(out, task) for task in joined):
            return
        for tasks in (spread, joined):
            if how.share is not None:
                begin = len(tasks) * how.share[0] // how.share[1]
                in_turn = tasks[begin:] + tasks[:begin]
                for waiting in (False, True):
                    in_order((partial(self._run_claimed, out, task, waiting) for task in in_turn), how.threads)
                continue
            left = [task for task in tasks if not self.is_done(out, task)]
            if how.runner == "local":
                in_order((partial(self.run_one, out, task) for task in left), how.threads)
                continue
            if tasks is spread and out.stored and any(task.kind == ROWS for task in left):
                self._check_stamp()
                out.send_other(Path(self.table), self.name(_TABLE, 0))
                self._check_stamp()
            run_on_ray(_run_there, [(out.at, self, task) for task in left], address=how.ray_address)
            out.look_again()

    def _run_claimed(self, out: Destination, task: JoinTask, waiting: bool) -> None:
        """Run a task unless it is done. waiting: for somebody else who is about it; else it is left to him."""
        if self.is_done(out, task):
            return
        path = out.folder / self.name(task.kind, task.number)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waiting else fcntl.LOCK_NB))
                if not self.is_done(out, task):
                    self.run_one(out, task)
        finally:
            os.close(descriptor)

    def run_one(self, out: Destination, task: JoinTask) -> None:
        """Run a task; its file is there whole or not at all."""
        path = out.folder / self.name(task.kind, task.number)
        temporary = temporary_of(path)
        write = {ROWS: self._spread_rows, PICTURES: self._spread_pictures, JOINED: self._join}[task.kind]
        try:
            write(out, task, temporary)
            if self.lasting:
                publish((temporary, path))
            else:
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        out.send(path.name)

    def forget(self, out: Destination, left_over: bool = False) -> None:
        """Delete the files that the joined ones were made of. left_over: all that an earlier run has left."""
        suffix = "*" if left_over else "spread"
        for path in out.folder.glob(f"*.{self.token}.{suffix}"):
            path.unlink(missing_ok=True)

    def _spread_rows(self, out: Destination, task: JoinTask, path: Path) -> None:
        row, begin, end, *part = self.pieces[task.number]
        local = self._bring_table(out, *part)
        table = Table(local, self.key)
        try:
            fields = [pa.field(str(place), type) for place, type in enumerate(table.types(self.columns))]
            schema = pa.schema([*fields, ("digest", pa.binary(16)), ("row", pa.int64())])
            with table.words(), writing_batches(path, schema) as write:
                held: list[pa.RecordBatch] = []

                def write_held() -> None:
                    if held:
                        whole = pa.Table.from_batches(held).combine_chunks().to_batches()
                        for batch in whole:
                            self._write_round(write, batch)
                        held.clear()

                for batch in table.batches(self.columns, row, (begin, end)):
                    numbers = arrow.numbers(np.arange(row, row + len(batch), dtype=np.int64))
                    columns = [batch.column(name) for name in self.columns]
                    held.append(pa.RecordBatch.from_arrays([*columns, table.digests(batch), numbers], schema=schema))
                    row += len(batch)
                    if sum(map(len, held)) >= _ROUND_ROWS or sum(part.nbytes for part in held) >= _ROUND_BYTES:
                        write_held()
                write_held()
        except PackError as error:  # of what was fetched: it is known by another path
            raise PackError(str(error).replace(str(local), self.table)) from None
        if not out.stored:
            self._check_stamp()

    def _bring_table(self, out: Destination, begin: int, end: int) -> Path:
        """Return where the bytes from `begin` to `end` of the table can be read, and what tells what they are."""
        if not out.stored:
            self._check_stamp()
            return Path(self.table)
        name = self.name(_TABLE, 0)
        size = out.size_of(name)
        if size is None:
            raise PackError(f"{out.place}{name} is missing: run the same command again")
        last = max(piece[-1] for piece in self.pieces)
        return out.bring_parts(name, size, [(0, min(_HEAD_BYTES, size)), (begin, end), (last, size)])

    def _check_stamp(self) -> None:
        with Table(Path(self.table), self.key).words():
            status = os.stat(self.table)
        if self.stamp not in (None, (status.st_size, status.st_mtime_ns)):
            raise PackError(
                f"{self.table} is not as it was when the plan was made: plan again with the same command; tasks that "
                "are done need not run again"
            )

    def _spread_pictures(self, out: Destination, task: JoinTask, path: Path) -> None:
        digests, numbers = [], []
        out.bring_all(f"{name}.rows" for name, _ in task.shards)
        for name, first in task.shards:
            keys = Shard.load(out.folder, name).rows.column("key")
            digests += keys.chunks
            numbers.append(np.arange(first, first + len(keys), dtype=np.int64))
        columns = [pa.concat_arrays(digests), arrow.numbers(np.concatenate(numbers))]
        batch = pa.RecordBatch.from_arrays(columns, ["digest", "row"])
        with writing_batches(path, batch.schema) as write:
            self._write_round(write, batch)

    def _write_round(self, write: Callable[[pa.RecordBatch], None], batch: pa.RecordBatch) -> None:
        """Write rows in the order of their shares, a batch for each share."""
        order, ends = in_buckets(pairs_of(batch.column("digest"))[:, 0], self.bits)
        ordered = batch.take(arrow.numbers(order)) if self.bits else batch
        for start, end in zip([0, *ends[:-1]], ends):
            write(ordered.slice(start, end - start))

    def _of_share(self, out: Destination, kind: str, count: int, share: int) -> tuple[pa.Schema, list[pa.RecordBatch]]:
        """Return what the files of a kind have of a share, in their order, and its schema."""
        found: list[tuple[pa.Schema, list[pa.RecordBatch]]] = []

        def of_file(number: int) -> tuple[pa.Schema, list[pa.RecordBatch]]:
            file = BatchFile(out, self.name(kind, number))
            places = range(share, file.count, self.shares)
            file.bring(places)
            return file.schema, [batch for place in places if (batch := file.batch(place)) is not None]

        in_order((partial(of_file, number) for number in range(count)), out.at_once, found.append)
        return found[0][0], [batch for _, batches in found for batch in batches]

    def _join(self, out: Destination, task: JoinTask, path: Path) -> None:
        spread, rows = self._of_share(out, ROWS, len(self.pieces), task.number)
        _, pictures = self._of_share(out, PICTURES, len(self.begins), task.number)
        numbers, of_pictures = _numbers(rows), _numbers(pictures)
        later, firsts = repeated(_keys([*rows, *pictures]))
        twice = later[later < len(numbers)]
        belongs = (later >= len(numbers)) & (firsts < len(numbers))
        order = np.argsort(later[belongs])
        chosen, of_chosen = firsts[belongs][order], later[belongs][order] - len(numbers)
        picture = of_pictures[of_chosen]
        size = sum(batch.nbytes for batch in rows)
        step = max(1, min(_WRITTEN_ROWS, _ROUND_BYTES * len(numbers) // max(1, size)))
        groups = np.searchsorted(picture, self.begins)  # so that who writes the tables of a group reads no more
        starts = np.union1d(groups, np.arange(0, len(picture), step))
        starts = starts[starts < len(picture)]
        told = {
            "rows": len(numbers),
            "used": len(picture),
            "twice": int(numbers[twice.min()]) if len(twice) else -1,
            "firsts": picture[starts].tolist(),
            "missed": np.delete(of_pictures, of_chosen)[:HINTED].tolist(),
        }
        fields = [field.with_name(name) for name, field in zip(self.columns, spread)]
        schema = pa.schema([pa.field("picture", pa.int64()), *fields], {_TOLD: json.dumps(told)})
        begins = np.cumsum([0, *map(len, rows)])
        places = [str(place) for place in range(len(self.columns))]
        with writing_batches(path, schema) as write:
            for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(picture)]):
                columns = _taken(rows, begins, chosen[start:end], places)
                written = [arrow.numbers(np.ascontiguousarray(picture[start:end])), *columns]
                write(pa.RecordBatch.from_arrays(written, schema=schema))


class Joined:
    """What the tasks of a join have found.

    rows, used: of the table, and those of them that belong to pictures. missed: the first pictures without a row, up to
    HINTED of them.
    """

    def __init__(self, out: Destination, join: Join):
        self.rows = self.used = 0
        self._columns, self._files = list(join.columns), list[BatchFile]()
        in_order((partial(BatchFile, out, join.name(JOINED, share)) for share in range(join.shares)), out.at_once,
                 self._files.append)  # fmt: skip
        self._firsts: list[np.ndarray] = []  # of each file, the first picture of each batch
        twice, missed = [], []
        for file in self._files:
            told = json.loads(file.schema.metadata[_TOLD])
            self.rows += told["rows"]
            self.used += told["used"]
            twice += [told["twice"]] if told["twice"] >= 0 else []
            missed += told["missed"]
            self._firsts.append(np.array(told["firsts"], np.int64))
        self.missed = sorted(missed)[:HINTED]
        self._empty = pa.Table.from_batches([], self._files[0].schema).select(self._columns)
        self._batch = lru_cache(4 * join.shares)(self._read)  # a table's pictures have neighbours in the same batches
        self._at_once = out.at_once
        if not self.rows:
            raise PackError(f"{join.table} has no row")
        if twice:
            key = Table(Path(join.table), join.key).key_at(min(twice))
            raise PackError(
                f"{join.table}: the column {join.key!r} has {key!r} more than once: which row is meant? Keep one"
            )

    def bring(self, first: int, end: int) -> None:
        """Make the rows of the pictures from `first` up to `end` readable: `take` may be called by several threads."""
        calls = (partial(file.bring, self._places(share, first, end)) for share, file in enumerate(self._files))
        in_order(calls, self._at_once)

    def _places(self, share: int, first: int, end: int) -> range:
        """Return which batches of a share may have rows of these pictures."""
        firsts = self._firsts[share]
        begin = max(0, int(np.searchsorted(firsts, first, side="right")) - 1)
        return range(begin, int(np.searchsorted(firsts, end)))

    def _read(self, share: int, place: int) -> pa.RecordBatch | None:
        return self._files[share].batch(place)

    def _parts(self, first: int, end: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Yield (pictures counted from the first on, their rows) of the pictures from `first` up to `end`."""
        for share in range(len(self._files)):
            for place in self._places(share, first, end):
                batch = self._batch(share, place)
                assert batch is not None, "none is written without rows"
                numbers = arrow.to_numpy(batch.column(0))
                start, stop = np.searchsorted(numbers, (first, end)).tolist()
                if start < stop:
                    yield numbers[start:stop] - first, batch.slice(start, stop - start)

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


def _run_there(at: tuple[str, Mapping[str, Any] | None], join: Join, task: JoinTask) -> None:
    with destination(*at) as out, changing(out.folder):
        if not join.is_done(out, task):
            join.run_one(out, task)


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
