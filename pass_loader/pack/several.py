"""Several packs seen as one: records numbered through, with the part of Pack's interface that loaders use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import _C
from .attribution import Attribution, attribution
from .reader import Pack


class Packs:
    """Several packs with the interface of one: records of the first pack, then of the second, and so on.

    A record's number is that in its own pack plus first_record of the pack. Every pack keeps its identity, its
    generation and its revision.

    searched: how many of the packs, from the first, `record_of` and `records_of` look through; None: all.
    """

    def __init__(self, packs: Sequence[Pack], searched: int | None = None):
        self.packs = list(packs)
        self.searched = len(self.packs) if searched is None else searched
        self.first_record = np.cumsum([0] + [pack.records for pack in self.packs]).astype(np.int64)  # and the end

    def __repr__(self) -> str:
        return f"Packs({self.packs!r})"

    @property
    def pack_id(self) -> list[str]:
        return [pack.pack_id for pack in self.packs]

    @property
    def revision(self) -> tuple[int, ...]:
        return tuple(pack.revision for pack in self.packs)

    @property
    def generation(self) -> tuple[int, ...]:
        return tuple(pack.generation for pack in self.packs)

    @property
    def path(self) -> str:
        return " + ".join(str(pack.path) for pack in self.packs)

    @property
    def records(self) -> int:
        return int(self.first_record[-1])

    @property
    def removed(self) -> np.ndarray:
        """The removed records of all packs, sorted int64."""
        return np.concatenate([pack.removed + first for pack, first in zip(self.packs, self.first_record)])

    def refresh(self) -> bool:
        """Refresh each pack. Returns True where the live records or the revision of one changed."""
        return any([pack.refresh() for pack in self.packs])

    def was_purged(self) -> bool:
        return any(pack.was_purged() for pack in self.packs)

    def part_of(self, records: np.ndarray) -> np.ndarray:
        """Return which of the packs each record lies in: int64, of the records' shape."""
        return np.searchsorted(self.first_record, records, side="right") - 1

    def split(self, records: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (which pack, places in `records`, their numbers in that pack) for each pack that has some."""
        parts = self.part_of(records)
        for part in np.unique(parts).tolist():
            places = np.flatnonzero(parts == part)
            yield part, places, records[places] - self.first_record[part]

    def own(self, record: int) -> tuple[Pack, int]:
        """Return the record's pack, and its number there."""
        self._check(record)
        part = int(self.part_of(np.array(record)))
        return self.packs[part], record - int(self.first_record[part])

    def is_removed(self, records: np.ndarray) -> np.ndarray:
        """Return which of these records were removed: bool, of their shape."""
        flat = np.ravel(records)
        found = np.zeros(len(flat), dtype=bool)
        for part, places, own in self.split(flat):
            found[places] = self.packs[part].is_removed(own)
        return found.reshape(np.shape(records))

    def labels(self, records: np.ndarray) -> np.ndarray:
        found = np.empty(len(records), np.int64)
        for part, places, own in self.split(records):
            found[places] = self.packs[part].labels(own)
        return found

    def ids(self, records: np.ndarray) -> list[str]:
        """Return the ids of these records, as Pack.ids."""
        found = [""] * len(records)
        for part, places, own in self.split(records):
            for place, id in zip(places.tolist(), self.packs[part].ids(own)):
                found[place] = id
        return found

    def records_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the record of each id in the packs that are searched, as Pack.records_of.

        Raises KeyError for an id that several of them have.
        """
        found = np.full(len(ids), -1, np.int64)
        for number, pack in enumerate(self.packs[: self.searched]):
            own = pack.records_of(ids)
            for place in np.flatnonzero((own >= 0) & (found >= 0))[:1]:
                first = self.own(int(found[place]))[0]
                raise KeyError(
                    f"{ids[place]!r} is in {first.path} and in {pack.path}: look it up in one of the datasets and add "
                    "the pack's first_record"
                )
            found[own >= 0] = own[own >= 0] + self.first_record[number]
        return found

    def record_of(self, id: str) -> int:
        record = int(self.records_of([id])[0])
        if record < 0:
            raise KeyError(id)
        return record

    def id_of(self, record: int) -> str:
        pack, own = self.own(record)
        return pack.id_of(own)

    def row(self, record: int) -> dict[str, Any]:
        """Return the record's row of its shard's Parquet file, with the number that it has here."""
        pack, own = self.own(record)
        return pack.row(own) | {"record": record}

    def size_of(self, record: int) -> tuple[int, int]:
        pack, own = self.own(record)
        return pack.size_of(own)

    def shard_name(self, record: int) -> str:
        pack, own = self.own(record)
        return f"{pack.path / pack.shard_name(own)} (there record {own})"

    def open_reader(self) -> _C.ShardReader:
        return _C.ShardReader.of_packs([pack.open_reader() for pack in self.packs])

    def attribution(self, records: Any = None) -> Attribution:
        """Return the credits of records by the numbers that they have here.

        None: of all live ones of the packs that are searched.
        """
        parts = []
        wanted: list[tuple[int, np.ndarray | None]]
        if records is None:
            wanted = [(part, None) for part in range(self.searched)]
        else:
            flat = np.asarray(records, dtype=np.int64).reshape(-1)
            if len(flat) and not 0 <= flat.min() <= flat.max() < self.records:
                raise IndexError(f"records: want numbers in [0, {self.records})")
            wanted = [(part, own) for part, _, own in self.split(flat)]
        for part, own in wanted:
            credits = attribution(self.packs[part], own)
            numbers = credits.table.column("record").to_numpy() + self.first_record[part]
            parts.append(credits.table.set_column(0, "record", pa.array(numbers)))
        if not parts:
            return attribution(self.packs[0], [])
        return Attribution(pa.concat_tables(parts), credits.changes)

    def _check(self, record: int) -> None:
        if not 0 <= record < self.records:
            raise IndexError(f"record {record} is not in [0, {self.records})")
