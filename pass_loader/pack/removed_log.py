"""removed.jsonl, the log: which records of a pack were removed, restored and purged, and when.

A line: {"id", "record", "date", "reason"}, "restored": true where it undoes, "purged": true where the bytes are gone,
and last "check": 16 hexadecimal digits of the SHA-256 of the check before and of the line without its own. The first
one follows a check of the pack_id. A line without a check, of format version 1, is covered by the next line's.

pack.json counts the lines and holds the last check. It is written after the log, so a reader that reads it first finds
in the log all lines that it counts, and after them those of a change that is under way or was cut off.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import _C
from ..errors import PackError
from . import arrow
from .layout import REMOVED, read_table, read_whole, write_durably
from .manifest import has_checks, read_manifest, write_manifest
from .plain_json import plain_json

_CHECK = re.compile(rb'(\{.+), "check": "([0-9a-f]{16})"\}')
_MOST_BYTES = 1 << 30  # of the log: seven million lines
_FEW_LINES = 1 << 16
_LEAST_LINE_BYTES = 20  # of an id and a record
_CONTRADICTIONS = 10  # that a message names
_REMEDY = f"take {REMOVED} and pack.json from a copy of the pack (docs/takedown.md)"


class Line(NamedTuple):
    """The record that a line of the log names. number: counted from 1; row: the record's in its shard."""

    number: int
    record: int
    row: int
    id: str


@dataclass(frozen=True)
class Log:
    """The log of a pack, of which every check holds.

    lines: without their ends. check: the last line's. counted: lines that pack.json counts; the others were added after
    it was written. unchecked: lines without a check.
    """

    path: Path
    records: int
    lines: list[bytes]
    check: str
    counted: int
    unchecked: int

    def entries(self, begin: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the line, counted from 1; its content), from the line of index `begin` on.

        Raises PackError for what is no removal of a record of the pack.
        """
        for number, line in enumerate(self.lines[begin:], begin + 1):
            deletable = number == len(self.lines) > self.counted
            yield number, _entry(f"{self.path}, line {number}", line, self.records, deletable)

    def by_shard(self, manifest: dict[str, Any], begin: int = 0) -> dict[int, list[Line]]:
        """Return what the lines from index `begin` on name, by the shard of their record. Raises as `entries`."""
        first_record = np.cumsum([0] + [shard["records"] for shard in manifest["shards"]])
        named = [(number, entry["record"], entry["id"]) for number, entry in self.entries(begin)]
        shards = np.searchsorted(first_record, [record for _, record, _ in named], side="right") - 1
        found: dict[int, list[Line]] = {}
        for shard, (number, record, id) in zip(shards.tolist(), named):
            found.setdefault(shard, []).append(Line(number, record, record - int(first_record[shard]), id))
        return found

    def removals(self) -> Iterator[set[int]]:
        """Yield the records that are removed after each line, always as the same set."""
        removed: set[int] = set()
        for _, entry in self.entries():
            if entry.get("restored"):
                removed.discard(entry["record"])
            else:
                removed.add(entry["record"])
            yield removed

    def removed(self) -> np.ndarray:
        """Return the records that are removed after the last line, sorted int64."""
        removed: set[int] = set()
        for after in self.removals():
            removed = after
        return _sorted(removed)

    def removed_at(self, generation: int) -> np.ndarray:
        """Return the records that were removed when the pack had this generation, sorted int64.

        Raises PackError where it never had it.
        """
        if not generation:  # none was removed
            return _sorted(set())
        for removed in self.removals():
            if len(removed) == generation >> 32:
                found = _sorted(removed)
                if generation_of(found) == generation:
                    return found
        raise PackError(f"{self.path.parent}: its {REMOVED} tells of no time at which it had generation {generation}")

    def extended(self, entries: Iterable[dict[str, Any]]) -> tuple[bytes, dict[str, Any]]:
        """Return the bytes of the log with these entries added, dated now, and what pack.json has to say of it."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lines, check = list(self.lines), self.check
        for entry in entries:
            line = json.dumps({**entry, "date": date}, sort_keys=True).encode()
            check = _next(check, line)
            lines.append(line[:-1] + f', "check": "{check}"}}'.encode())
        return b"".join(line + b"\n" for line in lines), {"lines": len(lines), "check": check}


def read_log(root: Path, manifest: dict[str, Any], all_ids: bool = False) -> Log:
    """Read removed.jsonl and hold it against its checks, those of `manifest`, and the ids of the tables.

    all_ids: as for `log_of`. Raises as it does.
    """

    def ids_of(shard: int) -> pa.ChunkedArray:
        of_shard = manifest["shards"][shard]
        return read_table(root / of_shard["table"], of_shard["records"], ["id"]).column("id")

    return log_of(root / REMOVED, _content(root / REMOVED), manifest, ids_of, all_ids)


