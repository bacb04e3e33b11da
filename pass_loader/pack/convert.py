"""`pass-pack convert`: the same records in another codec, as a new pack."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import _C
from ..errors import BadPictureError, PackError
from ..remote.address import is_url
from . import arrow
from .columns import IndexColumns
from .destination import Destination, destination
from .inspect import Picture, codec_of, encoded
from .layout import (
    INDEX,
    INDEX_SCHEMA,
    JPEG_CODECS,
    REMOVED,
    publish,
    read_table,
    shard_names,
    temporary_of,
    write_durably,
    write_table,
)
from .limits import limits
from .manifest import read_manifest
from .points import written_by
from .reader import Pack, index_rows, write_index
from .removed_log import read_log
from .running import Running, known_as, run, shard_bytes
from .shards import Options, Shard, ShardWriter
from .source import Entry, Source
from .workplace import complete, joined, workplace

_PLACES = ("offset", "length", "width", "height", "codec", "crc32c")  # what conversion changes of a row
_ERASED = Picture(b"", 0, 0, 0, False, False)


@dataclass(frozen=True)
class Converted:
    """Counts of the new pack. dct, jpeg, png: live records in each codec; erased: removed ones, without their bytes."""

    codec: str
    dct: int
    jpeg: int
    png: int
    erased: int
    bytes_before: int
    bytes: int

    def with_added(self, other: Converted) -> Converted:
        names = ("dct", "jpeg", "png", "erased", "bytes_before", "bytes")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        left = f", left as JPEG because dct cannot represent them {self.jpeg:,}" if self.codec != "jpeg" else ""
        ratio = f" ({self.bytes / self.bytes_before:.3f} times)" if self.bytes_before else ""
        if self.png:
            left += f", PNGs left as they are {self.png:,}"
        return (
            f"{self.jpeg if self.codec == 'jpeg' else self.dct:,} records of codec {self.codec}{left}; removed ones, "
            f"without their bytes, {self.erased:,}; {self.bytes_before:,} bytes of pictures became {self.bytes:,}"
            f"{ratio}"
        )


def convert(
    pack: str | Path | Pack,
    out: str | Path,
    codec: str,
    *,
    workers: int | None = None,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    runner: str = "local",
    ray_address: str | None = None,
    share: tuple[int, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Converted:
    """Write the records of a pack into the new pack `out`, in another codec.

    out: a directory, or a URL, which storage_options are for, as for `build`.
    codec: "dct" or "dct-zstd" (docs/dct-codec.md), where what they cannot represent, or what cannot be decoded, stays a
    JPEG; or "jpeg", where their records become JPEGs with the same pixels, Exif and ICC profile, not the same bytes.
    PNGs stay as they are.
    Record numbers, ids, labels, metadata, shards and pack_id stay, so that plans, samplers and saved states mean the
    same samples. Removed records keep number and id alone, as after `purge`: their bytes are not copied; `restore` them
    first to keep them.
    workers: threads, a shard each; None: one a core. max_pixels, max_scans: a picture of more is not decoded, but stays
    as it is; None for the defaults (docs/packing.md). runner, ray_address: as of `build`; a task is a shard.
    share: (index, of): convert every of-th shard from index on, count these alone and make no pack; any number of
    machines may do so at a time, and the same call without a share then converts what is left and makes the pack.
    progress: called with the bytes of each record done.

    Cut off at any moment, the same call goes on after the last whole shard. Every record's CRC is checked. Raises
    PackError for a record that is not as it was packed, or where `out` is in use.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    if codec not in JPEG_CODECS:
        raise ValueError(f"codec is {codec!r}, want one of {JPEG_CODECS}")
    how = Running(workers, runner, ray_address, share)
    limits(max_pixels, max_scans)
    options = Options(codec=codec, max_pixels=max_pixels, max_scans=max_scans)
    given = {name: value for name, value in options.as_plan().items() if name.startswith("max_")}
    plan = {"convert": known_as(pack), "codec": codec, **given}
    counts = Converted(codec, 0, 0, 0, 0, 0, 0)

    @contextlib.contextmanager
    def place(last: bool = True, shared: bool = False) -> Iterator[tuple[Destination, dict[str, Any] | None]]:
        with (
            destination(out, storage_options) as target,
            workplace(target, [pack.path], plan, last=last, shared=shared) as before,
        ):
            yield target, before

    def add(other: Converted) -> None:
        nonlocal counts
        counts = counts.with_added(other)

    def convert_shards(target: Destination | None = None) -> None:
        pack.checked_log()  # what it names is left out for good
        job = _Conversion(str(out) if is_url(out) else os.path.abspath(out), options, storage_options, target)
        run(job, pack, range(len(pack.shards)), how, add, shard_bytes(pack), progress or (lambda _: None))

    if share is not None or runner != "local":
        with place(last=False, shared=share is not None) as (target, before):
            if before is not None:
                return Converted(**before)
            if share is not None:
                convert_shards(target)
                return counts
        convert_shards()
    with place() as (target, before):
        if before is not None:
            return Converted(**before)
        if runner == "local":
            convert_shards(target)
        target.close()
        return _finish(target, pack, counts)


