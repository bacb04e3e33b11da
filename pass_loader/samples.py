"""Single samples of a pack: look at one, plan it, render it. Works without torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _C
from .errors import BadPictureError, RecordError, ShardError
from .heatmaps import Heatmaps
from .live import Live, chosen_records, digest_of, live_now, live_then
from .pack.attribution import Attribution, attribution
from .pack.layout import TABLE_SCHEMA
from .pack.reader import Pack
from .recipe import ChannelValues, Recipe

MAX_SEED = 2**64


class Samples:
    """A pack, or chosen records of it, seen through a recipe.

    Every method is a pure function of its arguments and the seed.
    records or ids: serve these alone, in this order, under the numbers that they have in the pack.
    mean, std: the pack's own, in place of the recipe's.
    heatmaps: a pack with a picture of the same id and size for each that is served; the batch is "view_heatmap_labels".
    """

    def __init__(
        self,
        pack: str | Path | Pack,
        recipe: Recipe,
        *,
        seed: int = 0,
        records: Sequence[int] | None = None,
        ids: Sequence[str] | None = None,
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        heatmaps: str | Path | Pack | None = None,
    ):
        if not isinstance(recipe, Recipe):
            raise TypeError(
                f"recipe is {recipe!r}, want a pass_loader.Recipe, for example recipes.dino(), or for a transform "
                "Recipe.from_torchvision(transform)"
            )
        if not 0 <= seed < MAX_SEED:
            raise ValueError(f"seed is {seed}, want [0, 2^64)")
        self.pack = pack if isinstance(pack, Pack) else Pack(pack)
        if mean is not None or std is not None:
            mean, std = recipe.mean if mean is None else mean, recipe.std if std is None else std
            recipe = dataclasses.replace(recipe, mean=mean, std=std)
        self.recipe = recipe
        self.seed = seed
        self._chosen = chosen_records(self.pack, records, ids)
        self._live = live_now(self.pack, self._chosen)
        self._seen = self.pack.generation  # when _live was decided
        if (heatmaps is not None) != (self.recipe.batch == "view_heatmap_labels"):
            raise ValueError(
                f"batch {self.recipe.batch!r} and heatmaps {heatmaps}: the batch 'view_heatmap_labels' has them, and "
                "no other"
            )
        self.heatmaps = None if heatmaps is None else Heatmaps(heatmaps, self.pack, self._live)
        self._opened: tuple[int, _C.ShardReader] | None = None  # of a revision of the pack

    def __len__(self) -> int:
        """Live records, of those chosen."""
        return len(self.live)

    @property
    def live(self) -> Live:
        """What is served now. It changes where the pack is refreshed; whoever iterates keeps what it began with."""
        if self._seen != self.pack.generation:
            self.serve(live_now(self.pack, self._chosen))
        return self._live

    def serve(self, live: Live) -> None:
        """Serve these until the pack is refreshed and has changed: what all ranks agreed on, or a resumed epoch's."""
        self._live, self._seen = live, self.pack.generation

    def normalized_recipes(self) -> list[Recipe]:
        """The recipe, once a source of pictures: they differ in mean and std alone."""
        return [self.recipe]

    def sources_of(self, records: np.ndarray) -> np.ndarray | None:
        """(N,) uint16: the place in `normalized_recipes` of each record's source; None: all are of the first."""
        return None

    def subset(self) -> str | None:
        """A digest of the chosen records and their order; None where all are served."""
        return digest_of(self._chosen)

    def live_then(self, generation: int) -> Live:
        """What was served when the pack had this generation. Raises PackError where it never had it."""
        return live_then(self.pack, self._chosen, generation)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # file descriptors do not travel

    @property
    def reader(self) -> _C.ShardReader:
        if self._opened is None or self._opened[0] != self.pack.revision:
            columns = [self.pack.column(name) for name in ("shard", "offset", "length", "crc32c")]
            self._opened = (self.pack.revision, _C.ShardReader(self.pack.tar_paths(), *columns))
        return self._opened[1]

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
        """Creator, licence and changes of these records (integers, an array or a tensor); None: of all live ones."""
        return attribution(self.pack, records)

    def plan(self, record: int, epoch: int = 0, draw: int = 0) -> np.ndarray:
        """(views,) rows of _C.view_plan_dtype: the decided numbers of every view. Another draw gives other views."""
        self.pack._check(record)
        check_epoch(epoch)
        if not 0 <= draw < 1 << 16:
            raise ValueError(f"draw is {draw}, want [0, 65536)")
        height, width = (int(self.pack.column(name)[record]) for name in ("height", "width"))
        return _C.plan_views(
            self.recipe.rows(), seed=self.seed, epoch=epoch, record=record, draw=draw, height=height, width=width
        )

    def render(self, record: int, epoch: int = 0, draw: int = 0) -> list[np.ndarray]:
        """The views before normalisation: a list of (height, width, recipe.channels) uint8, of a picture of 16 bits
        (height, width, 1) uint16. Raises RecordError, ShardError."""
        pixels = self.decode(record)
        with self.named(record):
            return _C.render_plan(pixels, self.plan(record, epoch, draw))

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


def check_epoch(epoch: int) -> None:
    if not 0 <= epoch < 2**32:
        raise ValueError(f"epoch is {epoch}, want [0, 2^32)")


def render_plan(pixels: np.ndarray, plan: np.ndarray) -> list[np.ndarray]:
    """Execute plan rows on a picture.

    pixels: (height, width, 3) uint8 RGB, or gray of (height, width, 1), uint8 or uint16. plan: rows of
    _C.view_plan_dtype, one or more. Returns a list of (out_height, out_width, 3 or 1) of the same type.
    Raises ValueError where a plan cannot be executed.
    """
    return _C.render_plan(np.ascontiguousarray(pixels), np.ascontiguousarray(np.atleast_1d(plan)))
