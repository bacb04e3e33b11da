"""`pass-pack verify`: every checksum, every header, offsets against the tars, the index against the tables."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import _C
from ..errors import BadPictureError, PackError
from ..remote.address import is_url
from . import arrow
from .archives import TarSource, members
from .layout import INDEX, INDEX_SCHEMA, PURGING, REFUSED, check_regular, member_name, stamp_of
from .limits import limits
from .manifest import file_crc32c, has_checks, read_manifest
from .reader import Pack, index_rows
from .removed_log import Log, read_log, wrong_ids
from .running import Running, known_as, run, shard_bytes, spans
from .task_folder import delete_folder, keep, kept, task_folder


class Verification(list[str]):
    """The problems of a pack, a line each; empty where there are none. And what was looked at, in numbers.

    notes: what is worth knowing and not wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records = self.live = self.removed = self.purged = self.decoded = self.bytes = 0
        self.seconds = 0.0
        self.notes: list[str] = []

    def add(self, result: _Result) -> None:
        self += result.problems
        self.bytes += result.bytes
        self.decoded += result.decoded

    def summary(self) -> dict[str, Any]:
        return {"ok": not self, "problems": list(self), **vars(self)}

    def __str__(self) -> str:
        notes = "".join(f"\nnote: {note}" for note in self.notes)
        if self:
            return f"{len(self):,} problems" + ("" if self.records else "; nothing more could be looked at") + notes
        decoded = f", {self.decoded:,} decoded" if self.decoded else ""
        return (
            f"everything is as it was packed: {self.records:,} records ({self.live:,} live, {self.removed:,} removed, "
            f"of which {self.purged:,} purged), {self.bytes:,} bytes{decoded}, {self.seconds:.1f} s{notes}"
        )


