"""Which records a dataset serves at one moment: from positions to records, frozen while an epoch runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ..pack.reader import Pack
from ..pack.removal import ids_of_file

Generation = int | tuple[int, ...]  # of a pack, or of each of several


class Served(Protocol):
    """The records that an epoch is drawn from. Positions are 0 to len - 1."""

    @property
    def generation(self) -> Generation: ...

    def __len__(self) -> int: ...

    def at(self, positions: np.ndarray, draws: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (records int64, draws uint32) of positions (N,) int64 in these epochs of the views, (N,) uint32.

        draws: (N,) uint32, as a sampler gave them. Raises IndexError outside [0, len).
        """
        ...


@dataclass(frozen=True)
class Live:
    """The served records of one pack: all of them or chosen ones, without those that were removed."""

    records: int  # of the pack, removed ones included
    removed: np.ndarray  # sorted int64
    chosen: np.ndarray | None  # int64, in their order, without removed ones; None: all live records in order

    @staticmethod
    def of(pack: Pack, chosen: np.ndarray | None, generation: int | None = None) -> Live:
        """Return what is live now, or was when the pack had this generation.

        Raises PackError where it never had it.
        """
        if generation is None or generation == pack.generation:
            removed = pack.removed
        else:
            removed = pack.removed_at(generation)
        return Live(pack.records, removed, None if chosen is None else chosen[~np.isin(chosen, removed)])

    def __len__(self) -> int:
        return self.records - len(self.removed) if self.chosen is None else len(self.chosen)

    def records_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the records at int64 positions, of the same shape. Raises IndexError outside [0, len)."""
        _check_positions(positions, len(self))
        if self.chosen is not None:
            return self.chosen[positions]
        if len(self.removed) == 0:
            return positions
        return positions + np.searchsorted(self._live_before, positions, side="right")

    @cached_property
    def _live_before(self) -> np.ndarray:
        """How many live records precede each removed one: the k-th live record is k plus the removed ones before it."""
        return self.removed - np.arange(len(self.removed))


@dataclass(frozen=True)
class ConcatLive:
    """The served records of one or several packs in turn, under their numbers in all packs together.

    generation: of all packs that the dataset holds, also of those that serve no records.
    """

    parts: tuple[Live, ...]
    first_record: np.ndarray  # of each part
    generation: Generation

    @cached_property
    def ends(self) -> np.ndarray:
        """(parts,): how many positions precede the end of each."""
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def at(self, positions: np.ndarray, draws: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.records_at(positions), draws

    def records_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the records at int64 positions (N,). Raises IndexError outside [0, len)."""
        _check_positions(positions, len(self))
        records = np.empty(len(positions), np.int64)
        parts = np.searchsorted(self.ends, positions, side="right")
        for number in np.unique(parts).tolist():
            part, chosen = self.parts[number], parts == number
            begin = self.ends[number] - len(part)
            records[chosen] = part.records_at(positions[chosen] - begin) + self.first_record[number]
        return records


def _check_positions(positions: np.ndarray, count: int) -> None:
    if len(positions) and not 0 <= positions.min() <= positions.max() < count:
        raise IndexError(f"a position outside [0, {count})")


def chosen_records(
    pack: Pack, records: Sequence[int] | None, ids: Sequence[str] | str | Path | None
) -> np.ndarray | None:
    """Return the records of a subset, int64, in their order; None for all.

    ids: a sequence, or a text file with one id a line.
    Raises IndexError or KeyError for what the pack does not have, TypeError for records that are not whole numbers,
    OSError where the file cannot be read.
    """
    if records is None and ids is None:
        return None
    if records is not None and ids is not None:
        raise ValueError("give records or ids, not both")
    if ids is not None:
        return _records_of_ids(pack, ids)
    chosen = np.array(records)
    if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "iu"):
        raise TypeError(f"records: want a list of whole numbers, got {chosen.dtype} of shape {chosen.shape}")
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < pack.records:
        raise IndexError(f"records: want numbers in [0, {pack.records})")
    return chosen.astype(np.int64)


def _records_of_ids(pack: Pack, ids: Sequence[str] | str | Path) -> np.ndarray:
    listed = ""
    if isinstance(ids, (str, os.PathLike)):
        if not Path(ids).exists():
            raise FileNotFoundError(f"ids={os.fspath(ids)!r}: there is no such file; for one id give a list of it")
        listed = f" in {os.fspath(ids)}"
        ids = ids_of_file(ids)
    names = list(ids)
    chosen = pack.records_of(names)
    unknown = [names[place] for place in np.flatnonzero(chosen < 0)]
    if unknown:
        more = ", ..." if len(unknown) > 3 else ""
        raise KeyError(
            f"{pack.path} has no id {', '.join(map(repr, unknown[:3]))}{more}: it lacks {len(unknown):,} of the "
            f"{len(names):,} ids{listed}"
        )
    return chosen


def digest_of(chosen: np.ndarray | None) -> str | None:
    """Return a digest of a subset and its order; None for a whole pack."""
    return None if chosen is None else hashlib.blake2b(chosen.astype("<i8").tobytes(), digest_size=8).hexdigest()
