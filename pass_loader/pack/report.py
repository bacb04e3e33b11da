"""What a packing run did, for a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .inspect import Picture


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file of a source that was not packed. file: the source and the file's name in it."""

    file: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} (id {self.id}): {self.reason}"


@dataclass
class Report:
    """Counts of a build; refusals in the order of the sources, shard by shard."""

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
    refused: list[Refusal] = field(default_factory=list)
    same_id: int = 0  # of the refused ones
    same_bytes: int = 0  # packed all the same, under ids of their own; refused ones stand in refused
    checked_md5: list[str] = field(default_factory=list)  # a line a source
    without_metadata: int | None = None  # None: no metadata was given
    metadata_unused: int | None = None

    def count(self, picture: Picture) -> None:
        self.pictures += 1
        self.bytes += len(picture.data)
        self.progressive += picture.progressive
        self.gray += picture.components == 1
        self.cmyk += picture.components == 4
        self.exif_rotated += picture.exif_rotated
        self.transcoded += picture.transcoded
        self.dct += picture.codec == "dct"
        self.png += picture.codec == "png"
        self.deep += picture.bits == 16

    def add(self, other: Report) -> None:
        for name in (
            "pictures",
            "bytes",
            "progressive",
            "gray",
            "cmyk",
            "exif_rotated",
            "transcoded",
            "dct",
            "png",
            "deep",
            "refused",
            "same_id",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> Report:
        """The inverse of dataclasses.asdict."""
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
        lines += self.checked_md5
        lines.append(f"refused {len(self.refused):,}")
        lines += [f"  {refusal}" for refusal in self.refused]
        return "\n".join(lines)
