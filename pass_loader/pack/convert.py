"""`pass-pack convert`: the same records in another codec, as a new pack."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import _C
from ..errors import BadPictureError, PackError
from .columns import IndexColumns
from .cores import usable_cores
from .inspect import Picture, codec_of, encoded
from .layout import CODECS, INDEX, JPEG_CODECS, REMOVED, publish, shard_names, write_durably, write_table
from .limits import limits
from .manifest import read_manifest
from .reader import Pack, index_rows, write_index
from .removed_log import read_log
from .shards import Options, Shard, ShardWriter
from .source import Entry, Source
from .workplace import complete, workplace

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
    progress: Callable[[int], None] | None = None,
) -> Converted:
    """Write the records of a pack into the new pack `out`, in another codec.

    codec: "dct" or "dct-zstd" (docs/dct-codec.md), where what they cannot represent, or what cannot be decoded, stays a
    JPEG; or "jpeg", where their records become JPEGs with the same pixels, Exif and ICC profile, not the same bytes.
    PNGs stay as they are.
    Record numbers, ids, labels, metadata, shards and pack_id stay, so that plans, samplers and saved states mean the
    same samples. Removed records keep number and id alone, as after `purge`: their bytes are not copied; `restore` them
    first to keep them.
    workers: threads, a shard each; None: one a core. max_pixels, max_scans: a picture of more is not decoded, but stays
    as it is; None for the defaults (docs/packing.md). progress: called with the bytes of each record done.

    Cut off at any moment, the same call goes on after the last whole shard. Every record's CRC is checked. Raises
    PackError for a record that is not as it was packed, or where `out` is in use.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    if codec not in JPEG_CODECS:
        raise ValueError(f"codec is {codec!r}, want one of {JPEG_CODECS}")
    root = Path(out)
    limits(max_pixels, max_scans)
    options = Options(codec=codec, max_pixels=max_pixels, max_scans=max_scans)
    given = {name: value for name, value in options.as_plan().items() if name.startswith("max_")}
    plan = {
        "convert": str(pack.path.resolve()) if pack.remote is None else pack.place,
        "pack": [pack.pack_id, pack.revision, pack.generation],
        "codec": codec,
        **given,
    }
    with workplace(root, [pack.path], plan) as before:
        if before is not None:
            return Converted(**before)
        read_log(pack.path, read_manifest(pack.path), all_ids=True)  # what it names is left out for good
        writer = _Writer(root, options, progress or (lambda _: None))
        shards = ((_stem(number), entries) for number, entries in enumerate(PackSource(pack).by_shard()))
        write_shards(writer, shards, workers or usable_cores())
        return _finish(root, pack, codec)


def write_shards(writer: CopyWriter, shards: Iterable[tuple[str, list[Entry]]], workers: int) -> None:
    """Write shards, (name, entries) each, by threads, and leave those that a run that was cut off has written."""
    pending: deque[Future[Shard]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pass-pack") as pool:
        try:
            for name, entries in shards:
                pending.append(pool.submit(writer.keep_or_write, name, entries))
                if len(pending) > workers:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


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
        lengths = self.pack.column("length").copy()
        lengths[self.pack.removed] = 0
        for shard in range(len(self.pack.shards)):
            first = int(self.pack.first_record[shard])
            ids = self.pack.table(shard, columns=["id"]).column("id").to_pylist()
            yield [
                Entry(self, f"record {record}", id, None, record, int(lengths[record]))
                for record, id in enumerate(ids, first)
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


def _finish(root: Path, pack: Pack, codec: str) -> Converted:
    """Write tables, index, the log of removals and the manifest, from the rows that the shards have left."""
    manifest = {**pack.manifest, "codec": codec, "index": INDEX, "shards": [], "crc32c": {}}
    index = IndexColumns(root)
    for number in range(len(pack.shards)):
        shard = Shard.load(root, _stem(number))
        table = _table(pack.table(number), shard)
        publish((write_table(table, root / shard.table), root / shard.table))
        index.append(index_rows(table, number))
        manifest["shards"].append(
            {"tar": shard.tar, "table": shard.table, "records": table.num_rows, "bytes": shard.tar_bytes}
        )
    write_index(root / INDEX, index.table(), pack.pack_id)
    before, lengths = pack.column("length"), index.column("length")
    erased = [record for record in pack.removed.tolist() if before[record] > 0]
    manifest["revision"] = pack.revision + bool(erased)  # it is a purge too: rows without bytes count as removed
    manifest["removed"] = _write_log(root, pack, erased)
    whole = lengths > 0
    codes = index.column("codec")[whole]
    dct, jpeg, png = (int((codes == CODECS.index(name)).sum()) for name in ("dct", "jpeg", "png"))
    erased_in_all = int((~whole).sum())
    done = Converted(codec, dct, jpeg, png, erased_in_all, int(before[whole].sum()), int(lengths.sum()))
    complete(root, asdict(done), manifest)
    return done


def _stem(number: int) -> str:
    return Path(shard_names(number)[0]).stem


def _table(table: pa.Table, shard: Shard) -> pa.Table:
    """Return the old table with the new places, lengths and codecs; a removed record keeps number and id alone."""
    rows = shard.rows.combine_chunks()
    erased = pc.equal(rows.column("length"), 0)
    for place, field in enumerate(table.schema):
        if field.name in ("record", "id"):
            continue
        if field.name in _PLACES:
            column = rows.column(field.name)
        else:
            nothing = pa.scalar(-1 if field.name == "label" else None, field.type)
            column = pc.if_else(erased, nothing, table.column(place))
        table = table.set_column(place, field, column)
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
