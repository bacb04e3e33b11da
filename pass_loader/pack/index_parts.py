"""The index of a large pack in a store: parts of its columns are fetched when records need them."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import _C
from ..remote.cache import UNIT, Blocks
from ..remote.fetcher import BLOCK_UNITS, Awaited, Fetcher, Piece

_PART_UNITS = 4  # fetched together: 8,192 offsets, 16,384 labels
_AT_A_TIME = 8  # blocks of a column that is fetched whole
OF_SAMPLES = ("shard", "offset", "length", "crc32c", "label")  # columns that a sample needs


class IndexParts:
    """The index as a sparse file of the cache, of which parts are there.

    columns: by name, where the column begins in the file and the bytes of one number; known once the file is open.
    etag: of the object, which every part has to have.
    """

    def __init__(self, fetcher: Fetcher, blocks: Blocks, name: str, etag: str | None, records: int):
        self._fetcher, self._blocks, self._name, self._records = fetcher, blocks, name, records
        self._etag = None if etag is None or etag.startswith("W/") else etag  # a weak one is no condition
        self.columns: Mapping[str, tuple[int, int]] = {}
        ends = [(0, 1), (len(blocks.units) - 1, len(blocks.units))]  # the schema, and where its one batch lies
        self._fetch([self._piece(first, end) for first, end in ends])

    @property
    def path(self) -> Path:
        return self._blocks.path

    def need(self, names: Sequence[str], records: np.ndarray) -> None:
        """Fetch what is missing of these records' numbers in columns, and wait for it. Raises OSError."""
        self._fetch(self.pieces(names, records))

    def need_column(self, name: str) -> None:
        """Fetch what is missing of a whole column. Raises OSError."""
        begin, width = self.columns[name]
        first, end = self._blocks.unit_range(begin, self._records * width)
        self._fetch_range(first, end)

    def fetch_whole(self) -> int:
        """Fetch what is missing of the file; return its CRC32C. Raises OSError."""
        self._fetch_range(0, len(self._blocks.units))
        crc = 0
        with open(self.path, "rb") as file:
            while block := file.read(BLOCK_UNITS * UNIT):
                crc = _C.crc32c(block, crc)
        return crc

    def pieces(self, names: Sequence[str], records: np.ndarray) -> list[Piece]:
        """Return the parts of columns that these records need, each once."""
        found = []
        for name in names:
            begin, width = self.columns[name]
            parts, at = np.unique((begin + records * width) // (_PART_UNITS * UNIT), return_index=True)
            for part, record in zip(parts.tolist(), records[at].tolist()):
                first = part * _PART_UNITS
                found.append(self._piece(first, min(first + _PART_UNITS, len(self._blocks.units)), record))
        return found

    def coming(self, records: np.ndarray, announce: Callable[[], Awaited]) -> AfterIndex:
        """Begin to fetch what records need of the index; then `announce` begins to fetch the records."""
        return AfterIndex(self._fetcher, self.pieces(OF_SAMPLES, records), announce)

    def _piece(self, first: int, end: int, record: int = -1) -> Piece:
        return Piece(self._blocks, self._name, first, end, record, self._etag)

    def _fetch_range(self, first: int, end: int) -> None:
        step = _AT_A_TIME * BLOCK_UNITS
        for begin in range(first, end, step):
            until = min(end, begin + step)
            places = range(begin, until, BLOCK_UNITS)
            self._fetch([self._piece(place, min(until, place + BLOCK_UNITS)) for place in places])

    def _fetch(self, pieces: list[Piece]) -> None:
        if all(piece.blocks.has(piece.first, piece.end) for piece in pieces):
            return
        coming = self._fetcher.announce(pieces, then=_nothing)
        try:
            coming.wait()
        finally:
            coming.done(used=False)


class AfterIndex:
    """Records that are fetched as soon as the index says where they lie. Has what `Awaited` has.

    announce: begins to fetch them.
    """

    def __init__(self, fetcher: Fetcher, pieces: list[Piece], announce: Callable[[], Awaited]):
        self._announce = announce
        self._records: Awaited | None = None
        self._left = False
        self._lock = threading.Lock()
        this = weakref.ref(self)
        self._index = fetcher.announce(pieces, then=lambda: _go_on(this))

    @property
    def ready(self) -> bool:
        """True where all of it is there, or an error waits to be raised."""
        return bool(self._index.errors) or (self._records is not None and self._records.ready)

    def wait(self, timeout: float = math.inf) -> None:
        """Wait until all of it is there. Raises PieceError, TimeoutError, PackError. Another call tries again."""
        until = time.monotonic() + timeout
        if self._records is None:
            self._index.wait(timeout)
        self.go_on().wait(until - time.monotonic())

    def done(self, used: bool) -> None:
        """Let go of the records, as `Awaited.done`."""
        with self._lock:
            self._left = True
        self._index.done(used=False)
        if self._records is not None:
            self._records.done(used)

    def go_on(self) -> Awaited:
        """Begin to fetch the records, once. The index has to be there. Raises PackError where it is damaged."""
        with self._lock:
            if self._records is None:
                self._records = self._announce()
        self._index.done(used=False)
        return self._records

    @property
    def left(self) -> bool:
        return self._left


def _go_on(waiting: weakref.ref[AfterIndex]) -> None:
    if (found := waiting()) is not None and not found.left:
        with contextlib.suppress(Exception):  # `wait` meets it again, and raises it
            found.go_on()


def _nothing() -> None:
    """Follows parts that are waited for."""
