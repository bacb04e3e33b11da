"""Which pictures have an id or bytes that came before: found by sorting on disk, so that memory is bounded."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

_BUCKET = 1 << 22  # keys that are sorted at a time
_CHUNK = 1 << 20  # records looked at together
_MOST_BITS = 8  # of a key, that name its bucket: a bucket is an open file
KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])  # a digest, and the row that has it


def digest_of(data: bytes) -> bytes:
    """Return a digest that is equal for equal bytes and for no others."""
    return hashlib.blake2b(data, digest_size=16).digest()


def pairs_of(digests: pa.Array) -> np.ndarray:
    """Return digests, binary(16), as (rows, 2) uint64; of a null whatever stands there."""
    values = np.frombuffer(digests.buffers()[1], KEY[0], 2 * len(digests), 16 * digests.offset)
    return values.reshape(-1, 2)


def bits_for(total: int) -> int:
    """Return how many bits of a digest name its bucket where there are so many rows."""
    return min(_MOST_BITS, (total // _BUCKET).bit_length())


def in_buckets(high: np.ndarray, bits: int) -> tuple[np.ndarray, list[int]]:
    """Return the order of rows by the first bits of their digests, and where each bucket ends in it.

    high: the first half of each digest, (rows,) uint64.
    """
    if bits == 0:
        return np.arange(len(high)), [len(high)]
    bucket = (high >> np.uint64(64 - bits)).astype(np.uint16)
    ends = np.cumsum(np.bincount(bucket, minlength=1 << bits)).tolist()
    return np.argsort(bucket, kind="stable"), ends


class Firsts:
    """The first row with each key of 16 bytes; rows are numbered as they are added.

    total: how many rows will be added.
    """

    def __init__(self, root: Path, total: int):
        self._root, self._total, self._rows = root, total, 0
        self._bits = bits_for(total)
        self._buckets: list[IO[bytes]] = [tempfile.TemporaryFile(dir=root) for _ in range(1 << self._bits)]
        self._first = FileArray(root, np.dtype(np.int64), total)

    def add(self, keys: pa.ChunkedArray) -> None:
        """Add the keys of the next rows, binary(16); nulls are equal to no other."""
        for chunk in keys.chunks:
            valid = chunk.is_valid().to_numpy(zero_copy_only=False) if chunk.null_count else None
            self.add_pairs(pairs_of(chunk), valid)

    def add_pairs(self, values: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Add the keys of the next rows, (rows, 2) uint64. valid: bool; a row without is equal to no other."""
        found = np.empty(len(values), KEY)
        found["high"], found["low"] = values[:, 0], values[:, 1]
        found["row"] = np.arange(self._rows, self._rows + len(values))
        self._rows += len(values)
        if valid is not None:
            found = found[valid]
        order, ends = in_buckets(found["high"], self._bits)
        found = found[order] if self._bits else found
        for file, start, end in zip(self._buckets, [0, *ends[:-1]], ends):
            file.write(found[start:end].data)

    def sort(self) -> np.ndarray:
        """Return (total,) int64, file-backed: 0 where a row is the first with its key, else 1 + the first."""
        first = self._first.array
        for file in self._buckets:
            file.seek(0)
            rows, firsts = repeated(np.frombuffer(file.read(), KEY))
            first[rows] = firsts + 1
            file.close()
        return first


def alike(root: Path, length: np.ndarray, crc: np.ndarray) -> np.ndarray:
    """Return (records,) bool, file-backed: which records share length and CRC32C with another one.

    length, crc: (records,) int64 and uint32.
    """
    firsts = Firsts(root, len(length))
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(length), _CHUNK)]
    for chunk in chunks:
        lengths = length[chunk].astype(np.uint64)
        firsts.add_pairs(np.stack([crc[chunk].astype(np.uint64) << np.uint64(32) | lengths, lengths], axis=1))
    first, found = firsts.sort(), FileArray(root, np.dtype(bool), len(length)).array
    for chunk in chunks:
        of_chunk = np.array(first[chunk])
        found[chunk] |= of_chunk != 0
        found[of_chunk[of_chunk != 0] - 1] = True
    return found


def repeated(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose key came before, and for each the first row with it. keys: KEY, in the order of rows."""
    high = keys["high"].copy()
    order = np.argsort(high, kind="stable")  # rows stay in order
    high = high[order]
    same = high[1:] == high[:-1]
    if not same.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low = keys["low"][order]
    if (same & (low[1:] != low[:-1])).any():  # hardly ever: half of a key is equal, and not the other
        order = np.lexsort((keys["low"], keys["high"]))
        high, low = keys["high"][order], keys["low"][order]
        same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    rows = keys["row"][order]
    begins = np.concatenate([[0], np.where(same, 0, np.arange(1, len(rows)))])  # of the runs of equal keys
    later = np.flatnonzero(same) + 1
    return rows[later], rows[np.maximum.accumulate(begins)[later]]


class FileArray:
    """An array of zeros in a nameless file, so that the kernel may take its memory back. Raises OSError."""

    def __init__(self, root: Path, dtype: np.dtype, length: int):
        self._file = tempfile.TemporaryFile(dir=root)
        # Not sparse: a write through the mapping to a hole of a full disk would end the process with SIGBUS.
        os.posix_fallocate(self._file.fileno(), 0, max(1, length) * dtype.itemsize)
        self.array = np.memmap(self._file, dtype, "r+", shape=(length,)) if length else np.zeros(0, dtype)
