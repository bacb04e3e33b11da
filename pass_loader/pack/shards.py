"""One shard's way into a pack: its entries are read, judged and appended to a tar; its rows are kept in a file beside,
so that a packing that was cut off goes on after the last whole shard."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import _C
from ..errors import BadPictureError, PackError
from .direct import DirectWriter
from .inspect import Picture, encoded, inspect
from .layout import append_member, end_tar, fresh, member_name, publish, shard_names
from .report import Refusal, Report
from .source import MAX_PICTURE_BYTES, Entry, Source

# Of Shard.columns. label: the source's number or None; class_name: or its name. They become labels when all are known.
_COLUMNS = ("id", "offset", "length", "width", "height", "codec", "crc32c", "label", "class_name", "metadata",
            "digest")  # fmt: skip


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

    def as_plan(self) -> dict[str, Any]:
        """Return what a run that was cut off must agree on; limits that were not given are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Shard:
    """A shard that is being written: its rows and its part of the report.

    number: in the order of writing; shards without pictures have no files. tar_bytes: size of its finished tar.
    """

    number: int
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    report: Report = field(default_factory=Report)
    tar_bytes: int = 0
    source: int | None = None  # whose tar it is, in place

    def __len__(self) -> int:
        return len(self.columns["id"])

    def save(self, root: Path, entries: str) -> tuple[Path, Path]:
        """Write the rows; return their temporary name and their name."""
        content = {**vars(self), "entries": entries, "report": asdict(self.report)}
        path = _rows_path(root, self.number)
        temporary = path.with_name(path.name + ".tmp")
        fresh(temporary).write_text(json.dumps(content, default=str), encoding="ascii")
        return temporary, path

    @classmethod
    def load(cls, root: Path, number: int) -> Shard:
        return cls._of(json.loads(_rows_path(root, number).read_bytes()))

    @classmethod
    def find(cls, root: Path, number: int, entries: str) -> Shard | None:
        """Return the shard that an earlier packing wrote whole of the same entries, or None."""
        try:
            content = json.loads(_rows_path(root, number).read_bytes())
        except FileNotFoundError:
            return None
        shard = cls._of(content)
        if content["entries"] != entries:
            return None
        if len(shard) and shard.source is None:
            tar = root / shard_names(number)[0]
            if not tar.exists() or tar.stat().st_size != shard.tar_bytes:
                return None
        return shard

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Shard:
        report = Report.of_dict(content["report"])
        return cls(content["number"], content["columns"], report, content["tar_bytes"], content["source"])


def _rows_path(root: Path, number: int) -> Path:
    return (root / shard_names(number)[0]).with_suffix(".rows")


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
    row = (entry.name, entry.id, entry.class_name, entry.label, entry.offset, entry.length, entry.metadata)
    return repr(row).encode("utf-8", "backslashreplace") + b"\n"


class ShardWriter:
    """Writes shards into `root`, several at a time from several threads."""

    def __init__(self, root: Path, options: Options, progress: Callable[[int], None]):
        self.root, self.options, self.progress = root, options, progress

    def write(
        self,
        number: int,
        entries: list[Entry],
        listed: str,
        reject: Callable[[Entry, Picture | None], str | None] = lambda entry, picture: None,
        source: int | None = None,
    ) -> Shard:
        """Write a shard of these entries.

        listed: the entries' fingerprint. reject: called with None before an entry is read, and with its picture before
        it is packed; returns a reason why not, or None. source: place in the list of sources of the tar that holds the
        entries, for a pack in place.
        """
        shard = Shard(number, source=source)
        path = self.root / shard_names(number)[0]
        temporary = path.with_name(path.name + ".tmp")
        with DirectWriter(temporary) as file:
            for entry in entries:
                try:
                    picture = self._picture(entry, reject)
                except (BadPictureError, OSError) as error:
                    shard.report.refused.append(refusal(entry, _reason(error, entry)))
                else:
                    self._pack(file, shard, entry, picture)
                self.progress(entry.length)
            end_tar(file)
        if len(shard) and source is None:
            shard.tar_bytes = temporary.stat().st_size
            publish((temporary, path), shard.save(self.root, listed))  # with its rows, a tar is a whole shard
        else:
            temporary.unlink()
            publish(shard.save(self.root, listed))
        return shard

    def _picture(self, entry: Entry, reject: Callable[[Entry, Picture | None], str | None]) -> Picture:
        reason = reject(entry, None)
        if reason is None and entry.length > MAX_PICTURE_BYTES:
            reason = f"its {entry.length:,} bytes are more than a picture has ({MAX_PICTURE_BYTES:,})"
        if reason is None:
            chosen = self.options
            picture = inspect(entry.read(), chosen.transcode, chosen.decode, chosen.max_pixels, chosen.max_scans)
            picture = encoded(picture, chosen.codec, chosen.max_scans)
            reason = reject(entry, picture)
        if reason is not None:
            raise BadPictureError(reason)
        return picture

    def _pack(self, file: DirectWriter, shard: Shard, entry: Entry, picture: Picture) -> None:
        if self.options.in_place:
            offset = entry.offset
        elif not picture.data:  # removed before it was converted: a row without a member
            offset = 0
        else:
            offset = append_member(file, member_name(entry.id, picture.codec), picture.data)
        row = {
            "id": entry.id,
            "offset": offset,
            "length": len(picture.data),
            "width": picture.width,
            "height": picture.height,
            "codec": picture.codec,
            "crc32c": _C.crc32c(picture.data),
            "label": entry.label,
            "class_name": entry.class_name,
            "metadata": entry.metadata,
            "digest": digest_of(picture.data).hex() if self.options.on_duplicate != "keep" else None,
        }
        for name, value in row.items():
            shard.columns[name].append(value)
        shard.report.count(picture)


def digest_of(data: bytes) -> bytes:
    """Return a digest that is equal for equal pictures and for no others."""
    return hashlib.blake2b(data, digest_size=16).digest()


def refusal(entry: Entry, reason: str) -> Refusal:
    file, id = (
        text.encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
        for text in (f"{entry.source.name}: {entry.name}", entry.id)
    )
    return Refusal(file, id, reason)


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
            f"{entry.source.path}: {entry.name} cannot be read: {os.strerror(found or 0)}. {remedy} run the same "
            "command to go on"
        ) from None
    return getattr(error, "strerror", None) or str(error)  # without the path: equal input gives equal bytes
