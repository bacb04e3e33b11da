"""`pass-pack remove` and `restore`: lines in removed.jsonl. No record's number changes, no shard is touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackError
from .changes import append
from .reader import Pack
from .versions import diff

SHOWN = 10  # ids that a message lists


@dataclass
class Removal:
    """The result of `remove` or `restore`. changed: id to record, in the log now. unchanged: ids that were so before.

    unknown: ids that the pack does not have. copies: ids of live records with the bytes of a removed one.
    """

    verb: str
    changed: dict[str, int] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.verb} {len(self.changed):,} records"]
        lines += [f"  {id} (record {record})" for id, record in list(self.changed.items())[:SHOWN]]
        if len(self.changed) > SHOWN:
            lines.append(f"  and {len(self.changed) - SHOWN:,} more; removed.jsonl lists them")
        if self.unchanged:
            lines.append(f"{self.verb} before, nothing done: {listed(self.unchanged)}")
        if self.unknown:
            lines.append(f"not in the pack: {listed(self.unknown)}")
        if self.copies:
            lines.append(f"live records with the same bytes as a removed one: {listed(self.copies)}")
        return "\n".join(lines)


def remove(
    path: str | Path | Pack,
    ids: Sequence[str] = (),
    *,
    reason: str,
    not_in: str | Path | None = None,
    key: str = "hash",
    ignore_unknown: bool = False,
) -> Removal:
    """Take records out of a pack: loaders opened from now on do not serve them, running ones from their next epoch on.

    path: a directory, a URL, or a pack that is open, which shows it from its next `refresh` on. In a store the log is
    exchanged by conditional writes; where others change it at the same time, the change is made on what they wrote.
    ids: which; not_in: also those that this CSV or Parquet file does not have in its column `key`. reason: for the log.
    The bytes stay in the shards until `purge`; `restore` undoes. All or nothing, durable on return.
    Raises PackError for an id that the pack does not have, unless ignore_unknown; nothing is removed then. Also where
    `not_in` would remove more than half of the live records: such a file is most likely another one than was meant.
    """
    if isinstance(ids, str):
        raise TypeError("ids is one string, want a sequence of them")

    def decide(pack: Pack) -> tuple[Removal, list[dict[str, Any]]]:
        gone = diff(pack, not_in, key=key).gone if not_in is not None else []
        if len(gone) > len(pack) / 2:
            raise PackError(
                f"{not_in} lacks {len(gone):,} of the pack's {len(pack):,} live ids: is it the right file, and {key!r} "
                "its column of ids? To remove so many, give them by ids"
            )
        done, records = _look_up(pack, "removed", [*ids, *gone], ignore_unknown)
        taken = pack.is_removed(records)
        _sort_out(done, list(zip(done.changed, records.tolist(), taken.tolist())))
        done.copies = _copies(pack, np.array(list(done.changed.values()), dtype=np.int64))
        return done, _entries(done, reason)

    return append(path, decide)


def restore(path: str | Path | Pack, ids: Sequence[str], *, reason: str, ignore_unknown: bool = False) -> Removal:
    """Undo `remove`. path: as there.

    Raises PackError for an id that the pack does not have, unless ignore_unknown, and for a purged one; nothing is
    restored then.
    """
    if isinstance(ids, str):
        raise TypeError("ids is one string, want a sequence of them")

    def decide(pack: Pack) -> tuple[Removal, list[dict[str, Any]]]:
        done, records = _look_up(pack, "restored", ids, ignore_unknown)
        purged = [id for id, record in done.changed.items() if pack.is_purged(record)]
        if purged:
            raise PackError(
                f"the bytes of these ids were purged and cannot be restored: {listed(purged)}; build a new pack from "
                "the source to have them again"
            )
        _sort_out(done, list(zip(done.changed, records.tolist(), (~pack.is_removed(records)).tolist())))
        return done, [{**entry, "restored": True} for entry in _entries(done, reason)]

    return append(path, decide)


def ids_of_file(path: str | Path) -> list[str]:
    """Read ids, one a line, as they are; empty lines are left out.

    Raises PackError for a file without ids or not UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # editors may set a mark in front
    except UnicodeDecodeError as error:
        raise PackError(f"{path} is not UTF-8: {error}; save it as UTF-8") from None
    ids = [line for line in text.split("\n") if line.strip()]
    if not ids:
        raise PackError(f"{path} holds no id; want one a line")
    return [id.removesuffix("\r") for id in ids]


def listed(ids: Iterable[str], count: int | None = None) -> str:
    """Return the first ids, and how many more there are. count: of all, where `ids` are the first of them."""
    ids = list(ids)
    count = len(ids) if count is None else count
    return ", ".join(ids[:SHOWN]) + (f" and {count - SHOWN:,} more" if count > SHOWN else "")


def _look_up(pack: Pack, verb: str, ids: Sequence[str], ignore_unknown: bool) -> tuple[Removal, np.ndarray]:
    """Look the ids up: all known ones are in `changed`, with their records beside."""
    unique = list(dict.fromkeys(ids))
    records = pack.records_of(unique)
    done = Removal(verb, unknown=[id for id, record in zip(unique, records) if record < 0])
    if done.unknown and not ignore_unknown:
        raise PackError(
            f"{pack.place} has no record with these ids: {listed(done.unknown)}; nothing was {verb} "
            "(ignore_unknown, --ignore-unknown goes on without them)"
        )
    done.changed = {id: int(record) for id, record in zip(unique, records) if record >= 0}
    return done, records[records >= 0]


def _sort_out(done: Removal, rows: list[tuple[str, int, bool]]) -> None:
    done.changed = {id: record for id, record, before in rows if not before}
    done.unchanged = [id for id, _, before in rows if before]


def _entries(done: Removal, reason: str) -> list[dict[str, Any]]:
    return [{"id": id, "record": record, "reason": reason} for id, record in done.changed.items()]


def _copies(pack: Pack, records: np.ndarray) -> list[str]:
    """Return the ids of live records beside these with the same length and CRC32C."""
    if len(records) == 0:
        return []
    prints = pack.column("length") << 32 | pack.column("crc32c")
    same = np.flatnonzero(np.isin(prints, prints[records]))
    same = same[~pack.is_removed(same) & ~np.isin(same, records)]
    return [pack.id_of(int(record)) for record in same]
