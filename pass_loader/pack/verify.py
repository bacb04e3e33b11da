"""`pass-pack verify`: every checksum, every header, offsets against the tars, the index against the tables."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from .. import _C
from ..errors import BadPictureError, PackError
from .layout import INDEX_SCHEMA, PURGING, member_name
from .reader import Pack, index_rows


def verify(path: str | Path, *, progress: Callable[[int], None] | None = None) -> list[str]:
    """What is wrong with a pack, a line each; empty where nothing is. progress: called with the bytes checked."""
    try:
        pack = Pack(path)
    except (PackError, OSError) as error:
        return [str(error)]
    problems: list[str] = []
    if (pack.path / PURGING).exists():
        problems.append(f"{PURGING} stands in the pack: a purge was cut off; run `pass-pack purge` again")
    for shard in range(len(pack.shards)):
        problems += _verify_shard(pack, shard, progress or (lambda _: None))
    return problems


def _verify_shard(pack: Pack, shard: int, progress: Callable[[int], None]) -> Iterator[str]:
    entry = pack.shards[shard]
    try:
        table = pack.table(shard)
    except (OSError, pa.ArrowException, PackError) as error:
        yield f"{entry['table']}: {error}"
        return
    yield from _verify_index(pack, shard, table)
    try:
        yield from _verify_tar(pack, shard, table, progress)
    except (OSError, tarfile.TarError) as error:
        yield f"{entry['tar']}: {error}"


def _verify_index(pack: Pack, shard: int, table: pa.Table) -> Iterator[str]:
    first = int(pack.first_record[shard])
    want = index_rows(table, shard)
    found = pack.index.slice(first, table.num_rows)
    if table.column("record").to_pylist() != list(range(first, first + table.num_rows)):
        yield f"{pack.shards[shard]['table']}: its records are not {first} to {first + table.num_rows - 1}"
    for name in INDEX_SCHEMA.names:
        if found.column(name).combine_chunks() != want.column(name).combine_chunks():
            yield f"{pack.shards[shard]['table']}: column {name} differs from index.arrow"


def _verify_tar(pack: Pack, shard: int, table: pa.Table, progress: Callable[[int], None]) -> Iterator[str]:
    tar_name = pack.shards[shard]["tar"]
    path = pack.path / tar_name
    members = _members(path)
    with open(path, "rb") as file:
        for row in table.to_pylist():
            if row["length"] == 0:  # purged
                continue
            where = f"{tar_name}, record {row['record']}, id {row['id']}"
            place = (row["offset"], row["length"])
            name = member_name(row["id"], row["codec"])
            if members.pop(name, None) != place:
                yield f"{where}: the tar has no member {name} of {place[1]} bytes at {place[0]}"
                continue
            data = os.pread(file.fileno(), row["length"], row["offset"])
            yield from (f"{where}: {problem}" for problem in _verify_picture(data, row))
            progress(len(data))
    for name in members:
        yield f"{tar_name}: member {name} is in no row of {pack.shards[shard]['table']}"


def _members(path: Path) -> dict[str, tuple[int, int]]:
    with tarfile.open(path, "r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def _verify_picture(data: bytes, row: dict[str, object]) -> Iterator[str]:
    crc = _C.crc32c(data)
    if crc != row["crc32c"]:
        yield f"CRC32C is {crc:08x}, its row says {row['crc32c']:08x}: the bytes were changed"
        return
    try:
        header = _C.read_header(data)
    except BadPictureError as error:
        yield str(error)
        return
    if (header["height"], header["width"]) != (row["height"], row["width"]):
        yield (f"the picture is {header['height']} x {header['width']} (height x width), "
               f"its row says {row['height']} x {row['width']}")  # fmt: skip
