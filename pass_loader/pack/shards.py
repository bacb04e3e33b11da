"""One shard's way into a pack: its entries are read, judged and appended to a tar; its rows are kept in a file beside,
so that a packing that was cut off goes on after the last whole shard."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

import pyarrow as pa

from .. import _C
from ..errors import BadPictureError, PackError
from . import arrow
from .destination import Destination
from .direct import DirectWriter
from .inspect import Picture, encoded, inspect
from .layout import append_member, deleted_on_error, end_tar, member_name, publish, temporary_of
from .own_columns import OwnColumns
from .repeats import digest_of
from .report import Refusal, kind_of
from .running import in_order
from .source import IDS, MAX_PICTURE_BYTES, Entry, Naming, Source

# A shard's rows, while its pack is made. kind: report.kind_of. label: the source's number; class_name: or its name, as
# JSON. They become labels when all are known. metadata: the source's own, a JSON object. file: as a refusal names it.
# key: of the id, equal for equal ids alone. path_id, stem_id: CRCs of what `--id path` and `--id stem` would give.
# digest: of the picture's bytes, equal for equal ones alone; null where repeated ones are kept. points: as
# Picture.points.
ROWS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("kind", pa.uint8()),
        ("crc32c", pa.uint32()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("metadata", pa.string()),
        ("file", pa.string()),
        ("key", pa.binary(16)),
        ("path_id", pa.uint32()),
        ("stem_id", pa.uint32()),
        ("digest", pa.binary(16)),
        ("points", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Options:
    """The options that decide about single pictures."""

    transcode: bool | str = False  # "jpeg", "png"; True is "jpeg"
    decode: bool = False
    on_duplicate: str = "keep"
    codec: str = "jpeg"
    in_place: bool = False  # the source's tars are the pack's; nothing is copied
    max_pixels: int | None = None  # see limits.limits
    max_scans: int | None = None
    gps: bool = True  # False: the sources' own coordinates are left out
    entry_points: bool | None = None  # True: decode, and keep where decoding can begin inside a JPEG

    def as_plan(self) -> dict[str, Any]:
        """Return what all runs of a packing must agree on; limits that were not given are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Shard:
    """What is known of a shard that was written, in a file of rows beside its tar.

    name: of its files without suffix; a shard without pictures has no tar. made_of: the fingerprint of its entries.
    tar_bytes: of its tar. source: which of the plan's sources its tar is, in place. same_id: how many of the refused
    had an id that came before; ids_apart: how many of those another choice of ids keeps apart. repeats_of: the digest
    of the inputs by which repeated pictures were taken out; "": none was.
    """

    name: str
    rows: pa.Table
    made_of: str
    tar_bytes: int = 0
    source: int | None = None
    own: OwnColumns = field(default_factory=OwnColumns)
    refused: list[Refusal] = field(default_factory=list)
    same_id: int = 0
    ids_apart: dict[str, int] = field(default_factory=dict)
    repeats_of: str = ""

    def __len__(self) -> int:
        return self.rows.num_rows

    @property
    def tar(self) -> str:
        return f"{self.name}.tar"

    @property
    def table(self) -> str:
        return f"{self.name}.parquet"

    def save(self, root: Path) -> tuple[Path, Path]:
        """Write the rows; return their temporary name and their name."""
        path = root / f"{self.name}.rows"
        temporary = temporary_of(path)
        about = {name: value for name, value in vars(self).items() if name not in ("name", "rows")}
        about |= {"refused": [asdict(refusal) for refusal in self.refused], "own": asdict(self.own)}
        rows = self.rows.replace_schema_metadata({"shard": json.dumps(about)})
        with deleted_on_error(temporary):
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)
        return temporary, path

    @classmethod
    def load(cls, root: Path, name: str) -> Shard:
        """Read a shard's rows, by a memory map. Raises PackError where they are missing or damaged."""
        path = root / f"{name}.rows"
        try:
            rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            about = json.loads(rows.schema.metadata[b"shard"])
            about["refused"] = [Refusal(**refusal) for refusal in about["refused"]]
            about["own"] = OwnColumns(**about["own"])
            return cls(name, rows.replace_schema_metadata(None), **about)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise PackError(f"{path} cannot be read ({error}): run its task again") from None

    @classmethod
    def find(cls, out: Destination, name: str, made_of: str | None = None, inputs: str = "") -> Shard | None:
        """Return a shard that was written whole of the same entries before, or None.

        made_of: the entries' fingerprint; None: any. inputs: a digest of all that is packed: what was taken out of a
        shard because it came before may not come before among other inputs.
        """
        if not out.bring(f"{name}.rows"):
            return None
        try:
            shard = cls.load(out.folder, name)
        except PackError:
            return None
        same = made_of in (None, shard.made_of) and shard.repeats_of in ("", inputs)
        whole = not len(shard) or shard.source is not None or out.size_of(shard.tar) == shard.tar_bytes
        return shard if same and whole else None


