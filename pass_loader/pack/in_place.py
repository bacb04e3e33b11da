"""`pass-pack combine --in-place`: the records of packs become those of one, and their bytes stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import PackError
from ..remote.store import StoreError
from ..remote.stream import RemoteObject, check_url
from . import arrow
from .convert import PackSource
from .destination import Destination
from .foreign import remember, stamp, stamp_of_object
from .layout import publish
from .reader import Pack
from .repeats import FileArray, Firsts, digest_of
from .running import in_order
from .shards import ROWS_SCHEMA, Options, Shard, fingerprint, refusal
from .source import Entry

_AT_ONCE = 32  # tars in stores that are asked for
_CHUNK = 1 << 20  # records looked at together
_MOST_NAME_BYTES = 255
_FROM_TABLE = ("offset", "length", "width", "height", "codec", "crc32c")


@dataclass(frozen=True)
class TarInPlace:
    """A tar of a pack, as another pack refers to it.

    name: there. foreign: what its manifest says of it (docs/format.md). path: where it lies; None: in a store.
    """

    name: str
    foreign: dict[str, Any]
    path: Path | None


class TarsInPlace:
    """The tars of several packs, with names by which one pack can tell them apart.

    Raises PackError for packs of which some lie in stores and others do not, for those of this machine where the new
    pack, `out`, lies in a store, and for a tar that cannot be read.
    """

    def __init__(self, packs: Sequence[Pack], out: Destination, threads: int):
        remote = [pack.remote is not None for pack in packs]
        if any(remote) and not all(remote):
            raise PackError(
                "some of the packs have their tars in stores, others on this machine, and a pack refers to tars in one "
                "kind of place: combine the two kinds apart, or without --in-place"
            )
        if out.stored and not all(remote):
            raise PackError(
                f"{out.place}: a pack that refers to tars of this machine where they lie is made in a directory"
            )
        found: list[dict[str, TarInPlace]] = [{} for _ in packs]

        def take(place: tuple[int, str, TarInPlace]) -> None:
            number, tar, known = place
            found[number][tar] = known

        calls = [
            partial(_known, pack, number, shard, paths[shard])
            for number, pack in enumerate(packs)
            for paths in [pack.tar_paths() if pack.remote is None else [""] * len(pack.shards)]
            for shard in {entry["tar"]: shard for shard, entry in reversed([*enumerate(pack.shards)])}.values()
        ]
        in_order(calls, _AT_ONCE if all(remote) else threads, take)
        self._found = found

    def of(self, pack: int, tar: str) -> TarInPlace:
        """Return a tar of a pack, by its name there."""
        return self._found[pack][tar]

    def remember(self, root: Path, names: set[str]) -> None:
        """Write down where the tars of these names lie, for the new pack."""
        tars = [tar for of_pack in self._found for tar in of_pack.values()]
        places = {tar.name: tar.path for tar in tars if tar.path is not None and tar.name in names}
        if places:
            remember(root, places)


def _known(pack: Pack, number: int, shard: int, path: str) -> tuple[int, str, TarInPlace]:
    entry = pack.shards[shard]
    tar, before = entry["tar"], entry.get("foreign", {})
    file = before.get("file", tar)
    name = f"{number:05d}-{tar}"
    if len(name.encode()) > _MOST_NAME_BYTES:
        raise PackError(f"{pack.place}: the name {tar} is too long to refer to it; combine without --in-place")
    if pack.remote is None:
        try:
            known = stamp(Path(path))
        except OSError as error:
            raise PackError(f"{path} cannot be read: {error.strerror}; `pass-pack verify {pack.place}`") from None
        return number, tar, TarInPlace(name, {**known, "file": file}, Path(path))
    if "url" in before:  # the pack refers to it, too
        return number, tar, TarInPlace(name, {**before, "file": file}, None)
    url = f"{pack.remote.address.url}{tar}"
    check_url(url)
    try:
        about = pack.remote.store.about(tar)
    except FileNotFoundError as error:
        raise PackError(f"{error}; `pass-pack verify {pack.place}`") from None
    except StoreError as error:
        raise PackError(str(error)) from None
    known = stamp_of_object(RemoteObject(url, pack.remote.store, tar, about))
    return number, tar, TarInPlace(name, {**known, "file": file}, None)


class InPlaceWriter:
    """Writes the rows of shards whose tars stay where they are; of the pictures it reads those alone that may repeat.

    As `ShardWriter`, but for the tars. packs: of all records, in their order.
    """

    def __init__(
        self, out: Destination, options: Options, progress: Callable[[int], None], inputs: str, packs: Sequence[Pack]
    ):
        self.out, self.progress, self.inputs = out, progress, inputs
        self._alike = _alike(out.folder, packs) if options.on_duplicate != "keep" else None

    def keep_or_write(self, name: str, entries: list[Entry]) -> Shard:
        """Return a shard of these entries of one shard of a pack, as it was written before, or written now."""
        listed = fingerprint(entries)
        shard = Shard.find(self.out, name, listed, self.inputs)
        if shard is None:
            pack = int(name.split("-")[1])
            shard = Shard(name, self._rows(pack, entries), listed, source=pack)
            publish(shard.save(self.out.folder))
            self.out.send(f"{name}.rows")
        self.progress(sum(entry.length for entry in entries))
        return shard

    def _rows(self, number: int, entries: list[Entry]) -> pa.Table:
        source = entries[0].source
        assert isinstance(source, PackSource)
        pack, records = source.pack, np.array([entry.offset for entry in entries])
        shard = pack.shard_of(int(records[0]))
        places = arrow.numbers(records - pack.first_record[shard])
        table = pack.table(shard, columns=[*_FROM_TABLE]).take(places).combine_chunks()
        made: dict[str, Any] = {
            "id": arrow.strings([entry.id for entry in entries]),
            "file": arrow.strings([refusal(entry, "").file for entry in entries]),
            "key": arrow.column([digest_of(entry.id.encode()) for entry in entries], pa.binary(16)),
        }
        for name in ("kind", "path_id", "stem_id"):
            type = ROWS_SCHEMA.field(name).type
            made[name] = arrow.numbers(np.zeros(len(entries), arrow.dtype_of(type)))
        if self._alike is not None:
            alike = self._alike[number][records].tolist()
            crcs = table.column("crc32c").to_pylist()
            digests = [_digest(entry, crc, read) for entry, crc, read in zip(entries, crcs, alike)]
            made["digest"] = arrow.column(digests, pa.binary(16))
        columns = [
            table.column(field.name)
            if field.name in _FROM_TABLE
            else made.get(field.name, pa.nulls(len(entries), field.type))
            for field in ROWS_SCHEMA
        ]
        return pa.table(columns, schema=ROWS_SCHEMA).combine_chunks()


def _digest(entry: Entry, crc: int, read: bool) -> bytes:
    """Return what is equal for equal bytes. read: another picture has their length and CRC; else these two will do."""
    return digest_of(entry.read()) if read else digest_of(b"alone %d %d" % (entry.length, crc))


def _alike(root: Path, packs: Sequence[Pack]) -> list[np.ndarray]:
    """Return which records of each pack share length and CRC with another one of any: (records,) bool each, on disk."""
    total = sum(pack.records for pack in packs)
    firsts = Firsts(root, total)
    for pack in packs:
        for start in range(0, pack.records, _CHUNK):
            length, crc = (pack.column(name)[start : start + _CHUNK].astype(np.uint64) for name in ("length", "crc32c"))
            told = length << np.uint64(32) | crc
            firsts.add_pairs(np.stack([told * np.uint64(0x9E3779B97F4A7C15), told], axis=1))  # its first bits are mixed
    first = firsts.sort()
    alike = FileArray(root, np.dtype(bool), total).array
    for start in range(0, total, _CHUNK):
        later = np.flatnonzero(first[start : start + _CHUNK]) + start
        alike[later] = True
        alike[first[later] - 1] = True
    return np.split(alike, np.cumsum([pack.records for pack in packs])[:-1].tolist())
