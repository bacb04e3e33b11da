"""Samples: look at one, plan it, render it. Works without torch."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..errors import BadPictureError, PackError, RecordError, ShardError
from ..keys import Keys, check_draw, check_epoch, check_seed
from ..pack.attribution import Attribution
from ..pack.layout import TABLE_SCHEMA
from ..pack.reader import Pack
from ..pack.remote import RemotePack
from ..pack.several import Packs
from ..recipes.recipe import ChannelValues, Recipe
from ..remote.address import is_url
from .blocks import BlockSizes
from .companions import NO_COMPANION, Companion, Companions, Pairs
from .fetching import Fetching
from .heatmaps import Heatmaps
from .labels import Labels, labels_from, names_of
from .live import ConcatLive, Generation, Live, Served, chosen_records, digest_of
from .weights import MixedLive, Mixture

MOST_FETCHED_AHEAD = 1 << 17  # records


@dataclass(frozen=True)
class Part:
    """One pack of a dataset: which of its records are served, and what goes with them."""

    pack: Pack
    recipe: Recipe  # with the mean and std of this pack; parts of a dataset differ in these alone
    chosen: np.ndarray | None  # int64 records of the pack, in the order of serving; None: all
    labels: np.ndarray | None  # (records,) or (records, L), in place of the pack's own
    companions: Companions | None
    pairs: Pairs | None  # of records and companions, where there are companions
    heatmaps: Heatmaps | None
    names: list[str] | None  # of the labels' classes, where labels gave them

    @staticmethod
    def of(
        pack: str | Path | Pack,
        recipe: Recipe,
        records: Sequence[int] | None,
        ids: Sequence[str] | str | Path | None,
        labels: Labels | None,
        companions: str | Path | Pack | Companions | None,
        heatmaps: str | Path | Pack | None,
        store: Mapping[str, Any],
    ) -> Part:
        """Open what the arguments of `Samples` name, and look everything up. store: its arguments for packs in
        stores."""
        opened = pack if isinstance(pack, Pack) else Pack(pack, **store)
        if isinstance(companions, str) and is_url(companions):
            companions = Pack(companions, **store)
        if isinstance(heatmaps, str) and is_url(heatmaps):
            heatmaps = Pack(heatmaps, **store)
        own_labels = labels_from(opened, labels)
        pairs = None
        if companions is not None:
            companions = companions if isinstance(companions, Companions) else Companions(companions)
            pairs = Pairs.of(opened, companions)
            if not recipe.companion:
                raise ValueError(
                    f"the recipe {recipe.name} uses no companions: take recipes.genview(), or "
                    "dataclasses.replace(recipe, companion=...), the probability"
                )
        chosen = chosen_records(opened, records, ids)
        if (heatmaps is not None) != recipe.structure.heatmaps:
            raise ValueError(
                f"batch {recipe.batch!r} and heatmaps {heatmaps}: the batch 'view_heatmap_labels' has them, and no "
                "other"
            )
        found = None if heatmaps is None else Heatmaps.of(heatmaps, opened, Live.of(opened, chosen))
        return Part(opened, recipe, chosen, own_labels, companions, pairs, found, names_of(labels))

    def live(self, generation: int | None = None) -> Live:
        """Return the served records that are live now, or were when the pack had this generation."""
        return Live.of(self.pack, self.chosen, generation)


class Samples:
    """The samples of a pack, or of chosen records of it, under a recipe.

    Every method is a pure function of its arguments and the seed.

    pack: the opened pack or its path; as an attribute the Pack, or Packs where there are several.
    records or ids: serve these alone, in this order, under the numbers that they have in the pack. ids may be a text
        file with one id a line.
    labels: in place of the pack's own. Numbers by record, (records,) or (records, L), names of columns of the
        metadata, or numbers of classes by name (see data.labels.labels_from).
    companions: another pack whose pictures go with these by id, for recipes with a `companion` probability (see
        Companions). Their records are numbered after those of the pack, for `read`, `decode` and `id_of`.
    mean, std: the pack's own, in place of the recipe's.
    heatmaps: a pack with a picture of the same id and size for each that is served; the batch is "view_heatmap_labels".
    cache, cache_bytes, storage_options: of packs in stores that are named by URLs here, see Pack.

    Raises PackError, ValueError, TypeError, KeyError or IndexError for arguments that do not fit together.
    """

    pack: Pack | Packs
    parts: list[Part]
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
        cache: str | Path | None = None,
        cache_bytes: int | str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ):
        if not isinstance(recipe, Recipe):
            raise TypeError(
                f"recipe is {recipe!r}, want a pass_loader.Recipe, for example recipes.dino(), or for a transform "
                "Recipe.from_torchvision(transform)"
            )
        check_seed(seed)
        if mean is not None or std is not None:
            mean, std = recipe.mean if mean is None else mean, recipe.std if std is None else std
            recipe = dataclasses.replace(recipe, mean=mean, std=std)
        store = {"cache": cache, "cache_bytes": cache_bytes, "storage_options": storage_options}
        part = Part.of(pack, recipe, records, ids, labels, companions, heatmaps, store)
        self._set_up([part], seed, is_several=part.companions is not None)

    def _set_up(self, parts: list[Part], seed: int, *, is_several: bool, mixture: Mixture | None = None) -> None:
        """is_several: records are numbered through several packs, and the pack's identity is a list of theirs."""
        self.parts, self.seed, self.mixture, self.is_several = parts, seed, mixture, is_several
        self.recipe = parts[0].recipe
        with_companions = [(number, part) for number, part in enumerate(parts) if part.companions is not None]
        opened = [*(part.pack for part in parts), *(part.companions.pack for _, part in with_companions)]  # type: ignore[union-attr]
        self._packs = Packs(opened, len(parts))
        self.pack = self._packs if is_several else parts[0].pack
        first = self._packs.first_record.tolist()
        self.pairs: Pairs | None = None
        if with_companions:
            self.pairs = Pairs.together(
                [(part.pairs, first[number], first[len(parts) + place])  # type: ignore[misc]
                 for place, (number, part) in enumerate(with_companions)]
            )  # fmt: skip
        # Which part each opened pack belongs to: a companion to the part of its originals.
        self._part_of_pack = np.array([*range(len(parts)), *(number for number, _ in with_companions)], np.uint16)
        heatmaps = [part.heatmaps for part in parts if part.heatmaps is not None]
        self.heatmaps = Heatmaps.together(heatmaps) if heatmaps else None
        beside = [] if self.heatmaps is None else self.heatmaps.packs
        self._is_remote = any(pack.remote is not None for pack in [*opened, *beside])
        self._opened: tuple[Any, _C.ShardReader] | None = None  # for a revision of the packs
        self.serve(self._live_now())

    def __len__(self) -> int:
        """Return the number of live records, of those chosen."""
        return len(self.live)

    @property
    def live(self) -> Served:
        """What is served now. It changes where the pack is refreshed; whoever iterates keeps what it began with."""
        if self._seen != self.pack.generation:
            self.serve(self._live_now())
        return self._live

    def _live_now(self) -> Served:
        return self._together([part.live() for part in self.parts], self.pack.generation)

    def _together(self, lives: list[Live], generation: Generation) -> Served:
        live = ConcatLive(tuple(lives), self._packs.first_record[: len(lives)], generation)
        return live if self.mixture is None else self.mixture.over(live)

    def serve(self, live: Served) -> None:
        """Serve these until the pack is refreshed and has changed: what all ranks agreed on, or a resumed epoch's."""
        self._live, self._seen = live, self.pack.generation

    def live_then(self, generation: Generation) -> Served:
        """Return what was served when the pack had this generation. Raises PackError where it never had it."""
        several = generation if isinstance(generation, tuple) else (generation,)
        if isinstance(generation, tuple) != self.is_several or len(several) != len(self._packs.packs):
            raise ValueError(f"generation {generation!r} is not of {self.pack!r}")
        return self._together([part.live(own) for part, own in zip(self.parts, several)], generation)

    def counted(self) -> Samples:
        """Return the dataset whose records positions count here: for orders that need to know its packs."""
        return self

    def block_sizes(self, block_bytes: int, window_bytes: int, lanes: int) -> BlockSizes:
        """Return the numbers of records that an order by blocks of these bytes has over what is served now.

        Bytes become records by the mean of each pack's manifest, which counts what lies around a record in its tar too.
        Warns where chosen records do not lie in runs. Raises PackError where a manifest does not tell bytes.
        """
        live = self.live
        lives = live.live.parts if isinstance(live, MixedLive) else live.parts  # type: ignore[attr-defined]
        shares = live.counts.tolist() if isinstance(live, MixedLive) else [len(part) for part in lives]
        means = [_mean_record_bytes(part.pack) for part in self.parts]
        mixed = isinstance(live, MixedLive)
        sizes = BlockSizes.of(means, shares, block_bytes, window_bytes, lanes, mixed=mixed)
        for pack in (part.pack for part in self.parts):
            if pack.remote is not None and pack.remote.address.cache_bytes // 2 < min(window_bytes, _bytes_of(pack)):
                raise ValueError(
                    f"order='blocks': a window of {window_bytes:,} bytes is more than half of the cache of "
                    f"{pack.place}, {pack.remote.address.cache_bytes:,} bytes: give a smaller window_bytes or a larger "
                    "cache_bytes"
                )
        for number, part in enumerate(lives):
            block = sizes.block[number] if isinstance(sizes.block, tuple) else sizes.block
            if part.chosen is not None and len(part) > block:
                runs = 1 + int(np.count_nonzero(np.diff(part.chosen) < 0))
                if len(part) / runs < block:
                    warnings.warn(
                        f"order='blocks': the chosen records of {self.parts[number].pack.path} lie in {runs:,} runs of "
                        f"{len(part) / runs:.1f} records each on average, and a block has {block}: give records= or "
                        "ids= in the order of the pack, else blocks are no runs of bytes", stacklevel=2,
                    )  # fmt: skip
        return sizes

    def normalized_recipes(self) -> list[Recipe]:
        """Return the recipe once for each pack that serves records: they differ in mean and std alone."""
        return [part.recipe for part in self.parts]

    def sources_of(self, records: np.ndarray) -> np.ndarray | None:
        """Return (N,) uint16: the place in `normalized_recipes` of each record's pack; None where there is one alone.

        A companion's record, looked at by itself, has the source of its originals, as its view in their samples has.
        """
        if len(self.parts) == 1:
            return None
        return self._part_of_pack[np.maximum(self._packs.part_of(records), 0)]  # record -1, of a removed one, has none

    def datasets_of(self, records: np.ndarray) -> np.ndarray:
        """Return (N,) int64: which pack each record lies in, those of companions counted after all others."""
        return self._packs.part_of(records)

    def subset(self) -> Any:
        """Return a digest of the chosen records and their order; None where all are served. Of several packs a list of
        these."""
        digests = [digest_of(part.chosen) for part in self.parts]
        return digests if self.is_several else digests[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # file descriptors do not travel

    @property
    def reader(self) -> _C.ShardReader:
        """Reads the records' bytes; made anew after a purge."""
        if self._opened is None or self._opened[0] != self.pack.revision:
            self._opened = (self.pack.revision, self.pack.open_reader())
        return self._opened[1]

    def labels_of(self, records: np.ndarray) -> np.ndarray:
        """Return (N,) or (N, L) of records (N,): int64, or float32 where labels were given that are."""
        given = [part.labels for part in self.parts]
        whole = all(own is None or own.dtype == np.int64 for own in given)
        found = np.empty((len(records), *self.label_shape()), np.int64 if whole else np.float32)
        for number, places, numbers in self._packs.split(records):
            own = given[number]
            found[places] = self.parts[number].pack.labels(numbers) if own is None else own[numbers]
        return found

    def label_shape(self) -> tuple[int, ...]:
        """Return the shape of one record's label: () or (L,)."""
        own = self.parts[0].labels
        return () if own is None else own.shape[1:]

    @property
    def classes(self) -> list[str]:
        """Names of classes, in the order of their labels, as torchvision's ImageFolder has them.

        Raises AttributeError where packs have different ones, or labels were given.
        """
        if any(part.labels is not None and part.names is None for part in self.parts):
            raise AttributeError(
                "labels= were given in place of classes: they have no names, or numbers other than 0, 1, ..."
            )
        names = [part.pack.classes if part.names is None else part.names for part in self.parts]
        if any(own != names[0] for own in names):
            raise AttributeError("the packs have different classes, so that a label has no single name")
        return list(names[0])

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class's name, as ImageFolder has it. Raises AttributeError as `classes`."""
        return {name: label for label, name in enumerate(self.classes)}

    @property
    def targets(self) -> list[Any]:
        """The labels of all served records, in the order of positions, as ImageFolder has them: made anew at each call.

        Raises AttributeError under weights, where the record at a position changes with the epoch.
        """
        return self.targets_of(self.live)

    def targets_of(self, live: Served) -> list[Any]:
        """Return the labels of all positions of `live`, as `targets`."""
        if self.mixture is not None:
            raise AttributeError("under weights the record at a position changes with the epoch: there are no targets")
        none = np.zeros(len(live), np.uint32)
        return self.labels_of(live.at(np.arange(len(live)), none, none)[0]).tolist()

    def id_of(self, record: int) -> str:
        """Return the id of a record, also of a removed one."""
        _check_record(record)
        return self.pack.id_of(record)

    def record_of(self, id: str) -> int:
        """Return the record of an id. Raises KeyError for an id that the pack does not have."""
        return self.pack.record_of(id)

    def read(self, record: int) -> bytes:
        """Return the record's bytes as packed, checked against their CRC. Raises RecordError, ShardError."""
        self.check_live(record)
        with self.named(record):
            pack, own = self._packs.own(record)
            return pack.read(own, lambda: self.reader.read(record))

    def fetching(self, keys: Keys) -> Fetching | None:
        """Begin to fetch what these samples need; None where all packs lie in directories.

        keys: records below 0 are no samples.
        """
        if not self._is_remote:
            return None
        records = keys.records
        if (drawn := self.draw_companions(keys)) is not None:
            records = np.concatenate([records, drawn["record"][drawn["view"] >= 0]])
        coming = []
        for part, _, own in self._packs.split(records[records >= 0]):
            coming.append((self._packs.packs[part], int(self._packs.first_record[part]), own))
        if self.heatmaps is not None:
            theirs = self.heatmaps.records_of(keys.records[keys.records >= 0])
            coming += [(pack, -1, own) for pack, own in self.heatmaps.split(theirs)]
        return Fetching(coming, self.error)

    def _remotes(self) -> dict[str, RemotePack]:
        """Return what reads packs in stores, by their URLs."""
        packs = [*self._packs.packs, *([] if self.heatmaps is None else self.heatmaps.packs)]
        return {pack.place: pack.remote for pack in packs if pack.remote is not None}

    def begin_epoch(self, records: Callable[[], np.ndarray | None] = lambda: None) -> None:
        """Tell the caches of packs in stores that an epoch begins.

        records: returns which it needs here, (N,) int64; None: any. Not called where all packs lie in directories.
        """
        if not self._is_remote:
            return
        found = records()
        own = {} if found is None else {part: its for part, _, its in self._packs.split(found)}
        for part, pack in enumerate(self._packs.packs):
            pack.begin_epoch(own.get(part))
        for pack in () if self.heatmaps is None else self.heatmaps.packs:
            pack.begin_epoch()

    def fetched_ahead(self) -> int | None:
        """Return how many records to fetch ahead of those in work; None where all packs lie in directories."""
        if not self._is_remote:
            return None
        ahead = min(remote.ahead_bytes for remote in self._remotes().values())
        mean = max(1.0, max(_bytes_of(pack) / pack.records for pack in self._packs.packs))
        return min(MOST_FETCHED_AHEAD, int(ahead / mean) + 1)

    def remote_counts(self) -> dict[str, Any] | None:
        """Return sums of what was fetched from stores (RemotePack.counts); None where no pack lies there."""
        several = [remote.counts() for remote in self._remotes().values()] if self._is_remote else []
        if not several:
            return None
        sums = {name: sum(one[name] for one in several) for name in several[0]}
        caches = {remote.address.cache: one["cache_bytes"] for remote, one in zip(self._remotes().values(), several)}
        return sums | {"cache_bytes": sum(caches.values())}

    def check_live(self, record: int) -> None:
        """Raise IndexError for a record that is not in the pack, RecordError for a removed one."""
        _check_record(record)
        self.pack._check(record)
        if self.pack.is_removed(np.array(record)):
            raise self.error(record, "record", "it was removed from the pack")

    def decode(self, record: int) -> np.ndarray:
        """Return Pillow's pixels: (height, width, recipe.channels) uint8, RGB or gray; for a picture of 16 bits
        (height, width, 1) uint16. Raises RecordError, ShardError."""
        data = self.read(record)
        with self.named(record):
            return _C.decode(data, self.recipe.channels)

    def metadata(self, record: int) -> dict[str, Any]:
        """Return the source's metadata columns, for PASS unickname, licensename, datetaken, latitude, longitude."""
        _check_record(record)
        return {name: value for name, value in self.pack.row(record).items() if name not in TABLE_SCHEMA.names}

    def attribution(self, records: Any = None) -> Attribution:
        """Return creator, licence and changes of these records (integers, an array or a tensor); None: of all that are
        served, or may be under weights."""
        if records is None and any(part.chosen is not None for part in self.parts):
            lives = [part.live() for part in self.parts]
            first = self._packs.first_record.tolist()
            records = np.concatenate([live.records_at(np.arange(len(live))) + at for live, at in zip(lives, first)])
        return self._packs.attribution(records)

    def plan(self, record: int, epoch: int = 0, draw: int = 0) -> np.ndarray:
        """Return (views,) rows of recipe.plan_dtype: the decided numbers of every view. Another draw gives other
        views. Raises IndexError for a record that is not in the pack, ValueError for an epoch or draw out of range."""
        _check_record(record)
        height, width = self.pack.size_of(record)
        check_epoch(epoch)
        check_draw(draw)
        if height < 1 or width < 1:
            raise self.error(record, "record", f"the index says that the picture is {height} x {width}")
        key = {"seed": self.seed, "epoch": epoch, "record": record, "draw": draw}
        rows, steps = self.recipe.rows(), self.recipe.step_rows()
        with self.named(record):
            plans = _C.plan_views(rows, **key, height=height, width=width, steps=steps)
        companion = self.companion(record, epoch, draw)
        if companion is not None:
            height, width = self.pack.size_of(companion.record)
            view = companion.view
            plans[view] = _C.plan_views(rows, **key, height=height, width=width, steps=steps)[view]
        return plans

    def companion(self, record: int, epoch: int = 0, draw: int = 0) -> Companion | None:
        """Return which view of the sample shows a companion, and which one; None where none does."""
        _check_record(record)
        self.pack._check(record)
        drawn = self.draw_companions(Keys.of(record, draw, epoch))
        if drawn is None or drawn["view"][0] < 0:
            return None
        return Companion(*drawn[0].tolist())

    def draw_companions(self, keys: Keys) -> np.ndarray | None:
        """Return (N,) companions.DRAWN of N samples; None where the dataset has no companions.

        A removed companion is not used: its view shows the original.
        """
        if self.pairs is None:
            return None
        drawn = self.pairs.draw(self.seed, keys, self.recipe)
        used = np.flatnonzero(drawn["view"] >= 0)
        drawn[used[self.pack.is_removed(drawn["record"][used])]] = NO_COMPANION
        return drawn

    def render(self, record: int, epoch: int = 0, draw: int = 0) -> list[np.ndarray]:
        """Return the views before normalisation: a list of (height, width, recipe.channels) uint8, for a picture of
        16 bits (height, width, 1) uint16. Raises RecordError, ShardError."""
        plans, companion = self.plan(record, epoch, draw), self.companion(record, epoch, draw)
        if companion is None:
            return self._rendered(record, plans)
        others = np.delete(plans, companion.view)
        views = self._rendered(record, others) if len(others) else []
        views[companion.view : companion.view] = self._rendered(companion.record, plans[companion.view, None])
        return views

    def _rendered(self, record: int, plans: np.ndarray) -> list[np.ndarray]:
        pixels, (height, width) = self.decode(record), self.pack.size_of(record)
        if pixels.shape[:2] != (height, width):
            found = f"{pixels.shape[0]} x {pixels.shape[1]}"
            raise self.error(record, "record", f"the index says {height} x {width} (height x width), it is {found}")
        with self.named(record):
            return _C.render_plan(pixels, plans)

    @contextlib.contextmanager
    def named(self, record: int) -> Iterator[None]:
        """Translate errors of the native side to such that name the record's place."""
        try:
            yield
        except BadPictureError as error:
            raise self.error(record, "record", str(error)) from None
        except OSError as error:
            raise self.error(record, "io", str(error)) from None

    def error(self, record: int, fault: str, cause: str) -> RecordError:
        """Return the error that names a record's place. fault: "io" for the storage's."""
        kind = ShardError if fault == "io" else RecordError
        if self.pack.was_purged():
            cause += "; the pack was purged since it was opened: open it again"
        try:
            id = self.id_of(record)
        except Exception as lookup:  # the cause that matters is the one we were given
            id = f"unknown ({lookup})"
        return kind(self.pack.shard_name(record), record, id, cause)


def _mean_record_bytes(pack: Pack) -> float:
    """Return the bytes of the tars over the number of records, removed ones included."""
    total = _bytes_of(pack)
    if total <= 0:
        raise PackError(
            f"{pack.place}: its manifest does not tell the bytes of its shards, which order='blocks' needs: take "
            "order='permute', or make the pack anew"
        )
    return total / pack.records


def _bytes_of(pack: Pack) -> int:
    return sum({shard["tar"]: shard.get("bytes", 0) for shard in pack.shards}.values())


def _check_record(record: Any) -> None:
    if isinstance(record, str):
        raise TypeError(f"record is {record!r}, want its number: dataset.record_of({record!r}) tells it")
    operator.index(record)
