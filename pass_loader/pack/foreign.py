"""Tars that a pack refers to where they lie: known by name, size and CRC, and found again when they have moved."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import _C
from ..errors import PackError
from ..remote.address import is_url
from ..remote.stream import RemoteObject
from .layout import changing, read_whole, write_durably
from .manifest import read_manifest
from .plain_json import plain_json

LOCATIONS = "locations.json"  # where the tars were last: name to path. Of this machine only, so not in the manifest
VARIABLE = "PASS_LOADER_SOURCE_DIR"
_ENDS_BYTES = 1 << 16
_MOST_BYTES = 64 << 20  # of locations.json: a line a tar


def stamp(path: Path) -> dict[str, int]:
    """Return size and CRC32C of the first and last 64 KiB, by which a tar is known. Records have CRCs of their own."""
    with open(path, "rb") as file:
        head = file.read(_ENDS_BYTES)
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _ENDS_BYTES))
        return {"bytes": size, "crc32c_of_ends": _C.crc32c(head + file.read())}


def stamp_of_object(of: RemoteObject) -> dict[str, Any]:
    """Return the same of a tar in a store, and its URL, by which it is found."""
    size = of.known.size
    ends = b"".join([of.part(0, min(size, _ENDS_BYTES)), of.part(max(0, size - _ENDS_BYTES), size)])
    return {"bytes": size, "crc32c_of_ends": _C.crc32c(ends), "url": of.url}


def urls_of(shards: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the URLs of tars in stores that a pack refers to, by their names."""
    return {shard["tar"]: shard["foreign"]["url"] for shard in shards if "url" in shard.get("foreign", {})}


def find(root: Path, shards: Sequence[dict[str, Any]], folders: Sequence[str | Path] = ()) -> dict[str, Path]:
    """Find all foreign tars but those in stores: return name to path.

    Looks where they were last, then in `folders`, in those that the environment variable PASS_LOADER_SOURCE_DIR names,
    in the pack and in the folder that holds it. Raises PackError for those not found.
    """
    wanted = {shard["tar"]: shard["foreign"] for shard in shards if "url" not in shard.get("foreign", {"url": ""})}
    last = _last(root)
    places = [*folders, *filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)), root, root.parent]
    found = {name: path for name, want in wanted.items() if (path := _found(name, want, last, places)) is not None}
    missing = sorted(set(wanted) - set(found))
    if missing:
        purged = ""
        if any("file" in wanted[name] for name in missing):  # tars of packs, whose names there say little
            missing = sorted(str(last.get(name, name)) for name in missing)
            purged = "; a pack that was purged since has others: combine its packs anew"
        raise PackError(
            f"{root} refers to tars that are not where they were: {', '.join(missing)} (known by name, size and CRC; "
            f"`pass-pack locate {root} DIR`, or {VARIABLE}, says where they are now{purged})"
        )
    return found


def locate(root: str | Path, folders: Sequence[str | Path] = ()) -> dict[str, Path]:
    """Look for a pack's foreign tars in these folders, and remember where they are.

    Raises PackError where some are not found, for a pack that refers to no tars, and for one in a store.
    """
    if is_url(root):
        raise PackError(f"{root}: a pack in a store refers to no tars of this machine; `locate` is for packs on disks")
    root = Path(root)
    shards = read_manifest(root)["shards"]
    if urls_of(shards):
        raise PackError(f"{root} refers to tars in stores, by their URLs: they are the same on every machine")
    if not any("foreign" in shard for shard in shards):
        raise PackError(f"{root} refers to no tars: its pictures lie in its own shards, wherever it is moved to")
    found = find(root, shards, folders)
    with changing(root):
        remember(root, found)
    return found


def remember(root: Path, found: dict[str, Path]) -> None:
    paths = {name: str(path.resolve()) for name, path in sorted(found.items())}
    write_durably(root / LOCATIONS, (json.dumps(paths, indent=1) + "\n").encode())


def _last(root: Path) -> dict[str, str]:
    try:
        content = plain_json(read_whole(root / LOCATIONS, _MOST_BYTES))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PackError(f"{root / LOCATIONS} is damaged ({error}); delete it") from None
    return content if isinstance(content, dict) else {}


def _found(name: str, want: dict[str, Any], last: dict[str, str], places: Sequence[str | Path]) -> Path | None:
    def candidates() -> Iterator[Path]:
        if isinstance(last.get(name), str):
            yield Path(last[name])
        yield from (Path(place) / want.get("file", name) for place in places)

    known_by = {key: want[key] for key in ("bytes", "crc32c_of_ends")}
    for path in candidates():
        with contextlib.suppress(OSError, ValueError):  # a name that no file may have, a folder that one may not see
            if path.is_file() and path.stat().st_size == want["bytes"] and stamp(path) == known_by:
                return path
    return None
