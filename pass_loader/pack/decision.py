"""What the shards of all tasks decide together: which pictures with an id or bytes that came before are left out.

The first in the plan's order stays. A shard that holds one that goes is written again without it, from its own tar.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from .. import _C
from ..errors import PackError
from . import arrow
from .destination import Destination
from .direct import DirectWriter
from .layout import append_member, deleted_on_error, end_tar, member_name, publish, sync_directory, temporary_of
from .own_columns import OwnColumns
from .repeats import FileArray, Firsts
from .report import Refusal
from .running import in_order
from .shards import Options, Shard
from .source import IDS

SAME_ID, SAME_BYTES = "its id was packed before", "its bytes were packed before"


def drop_repeated(out: Destination, options: Options, inputs: str, names: list[str], workers: int) -> None:
    """Take out of the shards, which are named in order, the pictures with an id or bytes that came before.

    inputs: a digest of all that is packed. Raises PackError where on_duplicate is "error" and there is one.
    """
    root, on_duplicate = out.folder, options.on_duplicate
    counts = [len(Shard.load(root, name)) for name in names]
    reasons, first_id, ids = decide(root, on_duplicate, names, counts)

    def rewrites() -> Iterator[Callable[[], None]]:
        row = 0
        for name, count in zip(names, counts):
            why, first = np.array(reasons[row : row + count]), np.array(first_id[row : row + count])
            if why.any():
                if on_duplicate == "error":
                    raise _first_of(Shard.load(root, name), why)
                same = np.flatnonzero(why == 1)
                own, other = ids[row + same], ids[first[same] - 1]
                apart = {way: int(np.count_nonzero(own[f"{way}_id"] != other[f"{way}_id"])) for way in IDS}
                yield partial(_rewrite, out, name, why, apart, inputs, options.gps)
            row += count

    in_order(rewrites(), workers)


def decide(
    root: Path, on_duplicate: str, names: list[str], counts: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which of the shards' rows go, and why; 1 + the first row with the id of each; CRCs of its other ids.

    counts: of the shards' rows. The three are file-backed, an entry a row. The first is uint8, 0: it stays; 1: same id;
    2: same bytes. The second is int64, 0: it is the first. The third has a uint32 for each of IDS.
    """
    total = sum(counts)
    by_id = Firsts(root, total)
    by_bytes = Firsts(root, total) if on_duplicate != "keep" else None
    columns = [f"{way}_id" for way in IDS]
    ids = FileArray(root, np.dtype([(column, "<u4") for column in columns]), total).array
    row = 0
    for name, count in zip(names, counts):
        rows = Shard.load(root, name).rows
        by_id.add(rows.column("key"))
        if by_bytes is not None:
            by_bytes.add(rows.column("digest"))
        for column in columns:
            ids[column][row : row + count] = arrow.to_numpy(rows.column(column))
        row += count
    first_id = by_id.sort()
    reasons = FileArray(root, np.dtype(np.uint8), total).array
    if by_bytes is None:
        np.not_equal(first_id, 0, out=reasons, casting="unsafe")
    else:
        _judge(root, first_id, by_bytes.sort(), reasons)
    return reasons, first_id, ids


def _judge(root: Path, first_id: np.ndarray, first_bytes: np.ndarray, reasons: np.ndarray) -> None:
    """Go through the rows that are not the first with their id and bytes: whether one stays depends on those before."""
    has_id, has_bytes = (FileArray(root, np.dtype(bool), len(reasons)).array for _ in range(2))  # of a first: is taken
    step = 1 << 20
    for start in range(0, len(reasons), step):
        chunk = slice(start, start + step)
        unclear = (first_id[chunk] != 0) | (first_bytes[chunk] != 0)
        has_id[chunk] = has_bytes[chunk] = ~unclear
    for start in range(0, len(reasons), step):
        chunk = slice(start, start + step)
        for row in (start + np.flatnonzero((first_id[chunk] != 0) | (first_bytes[chunk] != 0))).tolist():
            id, bytes_ = (int(first[row]) - 1 if first[row] else row for first in (first_id, first_bytes))
            if has_id[id]:
                reasons[row] = 1
            elif has_bytes[bytes_]:
                reasons[row] = 2
            else:
                has_id[id] = has_bytes[bytes_] = True


def _first_of(shard: Shard, why: np.ndarray) -> PackError:
    place = int(np.flatnonzero(why)[0])
    refused = _refusals(shard, why)[0]
    return PackError(f"{refused.file} (id {shard.rows.column('id')[place]}): {refused.reason} "
                     "(--on-duplicate first leaves it out)")  # fmt: skip


def _refusals(shard: Shard, why: np.ndarray) -> list[Refusal]:
    gone = shard.rows.take(arrow.numbers(np.flatnonzero(why)))
    reasons = [SAME_ID if reason == 1 else SAME_BYTES for reason in why[why != 0]]
    return [
        Refusal(file, id, reason)
        for file, id, reason in zip(gone.column("file").to_pylist(), gone.column("id").to_pylist(), reasons)
    ]


def _rewrite(out: Destination, name: str, why: np.ndarray, apart: dict[str, int], inputs: str, gps: bool) -> None:
    """Write a shard again without the rows that go.

    Its rows are deleted first: cut off here, the shard counts as not written, and its task runs again.
    """
    root = out.folder
    old = Shard.load(root, name)
    new = replace(old, rows=old.rows.take(arrow.numbers(np.flatnonzero(why == 0))), repeats_of=inputs)
    new.own = OwnColumns.of(new.rows, gps)
    new.refused = [*old.refused, *_refusals(old, why)]
    new.same_id += int(np.count_nonzero(why == 1))
    new.ids_apart = {way: count + old.ids_apart.get(way, 0) for way, count in apart.items()}
    path = root / old.tar
    files: list[tuple[Path, Path]] = []
    if old.source is None and len(new):
        temporary = temporary_of(path)
        out.bring(old.tar)
        with deleted_on_error(temporary):
            with open(path, "rb") as tar, DirectWriter(temporary) as file:
                new.rows = _copy(tar.fileno(), path, file, new.rows)
        new.tar_bytes = temporary.stat().st_size
        files = [(temporary, path)]
    temporary, rows = new.save(root)
    out.delete(rows.name)
    sync_directory(root)
    if old.source is None and not len(new):
        out.delete(old.tar)
    publish(*files, (temporary, rows))
    out.send(*(published.name for _, published in files), rows.name)


def _copy(descriptor: int, path: Path, file: DirectWriter, rows: pa.Table) -> pa.Table:
    """Append the members of these rows; return the rows with their new offsets."""
    places = zip(*(rows.column(name).to_pylist() for name in ("id", "codec", "offset", "length", "crc32c")))
    offsets = []
    for id, codec, offset, length, crc in places:
        data = os.pread(descriptor, length, offset)
        if len(data) != length or _C.crc32c(data) != crc:
            raise PackError(f"{path} is not as it was written: {id} is damaged; delete it and run its task again")
        offsets.append(append_member(file, member_name(id, codec), data))
    end_tar(file)
    place = rows.schema.get_field_index("offset")
    return rows.set_column(place, "offset", arrow.numbers(np.array(offsets, np.int64)))
