"""Which pictures have an id or bytes that came before: found by sorting on disk, so that memory is bounded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

_BUCKET = 1 << 22  # keys that are sorted at a time
_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


class Firsts:
    """The first row with each key of 16 bytes; rows are numbered as they are added.

    total: how many rows will be added.
    """

    def __init__(self, root: Path, total: int):
        self._root, self._total, self._rows = root, total, 0
        self._bits = max(0, (total // _BUCKET).bit_length())
        self._buckets: list[IO[bytes]] = [tempfile.TemporaryFile(dir=root) for _ in range(1 << self._bits)]
        self._first = FileArray(root, np.dtype(np.int64), total)

    def add(self, keys: pa.ChunkedArray) -> None:
        """Add the keys of the next rows, binary(16); nulls are equal to no other."""
        for chunk in keys.chunks:
            values = np.frombuffer(chunk.buffers()[1], _KEY[0], 2 * len(chunk), 16 * chunk.offset).reshape(-1, 2)
            found = np.empty(len(chunk), _KEY)
            found["high"], found["low"] = values[:, 0], values[:, 1]
            found["row"] = np.arange(self._rows, self._rows + len(chunk))
            self._rows += len(chunk)
            if chunk.null_count:
                found = found[np.asarray(chunk.is_valid().to_numpy(zero_copy_only=False))]
            if self._bits == 0:
                self._buckets[0].write(found.data)
                continue
            bucket = (found["high"] >> np.uint64(64 - self._bits)).astype(np.int64)
            found = found[np.argsort(bucket, kind="stable")]
            ends = np.cumsum(np.bincount(bucket, minlength=len(self._buckets)))
            for file, start, end in zip(self._buckets, [0, *ends[:-1]], ends):
                file.write(found[start:end].data)

    def sort(self) -> np.ndarray:
        """Return (total,) int64, file-backed: 0 where a row is the first with its key, else 1 + the first."""
        first = self._first.array
        for file in self._buckets:
            for rows in _repeated(file):
                first[rows[1:]] = rows[0] + 1
            file.close()
        return first


def _repeated(file: IO[bytes]) -> Iterator[np.ndarray]:
    """Yield the rows of each key that several have, in order."""
    file.seek(0)
    keys = np.frombuffer(file.read(), _KEY)
    order = np.lexsort((keys["low"], keys["high"]))  # stable: rows stay in order
    high, low = keys["high"][order], keys["low"][order]
    same = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1]))
    if len(same) == 0:
        return
    rows = keys["row"][order]
    for run in np.split(same, np.flatnonzero(np.diff(same) > 1) + 1):
        yield rows[run[0] : run[-1] + 2]


class FileArray:
    """An array of zeros in a nameless, sparse file, so that the kernel may take its memory back."""

    def __init__(self, root: Path, dtype: np.dtype, length: int):
        self._file = tempfile.TemporaryFile(dir=root)
        self._file.truncate(max(1, length) * dtype.itemsize)
        self.array = np.memmap(self._file, dtype, "r+", shape=(length,)) if length else np.zeros(0, dtype)
