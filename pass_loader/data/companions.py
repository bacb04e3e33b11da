"""Companions: pictures of another pack that go with records by id and stand in for them in one view (GenView)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import _C
from ..errors import PackError
from ..pack.reader import Pack
from ..recipes.recipe import Recipe
from .labels import numbers_of

_SUFFIX = r"^(?P<id>.*)_s-(?P<scale>[0-9]+(?:\.[0-9]+)?)$"  # genview 38a6a78, ImageNetDiffusionScales


class Companions:
    """A pack whose pictures go with those of another one. It may lack some, have several for one id, and hold others.

    pack: the companions' pack.
    original: the column of its metadata with the id of the picture that each goes with; None: its own id, as it is or
        without the ending _s-SCALE, as GenView names several pictures of one source.
    scale: the column of its metadata with a number, for example the noise level; None: the SCALE of such an ending.
    """

    def __init__(self, pack: str | Path | Pack, *, original: str | None = None, scale: str | None = None):
        self.pack = pack if isinstance(pack, Pack) else Pack(pack)
        for name in (original, scale):
            if name is not None and name not in self.pack.manifest["metadata"]:
                known = self.pack.manifest["metadata"]
                raise PackError(f"companions: {self.pack.path} has no column {name!r}; its metadata has {known}")
        self.original, self.scale = original, scale


class Companion(NamedTuple):
    """view: the number of the view that is of it. record: its number in the dataset, whose `read`, `decode` and `id_of`
    take it. scale: NaN where it has none."""

    view: int
    record: int
    scale: float


@dataclass(frozen=True)
class Pairs:
    """The companions of one pack's records, under the numbers that all have in their own packs."""

    pack: Pack  # the companions'
    originals: np.ndarray  # (pairs,) int64, sorted
    records: np.ndarray  # (pairs,) int64: the companion of each
    scales: np.ndarray  # (pairs,) float32, NaN where there is none

    @staticmethod
    def of(pack: Pack, companions: str | Path | Pack | Companions) -> Pairs:
        """Reads the ids of both packs into memory. Raises PackError where no record has a companion."""
        asked = companions if isinstance(companions, Companions) else Companions(companions)
        table = _table(asked)
        known = pack.all_ids()
        ids, scales = (table.column(name).combine_chunks() for name in ("original", "scale"))
        originals = pc.index_in(ids, value_set=known)
        if asked.original is None:
            parts = pc.extract_regex(ids, _SUFFIX)
            ending = pc.cast(pc.struct_field(parts, "scale"), pa.float64())
            scales = scales if asked.scale is not None else pc.if_else(pc.is_null(originals), ending, scales)
            originals = pc.coalesce(originals, pc.index_in(pc.struct_field(parts, "id"), value_set=known))
        found = np.flatnonzero(pc.is_valid(originals).to_numpy(zero_copy_only=False))
        if not len(found):
            raise PackError(
                f"companions: no picture of {asked.pack.path} goes with one of {pack.path}: want equal ids, ids with "
                "the ending _s-SCALE, or a column of its metadata with the original's id: Companions(pack, original=)"
            )
        to = pc.fill_null(originals, -1).to_numpy(zero_copy_only=False)[found].astype(np.int64)
        order = np.argsort(to, kind="stable")
        numbers = pc.fill_null(scales, float("nan")).to_numpy(zero_copy_only=False).astype(np.float32)
        return Pairs(asked.pack, to[order], found[order].astype(np.int64), numbers[found][order])


def _table(asked: Companions) -> pa.Table:
    """(records of the companions,): `original`, an id as text, and `scale`, float64."""
    pack = asked.pack
    names = [name for name in (asked.original, asked.scale) if name is not None]
    tables = pa.concat_tables([pack.table(shard, columns=["id", *names]) for shard in range(len(pack.shards))])
    original = pc.cast(tables.column(asked.original or "id"), pa.large_string())
    scale = np.full(tables.num_rows, np.nan)
    if asked.scale is not None:
        scale = numbers_of(pack, asked.scale, tables.column(asked.scale), pack.column("length") == 0).astype(np.float64)
    return pa.table({"original": original, "scale": pa.array(scale)})


@dataclass
class Drawn:
    """Of N samples: which view of each is of a companion, and of which."""

    views: np.ndarray  # (N,) int32; -1: none
    records: np.ndarray  # (N,) int64, of the companions; -1: none
    scales: np.ndarray  # (N,) float32; NaN: none

    @staticmethod
    def none(count: int) -> Drawn:
        return Drawn(np.full(count, -1, np.int32), np.full(count, -1, np.int64), np.full(count, np.nan, np.float32))

    def as_dict(self) -> dict[str, np.ndarray]:
        """used (N,) bool; view (N,) int64, -1 where none is used; record (N,) int64, the companion's number in the
        dataset, or -1; scale (N,) float32, NaN where none is used or known."""
        return {"used": self.views >= 0, "view": self.views.astype(np.int64), "record": self.records,
                "scale": self.scales}  # fmt: skip

    def one(self, place: int) -> Companion | None:
        if self.views[place] < 0:
            return None
        return Companion(int(self.views[place]), int(self.records[place]), float(self.scales[place]))

    def at(self, places: np.ndarray) -> Drawn:
        return Drawn(self.views[places], self.records[places], self.scales[places])

    def put(self, place: int, other: Drawn) -> None:
        """The one sample of `other` in this place."""
        self.views[place], self.records[place], self.scales[place] = other.views[0], other.records[0], other.scales[0]

    def drop(self, places: np.ndarray) -> None:
        """No companion in these places."""
        self.views[places], self.records[places], self.scales[places] = -1, -1, np.nan


@dataclass(frozen=True)
class Companioned:
    """The pairs of all packs of a dataset, under the numbers that records have there."""

    originals: np.ndarray  # (pairs,) int64, sorted
    records: np.ndarray
    scales: np.ndarray
    views: int
    probability: float

    @staticmethod
    def of(pairs: Sequence[Pairs | None], first_record: np.ndarray, recipe: Recipe) -> Companioned:
        """first_record: of the packs and behind them of those of their companions, in this order."""
        if not recipe.companion:
            raise ValueError(
                f"the recipe {recipe.name} uses no companions: take recipes.genview(), or "
                "dataclasses.replace(recipe, companion=...), the probability"
            )
        present = [(number, pair) for number, pair in enumerate(pairs) if pair is not None]
        behind = first_record[len(pairs) :]
        return Companioned(
            np.concatenate([pair.originals + first_record[number] for number, pair in present]),
            np.concatenate([pair.records + first for (_, pair), first in zip(present, behind)]),
            np.concatenate([pair.scales for _, pair in present]),
            len(recipe.views),
            recipe.companion,
        )

    def draw(self, seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray) -> Drawn:
        """A pure function of (seed, epoch, record, draw). records may hold numbers that have no companion."""
        first = np.searchsorted(self.originals, records)
        counts = np.searchsorted(self.originals, records, side="right") - first
        views, which = _C.draw_companions(seed, records, draws, epochs, counts, self.views, self.probability)
        place = np.minimum(first + which, len(self.originals) - 1)
        used = views >= 0
        return Drawn(
            views, np.where(used, self.records[place], -1), np.where(used, self.scales[place], np.float32("nan"))
        )
