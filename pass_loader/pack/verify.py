"""`pass-pack verify`: every checksum, every header, offsets against the tars, the index against the tables."""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import _C
from ..errors import BadPictureError, PackError
from .archives import TarSource, members
from .layout import INDEX_SCHEMA, PURGING, member_name
from .reader import Pack, index_rows


class Verification(list[str]):
    """What is wrong with a pack, a line each; empty where nothing is. And what was looked at, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.records = self.live = self.removed = self.purged = self.decoded = self.bytes = 0
        self.seconds = 0.0

    def summary(self) -> dict[str, Any]:
        return {"ok": not self, "problems": list(self), **vars(self)}

    def __str__(self) -> str:
        if self:
            return f"{len(self):,} problems" + ("" if self.records else "; nothing more could be looked at")
        decoded = f", {self.decoded:,} decoded" if self.decoded else ""
        return (
            f"everything is as it was packed: {self.records:,} records ({self.live:,} live, {self.removed:,} removed, "
            f"of which {self.purged:,} purged), {self.bytes:,} bytes{decoded}, {self.seconds:.1f} s"
        )


def verify(
    path: str | Path,
    *,
    decode: bool = False,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Verification:
    """Check a pack. decode: prove every live picture by decoding it. workers: threads; None: one a core.
    progress: called with the bytes checked. Raises nothing for a bad pack: what is wrong stands in the result."""
    began = time.monotonic()
    found = Verification()
    try:
        pack = Pack(path)
        paths = [Path(tar) for tar in pack.tar_paths()]
    except (PackError, OSError) as error:
        found.append(str(error))
        return found
    if (pack.path / PURGING).exists():
        found.append(f"{PURGING} stands in the pack: a purge was cut off; run `pass-pack purge` again")
    check = _Check(pack, paths, decode, progress or (lambda _: None))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for result in pool.map(check.shard, range(len(pack.shards))):
            found += result.problems
            found.bytes += result.bytes
            found.decoded += result.decoded
    for tar in {path: None for shard, path in zip(pack.shards, paths) if "foreign" in shard}:
        found += _readable(tar)
    found.records, found.live, found.removed = pack.records, len(pack), len(pack.removed)
    found.purged = int((pack.column("length") == 0).sum())
    found.seconds = round(time.monotonic() - began, 3)
    return found


@dataclass
class _Result:
    problems: list[str] = field(default_factory=list)
    bytes: int = 0
    decoded: int = 0


class _Check:
    def __init__(self, pack: Pack, paths: list[Path], decode: bool, progress: Callable[[int], None]):
        self.pack, self.paths, self.decode, self.progress = pack, paths, decode, progress

    def shard(self, shard: int) -> _Result:
        result = _Result()
        entry = self.pack.shards[shard]
        try:
            table = self.pack.table(shard)
        except (OSError, pa.ArrowException, PackError) as error:
            result.problems.append(f"{entry['table']}: {error}")
            return result
        result.problems += self._index(shard, table)
        try:
            self._tar(shard, table, result)
        except (OSError, tarfile.TarError, PackError) as error:
            result.problems.append(f"{entry['tar']}: {error}")
        return result

    def _index(self, shard: int, table: pa.Table) -> Iterator[str]:
        first = int(self.pack.first_record[shard])
        want = index_rows(table, shard)
        found = self.pack.index.slice(first, table.num_rows)
        name_of = self.pack.shards[shard]["table"]
        if table.column("record").to_pylist() != list(range(first, first + table.num_rows)):
            yield f"{name_of}: its records are not {first} to {first + table.num_rows - 1}"
        for name in INDEX_SCHEMA.names:
            if found.column(name).combine_chunks() != want.column(name).combine_chunks():
                yield f"{name_of}: column {name} differs from {self.pack.manifest['index']}"

    def _tar(self, shard: int, table: pa.Table, result: _Result) -> None:
        tar_name = self.pack.shards[shard]["tar"]
        foreign = "foreign" in self.pack.shards[shard]
        in_tar = {} if foreign else _members(self.paths[shard])
        columns = [name for name in INDEX_SCHEMA.names if name != "shard"]
        rows = table.select([*columns, "id"]).to_pylist()
        removed = self.pack.is_removed(np.array([row["record"] for row in rows]))
        with open(self.paths[shard], "rb") as file:
            for row, dead in zip(rows, removed.tolist()):
                if row["length"] == 0:  # purged
                    continue
                where = f"{tar_name}, record {row['record']}, id {row['id']}"
                name = member_name(row["id"], row["codec"])
                if not foreign and in_tar.pop(name, None) != (row["offset"], row["length"]):
                    place = f"{row['length']} bytes at {row['offset']}"
                    result.problems.append(f"{where}: the tar has no member {name} of {place}")
                    continue
                data = os.pread(file.fileno(), row["length"], row["offset"])
                decode = self.decode and not dead
                result.problems += (f"{where}: {problem}" for problem in _verify_picture(data, row, decode))
                result.bytes += len(data)
                result.decoded += decode
                self.progress(len(data))
        for name in in_tar:
            result.problems.append(f"{tar_name}: member {name} is in no row of {self.pack.shards[shard]['table']}")


def _members(path: Path) -> dict[str, tuple[int, int]]:
    return {name: (offset, length) for name, offset, length, _ in members(path)}


def _readable(tar: Path) -> Iterator[str]:
    """Of a foreign tar the pack knows some members only; all the same it must be a whole tar."""
    try:
        for _ in TarSource(tar).entries():
            pass
    except (PackError, OSError) as error:
        yield str(error)


def _verify_picture(data: bytes, row: dict[str, Any], decode: bool) -> Iterator[str]:
    crc = _C.crc32c(data)
    if crc != row["crc32c"]:
        yield f"CRC32C is {crc:08x}, its row says {row['crc32c']:08x}: the bytes were changed"
        return
    try:
        header = _C.read_header(data)
        if decode:
            _C.check_decodes(data)
    except BadPictureError as error:
        yield str(error)
        return
    if (header["height"], header["width"]) != (row["height"], row["width"]):
        yield (f"the picture is {header['height']} x {header['width']} (height x width), "
               f"its row says {row['height']} x {row['width']}")  # fmt: skip
