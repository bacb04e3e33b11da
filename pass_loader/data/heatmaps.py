"""Heatmaps: a second pack whose pictures go with those of a first one, found by id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..errors import PackError
from ..pack.reader import Pack
from .live import Live


class Heatmaps:
    """The heatmaps of pictures, in packs of their own under the same ids.

    The plan of a view decides what becomes of its heatmap: same crop box and flip, nearest pixels.
    packs: of heatmaps. records: the heatmap's record of each picture, numbered over the packs; -1: none.
    """

    def __init__(self, packs: list[Pack], records: np.ndarray):
        self.packs = packs
        self._records = records
        self._opened: tuple[list[int], _C.ShardReader] | None = None  # of revisions of the packs

    @classmethod
    def of(cls, heatmaps: str | Path | Pack, pictures: Pack, served: Live) -> Heatmaps:
        """Return the heatmaps of a pack's pictures. Raises PackError where a served picture has no heatmap, or one of
        another size."""
        pack = heatmaps if isinstance(heatmaps, Pack) else Pack(heatmaps)
        records = pack.records_of(pictures.all_ids().to_pylist())
        records[(records >= 0) & pack.is_removed(np.maximum(records, 0))] = -1
        _check(pack, records, pictures, served.records_at(np.arange(len(served))))
        return cls([pack], records)

    @classmethod
    def together(cls, several: list[Heatmaps]) -> Heatmaps:
        """Return the heatmaps of several packs of pictures, one after another, as one."""
        packs = [pack for heatmaps in several for pack in heatmaps.packs]
        ends = np.cumsum([0, *(sum(pack.records for pack in heatmaps.packs) for heatmaps in several)])
        records = [np.where(one._records < 0, -1, one._records + begin) for one, begin in zip(several, ends)]
        return cls(packs, np.concatenate(records))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # file descriptors do not travel

    @property
    def reader(self) -> _C.ShardReader:
        """Reads the heatmaps' bytes; made anew after a purge."""
        revisions = [pack.revision for pack in self.packs]
        if self._opened is None or self._opened[0] != revisions:
            self._opened = (revisions, _C.ShardReader.of_packs([pack.open_reader() for pack in self.packs]))
        return self._opened[1]

    def split(self, records: np.ndarray) -> Iterator[tuple[Pack, np.ndarray]]:
        """Yield each pack with those of these records that lie there, in its own numbers."""
        ends = np.cumsum([pack.records for pack in self.packs])
        for pack, end in zip(self.packs, ends.tolist()):
            begin = end - pack.records
            yield pack, records[(records >= begin) & (records < end)] - begin

    def records_of(self, records: np.ndarray) -> np.ndarray:
        """Return (N,) int64: the heatmaps' records of these pictures."""
        return self._records[records]


def _check(pack: Pack, records: np.ndarray, pictures: Pack, served: np.ndarray) -> None:
    theirs = records[served]
    without = served[theirs < 0]
    if len(without):
        raise PackError(
            f"{pack.path} has no heatmap for {len(without):,} of {len(served):,} pictures of {pictures.path}, "
            f"for example id {pictures.id_of(int(without[0]))}: give the dataset the ids= that have one"
        )
    sizes = [np.stack([one.column(side)[of] for side in ("height", "width")], axis=1)
             for one, of in ((pictures, served), (pack, theirs))]  # fmt: skip
    wrong = np.flatnonzero((sizes[0] != sizes[1]).any(axis=1))
    if len(wrong):
        place = wrong[0]
        own, heatmap = (" x ".join(map(str, size[place].tolist())) for size in sizes)
        raise PackError(
            f"{pack.path}: the heatmap of id {pictures.id_of(int(served[place]))} is {heatmap} (height x "
            f"width), the picture {own}; so are {len(wrong):,} in all: both share a crop box, resize the heatmaps"
        )
