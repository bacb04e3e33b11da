"""The index while it grows: columns in nameless files, so that the kernel may take their memory back at any size."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from . import arrow
from .layout import INDEX_SCHEMA

_CHUNK = 1 << 20  # records looked at together


class IndexColumns:
    """Columns that are appended to shard by shard, and then read whole."""

    def __init__(self, root: Path):
        self._root = root
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

    def of_equal_length_and_crc(self) -> np.ndarray:
        """Return (N,) int64: the records that share length and CRC with another one."""
        length, crc = self.column("length"), self.column("crc32c")
        with tempfile.TemporaryFile(dir=self._root) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, 8 * len(length)))  # a hole of a full disk would be a SIGBUS
            in_order = np.memmap(file, np.int64, "r+", shape=length.shape)
            chunks = [slice(start, start + _CHUNK) for start in range(0, len(length), _CHUNK)]
            for chunk in chunks:
                in_order[chunk] = length[chunk] << 32 | crc[chunk]
            in_order.sort()
            shared = np.concatenate([_repeated(in_order[chunk.start : chunk.stop + 1]) for chunk in chunks])
        found = [np.flatnonzero(np.isin(length[c] << 32 | crc[c], shared)) + c.start for c in chunks]
        return np.concatenate(found)


def _repeated(in_order: np.ndarray) -> np.ndarray:
    return np.array(in_order[1:][in_order[1:] == in_order[:-1]])
