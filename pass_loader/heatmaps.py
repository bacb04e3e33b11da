"""A second pack whose pictures go with those of a first: heatmaps, found by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import _C
from .errors import PackError
from .live import Live
from .pack.reader import Pack


class Heatmaps:
    """The heatmaps of a pack's pictures, in a pack of their own under the same ids. The plan of the view decides what
    becomes of them: same crop box and flip, nearest pixels.

    Raises PackError where a served picture has no heatmap, or one of another size.
    """

    def __init__(self, heatmaps: str | Path | Pack, pictures: Pack, served: Live):
        self.pack = heatmaps if isinstance(heatmaps, Pack) else Pack(heatmaps)
        records = self.pack.records_of(pictures.all_ids().to_pylist())
        records[(records >= 0) & self.pack.is_removed(np.maximum(records, 0))] = -1
        self._records = records
        self._opened: tuple[int, _C.ShardReader] | None = None  # of a revision of the pack
        self._check(pictures, served.records_at(np.arange(len(served))))

    def _check(self, pictures: Pack, served: np.ndarray) -> None:
        theirs = self._records[served]
        without = served[theirs < 0]
        if len(without):
            raise PackError(
                f"{self.pack.path} has no heatmap for {len(without):,} of {len(served):,} pictures of {pictures.path}, "
                f"for example id {pictures.id_of(int(without[0]))}: give the dataset the ids= that have one"
            )
        sizes = [np.stack([pack.column(side)[of] for side in ("height", "width")], axis=1)
                 for pack, of in ((pictures, served), (self.pack, theirs))]  # fmt: skip
        wrong = np.flatnonzero((sizes[0] != sizes[1]).any(axis=1))
        if len(wrong):
            place = wrong[0]
            own, heatmap = (" x ".join(map(str, size[place].tolist())) for size in sizes)
            raise PackError(
                f"{self.pack.path}: the heatmap of id {pictures.id_of(int(served[place]))} is {heatmap} (height x "
                f"width), the picture {own}; so are {len(wrong):,} in all: both share a crop box, resize the heatmaps"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # file descriptors do not travel

    @property
    def reader(self) -> _C.ShardReader:
        if self._opened is None or self._opened[0] != self.pack.revision:
            columns = [self.pack.column(name) for name in ("shard", "offset", "length", "crc32c")]
            self._opened = (self.pack.revision, _C.ShardReader(self.pack.tar_paths(), *columns))
        return self._opened[1]

    def records_of(self, records: np.ndarray) -> np.ndarray:
        """(N,) int64: the heatmaps' records of these pictures."""
        return self._records[records]
