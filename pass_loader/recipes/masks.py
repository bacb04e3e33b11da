"""Masks over the patches of views, for masked image modelling.

The draws of a sample are keyed by (seed, epoch, record, draw, view); those of a batch (which samples get how much,
sizes of blocks) by (seed, epoch, step, rank). csrc/masks.cpp draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import _C
from ..keys import BatchKey, SampleKeys

# Purposes of a batch's draws; numbers are never reused.
_RATIO, _SHUFFLE, _SIZES = 0, 1, 2
_ASPECT_MIN = 0.3


def _grid(height: int, width: int, patch: int) -> tuple[int, int]:
    if patch < 1 or height < patch or width < patch:
        raise ValueError(f"a view of {height} x {width} has no patches of {patch}")
    return height // patch, width // patch


@dataclass(frozen=True)
class IBOTMasks:
    """iBOT: a mask for every view, locals included (bytedance/ibot da316d8, loader.py:54-116).

    Each mask's share of the cells is one of `ratio`, chosen evenly, varied uniformly by up to `ratio_var`; the defaults
    leave half of the masks empty. shape: "block" or "random". Masks are empty before start_epoch.
    """

    patch: int = 16
    ratio: tuple[float, ...] = (0.0, 0.3)
    ratio_var: tuple[float, ...] = (0.0, 0.2)
    shape: str = "block"
    start_epoch: int = 0

    def __post_init__(self) -> None:
        if len(self.ratio) != len(self.ratio_var) or not self.ratio:
            raise ValueError(f"ratio {self.ratio} and ratio_var {self.ratio_var}: want one variation a ratio")
        if not all(0 <= var <= one and one + var <= 1 for one, var in zip(self.ratio, self.ratio_var)):
            raise ValueError(f"ratio {self.ratio} varied by {self.ratio_var} leaves [0, 1]")
        if self.shape not in ("block", "random"):
            raise ValueError(f"shape is {self.shape!r}, want 'block' or 'random'")

    def draw(self, keys: SampleKeys, view: int, height: int, width: int) -> np.ndarray:
        """Return (N, rows, columns) bool, True where masked."""
        grid = _grid(height, width, self.patch)
        cells = grid[0] * grid[1]
        chance = _C.mask_uniforms(*keys, view)  # (N, 2)
        chosen = np.minimum((chance[:, 0] * len(self.ratio)).astype(np.int64), len(self.ratio) - 1)
        var = np.array(self.ratio_var)[chosen]
        ratios = np.array(self.ratio)[chosen] + var * (2 * chance[:, 1] - 1)
        targets = np.where(keys.epochs < self.start_epoch, 0.0, np.clip(ratios, 0, 1) * cells)
        if self.shape == "random":
            ranks = np.argsort(_C.orders(*keys, view, cells), axis=1)
            return (ranks < targets.astype(np.int64)[:, None]).reshape(-1, *grid)
        least = float(max((min(grid) // 3) ** 2, 1))
        return _C.block_masks(*keys, view, grid, targets, least, math.inf, _ASPECT_MIN, False)


@dataclass(frozen=True)
class StratifiedMasks:
    """DINOv2 and DINOv3: masks for the global views of a batch, their shares spread evenly over it.

    Of the batch's views (samples times global views) int(count * probability) get masks; the range `ratio` is cut into
    as many strata, one a mask, and the masks are shuffled over the views. DINOv2 draws the share within the stratum and
    may mask fewer cells (facebookresearch/dinov2 b8931f7, data/collate.py:10-49, masking.py). exact: DINOv3 takes the
    stratum's upper end and fills up to it with cells at random (facebookresearch/dinov3 6876159,
    dinov3/data/masking.py:87-94).
    """

    patch: int = 16
    ratio: tuple[float, float] = (0.1, 0.5)
    probability: float = 0.5
    exact: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.ratio[0] <= self.ratio[1] <= 1 and 0 <= self.probability <= 1):
            raise ValueError(f"ratio {self.ratio} or probability {self.probability} leaves [0, 1]")

    def draw(
        self, keys: SampleKeys, batch: BatchKey, views: Sequence[int], height: int, width: int
    ) -> tuple[np.ndarray, int]:
        """Return (views * N, rows, columns) bool, all samples of the first view first, and the upper bound of masked
        cells: the sum of the strata's upper ends."""
        grid = _grid(height, width, self.patch)
        cells, count = grid[0] * grid[1], len(views) * len(keys.records)
        masked = int(count * self.probability)
        largest = max(grid[0] // 2 * grid[1], 1.0)  # of a block: dinov2/train/train.py:167-173
        ends = np.linspace(*self.ratio, masked + 1)
        most = (cells * ends[1:]).astype(np.int64)
        inside = ends[:-1] + (ends[1:] - ends[:-1]) * batch.uniforms(_RATIO, masked)
        targets = np.zeros(count)
        places = np.argsort(batch.uniforms(_SHUFFLE, count), kind="stable")[:masked]
        targets[places] = most if self.exact else (cells * inside).astype(np.int64)
        parts = [
            self._cells(keys, view, grid, part, largest) for view, part in zip(views, np.split(targets, len(views)))
        ]
        return np.concatenate(parts), int(most.sum())

    def _cells(
        self, keys: SampleKeys, view: int, grid: tuple[int, int], targets: np.ndarray, largest: float
    ) -> np.ndarray:
        return _C.block_masks(*keys, view, grid, targets, 4.0, largest, _ASPECT_MIN, self.exact)


@dataclass(frozen=True)
class StratifiedInverseBlocks(StratifiedMasks):
    """Franca: DINOv2's shares and views; a mask hides all cells but a block, which is rolled around the edges
    (valeoai/Franca 24f8c60, franca/data/masking.py, franca/train/train.py:157-164)."""

    patch: int = 14
    ratio: tuple[float, float] = (0.1, 0.65)
    roll: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exact:
            raise ValueError("exact: an inverse block hides the wanted number of cells in any case")

    def _cells(
        self, keys: SampleKeys, view: int, grid: tuple[int, int], targets: np.ndarray, largest: float
    ) -> np.ndarray:
        return ~_C.rolled_blocks(*keys, view, grid, _left(grid, targets), _ASPECT_MIN, self.roll)


def _left(grid: tuple[int, int], hidden: np.ndarray) -> np.ndarray:
    """Return how many cells are left of the grid where so many are hidden: int64, as many as hidden's."""
    return (grid[0] * grid[1] - hidden).astype(np.int64)


@dataclass(frozen=True)
class MultiBlockMasks:
    """I-JEPA: cells that the encoder sees and blocks that the predictors fill in (facebookresearch/ijepa 52c1ae9,
    src/masks/multiblock.py).

    Sizes of blocks are drawn once a batch; one uniform number gives both scale and aspect of the predictors' blocks, as
    there, and another the encoder's scale. Places are drawn a sample, never in the last row or column. The encoder's
    block loses the predictors' cells. All masks of a batch are cut to its shortest. A sample whose encoder keeps
    min_keep cells or fewer is drawn again, after twenty tries with one predictor less to respect.
    """

    patch: int = 14
    predictor_scale: tuple[float, float] = (0.15, 0.2)
    predictor_aspect: tuple[float, float] = (0.75, 1.5)
    encoder_scale: tuple[float, float] = (0.85, 1.0)
    predictors: int = 4
    encoders: int = 1
    min_keep: int = 10

    def sizes(self, batch: BatchKey, grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (height, width) of the predictors' blocks and of the encoders', in cells, equal on all ranks."""
        first, second = batch._replace(rank=0).uniforms(_SIZES, 2)
        predictor = self._size(float(first), self.predictor_scale, self.predictor_aspect, grid)
        return predictor, self._size(float(second), self.encoder_scale, (1.0, 1.0), grid)

    @staticmethod
    def _size(
        chance: float, scale: tuple[float, float], aspect: tuple[float, float], grid: tuple[int, int]
    ) -> tuple[int, int]:
        area = int(grid[0] * grid[1] * (scale[0] + chance * (scale[1] - scale[0])))
        ratio = aspect[0] + chance * (aspect[1] - aspect[0])
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return max(min(height, grid[0] - 1), 1), max(min(width, grid[1] - 1), 1)

    def draw(
        self, keys: SampleKeys, batch: BatchKey, height: int, width: int
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the encoders' cells, a list of (N, K), and the predictors', of (N, K'): int64, in raster order."""
        grid = _grid(height, width, self.patch)
        predictor, encoder = self.sizes(batch, grid)
        found = _C.multi_block(*keys, grid, predictor, encoder, self.predictors, self.encoders, self.min_keep)
        predictor_cells, predictor_counts, encoder_cells, encoder_counts = found
        return _cut(encoder_cells, encoder_counts), _cut(predictor_cells, predictor_counts)


def _cut(cells: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Turn (N, blocks, cells) into a list of blocks (N, shortest)."""
    shortest = int(counts.min()) if counts.size else 0
    return [np.ascontiguousarray(cells[:, block, :shortest]) for block in range(cells.shape[1])]


@dataclass(frozen=True)
class RandomMasks:
    """MAE: of L patches int(L * (1 - ratio)) are kept, at random (facebookresearch/mae efb2a80, models_mae.py)."""

    patch: int = 16
    ratio: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio}, want [0, 1]")

    def draw(self, keys: SampleKeys, view: int, height: int, width: int) -> dict[str, np.ndarray]:
        """Return ids_keep (N, kept) and ids_restore (N, L) int64, mask (N, L) float32, 1 where removed."""
        rows, columns = _grid(height, width, self.patch)
        cells = rows * columns
        order = _C.orders(*keys, view, cells)
        restore = np.argsort(order, axis=1)
        kept = int(cells * (1 - self.ratio))
        mask = (restore >= kept).astype(np.float32)
        return {"ids_keep": np.ascontiguousarray(order[:, :kept]), "ids_restore": restore, "mask": mask}


@dataclass(frozen=True)
class CoarseMasks:
    """SimMIM: of the cells of `cell` pixels ceil(count * ratio) are masked, at random (microsoft/SimMIM d3e29bc,
    data/data_simmim.py:22-46)."""

    cell: int = 32
    patch: int = 4
    ratio: float = 0.6

    def __post_init__(self) -> None:
        if self.patch < 1 or self.cell < 1 or self.cell % self.patch:
            raise ValueError(f"cells of {self.cell} pixels are not of whole patches of {self.patch}")
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio}, want [0, 1]")

    def draw(self, keys: SampleKeys, view: int, height: int, width: int) -> np.ndarray:
        """Return (N, rows, columns) int64 over the patches, 1 where masked."""
        if height % self.cell or width % self.cell:
            raise ValueError(f"a view of {height} x {width} is not of whole cells of {self.cell}")
        rows, columns = _grid(height, width, self.cell)
        cells, times = rows * columns, self.cell // self.patch
        masked = _C.orders(*keys, view, cells)[:, : math.ceil(cells * self.ratio)]
        mask = np.zeros((len(masked), cells), np.int64)
        np.put_along_axis(mask, masked, 1, axis=1)
        return mask.reshape(-1, rows, columns).repeat(times, axis=1).repeat(times, axis=2)


@dataclass(frozen=True)
class BlockMasks:
    """BEiT: blocks until `cells` patches are masked, each of at least `least` and at most `most` of them
    (microsoft/unilm 768a3c8, beit/masking_generator.py)."""

    patch: int = 16
    cells: int = 75
    least: int = 16
    most: int | None = None

    def __post_init__(self) -> None:
        if self.cells < 0 or self.least < 1 or (self.most is not None and self.most < 1):
            raise ValueError(f"cells {self.cells}, least {self.least}, most {self.most}: want numbers of patches")

    def draw(self, keys: SampleKeys, view: int, height: int, width: int) -> np.ndarray:
        """Return (N, rows, columns) int64, 1 where masked."""
        grid = _grid(height, width, self.patch)
        targets = np.full(len(keys.records), float(self.cells))
        most = float(self.most or max(self.cells, 1))
        drawn = _C.block_masks(*keys, view, grid, targets, float(self.least), most, _ASPECT_MIN, False)
        return drawn.astype(np.int64)


@dataclass(frozen=True)
class InverseBlockMasks:
    """CAPI: int(cells * ratio) patches are masked, all but a block that is rolled around the edges; of those
    int(masked * predicted) are predicted, at random (facebookresearch/capi 98b4fa1, data.py:394-472)."""

    patch: int = 14
    ratio: float = 0.65
    predicted: float = 0.05
    roll: bool = True
    aspect: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.ratio <= 1 and 0 <= self.predicted <= 1 and 1e-3 <= self.aspect <= 1):
            raise ValueError(
                f"ratio {self.ratio}, predicted {self.predicted}, aspect {self.aspect}: want shares, aspect in "
                "[0.001, 1]"
            )

    def draw(self, keys: SampleKeys, view: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks, (N, rows, columns) bool, and the predicted cells of each, (N, K) int64."""
        grid = _grid(height, width, self.patch)
        masked = int(grid[0] * grid[1] * self.ratio)
        hidden = np.full(len(keys.records), masked)
        mask = ~_C.rolled_blocks(*keys, view, grid, _left(grid, hidden), self.aspect, self.roll)
        predicted = int(masked * self.predicted)
        if predicted == 0:
            return mask, np.zeros((len(mask), 0), np.int64)
        places = np.flatnonzero(mask).reshape(len(mask), masked) % (grid[0] * grid[1])
        chosen = _C.orders(*keys, view, masked)[:, :predicted]
        return mask, np.take_along_axis(places, chosen, axis=1)


Masks = IBOTMasks | StratifiedMasks | MultiBlockMasks | RandomMasks | CoarseMasks | BlockMasks | InverseBlockMasks
