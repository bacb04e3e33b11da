"""ShardDataset: a pack as a torch IterableDataset, and as a map dataset."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..data.companions import Companions
from ..data.labels import Labels
from ..data.live import Served
from ..data.samples import Samples
from ..keys import Keys
from ..pack.reader import Pack
from ..recipes.recipe import ChannelValues, Recipe
from .faults import ATTEMPTS, replacement
from .ranks import Occasions, agree_on_generation, initialized_rank
from .rendering import Renderer, Submitted
from .structures import item


class ShardDataset(Samples, IterableDataset):
    """The samples of a pack under a recipe.

    Give it to `pass_loader.DataLoader` for batches. Under torch's own DataLoader it is an IterableDataset in
    sequential order: ranks and worker processes split the records among them, wrapping around so that all ranks get the
    same number of batches (`len` counts the records of all ranks together). Each sample is (list of (channels, height,
    width) float32 tensors, label), or what the recipe's batch consists of (loading.structures.item). There, call
    `set_epoch` before each epoch for new views. `as_map` serves torch's samplers.

    records or ids: serve these alone, in this order; ids may be a text file, an id a line. Views depend on (seed,
        epoch, record) alone.
    labels: in place of the pack's own class numbers. Numbers by record, (records,) or (records, L); or the name of a
        column of the metadata, or L names, such as CheXpert's findings. Batches carry them as (N,) or (N, L) int64, or
        float32 where they are not whole numbers or some are missing (NaN).
    companions: another pack, whose pictures stand in for those of the same id in one view, as in GenView. A path, a
        Pack, or a `Companions`, which says how ids and scales are found. The recipe's `companion` says how often.
    mean, std: the pack's own, in place of the recipe's: one number, or one a channel.
    heatmaps: a pack with a picture of the same id and size for each that is served, see recipes.mae_thorax.

    Raises PackError where a directory is no pack, ValueError, TypeError, KeyError or IndexError for arguments that do
    not fit together.
    """

    def __init__(
        self,
        pack: str | Path | Pack,
        recipe: Recipe,
        *,
        seed: int = 0,
        records: Sequence[int] | None = None,
        ids: Sequence[str] | str | Path | None = None,
        labels: Labels | None = None,
        companions: str | Path | Pack | Companions | None = None,
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        heatmaps: str | Path | Pack | None = None,
    ):
        super().__init__(
            pack, recipe, seed=seed, records=records, ids=ids, labels=labels, companions=companions, mean=mean,
            std=std, heatmaps=heatmaps,
        )  # fmt: skip
        self._begin()

    def _begin(self) -> None:
        self.epoch = 0
        self._occasions = Occasions()
        self._rank: tuple[int, int] | None = None
        self._alone: tuple[int, Renderer] | None = None

    def __repr__(self) -> str:
        (part,) = self.parts
        chosen = "" if part.chosen is None else f"{len(self)} chosen records of "
        companions = "" if part.companions is None else f", {part.companions!r}"
        return f"ShardDataset({chosen}{part.pack!r}, {self._told()}{companions})"

    def _told(self) -> str:
        views, batch = len(self.recipe.views), self.recipe.batch
        return f"recipe {self.recipe.name} ({views} views, batch {batch}), seed {self.seed}, epoch {self.epoch}"

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker process knows nothing of torch.distributed.
        return {**super().__getstate__(), "_alone": None, "_rank": initialized_rank() or self._rank}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the views that iteration gives.

        Records that were removed from the pack are left out from now on, on all ranks that make the same calls.
        """
        self.epoch = epoch
        self.pack.refresh()
        own = f"dataset/{self.seed}/{self.subset()}"
        self.serve(self.live_then(agree_on_generation(self.pack, self._occasions.name(own, epoch))))

    def __iter__(self) -> Iterator[Any]:
        rank, world = initialized_rank() or self._rank or (0, 1)
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        live = self.live
        for place in range(rank + world * number, math.ceil(len(live) / world) * world, world * workers):
            yield self._item(*_at(live, place % len(live), 0, self.epoch), self.epoch)

    def as_map(self) -> MapDataset:
        """Return the same samples by position, for torch's DataLoader, samplers, Subset and random_split."""
        return MapDataset(self)

    def sample(self, record: int, epoch: int = 0, draw: int = 0) -> list[torch.Tensor]:
        """Return what a batch holds of this record: a list of (channels, height, width) float32 tensors.

        Raises RecordError.
        """
        return [view[0] for view in self._checked(record, epoch, draw).views]

    def heatmap(self, record: int, epoch: int = 0, draw: int = 0) -> list[torch.Tensor]:
        """Return what a batch holds of this record's heatmap: a (1, height, width) float32 tensor a view, from 0 to 1.

        Empty where the dataset has no heatmaps. Raises RecordError.
        """
        return [heatmap[0] for heatmap in self._checked(record, epoch, draw).heatmaps]

    def _checked(self, record: int, epoch: int, draw: int) -> Submitted:
        self.check_live(record)
        return self._rendered_alone(record, epoch, draw)

    def _rendered_alone(self, record: int, epoch: int, draw: int) -> Submitted:
        if self._alone is None or self._alone[0] != os.getpid() or self._alone[1].reader is not self.reader:
            self._alone = (os.getpid(), Renderer(self, threads=0, keep=0))
        submitted = self._alone[1].submit(Keys.of(record, draw, epoch))
        submitted.raise_first(submitted.wait())
        return submitted

    def _item(self, record: int, draw: int, epoch: int) -> Any:
        done = self._rendered_alone(record, epoch, draw)
        views, heatmaps = ([one[0] for one in several] for several in (done.views, done.heatmaps))
        return item(self.recipe, views, record, torch.from_numpy(self.labels_of(np.array([record])))[0], heatmaps)