def verify(
    path: str | Path | Pack,
    *,
    decode: bool = False,
    workers: int | None = None,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    runner: str = "local",
    ray_address: str | None = None,
    results: str | Path | None = None,
    share: tuple[int, int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Verification:
    """Check every file of a pack, and the files against each other.

    path: a pack in a store is fetched into its cache, a shard a thread at a time, which has to have room for them.
    decode: prove every live picture by decoding it. workers: threads; None: one a core. max_pixels, max_scans: a live
    picture of more is a problem, with `decode`; None for the defaults (docs/packing.md). runner, ray_address: as of
    `build`; a task is a shard. results: a folder for what tasks have found, new or left by the same call; cut off, the
    call goes on there, and when it is done it deletes the folder. share: (index, of): check every of-th shard from
    index on alone, and keep in `results` what is found; any number of machines may do so at a time, and the same call
    without a share then checks what is left and returns all. progress: called with the bytes checked.
    Raises nothing, but ValueError for arguments that make no sense: what is wrong stands in the result.
    """
    most = limits(max_pixels, max_scans)
    how = Running(workers, runner, ray_address, share)
    if share is not None and results is None:
        raise ValueError("a share of the tasks needs a folder for its results")
    folder = os.path.abspath(results) if results is not None else None
    job = _Checking(tuple(most.items()) if decode else None, folder)
    began = time.monotonic()
    found = Verification()
    try:
        _verify(path, found, job, how, progress or (lambda _: None))
    except Exception as error:  # whatever a damaged file makes a library raise
        found.append(_said(error))
    found.seconds = round(time.monotonic() - began, 3)
    return found


def _verify(
    path: str | Path | Pack, found: Verification, job: _Checking, how: Running, progress: Callable[[int], None]
) -> None:
    opened = Pack(path) if isinstance(path, str) and is_url(path) else path if isinstance(path, Pack) else None
    if opened is not None and opened.remote is not None:
        opened.remote.files()
        opened.remote.check_ranges()
        opened.remote.forget_points()  # nothing but what is in the store tells whether it is damaged there
        opened.remote.points(whole=True)
    root = Path(path) if opened is None else opened.path  # type: ignore[arg-type]
    pack = _opened(root, opened, found) if how.share is None else opened or Pack(root)
    tasks = how.chosen(range(len(pack.shards) + len(_foreign(pack))))
    if how.share is None:
        found.records, found.live, found.removed = pack.records, len(pack), len(pack.removed)
        found.purged = int((pack.column("length") == 0).sum())
        if (root / PURGING).exists():
            found.append(f"{PURGING} stands in the pack: a purge was cut off; run `pass-pack purge` again")
        if has_checks(pack.manifest):
            _note_log(read_log(root, pack.manifest), found)
    else:
        for first, end in spans(pack, tasks):
            found.records += end - first
            found.removed += int(np.diff(np.searchsorted(pack.removed, (first, end)))[0])
            found.purged += int((pack.column("length")[first:end] == 0).sum())
        found.live = found.records - found.removed
    with job.place(pack, shared=how.share is not None):
        run(job, pack, tasks, how, found.add, shard_bytes(pack), progress)
    if how.share is None and job.results is not None:
        delete_folder(Path(job.results))


def _opened(root: Path, opened: Pack | None, found: Verification) -> Pack:
    """Return the pack, once its manifest, index and refused.jsonl are checked."""
    manifest = read_manifest(root)
    if not has_checks(manifest):
        found.notes.append(
            f"the pack is of format version 1, without checksums of removed.jsonl, pack.json, {REFUSED} and the "
            "tables: the next `pass-pack remove`, `restore` or `purge` adds them"
        )
    elif problem := _crc_problem(root, REFUSED, manifest):
        found.append(problem)
    index_differs = _crc_problem(root, manifest.get("index", INDEX), manifest)
    try:
        pack = opened if opened is not None else Pack(root)
    except Exception:
        found += filter(None, [index_differs])
        raise
    try:
        pack.open_points()
    except PackError as error:
        found.append(str(error))
    if index_differs and _index_crc32c(pack) != file_crc32c(root / pack.manifest["index"]):
        found.append(f"{index_differs}; delete it to have it rebuilt")
    return pack


def _note_log(log: Log, found: Verification) -> None:
    if len(log.lines) > log.counted:
        found.notes.append(
            f"{log.path.name} has {len(log.lines) - log.counted:,} lines that pack.json does not count: what added "
            "them was cut off. They are in force; the next `pass-pack remove`, `restore` or `purge` counts them"
        )
    if log.unchecked:
        found.notes.append(
            f"{log.unchecked:,} lines of {log.path.name} have no check of their own; pack.json covers them"
        )


def _crc_problem(root: Path, name: str, manifest: dict[str, Any]) -> str | None:
    """Return what is wrong with a file that pack.json has a CRC of, or should have."""
    if not has_checks(manifest):
        return None
    want = manifest["crc32c"].get(name)
    try:
        crc = file_crc32c(root / name)
    except FileNotFoundError:
        return f"{name} is missing" if want is not None and name != manifest.get("index", INDEX) else None
    if crc == want:
        return None
    if want is None:
        return f"{name}: pack.json knows of no such file"
    return f"{name}: its CRC32C is {crc:08x}, pack.json says {want:08x}: the file was changed"


def _index_crc32c(pack: Pack) -> int:
    """Return the CRC32C of the index as it would be written today: one that was rebuilt by another version of Arrow may
    have other bytes than pack.json says. Its columns are compared with the tables anyway."""
    crc = 0

    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            nonlocal crc
            crc = _C.crc32c(data, crc)
            return len(data)

    schema = pack.index.schema
    # Of the values alone: Arrow would hand on whatever else a damaged file says of them.
    values = pa.table([arrow.numbers(pack.column(name)) for name in schema.names], schema=schema)
    with pa.PythonFile(Sink(), "w") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(values)
    return crc


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, (PackError, OSError)) else repr(error)


@dataclass
class _Result:
    problems: list[str] = field(default_factory=list)
    bytes: int = 0
    decoded: int = 0


def _foreign(pack: Pack) -> list[Path]:
    """Return the tars in place that a pack refers to, each once. Of those in stores records alone are checked."""
    paths = (
        path for shard, path in zip(pack.shards, pack.tar_paths()) if "url" not in shard.get("foreign", {"url": ""})
    )
    return [Path(path) for path in dict.fromkeys(paths)]


@dataclass(frozen=True)
class _Checking:
    """The tasks of `verify`: each shard, by its number, and then each tar in place.

    decode: the limits of decoding; None: nothing is decoded. results: the folder for what is found.
    """

    decode: tuple[tuple[str, int], ...] | None
    results: str | None

    def place(self, pack: Pack, shared: bool) -> AbstractContextManager[object]:
        if self.results is None:
            return nullcontext()
        return task_folder(Path(self.results), {"verify": known_as(pack), "decode": self.decode}, shared)

    def held(self) -> AbstractContextManager[_Checking]:
        return nullcontext(self)

    def on(self, pack: Pack, progress: Callable[[int], None]) -> Callable[[int], _Result]:
        paths, foreign = [Path(tar) for tar in pack.tar_paths()], _foreign(pack)
        decode = dict(self.decode) if self.decode is not None else None
        check = _Check(pack, read_log(pack.path, pack.manifest), paths, decode, progress)
        bytes_of = shard_bytes(pack)

        def make(task: int) -> _Result:
            return check.shard(task) if task < len(paths) else _check_whole(foreign[task - len(paths)])

        def kept_or_made(task: int) -> _Result:
            assert self.results is not None
            shard = task < len(paths)
            files = [pack.path / pack.shards[task]["table"], paths[task]] if shard else [foreign[task - len(paths)]]
            stamp = [(stamp_of(path) or ())[1:] for path in files] if pack.remote is None else []  # no inode
            found = kept(Path(self.results), task, stamp)
            if found is None:
                return _Result(**keep(Path(self.results), task, stamp, asdict(make(task))))
            progress(bytes_of(task))
            return _Result(**found)

        return make if self.results is None else kept_or_made


class _Check:
    def __init__(
        self, pack: Pack, log: Log, paths: list[Path], decode: dict[str, int] | None, progress: Callable[[int], None]
    ):  # fmt: skip
        self.pack, self.log, self.paths, self.decode, self.progress = pack, log, paths, decode, progress
        self.lines = log.by_shard(pack.manifest)
        self.points = None
        with contextlib.suppress(PackError):  # which stands in the result already
            self.points = pack.open_points()

    def shard(self, shard: int) -> _Result:
        result = _Result()
        entry = self.pack.shards[shard]
        name = entry["table"]
        try:
            problem = _crc_problem(self.pack.path, name, self.pack.manifest)
            if problem:  # no library reads it then: of a damaged file none promises anything
                result.problems.append(problem)
                return result
            table = self.pack.table(shard)
            result.problems += (text for _, text in wrong_ids(self.log, self.lines.get(shard, []), table.column("id")))
            result.problems += self._index(shard, table)
            name = entry["tar"]
            self._tar(shard, table, result)
        except Exception as error:
            result.problems.append(f"{name}: {_said(error)}")
        return result

    def _index(self, shard: int, table: pa.Table) -> Iterator[str]:
        first = int(self.pack.first_record[shard])
        want = index_rows(table, shard)
        found = self.pack.index.slice(first, table.num_rows)
        name_of = self.pack.shards[shard]["table"]
        if table.column("record").to_pylist() != list(range(first, first + table.num_rows)):
            yield f"{name_of}: its records are not {first} to {first + table.num_rows - 1}"
        labels = arrow.to_numpy(table.column("label"))
        if self.pack.classes and not -1 <= labels.min() <= labels.max() < len(self.pack.classes):
            yield f"{name_of}: it has labels beyond the {len(self.pack.classes)} classes of pack.json"
        if self.points is not None:
            crc, length = (arrow.to_numpy(table.column(name)) for name in ("crc32c", "length"))
            yield from self.points.problems(first, np.ascontiguousarray(crc), np.ascontiguousarray(length))
        for name in INDEX_SCHEMA.names:
            if found.column(name).combine_chunks() != want.column(name).combine_chunks():
                yield f"{name_of}: column {name} differs from {self.pack.manifest['index']}"

    def _tar(self, shard: int, table: pa.Table, result: _Result) -> None:
        tar_name = self.pack.shards[shard]["tar"]
        remote = self.pack.remote
        foreign = "foreign" in self.pack.shards[shard]
        if remote is not None:
            begin, end = _span(table) if foreign else (0, remote.size_of(tar_name))
            remote.bring(tar_name, begin, end - begin)
        check_regular(Path(self.paths[shard]))
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
                decode = None if dead else self.decode
                wrong = [*_verify_picture(data, row, decode)]
                if not wrong and decode is not None and self.points is not None:
                    wrong += filter(None, [self.points.problem_of(row["record"], data)])
                result.problems += (f"{where}: {problem}" for problem in wrong)
                result.bytes += len(data)
                result.decoded += decode is not None
                self.progress(len(data))
        for name in in_tar:
            result.problems.append(f"{tar_name}: member {name} is in no row of {self.pack.shards[shard]['table']}")


def _span(table: pa.Table) -> tuple[int, int]:
    """Return the bytes of a tar from the first record of a table to the end of the last."""
    offset, length = (arrow.to_numpy(table.column(name).combine_chunks()) for name in ("offset", "length"))
    return int(offset.min()), int((offset + length).max())


def _members(path: Path) -> dict[str, tuple[int, int]]:
    return {member.name: (member.offset, member.length) for member in members(path)}


def _check_whole(tar: Path) -> _Result:
    """Check that a foreign tar is whole, of which the pack knows some members only."""
    try:
        for _ in TarSource(tar).entries():
            pass
    except Exception as error:
        return _Result([f"{tar}: {_said(error)}"])
    return _Result()


def _verify_picture(data: bytes, row: dict[str, Any], decode: dict[str, int] | None) -> Iterator[str]:
    crc = _C.crc32c(data)
    if crc != row["crc32c"]:
        yield f"CRC32C is {crc:08x}, its row says {row['crc32c']:08x}: the bytes were changed"
        return
    try:
        header = _C.read_header(data)
        if decode is not None:
            _C.check_decodes(data, **decode)
    except BadPictureError as error:
        yield str(error)
        return
    if (header["height"], header["width"]) != (row["height"], row["width"]):
        yield (f"the picture is {header['height']} x {header['width']} (height x width), "
               f"its row says {row['height']} x {row['width']}")  # fmt: skip
