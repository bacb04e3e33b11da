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
from ..keys import Keys
from ..pack.reader import Pack
from ..recipes.recipe import Recipe
from .labels import numbers_of

_SUFFIX = r"^(?P<id>.*)_s-(?P<scale>[0-9]+(?:\.[0-9]+)?)$"  # genview 38a6a78, ImageNetDiffusionScales

# Which view of a sample is a companion's, and of which one: (N,) of these rows.
DRAWN = np.dtype([("view", np.int32), ("record", np.int64), ("scale", np.float32)])
NO_COMPANION = np.array((-1, -1, np.nan), DRAWN)


class Companions:
    """A pack whose pictures go with those of another pack. It may lack some, have several for one id, and hold others.

    pack: the companions' pack, opened or its path.
    original: the column of its metadata that holds the id of the picture that each goes with. None: its own id, as it
        is or without the ending _s-SCALE, as GenView names several pictures of one source.
    scale: the column of its metadata with a number, for example the noise level. None: the SCALE of such an ending.

    Raises PackError for a column that the metadata lacks.
    """

    def __init__(self, pack: str | Path | Pack, *, original: str | None = None, scale: str | None = None):
        self.pack = pack if isinstance(pack, Pack) else Pack(pack)
        for name in (original, scale):
            if name is not None and name not in self.pack.manifest.get("metadata", []):
                known = self.pack.manifest.get("metadata", [])
                raise PackError(f"companions: {self.pack.path} has no column {name!r}; its metadata has {known}")
        self.original, self.scale = original, scale

    def __repr__(self) -> str:
        return f"Companions({self.pack!r}, original={self.original!r}, scale={self.scale!r})"


class Companion(NamedTuple):
    """The companion that one view of a sample shows.

    view: the number of that view. record: the companion's number in the dataset, which `read`, `decode` and `id_of`
    take. scale: NaN where it has none.
    """

    view: int
    record: int
    scale: float


@dataclass(frozen=True)
class Pairs:
    """Which records have which companions, sorted by the originals."""

    originals: np.ndarray  # (pairs,) int64, sorted
    records: np.ndarray  # (pairs,) int64: the companion of each
    scales: np.ndarray  # (pairs,) float32, NaN where there is none

    @staticmethod
    def of(pack: Pack, asked: Companions) -> Pairs:
        """Return the pairs of a pack's records, under the numbers that both sides have in their own packs.

        Reads the ids of both packs into memory. Raises PackError where no record has a companion.
        """
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
        return Pairs(to[order], found[order].astype(np.int64), numbers[found][order])

    @staticmethod
    def together(several: Sequence[tuple[Pairs, int, int]]) -> Pairs:
        """Return the pairs of several packs as one. Each comes with the numbers that the first record of its originals
        and of its companions have in the whole, ascending."""
        return Pairs(
            np.concatenate([pairs.originals + first for pairs, first, _ in several]),
            np.concatenate([pairs.records + first for pairs, _, first in several]),
            np.concatenate([pairs.scales for pairs, _, _ in several]),
        )

    def draw(self, seed: int, keys: Keys, recipe: Recipe) -> np.ndarray:
        """Return (N,) DRAWN of N samples: a pure function of seed and keys. Records may lack a companion."""
        first = np.searchsorted(self.originals, keys.records)
        counts = np.searchsorted(self.originals, keys.records, side="right") - first
        views, which = _C.draw_companions(*keys.seeded(seed), counts, len(recipe.views), recipe.companion)
        place = np.minimum(first + which, len(self.originals) - 1)
        drawn = np.empty(len(keys), DRAWN)
        drawn["view"], drawn["record"], drawn["scale"] = views, self.records[place], self.scales[place]
        drawn[views < 0] = NO_COMPANION
        return drawn


def companions_dict(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a batch tells of its companions, from (N,) DRAWN.

    used: (N,) bool. view: (N,) int64, -1 where none is used. record: (N,) int64, the companion's number in the dataset,
    or -1. scale: (N,) float32, NaN where none is used or known.
    """
    return {
        "used": drawn["view"] >= 0,
        "view": drawn["view"].astype(np.int64),
        "record": np.ascontiguousarray(drawn["record"]),
        "scale": np.ascontiguousarray(drawn["scale"]),
    }


def _table(asked: Companions) -> pa.Table:
    """Return (records of the companions,): `original`, an id as text, and `scale`, float64."""
    pack = asked.pack
    names = [name for name in (asked.original, asked.scale) if name is not None]
    tables = pa.concat_tables([pack.table(shard, columns=["id", *names]) for shard in range(len(pack.shards))])
    original = pc.cast(tables.column(asked.original or "id"), pa.large_string())
    scale = np.full(tables.num_rows, np.nan)
    if asked.scale is not None:
        scale = numbers_of(pack, asked.scale, tables.column(asked.scale), pack.column("length") == 0).astype(np.float64)
    return pa.table({"original": original, "scale": pa.array(scale)})