@dataclass(frozen=True)
class _Conversion:
    """The tasks of `convert`, a shard each; each returns counts of its shard.

    place, storage_options: of the new pack. out: of this process, where it is opened.
    """

    place: str
    options: Options
    storage_options: Mapping[str, Any] | None = field(default=None, compare=False)
    out: Destination | None = None

    def on(self, pack: Pack, progress: Callable[[int], None]) -> Callable[[int], Converted]:
        out = self.out or Destination(Path(self.place))
        writer, source = _Writer(out, self.options, progress), PackSource(pack)

        def convert_shard(number: int) -> Converted:
            shard = writer.keep_or_write(_stem(number), source.of_shard(number))
            if not out.bring(shard.table):
                path = out.folder / shard.table
                publish((write_table(_table(pack.table(number), shard), path, temporary_of(path)), path))
                out.send(shard.table)
            before = pack.column("length")[pack.first_record[number] : pack.first_record[number + 1]]
            lengths = arrow.to_numpy(shard.rows.column("length"))
            whole = lengths > 0
            counted = Counter(shard.rows.column("codec").filter(pa.array(whole.tolist())).to_pylist())
            return Converted(
                self.options.codec, counted["dct"], counted["jpeg"], counted["png"],
                erased=int((~whole).sum()), bytes_before=int(before[whole].sum()), bytes=int(lengths.sum()),
            )  # fmt: skip

        return convert_shard

    @contextlib.contextmanager
    def held(self) -> Iterator[_Conversion]:
        with destination(self.place, self.storage_options) as out, joined(out):
            yield replace(self, out=out) if out.stored else self


class PackSource(Source):
    """A pack as a source. An entry's offset is its record, its length 0 where it was removed."""

    def __init__(self, pack: Pack):
        super().__init__(pack.path)
        self.pack = pack
        self.reader = pack.open_reader()

    def stamp(self) -> list[Any]:
        return [self.pack.pack_id, self.pack.revision]  # the directory's time changes with files that are no pictures

    def size(self) -> int:
        return int(self.pack.column("length").sum())

    def entries(self) -> Iterator[Entry]:
        for group in self.by_shard():
            yield from group

    def by_shard(self) -> Iterator[list[Entry]]:
        return map(self.of_shard, range(len(self.pack.shards)))

    def of_shard(self, shard: int) -> list[Entry]:
        first, end = (int(record) for record in self.pack.first_record[shard : shard + 2])
        removed = self.pack.is_removed(np.arange(first, end))
        lengths = np.where(removed, 0, self.pack.column("length")[first:end]).tolist()
        ids = self.pack.table(shard, columns=["id"]).column("id").to_pylist()
        return [
            Entry(self, f"record {record}", id, None, record, length)
            for record, (id, length) in enumerate(zip(ids, lengths), first)
        ]

    def read(self, entry: Entry) -> bytes:
        try:
            return self.pack.read(entry.offset, partial(self.reader.read, entry.offset))
        except (OSError, ValueError) as error:
            raise PackError(f"{self.pack.shard_name(entry.offset)}, {entry.name}, id {entry.id}: {error}") from None