def fingerprint(entries: list[Entry]) -> str:
    """Return a digest of the entries and sources of a shard: another file of the same name is read anew."""
    digest = hashlib.sha256()
    for source in dict.fromkeys(entry.source for entry in entries):
        digest.update(stamp_bytes(source))
    for entry in entries:
        digest.update(entry_bytes(entry))
    return digest.hexdigest()


def stamp_bytes(source: Source) -> bytes:
    return repr(source.stamp()).encode("utf-8", "backslashreplace") + b"\n"


def entry_bytes(entry: Entry) -> bytes:
    """Return what a listing says of an entry, as bytes."""
    place = (entry.name, entry.id, entry.class_name, entry.label, entry.offset, entry.length, entry.changed_ns)
    return repr((*place, entry.metadata)).encode("utf-8", "backslashreplace") + b"\n"


class ShardWriter:
    """Writes shards into a destination, several at a time from several threads.

    inputs: a digest of all that is packed, as for `Shard.find`.
    """

    def __init__(self, out: Destination, options: Options, progress: Callable[[int], None], inputs: str = ""):
        self.out, self.root = out, out.folder
        self.options, self.progress, self.inputs = options, progress, inputs

    def keep_or_write(self, name: str, entries: list[Entry], source: int | None = None) -> Shard:
        """Return a shard of these entries, as a run that was cut off has written it, or written now.

        source: as for `write`.
        """
        listed = fingerprint(entries)
        shard = Shard.find(self.out, name, listed, self.inputs)
        if shard is None:
            return self.write(name, entries, listed, source)
        self.progress(sum(entry.length for entry in entries))
        return shard

    def keep_or_stream(
        self, name: str, entries: Iterable[Entry], made_of: str, threads: int, source: int | None = None
    ) -> Shard:
        """Do the same where entries bring their bytes, and are to be taken one after another.

        made_of: stands for them where it stood for them when they were written. threads: that look at pictures.
        """
        shard = Shard.find(self.out, name, made_of, self.inputs)
        if shard is None:
            return self.write(name, entries, made_of, source, threads)
        for entry in entries:
            self.progress(entry.length)
        return shard

    def write(
        self, name: str, entries: Iterable[Entry], listed: str, source: int | None = None, threads: int = 0
    ) -> Shard:
        """Write a shard of these entries.

        listed: the entries' fingerprint. source: which of the plan's sources is the tar that holds them, in place.
        threads: that look at pictures; 0: this one does.
        """
        rows: dict[str, list[Any]] = {column: [] for column in ROWS_SCHEMA.names}
        refused: list[Refusal] = []
        path = self.root / f"{name}.tar"
        temporary = temporary_of(path)

        def take(judged: tuple[Entry, Picture | Refusal]) -> None:
            entry, found = judged
            if isinstance(found, Refusal):
                refused.append(found)
            else:
                for column, value in self._pack(file, entry, found).items():
                    rows[column].append(value)
            self.progress(entry.length)

        try:
            with DirectWriter(temporary) as file:
                if threads:
                    in_order((partial(self._judged, entry) for entry in entries), threads, take)
                else:
                    for entry in entries:
                        take(self._judged(entry))
                end_tar(file)
            shard = Shard(name, _table(rows), listed, source=source, refused=refused)
            shard.own = OwnColumns.of(shard.rows, self.options.gps)
            if len(shard) and source is None:
                shard.tar_bytes = temporary.stat().st_size
                publish((temporary, path), shard.save(self.root))  # with its rows, a tar is a whole shard
                self.out.send(shard.tar, f"{name}.rows")
            else:
                temporary.unlink()
                publish(shard.save(self.root))
                self.out.send(f"{name}.rows")
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return shard

    def _judged(self, entry: Entry) -> tuple[Entry, Picture | Refusal]:
        try:
            return entry, self._picture(entry)
        except (BadPictureError, OSError) as error:
            return entry, refusal(entry, _reason(error, entry))

    def _picture(self, entry: Entry) -> Picture:
        if entry.length > MAX_PICTURE_BYTES:
            raise BadPictureError(f"its {entry.length:,} bytes are more than a picture has ({MAX_PICTURE_BYTES:,})")
        chosen = self.options
        decode = chosen.decode or bool(chosen.entry_points)
        picture = inspect(entry.read(), chosen.transcode, decode, chosen.max_pixels, chosen.max_scans)
        if picture.points and not chosen.entry_points:
            picture = replace(picture, points=b"")
        return encoded(picture, chosen.codec, chosen.max_scans)

    def _pack(self, file: DirectWriter, entry: Entry, picture: Picture) -> dict[str, Any]:
        """Append a picture; return its row."""
        if self.options.in_place:
            offset = entry.offset
        elif not picture.data:  # removed before it was converted: a row without a member
            offset = 0
        else:
            offset = append_member(file, member_name(entry.id, picture.codec), picture.data)
        path_id, stem_id = _other_ids(entry.name)
        return {
            "id": entry.id,
            "offset": offset,
            "length": len(picture.data),
            "width": picture.width,
            "height": picture.height,
            "codec": picture.codec,
            "kind": kind_of(picture),
            "crc32c": _C.crc32c(picture.data),
            "label": entry.label,
            "class_name": json.dumps(entry.class_name) if entry.class_name is not None else None,
            "metadata": json.dumps(entry.metadata, default=str) if entry.metadata is not None else None,
            "file": _file(entry),
            "key": digest_of(entry.id.encode()),
            "path_id": path_id,
            "stem_id": stem_id,
            "digest": digest_of(picture.data) if self.options.on_duplicate != "keep" else None,
            "points": picture.points,
        }


