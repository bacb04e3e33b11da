"""Single samples of a pack: look at one, plan it, render it. Works without torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..errors import BadPictureError, RecordError, ShardError
from ..keys import check_draw, check_epoch, check_seed
from ..pack.attribution import Attribution, attribution
from ..pack.layout import TABLE_SCHEMA
from ..pack.reader import Pack
from ..pack.several import Packs
from ..recipes.recipe import ChannelValues, Recipe
from .companions import Companion, Companioned, Companions, Drawn, Pairs
from .heatmaps import Heatmaps
from .labels import Labels, labels_from
from .live import ConcatLive, Generation, Live, Served, chosen_records, digest_of, live_now, live_then
from .weights import Mixture


class Samples:
    """A pack, or chosen records of it, seen through a recipe.

    Every method is a pure function of its arguments and the seed. pack: the Pack, or Packs where there are several.
    records or ids: serve these alone, in this order, under the numbers that they have in the pack. ids may be a text
        file, an id a line.
    labels: in place of the pack's own. Numbers by record, (records,) or (records, L), or names of columns of the
        metadata (see labels.labels_from).
    companions: another pack whose pictures go with these by id, for recipes with a `companion` probability (see
        companions.Companions). Their records have numbers behind those of the pack, for `read`, `decode`, `id_of`.
    mean, std: the pack's own, in place of the recipe's.
    heatmaps: a pack with a picture of the same id and size for each that is served; the batch is "view_heatmap_labels".
    """

    heatmaps: Heatmaps | None

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
        if not isinstance(recipe, Recipe):
            raise TypeError(
                f"recipe is {recipe!r}, want a pass_loader.Recipe, for example recipes.dino(), or for a transform "
                "Recipe.from_torchvision(transform)"
            )
        check_seed(seed)
        opened = pack if isinstance(pack, Pack) else Pack(pack)
        if mean is not None or std is not None:
            mean, std = recipe.mean if mean is None else mean, recipe.std if std is None else std
            recipe = dataclasses.replace(recipe, mean=mean, std=std)
        self._labels = [labels_from(opened, labels)]
        pairs = None if companions is None else Pairs.of(opened, companions)
        self._set_up([opened], [chosen_records(opened, records, ids)], [pairs], [recipe], seed, several=False)
        if (heatmaps is not None) != (recipe.batch == "view_heatmap_labels"):
            raise ValueError(
                f"batch {recipe.batch!r} and heatmaps {heatmaps}: the batch 'view_heatmap_labels' has them, and no "
                "other"
            )
        if heatmaps is not None:
            self.heatmaps = Heatmaps.of(heatmaps, opened, live_now(opened, self._chosen[0]))

    def _set_up(
        self, packs: list[Pack], chosen: list[np.ndarray | None], pairs: list[Pairs | None], recipes: list[Recipe],
        seed: int, mixture: Mixture | None = None, several: bool = True,
    ) -> None:  # fmt: skip
        """packs: those that serve records. chosen: which of each, under its own numbers; None: all. pairs: the
        companions of each, which lie behind all packs; None: it has none. recipes: of each, differing in mean and std
        alone."""
        behind = [pair.pack for pair in pairs if pair is not None]
        self.pack: Pack | Packs = Packs([*packs, *behind], len(packs)) if several or behind else packs[0]
        self._pairs = pairs
        self.companions: Companioned | None = None
        if behind and isinstance(self.pack, Packs):
            self.companions = Companioned.of(pairs, self.pack.first_record, recipes[0])
        self._served = packs
        self.mixture = mixture
        self._chosen = chosen
        self.recipe, self._recipes = recipes[0], recipes
        sources = [*range(len(packs)), *(number for number, pair in enumerate(pairs) if pair is not None)]
        self._sources = np.array(sources, np.uint16)  # of each pack; of companions that of their originals
        self.seed = seed
        self.heatmaps = None
        self._opened: tuple[Any, _C.ShardReader] | None = None  # of a revision of the pack
        self.serve(self._live_now())

    def __len__(self) -> int:
        """Live records, of those chosen."""
        return len(self.live)

    @property
    def live(self) -> Served:
        """What is served now. It changes where the pack is refreshed; whoever iterates keeps what it began with."""
        if self._seen != self.pack.generation:
            self.serve(self._live_now())
        return self._live

    def _live_now(self) -> Served:
        lives = [live_now(pack, chosen) for pack, chosen in zip(self._served, self._chosen)]
        return lives[0] if isinstance(self.pack, Pack) else self._together(lives, self.pack.generation)

    def _together(self, lives: list[Live], generation: Generation) -> Served:
        assert isinstance(self.pack, Packs) and isinstance(generation, tuple)
        live = ConcatLive(tuple(lives), self.pack.first_record[: len(lives)], generation)
        return live if self.mixture is None else self.mixture.over(live)

    def serve(self, live: Served) -> None:
        """Serve these until the pack is refreshed and has changed: what all ranks agreed on, or a resumed epoch's."""
        self._live, self._seen = live, self.pack.generation

    def normalized_recipes(self) -> list[Recipe]:
        """The recipe, once a pack that serves records: they differ in mean and std alone."""
        return list(self._recipes)

    def sources_of(self, records: np.ndarray) -> np.ndarray | None:
        """(N,) uint16: the place in `normalized_recipes` of each record's pack; None: all are of the first.

        A companion's record, looked at by itself, has the source of its originals, as its view in their samples has.
        """
        if len(self._recipes) == 1 or isinstance(self.pack, Pack):
            return None
        return self._sources[np.maximum(self.pack.part_of(records), 0)]  # record -1, of a removed one, has none

    def subset(self) -> Any:
        """A digest of the chosen records and their order; None where all are served. Of several packs a list of
        these."""
        digests = [digest_of(chosen) for chosen in self._chosen]
        return digests[0] if isinstance(self.pack, Pack) else digests

    def live_then(self, generation: Generation) -> Served:
        """What was served when the pack had this generation. Raises PackError where it never had it."""
        if isinstance(self.pack, Pack) and isinstance(generation, int):
            return live_then(self.pack, self._chosen[0], generation)
        if isinstance(self.pack, Pack) or isinstance(generation, int) or len(generation) != len(self.pack.packs):
            raise ValueError(f"generation {generation!r} is not of {self.pack!r}")
        lives = [live_then(*part) for part in zip(self._served, self._chosen, generation)]
        return self._together(lives, generation)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # file descriptors do not travel

    @property
    def reader(self) -> _C.ShardReader:
        if self._opened is None or self._opened[0] != self.pack.revision:
            self._opened = (self.pack.revision, self.pack.open_reader())
        return self._opened[1]

    def labels_of(self, records: np.ndarray) -> np.ndarray:
        """(N,) or (N, L) of records (N,): int64, or float32 where labels were given that are."""
        if isinstance(self.pack, Pack):
            own = self._labels[0]
            return self.pack.labels(records) if own is None else own[records]
        return self._labels_of_several(self.pack, records)

    def label_shape(self) -> tuple[int, ...]:
        """Of one record's label: () or (L,)."""
        own = self._labels[0]
        return () if own is None else own.shape[1:]

    def _labels_of_several(self, pack: Packs, records: np.ndarray) -> np.ndarray:
        whole = all(own is None or own.dtype == np.int64 for own in self._labels)
        found = np.empty((len(records), *self.label_shape()), np.int64 if whole else np.float32)
        for part, places, numbers in pack.split(records):
            own = self._labels[part]
            found[places] = pack.packs[part].labels(numbers) if own is None else own[numbers]
        return found

    def id_of(self, record: int) -> str:
        return self.pack.id_of(record)

    def record_of(self, id: str) -> int:
        """Raises KeyError for an id that the pack does not have."""
        return self.pack.record_of(id)

    def read(self, record: int) -> bytes:
        """The record's bytes as packed, checked against their CRC. Raises RecordError, ShardError."""
        self.check_live(record)
        with self.named(record):
            return self.reader.read(record)

    def check_live(self, record: int) -> None:
        """Raises IndexError for a record that is not in the pack, RecordError for a removed one."""
        self.pack._check(record)
        if self.pack.is_removed(np.array(record)):
            raise self.error(record, "record", "it was removed from the pack")

    def decode(self, record: int) -> np.ndarray:
        """(height, width, recipe.channels) uint8, Pillow's bytes: RGB, or gray; of a picture of 16
        bits (height, width, 1) uint16. Raises RecordError, ShardError."""
        data = self.read(record)
        with self.named(record):
            return _C.decode(data, self.recipe.channels)

    def metadata(self, record: int) -> dict[str, Any]:
        """The source's metadata columns, for PASS unickname, licensename, datetaken, latitude, longitude."""
        return {name: value for name, value in self.pack.row(record).items() if name not in TABLE_SCHEMA.names}

    def attribution(self, records: Any = None) -> Attribution:
        """Creator, licence and changes of these records (integers, an array or a tensor); None: of all that are served,
        or may be under weights."""
        if records is None and any(chosen is not None for chosen in self._chosen):
            lives = [live_now(pack, chosen) for pack, chosen in zip(self._served, self._chosen)]
            first = np.cumsum([0] + [pack.records for pack in self._served])
            records = np.concatenate([live.records_at(np.arange(len(live))) + at for live, at in zip(lives, first)])
        return self.pack.attribution(records) if isinstance(self.pack, Packs) else attribution(self.pack, records)

    def plan(self, record: int, epoch: int = 0, draw: int = 0) -> np.ndarray:
        """(views,) rows of _C.view_plan_dtype: the decided numbers of every view. Another draw gives other views."""
        height, width = self.pack.size_of(record)
        check_epoch(epoch)
        check_draw(draw)
        key = {"seed": self.seed, "epoch": epoch, "record": record, "draw": draw}
        plans = _C.plan_views(self.recipe.rows(), **key, height=height, width=width)
        companion = self.companion(record, epoch, draw)
        if companion is not None:
            height, width = self.pack.size_of(companion.record)
            view = companion.view
            plans[view] = _C.plan_views(self.recipe.rows(), **key, height=height, width=width)[view]
        return plans

    def companion(self, record: int, epoch: int = 0, draw: int = 0) -> Companion | None:
        """Which view of the sample is of a companion, and of which; None where none is."""
        self.pack._check(record)
        check_epoch(epoch)
        key = (np.array([record], np.int64), np.array([draw], np.uint32), np.array([epoch], np.uint32))
        drawn = self.draw_companions(*key)
        return None if drawn is None else drawn.one(0)

    def draw_companions(self, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray) -> Drawn | None:
        """Of N samples; None where the dataset has no companions. A removed companion is not used: its view is of the
        original."""
        if self.companions is None:
            return None
        drawn = self.companions.draw(self.seed, records, draws, epochs)
        used = np.flatnonzero(drawn.views >= 0)
        drawn.drop(used[self.pack.is_removed(drawn.records[used])])
        return drawn

    def render(self, record: int, epoch: int = 0, draw: int = 0) -> list[np.ndarray]:
        """The views before normalisation: a list of (height, width, recipe.channels) uint8, of a picture of 16 bits
        (height, width, 1) uint16. Raises RecordError, ShardError."""
        plans, companion = self.plan(record, epoch, draw), self.companion(record, epoch, draw)
        if companion is None:
            return self._rendered(record, plans)
        others = np.delete(plans, companion.view)
        views = self._rendered(record, others) if len(others) else []
        views[companion.view : companion.view] = self._rendered(companion.record, plans[companion.view, None])
        return views

    def _rendered(self, record: int, plans: np.ndarray) -> list[np.ndarray]:
        pixels = self.decode(record)
        with self.named(record):
            return _C.render_plan(pixels, plans)

    @contextlib.contextmanager
    def named(self, record: int) -> Iterator[None]:
        """Errors of the native side, with the record's place."""
        try:
            yield
        except BadPictureError as error:
            raise self.error(record, "record", str(error)) from None
        except OSError as error:
            raise self.error(record, "io", str(error)) from None

    def error(self, record: int, fault: str, cause: str) -> RecordError:
        kind = ShardError if fault == "io" else RecordError
        if self.pack.was_purged():
            cause += "; the pack was purged since it was opened: open it again"
        try:
            id = self.id_of(record)
        except Exception as lookup:  # the cause that matters is the one we were given
            id = f"unknown ({lookup})"
        return kind(self.pack.shard_name(record), record, id, cause)


def render_plan(pixels: np.ndarray, plan: np.ndarray) -> list[np.ndarray]:
    """Execute plan rows on a picture.

    pixels: (height, width, 3) uint8 RGB, or gray of (height, width, 1), uint8 or uint16. plan: rows of
    _C.view_plan_dtype, one or more. Returns a list of (out_height, out_width, 3 or 1) of the same type.
    Raises ValueError where a plan cannot be executed.
    """
    return _C.render_plan(np.ascontiguousarray(pixels), np.ascontiguousarray(np.atleast_1d(plan)))
