"""Packs that were changed on purpose, with checksums that fit; and packs without what depends on the date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pass_loader.pack.layout import MANIFEST, REMOVED
from pass_loader.pack.manifest import write_manifest
from pass_loader.pack.removed_log import counted_before_all, read_log


def reseal(root: Path, **changes: Any) -> None:
    """Write pack.json with these changes and the CRCs that the files have now."""
    manifest = json.loads((root / MANIFEST).read_text())
    write_manifest(root, {**manifest, "crc32c": {}, **changes})


def write_log(root: Path, entries: list[dict[str, Any]]) -> None:
    """Exchange the log for one of these entries, all checked and counted, whatever they say."""
    (root / REMOVED).unlink(missing_ok=True)
    manifest = json.loads((root / MANIFEST).read_text()) | {"removed": counted_before_all(_pack_id(root))}
    content, counted = read_log(root, manifest).extended(entries)
    (root / REMOVED).write_bytes(content)
    reseal(root, removed=counted)


def make_old(root: Path) -> None:
    """Take all checks away, as format version 1 has none."""
    manifest = json.loads((root / MANIFEST).read_text()) | {"format_version": 1}
    del manifest["crc32c"], manifest["removed"]
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    if (root / REMOVED).exists():
        entries = [json.loads(line) for line in (root / REMOVED).read_text().splitlines()]
        lines = [
            json.dumps({k: v for k, v in entry.items() if k != "check"}, sort_keys=True) + "\n" for entry in entries
        ]
        (root / REMOVED).write_text("".join(lines))


def undated(files: dict[str, bytes]) -> dict[str, Any]:
    """Return a pack's files without the dates in its log and what follows from them."""
    found: dict[str, Any] = dict(files)
    manifest = json.loads(files[MANIFEST])
    del manifest["removed"]["check"], manifest["crc32c"][MANIFEST]
    found[MANIFEST] = manifest
    if REMOVED in files:
        entries = [json.loads(line) for line in files[REMOVED].splitlines()]
        found[REMOVED] = [entry | {"date": "", "check": ""} for entry in entries]
    return found


def _pack_id(root: Path) -> str:
    return json.loads((root / MANIFEST).read_text())["pack_id"]
