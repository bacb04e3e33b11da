"""The source's metadata, joined by id: PASS's pass_metadata.csv, or any CSV or Parquet file with a key column."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from csv import Error as CsvError
from csv import reader as csv_reader
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from ..errors import PackError
from . import arrow
from .layout import NO_SPACE, TABLE_SCHEMA
from .repeats import Firsts, digest_of
from .source import PICTURE_SUFFIXES, html_hint

_HINTED, _HINTING = 1000, 10**7  # ids without a row, and keys, that hints look at
_CHUNK = 1 << 20  # rows looked at together
_BLOCK_BYTES = 4 << 20  # of a CSV: a row has less
METADATA_SCRATCH, METADATA_ROWS = "metadata.scratch", "metadata.rows"  # a copy of the table; each picture's row of it
GPS = ("latitude", "longitude")  # as PASS's CSV names them; of a CSV's columns these become numbers
GPS_NAMES = {*GPS, "gps_latitude", "gps_longitude"}  # the second pair: Hugging Face's


def without_gps(value: Any) -> Any:
    """Return a JSON value without the keys of GPS_NAMES, at any depth."""
    if isinstance(value, dict):
        return {name: without_gps(inner) for name, inner in value.items() if str(name).lower() not in GPS_NAMES}
    return [without_gps(inner) for inner in value] if isinstance(value, list) else value


class Metadata:
    """A table of metadata, and which of its rows belong to pictures, by id.

    A CSV's values stay the text they are; its latitude and longitude become float64, empty ones null. A Parquet file's
    columns keep their types. gps: False leaves the columns of coordinates out. scratch: a directory for a copy of the
    table that is read by memory map; rows are found by sorting there, so that memory stays bounded. Raises PackError
    for a file without the key column or with names that a pack uses.
    """

    def __init__(self, path: str | Path, key: str, scratch: Path, gps: bool = True):
        self.path, self.key = Path(path), key
        self._root = scratch
        self.columns = columns_of(self.path, key, gps)
        self._digests, self._known = tempfile.TemporaryFile(dir=scratch), tempfile.TemporaryFile(dir=scratch)
        self._copy_table()
        self.copy = MetadataCopy(scratch, key)
        self._used = 0
        self._missed: list[str] = []  # the first ids without a row

    def _copy_table(self) -> None:
        writer = None
        try:
            with pa.OSFile(str(self._root / METADATA_SCRATCH), "wb") as file:
                for batch in _batches(self.path, [self.key, *self.columns]):
                    keys = _as_text(batch.column(self.key), self.key)
                    self._note(keys.to_pylist())
                    values = arrow.without(batch, [self.key])
                    copied = pa.RecordBatch.from_arrays([*values.columns, keys], [*values.schema.names, self.key])
                    writer = writer or pa.ipc.new_file(file, copied.schema)
                    writer.write_batch(copied)
                if writer is None:
                    raise PackError(f"{self.path} has no row")
                writer.close()
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, PackError):
                raise
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise  # of the scratch: the table is not to blame
            raise _unreadable(self.path, error) from None

    def _note(self, keys: list[str | None]) -> None:
        """Keep digests of the keys of the next rows, as pictures have them of their ids."""
        self._digests.write(b"".join(digest_of((key or "").encode()) for key in keys))
        self._known.write(bytes(key is not None for key in keys))

    def join(self, keys: Iterable[pa.ChunkedArray], pictures: int) -> None:
        """Find the row of each of so many pictures, whose digests of ids come in `keys`, and write it down for `copy`.

        Raises PackError where the table has a key twice.
        """
        self._digests.flush()
        self._known.flush()
        count = self.copy.rows
        digests = np.memmap(self._digests, np.dtype("<u8"), "r").reshape(-1, 2) if count else np.zeros((0, 2), "<u8")
        known = np.memmap(self._known, bool, "r") if count else np.zeros(0, bool)
        firsts = Firsts(self._root, count + pictures)
        chunks = [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        for chunk in chunks:
            firsts.add_pairs(digests[chunk], known[chunk])
        for column in keys:
            firsts.add(column)
        first = firsts.sort()
        for chunk in chunks:
            if (twice := np.flatnonzero(first[chunk])).size:
                (key,) = self.copy.take(chunk.start + twice[:1], [self.key]).column(0).to_pylist()
                raise PackError(
                    f"{self.path}: the column {self.key!r} has {key!r} more than once: which row is meant? Keep one"
                )
        with open(self._root / METADATA_ROWS, "wb") as file:
            for start in range(count, count + pictures, _CHUNK):
                found = first[start : start + _CHUNK]
                file.write((found - 1).astype("<i8").data)  # 0, where there is no row, becomes -1

    def count(self, ids: pa.ChunkedArray, rows: np.ndarray) -> int:
        """Take note of pictures and their rows of the table, -1 for none; return how many have none."""
        missing = np.flatnonzero(rows < 0)
        self._used += len(rows) - len(missing)
        self._missed += ids.take(arrow.numbers(missing[: _HINTED - len(self._missed)])).to_pylist()
        return len(missing)

    def hints(self) -> list[str]:
        """Return what to look at where ids have no row: keys that nearly fit, and why."""
        if not self._missed:
            return []
        table, missed = self.path.name, self._missed
        wanted: dict[str, str] = {}
        for id in missed:
            wanted.setdefault(plain_key(id), id)
        near: dict[str, str] = {}  # id to the table's key
        example = ""
        for key in itertools.islice(self.copy.keys(), _HINTING):
            example = example or key
            if (fitting := wanted.get(plain_key(key))) is not None:
                near.setdefault(fitting, key)
        if near:
            id, key = next(iter(near.items()))
            why = " and ".join(_differences(key, id))
            return [
                f"{len(near):,} of the first {len(missed):,} pictures without a row nearly have one in {table}: "
                f"its column {self.key!r} has {key!r} for the id {id!r}; they "
                f"differ {why}. Make the column's values the ids"
            ]
        if self._used:
            return []
        return [
            f"no row of {table} belongs to a picture: its column {self.key!r} has values such as {example!r}, ids are "
            f"such as {missed[0]!r}. Another column may hold the ids (--key), or other ids may fit (--id "
            "path, --id stem)"
        ]

    def unused(self) -> int:
        """Return the number of rows that no packed picture has asked for."""
        return self.copy.rows - self._used


class MetadataCopy:
    """A table's copy in the directory of the pack, read by memory map, from several threads and machines."""

    def __init__(self, root: Path, key: str):
        self._root, self._key = root, key
        self._batches = pa.ipc.open_file(pa.memory_map(str(root / METADATA_SCRATCH)))
        sizes = [self._batches.get_batch(batch).num_rows for batch in range(self._batches.num_record_batches)]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)  # row of each batch, and the end
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        return int(self._first[-1])

    def found(self, first: int, end: int) -> np.ndarray:
        """Return the rows that `join` found for the pictures from `first` up to `end`: int64, -1 for none."""
        return np.fromfile(self._root / METADATA_ROWS, np.dtype("<i8"), end - first, offset=8 * first)

    def take(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """Return columns of these rows, nulls where a row is -1."""
        found = np.flatnonzero(rows >= 0)
        order = found[np.argsort(rows[found])]
        batch_of = np.searchsorted(self._first, rows[order], side="right") - 1
        parts = [pa.Table.from_batches([], self._batches.schema).select(columns)]
        for batch in np.unique(batch_of).tolist():
            local = rows[order][batch_of == batch] - self._first[batch]
            with self._lock:
                values = pa.Table.from_batches([self._batches.get_batch(batch)])
            parts.append(values.select(columns).take(arrow.numbers(local)))
        place = np.zeros(len(rows), dtype=np.int64)
        place[order] = np.arange(len(order))
        return pa.concat_tables(parts).combine_chunks().take(arrow.numbers(place, rows >= 0))

    def keys(self) -> Iterator[str]:
        """Yield the keys. A table's key may be missing: such a row belongs to no picture."""
        for batch in range(self._batches.num_record_batches):
            yield from (key for key in self._batches.get_batch(batch).column(self._key).to_pylist() if key is not None)


def plain_key(text: str) -> str:
    """Return a key without what makes one nearly fit: blanks, folders, a picture's suffix, leading zeros, capitals."""
    base = _without_picture_suffix(text.strip().rpartition("/")[2])[0].lower()
    return base.lstrip("0") or "0" if base.isdigit() else base


def _differences(key: str, id: str) -> list[str]:
    """Return in which ways two strings of the same plain_key differ."""
    found = []
    if len(key) - len(key.strip()) != len(id) - len(id.strip()):
        found.append("in blanks around it")
    (key_folder, _, key), (id_folder, _, id) = key.strip().rpartition("/"), id.strip().rpartition("/")
    if key_folder != id_folder:
        found.append("in the folder")
    (key, key_suffix), (id, id_suffix) = _without_picture_suffix(key), _without_picture_suffix(id)
    if key_suffix != id_suffix:
        found.append("in the suffix")
    if key.lower() != id.lower():
        found.append("in leading zeros (a spreadsheet takes them away)")
    elif key != id:
        found.append("in capitals")
    return found


def _without_picture_suffix(name: str) -> tuple[str, str]:
    stem, _, suffix = name.rpartition(".")
    return (stem, suffix) if stem and suffix.lower() in PICTURE_SUFFIXES else (name, "")


class Seen:
    """The keys that have come, in a temporary database."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.executescript("pragma journal_mode=off; pragma synchronous=off; pragma cache_size=-16384")
        self._database.execute("create table seen (key blob primary key) without rowid")

    def is_new(self, key: str | bytes) -> bool:
        """Return True where the key has not come before; from now on it has."""
        return self._database.execute("insert or ignore into seen (key) values (?)", (key,)).rowcount == 1


def creator_name(text: str) -> str:
    """Return PASS's `unickname` for display: it is form-encoded, "J%C3%BCrgen+K.". Text that is no UTF-8 stays."""
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        return text


def date_taken(text: str | None) -> datetime | None:
    """Return PASS's `datetaken`, with or without a fraction of a second; None where it is empty. It has no time zone.

    Raises ValueError for anything else.
    """
    if not text:
        return None
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S")


def read_keys(path: str | Path, key: str) -> pa.Array:
    """Return the column of ids, as strings. Raises PackError where the file cannot be read or has no such column."""
    path = Path(path)
    column_names(path, key)
    column = _read(path, [key]).column(key)
    try:
        return _as_text(column, key).combine_chunks()
    except (pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from None


def _as_text(column: Any, key: str) -> Any:
    """Return a column of keys as text. Raises ValueError for keys that are no text and no numbers."""
    if pa.types.is_nested(column.type):
        raise ValueError(f"its column {key!r} holds {column.type}; ids are text or whole numbers")
    return column.cast(pa.string())


def columns_of(path: Path, key: str, gps: bool) -> list[str]:
    """Return the names of a table's columns that go into a pack.

    gps: False leaves those of coordinates out. Raises PackError for names that a pack uses.
    """
    names = [name for name in column_names(path, key) if name != key]
    clash = [name for name in names if name in TABLE_SCHEMA.names]
    if clash:
        raise PackError(f"{path}: the columns {clash} have names that a pack uses itself; rename them")
    return [name for name in names if gps or name.lower() not in GPS_NAMES]


def column_names(path: Path, key: str) -> list[str]:
    try:
        names = pq.read_schema(path).names if _is_parquet(path) else csv.open_csv(path).schema.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if len(set(names)) != len(names):
        raise PackError(f"{path} has a column twice: {names}")
    if key not in names:
        raise PackError(
            f"{path} has no column {key!r}; it has {names} (--key names the column of ids){_kind_hint(path)}"
        )
    return names


def _is_parquet(path: Path) -> bool:
    """Return True where a file begins as Parquet does. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pa.Table.from_batches(list(_batches(path, columns)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> PackError:
    if str(error) == "Empty CSV file":  # Arrow's words, csv/reader.cc
        return PackError(f"{path} is empty: download it again, or give a table with a line of column names")
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError:
        start = b""
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return PackError(f"{path} is UTF-16: save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)")
    if "straddl" in str(error) or "out of sync" in str(error):  # the same
        return PackError(
            f"{path} has a row of more than {_BLOCK_BYTES:,} bytes: often a quote that is never closed; "
            f"longer fields fit into a Parquet file{html_hint(path)}"
        )
    if ("conversion error" in str(error) or "parse error" in str(error)) and (wrong := _wrong_place(path)):
        return PackError(f"{path}, {wrong}")
    if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in str(error):
        return PackError(
            f"{path} is not UTF-8: {error}; save it as UTF-8 (`iconv -f LATIN1 -t UTF-8`, if it is Latin-1)"
        )
    return PackError(f"{path}: {error}{_kind_hint(path)}")


def _kind_hint(path: Path) -> str:
    """Return what a file that is neither CSV nor Parquet seems to be, and what to do; "" where that is not known."""
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")
            first = (start + file.readline(1 << 16)).split(b"\n")[0]
    except OSError:
        return ""
    if start.startswith((b"{", b"[")):
        return "; it is JSON: `pandas.read_json(..., lines=True).to_parquet(...)` makes a table of JSON lines"
    if start.startswith(b"PK\3\4"):
        return "; it is a zip or a spreadsheet: save its table as CSV"
    if b"\t" in first and b"," not in first:
        return "; its columns are parted by tabs: save it with commas"
    return html_hint(path)


def _wrong_place(path: Path) -> str | None:
    """Return line, column and value of the first thing in a CSV that Arrow does not take, in words; None if not found.

    A line of another number of columns, text that is not UTF-8, a coordinate that is no number.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv_reader(file)
        try:
            names = next(rows, [])
            for row in rows:
                where = f"line {rows.line_num}"
                if row and len(row) != len(names):
                    return f"{where} has {len(row)} columns, the first line {len(names)}"
                for name, value in zip(names, row):
                    try:
                        value.encode()
                        if name in GPS and value:
                            float(value)
                    except UnicodeEncodeError:
                        raw = value.encode("utf-8", "surrogateescape")
                        return (
                            f"{where}, column {name!r}: {raw!r} is not UTF-8; save it as UTF-8 (`iconv -f "
                            "LATIN1 -t UTF-8`, if it is Latin-1)"
                        )
                    except ValueError:
                        return f"{where}, column {name!r}: {value!r} is no number"
        except CsvError:  # a field above the module's limit
            return None
    return None


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if _is_parquet(path):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            row = 0
            for batch in map(arrow.plain_batch, file.iter_batches(columns=columns)):
                arrow.check_values(batch, row)
                yield batch
                row += len(batch)
        return
    types = {name: pa.float64() if name in GPS else pa.string() for name in columns}
    convert = csv.ConvertOptions(
        column_types=types, include_columns=columns, strings_can_be_null=False, null_values=[""]
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    yield from csv.open_csv(path, csv.ReadOptions(block_size=_BLOCK_BYTES), parse, convert)
