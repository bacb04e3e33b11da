"""The index while it grows: columns in nameless files, so that the kernel may take their memory back at any size."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from . import arrow
from .layout import INDEX_SCHEMA


class IndexColumns:
    """Columns that are appended to shard by shard, and then read whole."""

    def __init__(self, root: Path):
        self._files: dict[str, IO[bytes]] = {name: tempfile.TemporaryFile(dir=root) for name in INDEX_SCHEMA.names}

    def append(self, rows: pa.Table) -> None:
        """Append a shard's rows of INDEX_SCHEMA."""
        for name, file in self._files.items():
            file.write(arrow.to_numpy(rows.column(name)).data)

    def column(self, name: str) -> np.ndarray:
        """Return a column (records,), file-backed, after the last `append`."""
        self._files[name].flush()
        return np.memmap(self._files[name], arrow.dtype_of(INDEX_SCHEMA.field(name).type), "r")

    def table(self) -> pa.Table:
        return pa.table([arrow.numbers(self.column(name)) for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA)
