"""removed.jsonl: which records of a pack were removed, restored and purged, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..errors import PackError
from .layout import REMOVED, write_durably


def generation_of(removed: np.ndarray) -> int:
    """Of a sorted int64 array of removed records: their number << 32 | CRC32C of them; 0 for none."""
    return len(removed) << 32 | _C.crc32c(removed.astype("<i8").tobytes()) if len(removed) else 0


def removals(path: Path, records: int) -> Iterator[set[int]]:
    """Yield the removed records after each line of the log, always the same set.

    A line: {"id", "record", "date", "reason"}; "restored": true where it undoes. Raises PackError for another line, or
    one whose record is not in [0, records).
    """
    removed: set[int] = set()
    for number, entry in enumerate(read_log(path), 1):
        try:
            record = int(entry["record"])
        except (ValueError, KeyError, TypeError) as error:
            raise PackError(f"{path}, line {number}: {error!r}") from None
        if not 0 <= record < records:
            raise PackError(f"{path}, line {number}: record {record} is not in the pack")
        if entry.get("restored"):
            removed.discard(record)
        else:
            removed.add(record)
        yield removed


def read_removed(path: Path, records: int) -> np.ndarray:
    """Return the records that are removed now, sorted int64. Raises PackError as `removals`."""
    removed: set[int] = set()
    for after in removals(path, records):
        removed = after
    return sorted_records(removed)


def removed_at(path: Path, records: int, generation: int) -> np.ndarray:
    """Return the records that were removed when the pack had this generation, sorted int64.

    Raises PackError where it never had it.
    """
    if not generation:  # none was removed
        return sorted_records(set())
    for removed in removals(path, records):
        if len(removed) == generation >> 32:
            found = sorted_records(removed)
            if generation_of(found) == generation:
                return found
    raise PackError(f"{path.parent}: its {REMOVED} tells of no time at which it had generation {generation}")


def sorted_records(removed: set[int]) -> np.ndarray:
    return np.array(sorted(removed), dtype=np.int64)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of removed.jsonl; none where there is no such file."""
    if not path.exists():
        return
    text = path.read_text()
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not text.endswith("\n"):
                raise PackError(
                    f"{path}, line {number} (its last) is cut off: {line!r}. Take the file from a copy of the pack; or "
                    "delete that line, and run its `pass-pack remove` or `restore` again"
                ) from None
            raise PackError(
                f"{path}, line {number} is no JSON ({error}): mend it, or take the file from a copy of the pack"
            ) from None
        if not isinstance(entry, dict):
            raise PackError(f"{path}, line {number}: {entry!r} is no removal")
        yield entry


def append_log(root: Path, entries: list[dict[str, Any]]) -> None:
    """Adds lines, with the date. The file is exchanged whole, so that all lines or none are there after a crash."""
    if not entries:
        return
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    lines = [json.dumps({**entry, "date": date}, sort_keys=True) + "\n" for entry in entries]
    path = root / REMOVED
    before = path.read_bytes() if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    write_durably(path, before + "".join(lines).encode())


def log_stamp(path: Path) -> tuple[int, ...] | None:
    """Changes whenever the log does: it is exchanged whole."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
