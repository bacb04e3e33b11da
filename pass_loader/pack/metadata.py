"""The source's metadata, joined by id: PASS's pass_metadata.csv, or any CSV or Parquet file with a key column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from ..errors import PackError
from .layout import TABLE_SCHEMA

GPS = ("latitude", "longitude")  # as PASS's CSV names them; of a CSV's columns these become numbers
GPS_NAMES = {*GPS, "gps_latitude", "gps_longitude"}  # the second pair: Hugging Face's


class Metadata:
    """Rows by id. A CSV's values stay the text they are; its latitude and longitude become float64, empty ones null.

    A Parquet file's columns keep their types. gps: False leaves the columns of coordinates out.
    Raises PackError for a file without the key column, with a key twice, or with names that a pack uses.
    """

    def __init__(self, path: str | Path, key: str = "hash", gps: bool = True):
        self.path = Path(path)
        names = column_names(self.path, key)
        clash = [name for name in names if name != key and name in TABLE_SCHEMA.names]
        if clash:
            raise PackError(f"{path}: the columns {clash} have names that a pack uses itself; rename them")
        kept = [name for name in names if name == key or gps or name.lower() not in GPS_NAMES]
        table = _read(self.path, kept)
        self._keys = table.column(key).cast(pa.string()).combine_chunks()
        self._values = table.drop_columns([key]).combine_chunks()
        self._used = np.zeros(table.num_rows, dtype=bool)
        self._check_keys(key)

    def _check_keys(self, key: str) -> None:
        counts = pc.value_counts(self._keys)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        if len(twice):
            raise PackError(
                f"{self.path}: the column {key!r} has {len(twice):,} ids more than once, {twice[0].as_py()!r} first: "
                "which row is meant? Keep one of each"
            )

    @property
    def columns(self) -> list[str]:
        return self._values.column_names

    def rows_of(self, ids: pa.Array) -> tuple[pa.Table, int]:
        """The rows of these ids, nulls where there is none, and how many have none."""
        rows = pc.index_in(ids, value_set=self._keys)
        found = rows.drop_null().to_numpy(zero_copy_only=False)
        self._used[found] = True
        return self._values.take(rows), rows.null_count

    def unused(self) -> int:
        """Rows that no packed picture has asked for."""
        return int((~self._used).sum())


def read_keys(path: str | Path, key: str) -> pa.Array:
    """The column of ids, as strings. Raises PackError where the file cannot be read or has no such column."""
    path = Path(path)
    column_names(path, key)
    return _read(path, [key]).column(key).cast(pa.string()).combine_chunks()


def column_names(path: Path, key: str) -> list[str]:
    try:
        names = pq.read_schema(path).names if _is_parquet(path) else csv.open_csv(path).schema.names
    except (pa.ArrowException, OSError) as error:
        raise PackError(f"{path}: {error}") from None
    if len(set(names)) != len(names):
        raise PackError(f"{path} has a column twice: {names}")
    if key not in names:
        raise PackError(f"{path} has no column {key!r}; it has {names} (--key names the column of ids)")
    return names


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        if _is_parquet(path):
            return pq.read_table(path, columns=columns)
        types = {name: pa.float64() if name in GPS else pa.string() for name in columns}
        options = csv.ConvertOptions(
            column_types=types, include_columns=columns, strings_can_be_null=False, null_values=[""]
        )
        return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise PackError(f"{path}: {error}") from None
