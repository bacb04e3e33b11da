"""The source's metadata, joined by id: PASS's pass_metadata.csv, or any CSV with a key column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from ..errors import PackError
from .layout import TABLE_SCHEMA

_NUMBERS = ("latitude", "longitude")


class Metadata:
    """A CSV's rows by id. Values stay the text they are; latitude and longitude become float64, empty ones null."""

    def __init__(self, path: str | Path, key: str = "hash"):
        self.path = Path(path)
        try:
            names = csv.open_csv(self.path).schema.names
            if len(set(names)) != len(names):
                raise PackError(f"{path} has a column twice: {names}")
            if key not in names:
                raise PackError(f"{path} has no column {key!r}; it has {names}")
            types = {name: pa.float64() if name in _NUMBERS else pa.string() for name in names}
            options = csv.ConvertOptions(column_types=types, strings_can_be_null=False, null_values=[""])
            parse = csv.ParseOptions(newlines_in_values=True)
            table = csv.read_csv(self.path, parse_options=parse, convert_options=options)
        except (pa.ArrowInvalid, OSError) as error:
            raise PackError(f"{path}: {error}") from None
        clash = [name for name in names if name != key and name in TABLE_SCHEMA.names]
        if clash:
            raise PackError(f"{path}: the columns {clash} have names that a pack uses itself; rename them")
        self._keys = table.column(key).combine_chunks()
        self._values = table.drop_columns([key]).combine_chunks()
        self._used = np.zeros(table.num_rows, dtype=bool)

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
