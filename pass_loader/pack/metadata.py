"""The source's metadata, joined by id: PASS's pass_metadata.csv, or any CSV or Parquet file with a key column."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from csv import Error as CsvError
from csv import reader as csv_reader
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from ..errors import PackError
from . import arrow
from .layout import NO_SPACE, TABLE_SCHEMA
from .repeats import digest_of
from .source import PICTURE_SUFFIXES, html_hint

HINTED, _HINTING = 1000, 10**7  # ids without a row, and keys, that hints look at
_PIECE_ROWS = 1 << 20  # of a table, that are read apart; a group of rows is not cut
_BLOCK_BYTES = 4 << 20  # of a CSV: a row has less
_LEAST_ROW_BYTES = 16  # of a CSV
GPS = ("latitude", "longitude")  # as PASS's CSV names them; of a CSV's columns these become numbers
GPS_NAMES = {*GPS, "gps_latitude", "gps_longitude"}  # the second pair: Hugging Face's


def without_gps(value: Any) -> Any:
    """Return a JSON value without the keys of GPS_NAMES, at any depth."""
    if isinstance(value, dict):
        return {name: without_gps(inner) for name, inner in value.items() if str(name).lower() not in GPS_NAMES}
    return [without_gps(inner) for inner in value] if isinstance(value, list) else value


class Table:
    """A file of metadata: CSV or Parquet, with a column of ids, `key`."""

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key

    def about_rows(self) -> int:
        """Return the number of rows; of a CSV about the most that its bytes can hold."""
        with self.words():
            if _is_parquet(self.path):
                return pq.read_metadata(self.path).num_rows
            return self.path.stat().st_size // _LEAST_ROW_BYTES

    def pieces(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield pieces that are read apart: (first row, first group of rows, the one after its last, first byte, the
        one after its last).

        What follows the last byte of all tells where everything is.
        A CSV is one piece: where its rows begin is known only to who has read those before. Raises PackError where a
        Parquet file has no row.
        """
        with self.words():
            if not _is_parquet(self.path):
                yield 0, 0, 1, 0, self.path.stat().st_size
                return
            about = pq.read_metadata(self.path)
            groups = [about.row_group(group) for group in range(about.num_row_groups)]
            places = [_bytes_of(group) for group in groups]
        if not any(group.num_rows for group in groups):
            raise PackError(f"{self.path} has no row")
        row = begin = count = 0
        for group, size in enumerate(one.num_rows for one in groups):
            if count + size > _PIECE_ROWS and count:
                yield row, begin, group, *_around(places[begin:group])
                row, begin, count = row + count, group, 0
            count += size
        yield row, begin, len(groups), *_around(places[begin:])

    def types(self, columns: Sequence[str]) -> list[pa.DataType]:
        """Return the types of columns as `batches` gives them."""
        with self.words():
            if not _is_parquet(self.path):
                return [_csv_type(name) for name in columns]
            schema = pq.read_schema(self.path)
            return [arrow.plain_type(schema.field(name).type) for name in columns]

    def batches(
        self, columns: Sequence[str], row: int = 0, groups: tuple[int, int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the column of ids and these. groups: of rows, of a piece that begins with row `row`; None: all."""
        return _batches(self.path, [self.key, *columns], row, groups)

    def digests(self, batch: pa.RecordBatch) -> pa.Array:
        """Return digests of the ids of rows, as pictures have them, null where there is no id."""
        keys = _as_text(batch.column(self.key), self.key).to_pylist()
        return arrow.column([None if key is None else digest_of(key.encode()) for key in keys], pa.binary(16))

    def keys(self) -> Iterator[str]:
        """Yield the ids, in order. One may be missing: such a row belongs to no picture."""
        with self.words():
            for batch in self.batches([]):
                keys = _as_text(batch.column(self.key), self.key).to_pylist()
                yield from (key for key in keys if key is not None)

    def key_at(self, row: int) -> str | None:
        """Return the id of a row."""
        with self.words():
            for batch in self.batches([]):
                if row < len(batch):
                    return _as_text(batch.column(self.key), self.key)[row].as_py()
                row -= len(batch)
        return None

    @contextlib.contextmanager
    def words(self) -> Iterator[None]:
        """Raise PackError, in words, for what cannot be read; a full disk is not the table's fault."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, PackError) or (isinstance(error, OSError) and error.errno in NO_SPACE):
                raise
            raise _unreadable(self.path, error) from None


class Metadata:
    """A table of metadata whose rows belong to pictures, by id, and what a report tells of it.

    A CSV's values stay the text they are; its latitude and longitude become float64, empty ones null. A Parquet file's
    columns keep their types. gps: False leaves the columns of coordinates out. Raises PackError for a file without the
    key column or with names that a pack uses.
    """

    def __init__(self, path: str | Path, key: str, gps: bool = True):
        self.path, self.key = Path(path), key
        self.columns = columns_of(self.path, key, gps)
        self.file = Table(self.path, key)

    def hints(self, missed: Sequence[str], used: int) -> list[str]:
        """Return what to look at where ids have no row: keys that nearly fit, and why.

        missed: the first ids without a row, up to HINTED of them. used: how many rows belong to pictures.
        """
        if not missed:
            return []
        table = self.path.name
        wanted: dict[str, str] = {}
        for id in missed:
            wanted.setdefault(plain_key(id), id)
        near: dict[str, str] = {}  # id to the table's key
        example = ""
        for key in itertools.islice(self.file.keys(), _HINTING):
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
        if used:
            return []
        return [
            f"no row of {table} belongs to a picture: its column {self.key!r} has values such as {example!r}, ids are "
            f"such as {missed[0]!r}. Another column may hold the ids (--key), or other ids may fit (--id "
            "path, --id stem)"
        ]


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


def _bytes_of(group: Any) -> tuple[int, int]:
    """Return the first byte of a group of rows, and the one after its last, as parquet/file_reader.cc finds them."""
    columns = [group.column(place) for place in range(group.num_columns)]
    begins = [
        min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset) for column in columns
    ]
    return _around([(begin, begin + column.total_compressed_size) for begin, column in zip(begins, columns)])


def _around(places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return min(begin for begin, _ in places), max(end for _, end in places)


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


def _csv_type(name: str) -> pa.DataType:
    return pa.float64() if name in GPS else pa.string()


def _batches(
    path: Path, columns: list[str], row: int = 0, groups: tuple[int, int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield columns. row: the first one, for messages. groups: of rows of a Parquet file; None: all."""
    if _is_parquet(path):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            chosen = None if groups is None else [*range(*groups)]
            for batch in map(arrow.plain_batch, file.iter_batches(columns=columns, row_groups=chosen)):
                arrow.check_values(batch, row)
                yield batch
                row += len(batch)
        return
    types = {name: _csv_type(name) for name in columns}
    convert = csv.ConvertOptions(
        column_types=types, include_columns=columns, strings_can_be_null=False, null_values=[""]
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    yield from csv.open_csv(path, csv.ReadOptions(block_size=_BLOCK_BYTES), parse, convert)
