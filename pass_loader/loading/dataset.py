"""ShardDataset: a pack as a torch IterableDataset, and as a map dataset."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..data.companions import Companions
from ..data.labels import Labels
from ..data.live import Served
from ..data.samples import Samples
from ..keys import MAX_DRAWS, Keys, check_draw, check_epoch
from ..pack.reader import Pack
from ..recipes.recipe import ChannelValues, Recipe
from .faults import ATTEMPTS, replacement, settled
from .ranks import Occasions, agree_on_generation, initialized_rank
from .rendering import Renderer, Submitted
from .sampler import Position
from .structures import item
from .torch_epochs import OwnNumbers, SharedEpoch, ViewsKey, files_stamp


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
        float32 where they are not whole numbers or some are missing (NaN). Or the number of each class by its name, as
        another dataset's `class_to_idx`: so that a validation pack has the numbers of the training pack.
    companions: another pack, whose pictures stand in for those of the same id in one view, as in GenView. A path, a
        Pack, or a `Companions`, which says how ids and scales are found. The recipe's `companion` says how often.
    mean, std: the pack's own, in place of the recipe's: one number, or one a channel.
    heatmaps: a pack with a picture of the same id and size for each that is served, see recipes.mae_thorax.
    cache, cache_bytes, storage_options: for packs in stores ("s3://bucket/pack", "https://..."), of which each may be
        one: the folder of the cache, by default in the user's cache directory; what it may hold, an int or "200GB", by
        default 50 GB; configuration of obstore (docs/where-packs-lie.md).

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
        cache: str | Path | None = None,
        cache_bytes: int | str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ):
        super().__init__(
            pack, recipe, seed=seed, records=records, ids=ids, labels=labels, companions=companions, mean=mean,
            std=std, heatmaps=heatmaps, cache=cache, cache_bytes=cache_bytes, storage_options=storage_options,
        )  # fmt: skip
        self._begin()

    def _begin(self) -> None:
        self._occasions = Occasions()
        self._rank: tuple[int, int] | None = None
        self._alone: tuple[int, Renderer] | None = None
        self._set = SharedEpoch(len(self._packs.packs))
        self._followed = 0  # the stamp of the call of set_epoch whose decisions are in force here
        self._own_numbers = OwnNumbers()
        self._frozen: Served | None = None  # what iteration serves where no epoch is set
        self._files = files_stamp(self._packs.packs)

    @property
    def epoch(self) -> int:
        """The epoch that set_epoch has set; 0 before."""
        return self._set.get()[1]

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
        """Set the epoch of the views that iteration gives, and the maps of `as_map`, in worker processes too.

        Records that were removed from the pack are left out from now on, on all ranks that make the same calls. Raises
        ValueError outside [0, 2^32).
        """
        check_epoch(operator.index(epoch))
        self.look_again()
        own = f"dataset/{self.seed}/{self.subset()}"
        generation = agree_on_generation(self.pack, self._occasions.name(own, epoch))
        self.serve(self.live_then(generation))
        self._set.set(operator.index(epoch), generation)
        self._followed = self._set.get()[0]

    def look_again(self) -> None:
        """Look which records were removed, and tell the caches of packs in stores that an epoch begins."""
        self.pack.refresh()
        self.begin_epoch()

    def _follow(self) -> None:
        """Serve what set_epoch has decided, in a worker process."""
        stamp, _, generations = self._set.get()
        if stamp != self._followed:
            self.look_again()
            self.serve(self.live_then(generations if self.is_several else generations[0]))
            self._followed = stamp

    def _own_key(self) -> ViewsKey:
        """Return views that did not come before; look whether records were removed, since nobody tells."""
        files = files_stamp(self._packs.packs)
        if files != self._files:
            self._files = files
            self.look_again()
        return self._own_numbers.next((initialized_rank() or self._rank or (0, 1))[0])

    def __iter__(self) -> Iterator[Any]:
        rank, world = initialized_rank() or self._rank or (0, 1)
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        is_set = self._set.get()[0] > 0
        if is_set:
            self._follow()
        elif self._frozen is None:  # ranks cannot agree on removals: positions stay
            self._frozen = self.live
        live = self.live if is_set else self._frozen
        assert live is not None
        epoch = self.epoch
        for place in range(rank + world * number, math.ceil(len(live) / world) * world, world * workers):
            key = ViewsKey(epoch, 0) if is_set else self._own_key()
            yield self._item_at(live, place % len(live), 0, key)

    def _item_at(self, live: Served, position: int, draw: int, key: ViewsKey, with_info: bool = False) -> Any:
        record, drawn = _at(live, position, draw, key.epoch)
        record, drawn = self._standing_in(live, record, key), (drawn + key.draw) % MAX_DRAWS
        sample = self._item(record, drawn, key.epoch)
        if not with_info:
            return sample
        info = {"record": record, "epoch": key.epoch, "draw": drawn}
        if self.recipe.structure.as_list:
            return [*sample, info]
        return (*sample, info) if isinstance(sample, tuple) else (sample, info)

    def _standing_in(self, live: Served, record: int, key: ViewsKey) -> int:
        """Return the record, or the one in its place where it was removed."""
        found = record
        for attempt in range(ATTEMPTS):
            if not self.pack.is_removed(np.array(found)):
                break
            position = replacement(self.seed, key.epoch, record, attempt, len(live))
            found, _ = _at(live, position, 0, key.epoch)
        self.check_live(found)
        return found

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(
            "a ShardDataset is iterated, not indexed: dataset.as_map()[position] for torch's samplers and Subset, "
            "dataset.sample(record) to look at one"
        )

    def as_map(self, *, return_info: bool = False) -> MapDataset:
        """Return the same samples by position, for torch's DataLoader, samplers, Subset and random_split.

        return_info: adds a dict to each sample, with the record, epoch and draw under which `sample` shows it again.
        """
        return MapDataset(self, return_info)

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
        keys = Keys.of(record, draw, epoch)
        fetching = self.fetching(keys)
        if fetching is not None:
            fetching.wait()
        submitted = self._alone[1].submit(keys)
        submitted.raise_first(settled(submitted, submitted.wait(), self._alone[1]))
        if fetching is not None:
            fetching.done()
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

    An index is a position or (position, draw). What is served is decided when the map is made: positions stay, so that
    the parts of random_split and of samplers do. Another record takes the place of one that is removed later, a pure
    function of (seed, epoch, record).

    Views are those of the epoch that the index brings (an EpochSampler whose set_epoch was called), else of the one
    that `set_epoch` of the map or of the dataset has set, whichever was called last; worker processes see it, those
    that persist too. Where nobody sets an epoch, no views come twice: every request has a number of its own, which
    return_info tells (loading.torch_epochs.OwnNumbers).
    """

    def __init__(self, dataset: ShardDataset, return_info: bool = False):
        self.dataset, self.return_info = dataset, return_info
        self.live = dataset.live
        self._set = SharedEpoch(0)
        self._followed: tuple[str, int] = ("set", dataset._set.get()[0])  # whose removals are in force here

    def __repr__(self) -> str:
        return f"MapDataset({len(self)} positions of {self.dataset!r}, epoch {self.epoch})"

    @property
    def epoch(self) -> int:
        """The epoch that set_epoch has set, of the map or of the dataset; 0 before."""
        return max(self._set.get()[:2], self.dataset._set.get()[:2])[1]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the views, in worker processes too. Records that were removed are replaced from now on.

        Raises ValueError outside [0, 2^32).
        """
        check_epoch(operator.index(epoch))
        self._set.set(operator.index(epoch), ())
        self._follow("set", self._set.get()[0])

    def _follow(self, what: str, number: int) -> None:
        """Look for removals once an epoch."""
        if self._followed != (what, number):
            self.dataset.look_again()
            self._followed = (what, number)

    def counted(self) -> ShardDataset:
        """As Samples.counted."""
        return self.dataset

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as ShardDataset.classes."""
        return self.dataset.classes

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class numbers by name, as ShardDataset.class_to_idx."""
        return self.dataset.class_to_idx

    @property
    def targets(self) -> list[Any]:
        """Labels, as ShardDataset.targets, for the positions of this map."""
        return self.dataset.targets_of(self.live)

    def __len__(self) -> int:
        return len(self.live)

    def __getitem__(self, index: Any) -> Any:
        """Return a sample. Raises IndexError outside [-len, len), RecordError for a record that cannot become one."""
        position, draw = index if isinstance(index, (tuple, list)) else (index, 0)
        place = operator.index(position)
        if not -len(self) <= place < len(self):
            raise IndexError(f"position {place}, want [{-len(self)}, {len(self)})")
        check_draw(draw)
        return self.dataset._item_at(self.live, place % len(self), draw, self._key(position), self.return_info)

    def _key(self, position: Any) -> ViewsKey:
        if isinstance(position, Position):
            check_epoch(position.epoch)
            self._follow("brought", position.epoch)
            return ViewsKey(position.epoch, 0)
        stamp, epoch = max(self._set.get()[:2], self.dataset._set.get()[:2])
        if stamp:
            self._follow("set", stamp)
            return ViewsKey(epoch, 0)
        return self.dataset._own_key()

    def __getitems__(self, indices: Sequence[Any]) -> list[Any]:
        return [self[index] for index in indices]
