"""The report of a packing, for people."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from . import arrow
from .inspect import Picture
from .layout import REFUSED, fresh, publish

KEPT = 1000  # refusals that a report holds


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file of a source that was not packed. file: the source and the file's name in it."""

    file: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} (id {self.id}): {self.reason}"

    def line(self) -> str:
        """Return the refusal as a line of refused.jsonl."""
        return json.dumps(asdict(self)) + "\n"


class Refusals:
    """All refusals of a packing, in a nameless file, so that memory does not grow with them."""

    def __init__(self, root: Path):
        self._root = root
        self._file = tempfile.TemporaryFile("w+", dir=root, encoding="ascii")

    def add(self, refusals: Iterable[Refusal]) -> None:
        self._file.writelines(refusal.line() for refusal in refusals)

    def add_file(self, path: Path) -> None:
        """Add the lines of a file, if there is one."""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            shutil.copyfileobj(file, self._file)

    def save(self, report: Report) -> None:
        """Write all of them to refused.jsonl, if any; put the first KEPT and their number into the report."""
        path = self._root / REFUSED
        temporary = path.with_name(path.name + ".tmp")
        with open(fresh(temporary), "w+", encoding="ascii") as file:
            self._file.seek(0)
            shutil.copyfileobj(self._file, file)
            file.seek(0)
            report.refused = [Refusal(**json.loads(line)) for line in itertools.islice(file, KEPT)]
            report.refused_count = len(report.refused) + sum(1 for _ in file)
        if report.refused:
            publish((temporary, path))
        else:
            temporary.unlink()


_KINDS = ("progressive", "gray", "cmyk", "exif_rotated", "transcoded", "dct", "png", "deep")  # counts of a report


def kind_of(picture: Picture) -> int:
    """Return what a report counts of a picture: a bit for each of _KINDS, the first the lowest."""
    codec, components = picture.codec, picture.components
    return (
        picture.progressive
        | (components == 1) << 1
        | (components == 4) << 2
        | picture.exif_rotated << 3
        | picture.transcoded << 4
        | (codec == "dct") << 5
        | (codec == "png") << 6
        | (picture.bits == 16) << 7
    )


@dataclass
class Report:
    """Counts of a build, and what it refused; a pack's refused.jsonl has all of that."""

    pictures: int = 0
    bytes: int = 0
    shards: int = 0
    progressive: int = 0
    gray: int = 0
    cmyk: int = 0
    exif_rotated: int = 0
    transcoded: int = 0
    dct: int = 0  # stored in this codec
    png: int = 0
    deep: int = 0  # of 16 bits a sample
    refused: list[Refusal] = field(default_factory=list)  # of a pack the first 1,000, of a shard all
    refused_count: int = 0  # of a pack: all
    same_id: int = 0  # of the refused ones
    same_bytes: int = 0  # packed all the same, under ids of their own; refused ones stand in refused
    checked_md5: list[str] = field(default_factory=list)  # a line a source
    without_metadata: int | None = None  # None: no metadata was given
    metadata_unused: int | None = None
    beside: dict[str, int] = field(default_factory=dict)  # files of tars that were passed over, by suffix
    ids_apart: dict[str, int] = field(default_factory=dict)  # of same_id: those that another --id keeps apart
    hints: list[str] = field(default_factory=list)  # what a person should look at

    def add(self, rows: pa.Table) -> None:
        """Count pictures, rows of shards.ROWS_SCHEMA."""
        self.pictures += rows.num_rows
        self.bytes += int(arrow.to_numpy(rows.column("length")).sum())
        kinds = arrow.to_numpy(rows.column("kind"))
        for bit, name in enumerate(_KINDS):
            setattr(self, name, getattr(self, name) + int(np.count_nonzero(kinds & (1 << bit))))

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> Report:
        """Make a report from what dataclasses.asdict gave."""
        return cls(**{**content, "refused": [Refusal(**refusal) for refusal in content["refused"]]})

    def __str__(self) -> str:
        lines = [
            f"{self.pictures:,} pictures, {self.bytes:,} bytes, {self.shards} shards",
            f"progressive {self.progressive:,}, gray {self.gray:,}, CMYK {self.cmyk:,}, Exif-rotated "
            f"{self.exif_rotated:,} (packed as stored; Pillow's convert('RGB') does not rotate), "
            f"transcoded {self.transcoded:,}",
        ]
        if self.png:
            lines.append(f"PNG {self.png:,}, of them gray of 16 bits {self.deep:,}")
        if self.dct:
            left = self.pictures - self.dct - self.png
            lines.append(f"codec dct {self.dct:,}, left as JPEG because it cannot represent them {left:,}")
        if self.without_metadata is not None:
            lines.append(
                f"pictures without a metadata row {self.without_metadata:,}, "
                f"metadata rows without a picture {self.metadata_unused:,}"
            )
        if self.same_id or self.same_bytes:
            lines.append(
                f"refused because their id was packed before {self.same_id:,}; packed though their bytes were packed "
                f"before under another id {self.same_bytes:,}"
            )
        if self.same_id:
            lines += [
                f"{count:,} of the repeated ids are cut at a dot or a folder: --id {id} keeps them apart"
                for id, count in self.ids_apart.items()
            ]
        if self.beside:
            kinds = sorted(self.beside.items(), key=lambda kind: (-kind[1], kind[0]))
            shown = ", ".join(f"{count:,} {suffix}" for suffix, count in kinds[:10])
            more = f" and {len(kinds) - 10:,} other kinds" if len(kinds) > 10 else ""
            lines.append(f"files beside the pictures that were passed over: {shown}{more}")
        lines += self.hints
        lines += self.checked_md5
        lines.append(f"refused {self.refused_count:,}" + (f" ({REFUSED} lists them)" if self.refused else ""))
        lines += [f"  {refusal}" for refusal in self.refused]
        if self.refused_count > len(self.refused):
            lines.append(f"  and {self.refused_count - len(self.refused):,} more")
        return "\n".join(lines)