def _table(rows: dict[str, list[Any]]) -> pa.Table:
    return pa.table([arrow.column(rows[field.name], field.type) for field in ROWS_SCHEMA], schema=ROWS_SCHEMA)


def _other_ids(name: str) -> tuple[int, int]:
    """Return CRCs of the ids that IDS would give. Names that need no parsing cost a tenth."""
    if "./" in name or "//" in name or name.endswith(("/", ".")):
        path = PurePosixPath(name)
        ids = [Naming(way).id_of(path) for way in IDS]
    else:
        base = name[name.rfind("/") + 1 :]
        dot = base.rfind(".")
        ids = [name, base[:dot] if dot > 0 else base]
    first, second = (crc32(id.encode("utf-8", "surrogateescape")) for id in ids)
    return first, second


def refusal(entry: Entry, reason: str) -> Refusal:
    return Refusal(_file(entry), _shown(entry.id), reason)


def _file(entry: Entry) -> str:
    return _shown(f"{entry.source.name}: {entry.name}")


def _shown(text: str) -> str:
    """Return a name as text: it need not be UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


_FAILING = (errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


def _reason(error: Exception, entry: Entry) -> str:
    """Return why a picture is refused. Raises PackError where the machine is at fault, not the picture."""
    found = error.errno if isinstance(error, OSError) else None
    if found in _FAILING or found in _TOO_MANY_FILES:
        remedy = (
            "The storage is failing: copy or download the source again, then"
            if found in _FAILING
            else "Close other programs, or allow more files (`ulimit -n 65536`), then"
        )
        raise PackError(
            f"{entry.source.place}: {entry.name} cannot be read: {os.strerror(found or 0)}. {remedy} run the same "
            "command to go on"
        ) from None
    return getattr(error, "strerror", None) or str(error)  # without the path: equal input gives equal bytes