def _at(live: Served, position: int, draw: int, epoch: int) -> tuple[int, int]:
    """Return (record, draw)."""
    records, draws = live.at(np.array([position]), np.array([draw], np.uint32), np.array([epoch], np.uint32))
    return int(records[0]), int(draws[0])


class MapDataset(Dataset):
    """A ShardDataset by position: (list of (channels, height, width) float32 tensors, label), or the bare list.

    What is served is decided when it is made. An index is a position or (position, draw). Views are those of `epoch`:
    call `set_epoch` before each epoch; worker processes that persist do not see it, so leave persistent_workers off.
    After that another record takes the place of a removed one, a pure function of (seed, epoch, record): positions
    stay, so that the parts of random_split and of samplers do.
    """

    def __init__(self, dataset: ShardDataset):
        self.dataset = dataset
        self.live = dataset.live
        self.epoch = dataset.epoch

    def __repr__(self) -> str:
        return f"MapDataset({len(self)} positions of {self.dataset!r}, epoch {self.epoch})"

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the views. Records that were removed are replaced from now on."""
        self.epoch = epoch
        self.dataset.pack.refresh()

    @property
    def classes(self) -> list[str]:
        """As ShardDataset.classes."""
        return self.dataset.classes

    @property
    def class_to_idx(self) -> dict[str, int]:
        """As ShardDataset.class_to_idx."""
        return self.dataset.class_to_idx

    @property
    def targets(self) -> list[Any]:
        """As ShardDataset.targets, for the positions of this map."""
        return self.dataset.targets_of(self.live)

    def __len__(self) -> int:
        return len(self.live)

    def __getitem__(self, index: Any) -> Any:
        """Return a sample. Raises IndexError outside [-len, len), RecordError for a record that cannot become one."""
        position, draw = index if isinstance(index, (tuple, list)) else (index, 0)
        position = operator.index(position)
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position}, want [{-len(self)}, {len(self)})")
        record, drawn = _at(self.live, position % len(self), draw, self.epoch)
        return self.dataset._item(self._standing_in(record), drawn, self.epoch)

    def _standing_in(self, record: int) -> int:
        """Return the record, or the one in its place where it was removed."""
        found = record
        for attempt in range(ATTEMPTS):
            if not self.dataset.pack.is_removed(np.array(found)):
                break
            position = replacement(self.dataset.seed, self.epoch, record, attempt, len(self))
            found, _ = _at(self.live, position, 0, self.epoch)
        self.dataset.check_live(found)
        return found

    def __getitems__(self, indices: Sequence[Any]) -> list[Any]:
        return [self[index] for index in indices]