def log_of(
    path: Path, content: bytes, manifest: dict[str, Any], ids_of: Callable[[int], pa.ChunkedArray], all_ids: bool
) -> Log:
    """Return the log that these bytes are, held against its checks, those of `manifest`, and the ids of the tables.

    path: for messages. manifest: of the pack, read before. ids_of: gives the ids of a shard. all_ids: compare the ids
    of all lines with those of their records; else of those lines alone that the manifest does not count, whose ids
    nobody compared when they were written or counted.
    Raises PackError where the log is not what was written, whole, or where id and record contradict each other.
    """
    lines = content.split(b"\n")
    checked = has_checks(manifest)
    end = lines.pop()
    if end:
        lines.append(end)
    pinned: dict[str, Any] = manifest["removed"] if checked else {"lines": 0, "check": _first(manifest["pack_id"])}
    check = _first(manifest["pack_id"])
    counted, unchecked = pinned["lines"], 0
    if len(lines) < counted:
        raise PackError(f"{path} has {len(lines)} lines, pack.json counts {counted}: lines were lost; {_REMEDY}")
    for number, line in enumerate(lines, 1):
        found = _CHECK.fullmatch(line)
        body, own = (found[1] + b"}", found[2].decode()) if found else (line + b"\n", None)
        check = _next(check, body)
        where = f"{path}, line {number}"
        if own is None:
            unchecked += 1
            if number > unchecked or (checked and number > counted):
                _entry(where, line, manifest["records"], number == len(lines) > counted)  # says more of a damaged one
                raise PackError(f"{where} has no check: it was not written by `pass-pack`; {_REMEDY}")
        elif own != check:
            raise PackError(f"{where} does not fit its check: it, or one before it, was changed; {_REMEDY}")
        if number == counted and check != pinned["check"]:
            raise PackError(f"{path}: its first {counted} lines are not those that pack.json counts; {_REMEDY}")
    if end and unchecked < len(lines):
        raise PackError(f"{path}, line {len(lines)} (its last) is cut off before the end of the line; {_REMEDY}")
    log = Log(path, manifest["records"], lines, check, counted, unchecked)
    wrong = _contradictions(manifest, log, 0 if all_ids else counted, ids_of)
    if wrong:
        more = f", and {len(wrong) - _CONTRADICTIONS:,} more lines" if len(wrong) > _CONTRADICTIONS else ""
        raise PackError("; ".join(wrong[:_CONTRADICTIONS]) + more + f"; {_REMEDY}")
    return log


def _contradictions(
    manifest: dict[str, Any], log: Log, begin: int, ids_of: Callable[[int], pa.ChunkedArray]
) -> list[str]:
    """Return the messages of `wrong_ids` for all lines from index `begin` on, in order.

    Reads the ids of the shards whose records they name.
    """
    wrong = []
    for shard, lines in log.by_shard(manifest, begin).items():
        wrong += wrong_ids(log, lines, ids_of(shard))
    return [message for _, message in sorted(wrong)]


def wrong_ids(log: Log, lines: list[Line], ids: pa.ChunkedArray) -> list[tuple[int, str]]:
    """Return (number of the line, message) of each line whose id is not that of its record.

    lines: of one shard; ids: of that shard's records.
    """
    rows = np.array([line.row for line in lines], np.int64)
    if len(rows) and rows.max() >= len(ids):
        raise PackError(f"{log.path} names records of a table that has {len(ids)} rows, pack.json says more")
    return [
        (
            line.number,
            f"{log.path}, line {line.number}: record {line.record} has the id {id!r}, not {line.id!r}",
        )
        for line, id in zip(lines, pc.take(ids, arrow.numbers(rows)).to_pylist())
        if id != line.id
    ]


def append_log(root: Path, entries: list[dict[str, Any]]) -> None:
    """Add entries to the log, with the date and their checks, then count them in pack.json. Hold the pack's lock.

    The file is exchanged whole, so that all lines or none are there after a crash. Seals a pack without checks, and
    counts the lines of a change that was cut off before pack.json, with no entries too.
    """
    manifest = read_manifest(root)
    log = read_log(root, manifest)
    content, counted = log.extended(entries)
    if entries:
        write_durably(root / REMOVED, content)
    if not has_checks(manifest) or manifest["removed"] != counted:
        write_manifest(root, {**manifest, "removed": counted})


def counted_before_all(pack_id: str) -> dict[str, Any]:
    """Return what pack.json says of an empty log."""
    return {"lines": 0, "check": _first(pack_id)}


def generation_of(removed: np.ndarray) -> int:
    """Return the generation of a sorted int64 array of removed records: number << 32 | CRC32C of them; 0 for none."""
    return len(removed) << 32 | _C.crc32c(removed.astype("<i8").tobytes()) if len(removed) else 0


def _content(path: Path) -> bytes:
    try:
        content = read_whole(path, _MOST_BYTES)
    except FileNotFoundError:
        return b""
    if content.count(b"\n") > max(_FEW_LINES, len(content) // _LEAST_LINE_BYTES):  # each takes memory
        raise PackError(f"{path} has more lines than its {len(content):,} bytes can hold removals; {_REMEDY}")
    return content


def _first(pack_id: str) -> str:
    return _next("", pack_id.encode())


def _next(check: str, line: bytes) -> str:
    return hashlib.sha256(check.encode() + line).hexdigest()[:16]


def _entry(where: str, line: bytes, records: int, deletable: bool) -> dict[str, Any]:
    """Parse a line. deletable: it is the last one, and pack.json does not count it."""
    try:
        entry = plain_json(line)
    except ValueError as error:
        if deletable:
            raise PackError(
                f"{where} (its last) is cut off or damaged: {line!r}. Take the file from a copy of the pack; or delete "
                "that line, and run its `pass-pack remove` or `restore` again"
            ) from None
        raise PackError(f"{where} is cut off or no JSON ({error}); {_REMEDY}") from None
    if not isinstance(entry, dict) or type(entry.get("record")) is not int or not isinstance(entry.get("id"), str):
        raise PackError(f"{where}: {entry!r} is no removal: want a record and an id")
    if not 0 <= entry["record"] < records:
        raise PackError(f"{where}: record {entry['record']} is not in the pack")
    return entry


def _sorted(removed: set[int]) -> np.ndarray:
    return np.array(sorted(removed), dtype=np.int64)
