"""pack.json, the manifest: what a pack holds, and a checksum of every file that has none of its own.

format, format_version   "pass-loader pack", 2; version 1 has no checks
pack_id, revision        for the life of the pack; how often it was purged
records, shards          their number; tar, table, records and bytes of each shard
index                    name of the index
removed                  lines: of removed.jsonl; check: that of its last line (removed_log.py)
crc32c                   of every table, of the index, of refused.jsonl where there is one, and of pack.json itself:
                         of its bytes with 0 in the place of that number
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import _C
from ..errors import PackError
from .layout import INDEX, MANIFEST, REFUSED, UNFINISHED, check_regular, read_whole, write_durably
from .plain_json import plain_json

FORMAT = "pass-loader pack"
FORMAT_VERSION = 2
_UNCHECKED_VERSION = 1
_OWN_CRC = re.compile(rb'"pack\.json": (\d+)')  # in no string: quotes are escaped there
_BLOCK_BYTES = 1 << 22
_NAME_BYTES = 255  # of a file's name on every usual file system
_MOST_BYTES = 64 << 20  # of pack.json: 150,000 shards and more


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write pack.json durably, in the present format version. manifest: as for `manifest_bytes`."""
    write_durably(root / MANIFEST, manifest_bytes(manifest, root / MANIFEST, lambda name: root / name))


def manifest_bytes(manifest: dict[str, Any], place: Path | str, path_of: Callable[[str], Path]) -> bytes:
    """Return the bytes of pack.json, in the present format version.

    Takes over the CRCs that manifest["crc32c"] has of files which it still names, and computes those it lacks, of the
    files at `path_of` their names. manifest["removed"] is the log's `counted`. place: of pack.json, for messages.
    """
    known = manifest.get("crc32c", {})
    names = [*(shard["table"] for shard in manifest["shards"]), manifest.get("index", INDEX)]
    if REFUSED in known or (not known and path_of(REFUSED).exists()):
        names.append(REFUSED)
    crcs = {name: known[name] if name in known else file_crc32c(path_of(name)) for name in names}
    new = {**manifest, "format": FORMAT, "format_version": FORMAT_VERSION, "removed": manifest["removed"]}
    zeroed = _encoded(new | {"crc32c": crcs | {MANIFEST: 0}})
    content = _encoded(new | {"crc32c": crcs | {MANIFEST: _C.crc32c(zeroed)}})
    if len(content) > _MOST_BYTES:
        raise PackError(
            f"{place} would have {len(content):,} bytes, more than {_MOST_BYTES:,}: it names "
            f"{len(new['shards']):,} shards; pack into larger ones (--shard-bytes)"
        )
    return content


def _encoded(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def file_crc32c(path: Path) -> int:
    """Return the CRC32C of a file's bytes."""
    if path.exists():
        check_regular(path)
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            crc = _C.crc32c(block, crc)
    return crc


def read_manifest(root: Path) -> dict[str, Any]:
    """Read pack.json. Raises PackError where it is missing, damaged or not of a pack that this version can read."""
    path = root / MANIFEST
    try:
        content = read_whole(path, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        hint = "its packing was not finished" if (root / UNFINISHED).exists() else "`pass-pack build` makes one"
        raise PackError(f"{root} is not a pack: it has no {MANIFEST} ({hint})") from None
    return manifest_of(path, content)


def manifest_of(path: Path | str, content: bytes) -> dict[str, Any]:
    """Return the manifest that these bytes are, as `read_manifest`. path: for messages."""
    try:
        manifest = plain_json(content)
    except ValueError as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"{path} is damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackError(f"{path} is not a manifest of a pass-loader pack")
    if manifest.get("format_version") not in (_UNCHECKED_VERSION, FORMAT_VERSION):
        raise PackError(
            f"{path} has format version {manifest.get('format_version')!r}, this pass-loader reads "
            f"{_UNCHECKED_VERSION} and {FORMAT_VERSION}"
        )
    _check_crc(path, manifest, content)
    try:
        _check_fields(path, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{path} is damaged: {error!r}") from None
    return manifest


def has_checks(manifest: dict[str, Any]) -> bool:
    """Return whether the pack's files are covered by checksums; those of format version 1 are not."""
    return manifest["format_version"] != _UNCHECKED_VERSION


def _check_crc(path: Path | str, manifest: dict[str, Any], content: bytes) -> None:
    checked = has_checks(manifest)
    if not checked and not {"crc32c", "removed"} & manifest.keys():
        return
    own = list(_OWN_CRC.finditer(content))
    if not checked or len(own) != 1 or int(own[0][1]) != _crc_without(content, *own[0].span(1)):
        raise PackError(
            f"{path} is damaged: its bytes do not have the CRC32C that it says; take it from a copy of the pack"
        )


def _crc_without(content: bytes, begin: int, end: int) -> int:
    """Return the CRC32C of the bytes with a 0 in place of those from `begin` to `end`."""
    return _C.crc32c(content[end:], _C.crc32c(content[:begin] + b"0"))


def _check_fields(path: Path | str, manifest: dict[str, Any]) -> None:
    """Check types and sums. Raises PackError, TypeError, KeyError or AttributeError."""
    _want(manifest["pack_id"], str, "pack_id")
    _want(manifest.get("codec", ""), str, "codec")
    _want(manifest.get("revision", 0), int, "revision")
    for name in ("classes", "metadata", "sources"):
        for text in _want(manifest.get(name, []), list, name):
            _want(text, str, name)
    if len({*(names := manifest.get("metadata", []))}) < len(names):
        raise TypeError(f"metadata has a name twice: {names}")
    if not is_base_name(manifest.get("index", INDEX)):
        raise TypeError(f"index is {manifest['index']!r}")
    total = 0
    for number, shard in enumerate(manifest["shards"]):
        for key in ("tar", "table"):
            if not is_base_name(shard.get(key)):
                raise PackError(f"{path}: shard {number} has the file name {shard.get(key)!r}")
        if type(shard.get("records")) is not int or shard["records"] < 1:
            raise PackError(f"{path}: shard {number} has {shard.get('records')!r} records")
        _want(shard.get("bytes", 0), int, "bytes")
        if "foreign" in shard:
            for key in ("bytes", "crc32c_of_ends"):
                _want(_want(shard["foreign"], dict, "foreign")[key], int, key)
            _want(shard["foreign"].get("url", ""), str, "url")
            if not is_base_name(shard["foreign"].get("file", "file")):
                raise TypeError(f"file is {shard['foreign']['file']!r}")
        total += shard["records"]
    if total != manifest.get("records") or total == 0:
        raise PackError(f"{path}: the shards have {total} records, the pack {manifest.get('records')!r}")
    if has_checks(manifest):
        _want(manifest["removed"]["lines"], int, "lines")
        _want(manifest["removed"]["check"], str, "check")
        named = {MANIFEST, manifest["index"], *(shard["table"] for shard in manifest["shards"])}
        if _want(manifest["crc32c"], dict, "crc32c").keys() - {REFUSED} != named:
            raise TypeError("crc32c is not of the pack's files")
        for crc in manifest["crc32c"].values():
            _want(crc, int, "crc32c")


def _want(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{name} is {value!r}, want {kind.__name__}")
    return value


def is_base_name(name: object) -> bool:
    """Return whether a name that stands in a file of the pack stays in its directory."""
    if not isinstance(name, str) or name != os.path.basename(name) or name in ("", ".", "..") or "\0" in name:
        return False
    return len(name.encode(errors="replace")) <= _NAME_BYTES