class CopyWriter(ShardWriter):
    """Writes records of packs as they were packed, and refuses none: what is not as it was packed is a PackError."""

    def _picture(self, entry: Entry) -> Picture:
        data = entry.read()
        codec = codec_of(data)
        try:
            header = _C.read_header(data)
            return Picture(data, header["height"], header["width"], header["components"], False, False, False, codec)
        except BadPictureError as error:
            raise PackError(f"{entry.source.path}, {entry.name}, id {entry.id}: {error}") from None


class _Writer(CopyWriter):
    """Writes shards in another codec: every record keeps its number."""

    def _picture(self, entry: Entry) -> Picture:
        if entry.length == 0:
            return _ERASED
        picture = super()._picture(entry)
        try:
            _C.read_header(picture.data, limits(self.options.max_pixels, None)["max_pixels"])
            return encoded(picture, self.options.codec, self.options.max_scans)
        except BadPictureError as error:
            if picture.codec != "dct":
                return picture  # damaged inside, as it was packed
            raise PackError(f"{entry.source.path}, {entry.name}, id {entry.id}: {error}") from None


def _finish(out: Destination, pack: Pack, done: Converted) -> Converted:
    """Write index, log of removals and manifest, from the tables."""
    root, stems = out.folder, [_stem(number) for number in range(len(pack.shards))]
    out.bring_all(f"{stem}.{kind}" for stem in stems for kind in ("rows", "parquet"))  # of tasks elsewhere
    manifest = {**pack.manifest, "codec": done.codec, "index": INDEX, "shards": [], "crc32c": {}}
    index, columns = IndexColumns(root), [name for name in INDEX_SCHEMA.names if name != "shard"]
    for number, stem in enumerate(stems):
        shard = Shard.load(root, stem)
        table = read_table(root / shard.table, len(shard), columns)
        index.append(index_rows(table, number))
        manifest["shards"].append(
            {"tar": shard.tar, "table": shard.table, "records": len(shard), "bytes": shard.tar_bytes}
        )
    write_index(root / INDEX, index.table(), pack.pack_id)
    written_by(root, pack.pack_id, (Shard.load(root, stem).rows for stem in stems))
    before = pack.column("length")
    erased = [record for record in pack.removed.tolist() if before[record] > 0]
    manifest["revision"] = pack.revision + bool(erased)  # it is a purge too: rows without bytes count as removed
    manifest["removed"] = _write_log(root, pack, erased)
    complete(out, asdict(done), manifest)
    return done


def _stem(number: int) -> str:
    return Path(shard_names(number)[0]).stem


def _table(table: pa.Table, shard: Shard) -> pa.Table:
    """Return the old table with the new places, lengths and codecs; a removed record keeps number and id alone."""
    rows = shard.rows.combine_chunks()
    erased = pc.equal(rows.column("length"), 0)
    for place, known in enumerate(table.schema):
        if known.name in ("record", "id"):
            continue
        if known.name in _PLACES:
            column = rows.column(known.name)
        else:
            nothing = pa.scalar(-1 if known.name == "label" else None, known.type)
            column = pc.if_else(erased, nothing, table.column(place))
        table = table.set_column(place, known, column)
    return table.replace_schema_metadata(None)


def _write_log(root: Path, pack: Pack, erased: list[int]) -> dict[str, Any]:
    """Write the pack's log as it is now: what was removed meanwhile is not served from the new pack either.

    Returns what the new pack.json has to say of it.
    """
    ids = pack.ids(np.array(erased)) if erased else []
    entries = [{"id": id, "record": record, "reason": "convert", "purged": True} for record, id in zip(erased, ids)]
    content, counted = read_log(pack.path, read_manifest(pack.path)).extended(entries)
    if content:
        write_durably(root / REMOVED, content)
    return counted
