"""The pack on disk: names, schemas, the manifest. One page of it for people is in README.md.

pack.json            manifest; its rename is the commit point of every change
shard-00000.tar      plain uncompressed tar of the pictures
shard-00000.parquet  one row a record: where it is, what it is, who made it
index.arrow          the fixed-width columns of all records, memory-mapped; derived from the Parquet files
removed.jsonl        one line a removal or restoration, append-only
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import PackError

FORMAT = "pass-loader pack"
FORMAT_VERSION = 1
MANIFEST, INDEX, REMOVED = "pack.json", "index.arrow", "removed.jsonl"
UNFINISHED = "unfinished"  # stands in a directory while a pack is made there: its files may be made anew
SUFFIX = {"jpeg": ".jpg"}  # of a member's name, by codec

# Of a shard's Parquet file; the metadata's columns follow. label: -1 where there is none.
TABLE_SCHEMA = pa.schema(
    [
        ("record", pa.int64()),
        ("id", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("crc32c", pa.uint32()),
        ("label", pa.int32()),
    ]
)

CODECS = ("jpeg",)  # index.arrow holds a codec's place in this list
INDEX_SCHEMA = pa.schema(
    [
        ("record", pa.int64()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("codec", pa.uint8()),
        ("crc32c", pa.uint32()),
        ("label", pa.int32()),
    ]
)


def member_name(id: str, codec: str) -> str:
    """The tar member of an id, percent-encoded: WebDataset cuts a key at the first dot, and none may leave a folder."""
    encoded = "".join(
        "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        if c in ".%\\" or not c.isprintable() or c.isspace()
        else c
        for c in id
    )
    return encoded.lstrip("/") + SUFFIX[codec]


def shard_names(number: int) -> tuple[str, str]:
    return f"shard-{number:05d}.tar", f"shard-{number:05d}.parquet"


def write_durably(path: Path, content: bytes) -> None:
    """The file has either its old or its new content, whatever happens meanwhile."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """fsync, rename, fsync of the directory."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    write_durably(root / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def read_manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
    except FileNotFoundError:
        hint = "its packing was not finished" if (root / UNFINISHED).exists() else "`pass-pack build` makes one"
        raise PackError(f"{root} is not a pack: it has no {MANIFEST} ({hint})") from None
    except ValueError as error:
        raise PackError(f"{root / MANIFEST} is damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackError(f"{root / MANIFEST} is not a manifest of a pass-loader pack")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise PackError(
            f"{root} has format version {manifest.get('format_version')}, this pass-loader reads {FORMAT_VERSION}"
        )
    try:
        _check_shards(root, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{root / MANIFEST} is damaged: {error!r}") from None
    return manifest


def _check_shards(root: Path, manifest: dict[str, Any]) -> None:
    if not isinstance(manifest["pack_id"], str):
        raise TypeError("pack_id is no string")
    total = 0
    for number, shard in enumerate(manifest["shards"]):
        for key in ("tar", "table"):
            name = shard.get(key)
            if not isinstance(name, str) or name != os.path.basename(name) or name in ("", ".", ".."):
                raise PackError(f"{root / MANIFEST}: shard {number} has the file name {name!r}")
        if type(shard.get("records")) is not int or shard["records"] < 1:
            raise PackError(f"{root / MANIFEST}: shard {number} has {shard.get('records')!r} records")
        total += shard["records"]
    if total != manifest.get("records") or total == 0:
        raise PackError(f"{root / MANIFEST}: the shards have {total} records, the pack {manifest.get('records')!r}")
