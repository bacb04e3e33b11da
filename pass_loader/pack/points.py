"""points.arrow: which records are proven, and where decoding can begin inside their JPEGs' scans.

It is derived from the records, and made again by `pass-pack index-points`; a pack without it is decoded whole. Nothing
in it is trusted: a record's check is a CRC over its entry points, its own crc32c and its length, and where that does
not fit, the record counts as not proven. csrc/entry_points.h reads the columns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from .. import _C
from ..errors import PackError
from . import arrow
from .inspect import proof_of
from .layout import check_regular, deleted_on_error, fresh, publish, temporary_of

POINTS = "points.arrow"
_REMEDY = "`pass-pack index-points` makes it anew"
_SCHEMA = pa.schema([("proven", pa.uint8()), ("check", pa.uint32()), ("points", pa.large_binary())])


class PointsWriter:
    """Writes the file, shard by shard. The columns grow in nameless files, so that memory does not grow with a pack."""

    def __init__(self, root: Path):
        self._root = root
        self._files: list[IO[bytes]] = [tempfile.TemporaryFile(dir=root) for _ in range(4)]
        self._end = 0
        self.proven = self.with_points = 0
        self._files[2].write(np.int64(0).tobytes())

    def append(self, points: Sequence[bytes | None], crc: np.ndarray, length: np.ndarray) -> None:
        """Append records. points: the entry points of each, b"" for a proven one without; None: not proven.

        crc, length: (records,) uint32 and int64, as the index says.
        """
        found = [part or b"" for part in points]
        proven = np.array([part is not None for part in points], np.uint8)
        ends = np.concatenate([[0], np.cumsum([len(part) for part in found], dtype=np.int64)])
        joined = b"".join(found)
        checks = _C.checks_of_points(joined, ends, np.ascontiguousarray(crc), np.ascontiguousarray(length))
        columns = (proven.tobytes(), (checks * proven).tobytes(), (self._end + ends[1:]).tobytes(), joined)
        for file, content in zip(self._files, columns):
            file.write(content)
        self._end += len(joined)
        self.proven += int(proven.sum())
        self.with_points += sum(map(bool, found))

    def publish(self, pack_id: str) -> int:
        """Give the pack the file; return its bytes. One record batch, uncompressed, so that it can be mapped."""
        proven, check, ends, points = map(_mapped_file, self._files)
        records = len(proven)
        columns = [pa.Array.from_buffers(type, records, [None, buffer])
                   for type, buffer in ((pa.uint8(), proven), (pa.uint32(), check))]  # fmt: skip
        columns.append(pa.Array.from_buffers(pa.large_binary(), records, [None, ends, points]))
        table = pa.table(columns, schema=_SCHEMA.with_metadata({"pack_id": pack_id}))
        temporary = temporary_of(self._root / POINTS)
        with deleted_on_error(temporary):
            with pa.OSFile(str(fresh(temporary)), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            publish((temporary, self._root / POINTS))
        return (self._root / POINTS).stat().st_size


def _mapped_file(file: IO[bytes]) -> pa.Buffer:
    file.flush()
    size = file.seek(0, 2)
    return pa.py_buffer(np.memmap(file, np.uint8, "r") if size else b"")


@dataclass(frozen=True)
class Points:
    """The columns of the file, memory-mapped.

    proven, check: (records,) uint8 and uint32. ends: (records + 1,) int64, into points: uint8.
    """

    proven: np.ndarray
    check: np.ndarray
    ends: np.ndarray
    points: np.ndarray

    def of(self, record: int) -> bytes | None:
        """Return a record's entry points; None where it is not proven."""
        first, end = self.ends[record : record + 2].tolist()
        return self.points[first:end].tobytes() if self.proven[record] else None

    def problems(self, first: int, crc: np.ndarray, length: np.ndarray) -> Iterator[str]:
        """Yield what is wrong with the rows from `first` on, whose records have these CRCs and lengths."""
        rows = slice(first, first + len(crc))
        try:
            check = _C.checks_of_points(self.points, np.array(self.ends[rows.start : rows.stop + 1]), crc, length)
        except ValueError as error:
            yield f"{POINTS}: from record {first} on: {error}; {_REMEDY}"
            return
        proven = self.proven[rows]
        for row in np.flatnonzero(np.where(proven == 1, check != self.check[rows], proven != 0)).tolist():
            yield f"{POINTS}: record {first + row}: its check does not fit its entry points and its bytes; {_REMEDY}"

    def problem_of(self, record: int, data: bytes) -> str | None:
        """Return what is wrong with a record's row, by a fresh decode of its bytes."""
        known = self.of(record)
        if known is None:
            return None
        found = proof_of(data)
        if found is None:
            return f"{POINTS} says that it is proven, and it decodes with an error or a warning; {_REMEDY}"
        if known and known != found:
            return f"its entry points in {POINTS} are not those of its scan; {_REMEDY}"
        return None


def open_points(root: Path, pack_id: str, records: int) -> Points | None:
    """Map the file of a pack; None where it has none. Raises PackError where it is damaged or another pack's.

    What its columns hold is not looked at.
    """
    path = root / POINTS
    if not path.exists():
        return None
    check_regular(path)
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        identity = (table.schema.metadata or {}).get(b"pack_id")
        if not table.schema.equals(_SCHEMA) or table.num_rows != records or identity != pack_id.encode():
            raise ValueError("it does not fit the manifest")
        proven, check, points = (column.chunk(0) for column in table.columns)
        if any(column.num_chunks != 1 or column.chunk(0).offset for column in table.columns):
            raise ValueError("it is not one record batch")
        (no, first), (none, second), (never, ends, values) = (part.buffers() for part in (proven, check, points))
        if (no, none, never) != (None, None, None) or first is None or second is None or ends is None:
            raise ValueError("it has rows without a value")
        if first.size + second.size + ends.size + (values.size if values else 0) > path.stat().st_size:
            raise ValueError("it is compressed")
        return Points(
            np.frombuffer(first, np.uint8, records), np.frombuffer(second, np.uint32, records),
            np.frombuffer(ends, np.int64, records + 1), np.frombuffer(values or b"", np.uint8),
        )  # fmt: skip
    except Exception as error:  # Arrow raises what it likes where its buffers are damaged
        raise PackError(f"{path} is damaged ({error}); {_REMEDY}") from None


def written_by(root: Path, pack_id: str, shards: Iterable[pa.Table]) -> None:
    """Write the file of a pack that is being made, from the shards' rows (ROWS_SCHEMA); none where none is proven."""
    writer = PointsWriter(root)
    for rows in shards:
        proofs = rows.column("points").to_pylist() if "points" in rows.column_names else [None] * len(rows)
        writer.append(proofs, arrow.to_numpy(rows.column("crc32c")), arrow.to_numpy(rows.column("length")))
    if writer.proven:
        writer.publish(pack_id)
