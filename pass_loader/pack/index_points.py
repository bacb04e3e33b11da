"""`pass-pack index-points`: proves the records of a pack, and keeps where decoding can begin inside their JPEGs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .. import _C
from ..errors import BadPictureError, PackError
from .inspect import proof_of
from .layout import MANIFEST, changing, locked
from .points import POINTS, PointsWriter, open_points
from .reader import Pack
from .running import Running, in_order


@dataclass(frozen=True)
class Indexed:
    """Counts of `index_points`: live records, those proven, those of them with entry points; bytes of the file."""

    records: int
    proven: int
    with_points: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.proven:,} of {self.records:,} records proven, {self.with_points:,} with entry points, "
            f"{self.bytes:,} bytes of {POINTS}"
        )


def index_points(
    path: str | Path | Pack, *, workers: int | None = None, progress: Callable[[int], None] | None = None
) -> Indexed:
    """Decode every live record of a pack, and keep which are proven and the entry points of their JPEGs.

    path: a directory, or a pack that is open; loaders that are made afterwards use the file. workers: threads, a shard
    each; None: one a core. progress: called with the bytes of each record done. A picture that cannot be decoded, or
    with a warning, is not proven, and decoded whole ever after. Tars in stores that the pack refers to are read through
    the cache. Raises PackError for a pack in a store, for a record whose bytes were changed, and where the file cannot
    be written.
    """
    pack = path if isinstance(path, Pack) else Pack(path)
    if pack.stored:
        raise PackError(
            f"{pack.place}: {POINTS} is made where a pack is packed into a store, or beside a pack in a directory; "
            f"make it of a copy there, and put it beside {MANIFEST}"
        )
    if (pack.path / POINTS).is_dir():
        raise PackError(f"{pack.path / POINTS} is a directory, where a file is to be written: move it away")
    tell = progress or (lambda _: None)
    with changing(pack.path), locked(pack.path):
        pack.refresh()
        writer, reader = PointsWriter(pack.path), pack.open_reader()

        def prove(shard: int) -> tuple[slice, list[bytes | None]]:
            first, end = (int(record) for record in pack.first_record[shard : shard + 2])
            dead = pack.is_removed(np.arange(first, end)).tolist()
            found = [None if gone else _prove(pack, reader, first + row, tell) for row, gone in enumerate(dead)]
            return slice(first, end), found

        def keep(done: tuple[slice, list[bytes | None]]) -> None:
            rows, found = done
            writer.append(found, pack.column("crc32c")[rows], pack.column("length")[rows])

        in_order((partial(prove, shard) for shard in range(len(pack.shards))), Running(workers).threads, keep)
        size = writer.publish(pack.pack_id)
    return Indexed(len(pack), writer.proven, writer.with_points, size)


def _prove(pack: Pack, reader: _C.ShardReader, record: int, progress: Callable[[int], None]) -> bytes | None:
    try:
        data = pack.read(record, partial(reader.read, record))
    except (BadPictureError, OSError) as error:
        raise PackError(f"{pack.shard_name(record)}, record {record}, id {pack.id_of(record)}: {error}") from None
    progress(len(data))
    return proof_of(data)


def erase(pack: Pack, records: Sequence[int], folder: Path | None = None) -> bool:
    """Take what is known of records out of the file; a damaged one goes. Returns whether there was anything to do.

    folder: that holds the file; None: the directory of the pack, whose lock the caller holds.
    """
    folder = folder or pack.path
    try:
        points = open_points(folder, pack.pack_id, pack.records)
    except PackError:
        (folder / POINTS).unlink()
        return True
    if points is None or not any(points.proven[record] for record in records):
        return False
    doomed, writer = {*records}, PointsWriter(folder)
    for first, end in zip(pack.first_record.tolist(), pack.first_record[1:].tolist()):
        left = [None if record in doomed else points.of(record) for record in range(first, end)]
        writer.append(left, pack.column("crc32c")[first:end], pack.column("length")[first:end])
    writer.publish(pack.pack_id)
    return True
