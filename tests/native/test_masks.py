"""Masks: distributed as straightforward versions of the described algorithms, keyed by sample and batch, and fast."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pass_loader import _C, recipes
from pass_loader.recipes.masks import (
    BlockMasks,
    CoarseMasks,
    IBOTMasks,
    InverseBlockMasks,
    MultiBlockMasks,
    RandomMasks,
    StratifiedInverseBlocks,
    StratifiedMasks,
)
from pass_loader.keys import BatchKey, SampleKeys

GRID = (14, 14)


def keys_of(count: int, seed: int = 0, epoch: int = 0, first: int = 0) -> SampleKeys:
    records = np.arange(first, first + count, dtype=np.int64)
    return SampleKeys(seed, records, np.zeros(count, np.uint32), np.full(count, epoch, np.uint32))


# The algorithms from their description (iBOT's loader.py, DINOv2's and DINOv3's masking.py, I-JEPA's multiblock.py)


def slow_block_mask(chance: random.Random, grid: tuple[int, int], target: float, least: float, most: float,
                    exact: bool) -> np.ndarray:  # fmt: skip
    mask = np.zeros(grid, bool)
    while mask.sum() < target:
        budget, before = min(target - mask.sum(), most), mask.sum()
        for _ in range(10):
            area = chance.uniform(least, budget)
            aspect = math.exp(chance.uniform(math.log(0.3), -math.log(0.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h >= grid[0] or w >= grid[1]:
                continue
            top, left = chance.randint(0, grid[0] - h), chance.randint(0, grid[1] - w)
            block = mask[top : top + h, left : left + w]
            if 0 < h * w - block.sum() <= budget:
                block[:] = True
                break
        if mask.sum() == before:
            break
    if exact:
        free = [int(cell) for cell in np.flatnonzero(~mask)]
        mask.flat[chance.sample(free, int(target) - int(mask.sum()))] = True
    return mask


def slow_multi_block(chance: random.Random, grid: tuple[int, int], predictor: tuple[int, int], encoder: tuple[int, int],
                     predictors: int, min_keep: int) -> tuple[list[np.ndarray], np.ndarray]:  # fmt: skip
    def block(size: tuple[int, int]) -> np.ndarray:
        mask = np.zeros(grid, bool)
        top, left = chance.randrange(grid[0] - size[0]), chance.randrange(grid[1] - size[1])
        mask[top : top + size[0], left : left + size[1]] = True
        return mask

    taken = [block(predictor) for _ in range(predictors)]
    left_out, tries = 0, 0
    while True:
        mask = block(encoder)
        for other in taken[: len(taken) - left_out]:
            mask &= ~other
        if mask.sum() > min_keep:
            return taken, mask
        tries += 1
        left_out += tries % 20 == 0


def slow_rolled_block(
    chance: random.Random, grid: tuple[int, int], count: int, aspect: float, roll: bool
) -> np.ndarray:
    """CAPI's data.py: a rectangle of at least so many cells, the first of them, rolled."""
    rows, columns = grid
    low = max(math.log(aspect), math.log(count / columns**2))
    high = min(-math.log(aspect), math.log(rows**2 / (count + 1e-5)))
    ratio = math.exp(chance.uniform(low, high))
    h, w = math.ceil(math.sqrt(count * ratio)), math.ceil(math.sqrt(count / ratio))
    top, left = chance.randint(0, rows - h), chance.randint(0, columns - w)
    mask = np.zeros(grid, bool)
    mask[top : top + h, left : left + w] = True
    mask.flat[np.flatnonzero(mask)[count:]] = False
    if roll:
        mask = np.roll(mask, (chance.randrange(rows), chance.randrange(columns)), (0, 1))
    return mask


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance, as a share of its 0.01 % point."""
    points = np.unique(np.concatenate([a, b]))
    ranks = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (a, b)]
    return float(np.abs(ranks[0] - ranks[1]).max() / (2.23 * math.sqrt(1 / len(a) + 1 / len(b))))


def shape_numbers(masks: np.ndarray) -> list[np.ndarray]:
    """Return, of masks (N, rows, columns): cells, number of equal neighbours, rows and columns touched, centre."""
    rows, columns = np.arange(masks.shape[1])[:, None], np.arange(masks.shape[2])[None]
    total = np.maximum(masks.sum((1, 2)), 1)
    return [
        masks.sum((1, 2)), (masks[:, 1:] == masks[:, :-1]).sum((1, 2)),
        (masks[:, :, 1:] == masks[:, :, :-1]).sum((1, 2)), masks.any(2).sum(1), masks.any(1).sum(1),
        (masks * rows).sum((1, 2)) / total, (masks * columns).sum((1, 2)) / total,
    ]  # fmt: skip


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    for number, (a, b) in enumerate(zip(shape_numbers(ours), shape_numbers(theirs))):
        assert distance(a, b) < 1, number
    spread = np.sqrt((ours.mean(0) * (1 - ours.mean(0)) + 1e-9) * (1 / len(ours) + 1 / len(theirs)))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * spread + 1e-9).all(), "each cell is masked as often"


COUNT = 3000


@pytest.mark.slow
@pytest.mark.parametrize("target,least,most,exact", [
    (60.0, 4.0, 98.0, False), (98.0, 4.0, 98.0, True), (23.7, 16.0, math.inf, False), (97.0, 16.0, math.inf, False),
    (3.0, 4.0, 98.0, True),
])  # fmt: skip
def test_block_masks(target: float, least: float, most: float, exact: bool) -> None:
    """Kills: an exclusive last place, a uniform aspect, blocks over budget, blocks as large as the grid."""
    ours = _C.block_masks(*keys_of(COUNT), 0, GRID, np.full(COUNT, target), least, most, 0.3, exact)
    chance = random.Random(1)
    theirs = np.stack([slow_block_mask(chance, GRID, target, least, most, exact) for _ in range(COUNT)])
    assert ours.sum((1, 2)).max() <= target
    if exact:
        assert set(ours.sum((1, 2))) == {int(target)}
    assert_same_distribution(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("roll", [False, True])
@pytest.mark.parametrize("grid,count,aspect", [((16, 16), 90, 0.5), ((16, 16), 230, 0.3), ((9, 14), 40, 0.3),
                                               ((16, 16), 7, 0.3)])  # fmt: skip
def test_rolled_blocks(grid: tuple[int, int], count: int, aspect: float, roll: bool) -> None:
    """Kills: an aspect that the grid does not bound (second case), rows and columns swapped (third), a shift along one
    axis alone, the last cells of the rectangle in place of the first."""
    ours = _C.rolled_blocks(*keys_of(COUNT), 0, grid, np.full(COUNT, count), aspect, roll)
    chance = random.Random(6)
    theirs = np.stack([slow_rolled_block(chance, grid, count, aspect, roll) for _ in range(COUNT)])
    assert set(ours.sum((1, 2))) == {count}
    assert_same_distribution(ours, theirs)
    tops, lefts = ([mask.any(axis).argmax(1) for mask in (ours, theirs)] for axis in (2, 1))
    assert distance(*tops) < 1 and distance(*lefts) < 1


def test_rolled_blocks_of_any_count() -> None:
    """A block has its cells also where CAPI's would not fit. Kills: a side that rounding leaves one short."""
    for grid in ((1, 1), (1, 9), (9, 1), (3, 4), (7, 7), (4, 16)):
        cells = grid[0] * grid[1]
        for count in range(cells + 1):
            drawn = _C.rolled_blocks(*keys_of(20), 0, grid, np.full(20, count), 0.5, True)
            assert set(drawn.sum((1, 2))) == {count}, (grid, count)


def test_inverse_blocks() -> None:
    """CAPI's shares: of 256 patches 166 are masked, of those 8 predicted. Kills: predicted cells that are visible,
    the block in place of its inverse, the same place in every mask."""
    mask, predicted = InverseBlockMasks().draw(keys_of(2000), 0, 224, 224)
    assert mask.shape == (2000, 16, 16) and set(mask.sum((1, 2))) == {166} and predicted.shape == (2000, 8)
    assert np.take_along_axis(mask.reshape(2000, -1), predicted, 1).all()
    assert all(len({*row}) == 8 for row in predicted.tolist())
    ranks = (mask.reshape(2000, -1).cumsum(1) - 1)[np.arange(2000)[:, None], predicted]
    often = np.bincount(ranks.ravel(), minlength=166) / 16000
    assert abs(often - 1 / 166).max() < 5 * math.sqrt(1 / 166 / 16000)
    whole, none = InverseBlockMasks(ratio=1.0).draw(keys_of(2), 0, 28, 28)
    assert whole.all() and none.shape == (2, 0)


def test_stratified_inverse_blocks() -> None:
    """Franca: as many cells as DINOv2 wants, exactly; views without a mask hide nothing."""
    drawn, bound = StratifiedInverseBlocks().draw(keys_of(32), BatchKey(0, 0, 0, 0), [0, 1], 224, 224)
    counts = np.sort(drawn.sum((1, 2)))
    ends = np.linspace(0.1, 0.65, 33)
    assert drawn.shape == (64, 16, 16) and (counts[:32] == 0).all() and bound == (256 * ends[1:]).astype(int).sum()
    assert (counts[32:] >= (256 * ends[:-1]).astype(int)).all() and (counts[32:] <= (256 * ends[1:]).astype(int)).all()


@pytest.mark.slow
def test_beits_masks() -> None:
    """Kills: a last block that may exceed what is missing, another least area."""
    ours = BlockMasks().draw(keys_of(COUNT), 0, 224, 224)
    chance = random.Random(8)
    theirs = np.stack([slow_block_mask(chance, GRID, 75, 16, 75, False) for _ in range(COUNT)])
    assert ours.dtype == np.int64 and ours.sum((1, 2)).max() <= 75
    assert_same_distribution(ours.astype(bool), theirs)


def test_coarse_masks() -> None:
    """SimMIM: 22 of 36 cells of 8 x 8 patches. Kills: a share that is cut, cells that are not whole."""
    drawn = CoarseMasks().draw(keys_of(3000), 0, 192, 192)
    assert drawn.shape == (3000, 48, 48) and drawn.dtype == np.int64
    cells = drawn[:, ::8, ::8]
    assert np.array_equal(drawn, cells.repeat(8, 1).repeat(8, 2)) and set(cells.sum((1, 2))) == {22}
    assert abs(cells.mean(0) - 22 / 36).max() < 5 * math.sqrt(22 / 36 * 14 / 36 / 3000)


@pytest.mark.slow
@pytest.mark.parametrize("target,least,most", [(30.0, 30.0, 98.0), (60.0, 60.0, 98.0), (60.0, 16.0, 20.0)])
def test_shapes_of_blocks(target: float, least: float, most: float) -> None:
    """Few blocks of known area: how often each height and width. Kills: another range of aspects (first case), blocks
    as large as the grid (second), an area above the most (third)."""
    count, chance = 2 * COUNT, random.Random(5)
    ours = _C.block_masks(*keys_of(count), 0, GRID, np.full(count, target), least, most, 0.3, False)
    theirs = np.stack([slow_block_mask(chance, GRID, target, least, most, False) for _ in range(count)])
    sides = [100 * masks.any(2).sum(1) + masks.any(1).sum(1) for masks in (ours, theirs)]
    a, b = (np.bincount(one, minlength=2000).astype(float) for one in sides)
    common = a + b >= 20
    a, b = (np.append(one[common], one[~common].sum()) for one in (a, b))
    chi, freedom = ((a - b) ** 2 / np.maximum(a + b, 1)).sum(), len(a) - 1
    assert chi < freedom + 5 * math.sqrt(2 * freedom) and freedom > 20


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["block", "random"])
@pytest.mark.parametrize("side", [224, 96])
def test_ibot_masks(shape: str, side: int) -> None:
    masks = IBOTMasks(shape=shape)
    ours, cells = masks.draw(keys_of(COUNT), 1, side, side), (side // 16) ** 2
    grid, chance = (side // 16, side // 16), random.Random(2)

    def slow() -> np.ndarray:
        ratio = chance.choice([0.0, chance.uniform(0.1, 0.5)])
        if shape == "block":
            return slow_block_mask(chance, grid, ratio * cells, (grid[0] // 3) ** 2, math.inf, False)
        flat = np.zeros(cells, bool)
        flat[chance.sample(range(cells), int(ratio * cells))] = True
        return flat.reshape(grid)

    assert_same_distribution(ours, np.stack([slow() for _ in range(COUNT)]))
    assert abs((ours.sum((1, 2)) == 0).mean() - 0.5) < 0.04, "half of the masks are empty"
    late = IBOTMasks(start_epoch=3)
    assert not late.draw(keys_of(50, epoch=2), 0, 224, 224).any() and late.draw(keys_of(50, epoch=3), 0, 224, 224).any()


@pytest.mark.parametrize("exact", [False, True])
def test_stratified_masks(exact: bool) -> None:
    """A batch of 32: of 64 global views 32 have masks, one share from each stratum."""
    masks = StratifiedMasks(exact=exact)
    ends = np.linspace(0.1, 0.5, 33)
    most, least = (196 * ends[1:]).astype(int), (196 * ends[:-1]).astype(int)
    place = np.zeros(64)
    for step in range(200):
        drawn, bound = masks.draw(keys_of(32, first=32 * step), BatchKey(0, 0, step, 0), [0, 1], 224, 224)
        counts = drawn.sum((1, 2))
        place += counts > 0
        assert bound == most.sum() and len(drawn) == 64 and (counts > 0).sum() == 32
        ordered = np.sort(counts[counts > 0])
        if exact:
            assert ordered.tolist() == most.tolist()
        else:
            assert (ordered <= most).all() and ordered.sum() > 0.85 * least.sum(), "few cells are left out"
    assert abs(place - 100).max() < 5 * math.sqrt(50), "any view of the batch is masked as often"
    other, _ = masks.draw(keys_of(32), BatchKey(0, 0, 0, 1), [0, 1], 224, 224)
    assert not np.array_equal(
        other.sum((1, 2)) > 0, masks.draw(keys_of(32), BatchKey(0, 0, 0, 0), [0, 1], 224, 224)[0].any((1, 2))
    )


def test_multi_block_sizes() -> None:
    """One number drives scale and aspect of the predictors' blocks; equal on all ranks; as described."""
    masks, grid = MultiBlockMasks(), (16, 16)
    sizes = [masks.sizes(BatchKey(0, 0, step, 0), grid) for step in range(4000)]
    assert sizes == [masks.sizes(BatchKey(0, 0, step, 3), grid) for step in range(4000)]
    chance = random.Random(3)

    def slow() -> tuple[tuple[int, int], tuple[int, int]]:
        u, e = chance.random(), chance.random()
        area, aspect = int(256 * (0.15 + u * 0.05)), 0.75 + u * 0.75
        side = min(round(math.sqrt(int(256 * (0.85 + e * 0.15)))), 15)
        return (round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))), (side, side)

    theirs = [slow() for _ in range(4000)]
    assert {size for size, _ in sizes} == {size for size, _ in theirs} and {e for _, e in sizes} == {
        e for _, e in theirs
    }
    for part in range(2):
        for axis in range(2):
            assert distance(*(np.array([s[part][axis] for s in one]) for one in (sizes, theirs))) < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "predictor,encoder,min_keep", [((5, 8), (15, 15), 10), ((13, 13), (14, 14), 40), ((11, 11), (9, 9), 12)]
)
def test_multi_block_places(predictor: tuple[int, int], encoder: tuple[int, int], min_keep: int) -> None:
    """The second case needs more tries and fewer constraints, the third now and then. Kills: fewer tries, another
    constraint that is dropped first."""
    grid, count = (16, 16), 2000
    p, p_counts, e, e_counts = _C.multi_block(*keys_of(count), grid, predictor, encoder, 4, 1, min_keep)
    chance = random.Random(4)
    theirs = [slow_multi_block(chance, grid, predictor, encoder, 4, min_keep) for _ in range(count)]

    def dense(cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
        out = np.zeros((count, 257), bool)
        np.put_along_axis(out, np.where(np.arange(256) < counts[:, None], cells, 256), True, axis=1)
        return out[:, :256].reshape(count, *grid)

    for number in range(4):
        assert set(p_counts[:, number]) == {predictor[0] * predictor[1]}
        mine, others = dense(p[:, number], p_counts[:, number]), np.stack([one[0][number] for one in theirs])
        assert_same_distribution(mine, others)
        pairs = ((mine, dense(e[:, 0], e_counts[:, 0])), (others, np.stack([one[1] for one in theirs])))
        overlaps = [(blocks & seen).any((1, 2)).mean() for blocks, seen in pairs]
        assert abs(overlaps[0] - overlaps[1]) < 4 * math.sqrt((sum(overlaps) + 0.01) / count), number
    assert_same_distribution(dense(e[:, 0], e_counts[:, 0]), np.stack([one[1] for one in theirs]))
    assert not dense(p[:, 0], p_counts[:, 0])[:, -1].any(), "the last row is never used"
    assert e_counts.min() > min_keep


def test_multi_block_batch_is_cut_to_its_shortest() -> None:
    masks, keys, batch = MultiBlockMasks(), keys_of(64), BatchKey(0, 0, 5, 0)
    encoders, predictors = masks.draw(keys, batch, 224, 224)
    predictor, encoder = masks.sizes(batch, (16, 16))
    _, _, cells, counts = _C.multi_block(*keys, (16, 16), predictor, encoder, 4, 1, 10)
    assert encoders[0].shape == (64, counts.min()) and np.array_equal(encoders[0], cells[:, 0, : counts.min()])
    assert [part.shape for part in predictors] == [(64, predictor[0] * predictor[1])] * 4
    for part in (*encoders, *predictors):
        assert (np.diff(part, axis=1) > 0).all() and part.min() >= 0
    for part in predictors:
        assert not any(set(mine) & set(theirs) for mine, theirs in zip(part, encoders[0]))


def test_random_masks() -> None:
    drawn = RandomMasks().draw(keys_of(4000), 0, 64, 64)
    assert drawn["ids_keep"].shape == (4000, 4) and (drawn["mask"].sum(1) == 12).all()
    often = np.array([(drawn["ids_keep"][:, place] == cell).mean() for place in range(4) for cell in range(16)])
    assert abs(often - 1 / 16).max() < 5 * math.sqrt(1 / 16 / 4000)
    assert RandomMasks(ratio=0.9).draw(keys_of(2), 0, 224, 224)["ids_keep"].shape == (2, 19)


DRAWS: list[Callable[[SampleKeys, BatchKey], object]] = [
    lambda keys, batch: IBOTMasks().draw(keys, 0, 224, 224),
    lambda keys, batch: StratifiedMasks().draw(keys, batch, [0, 1], 224, 224)[0],
    lambda keys, batch: MultiBlockMasks().draw(keys, batch, 224, 224)[0][0],
    lambda keys, batch: RandomMasks().draw(keys, 0, 224, 224)["ids_restore"],
    lambda keys, batch: CoarseMasks().draw(keys, 0, 224, 224),
    lambda keys, batch: BlockMasks().draw(keys, 0, 224, 224),
    lambda keys, batch: InverseBlockMasks().draw(keys, 0, 224, 224)[0],
    lambda keys, batch: InverseBlockMasks().draw(keys, 0, 224, 224)[1],
    lambda keys, batch: StratifiedInverseBlocks().draw(keys, batch, [0, 1], 224, 224)[0],
]


@pytest.mark.parametrize("draw", DRAWS)
def test_pure_functions_of_the_key(draw: Callable[[SampleKeys, BatchKey], np.ndarray]) -> None:
    batch = BatchKey(7, 2, 3, 1)
    keys = keys_of(16, seed=7, epoch=2)
    want = draw(keys, batch)
    assert np.array_equal(draw(keys, batch), want)
    changes: list[dict[str, Any]] = [
        {"seed": 8}, {"records": keys.records + 16}, {"epochs": keys.epochs + 1}, {"draws": keys.draws + 1},
    ]  # fmt: skip
    for other in (keys._replace(**change) for change in changes):
        assert not np.array_equal(draw(other, batch), want)


def test_part_of_a_sample_does_not_depend_on_its_batch() -> None:
    alone = IBOTMasks().draw(keys_of(1, first=9), 0, 224, 224)[0]
    assert np.array_equal(IBOTMasks().draw(keys_of(16), 0, 224, 224)[9], alone)


def test_golden() -> None:
    """As for plans: whoever changes these numbers raises plan_version."""
    mask = _C.block_masks(
        *keys_of(1, seed=42, epoch=3, first=1_000_000_007), 1, (6, 6), np.array([14.0]), 4.0, 18.0, 0.3, True
    )
    order = _C.orders(*keys_of(1, seed=42, epoch=3, first=5), 0, 8)
    sizes = MultiBlockMasks().sizes(BatchKey(42, 3, 2**33, 0), (16, 16))
    shares = _C.batch_uniforms(42, 3, 5, 1, 0, 2)
    assert (["".join("01"[cell] for cell in row) for row in mask[0].astype(int)], order[0].tolist(), sizes,
            shares.tolist()) == GOLDEN  # fmt: skip


GOLDEN = (
    ["000111", "000111", "000111", "000111", "000100", "000100"],
    [3, 0, 5, 4, 2, 7, 6, 1],
    ((8, 6), (15, 15)),
    [0.721280778311489, 0.9943363470432033],
)


@pytest.mark.parametrize("make,message", [
    (lambda: IBOTMasks(ratio=(0.3,)), "want one variation a ratio"),
    (lambda: IBOTMasks(ratio=(0.9,), ratio_var=(0.2,)), "leaves"),
    (lambda: IBOTMasks(shape="rand"), "shape is 'rand'"),
    (lambda: StratifiedMasks(ratio=(0.5, 0.1)), "leaves"),
    (lambda: RandomMasks(ratio=1.5), "ratio is 1.5"),
    (lambda: CoarseMasks(cell=32, patch=5), "not of whole patches of 5"),
    (lambda: BlockMasks(least=0), "want numbers of patches"),
    (lambda: CoarseMasks(ratio=-1), "ratio is -1"),
    (lambda: CoarseMasks().draw(keys_of(1), 0, 200, 192), "not of whole cells of 32"),
    (lambda: InverseBlockMasks(predicted=2), "want shares"),
    (lambda: StratifiedInverseBlocks(exact=True), "in any case"),
    (lambda: _C.rolled_blocks(*keys_of(1), 0, GRID, np.array([197]), 0.5, True), "a block of 197 cells"),
    (lambda: _C.rolled_blocks(*keys_of(2), 0, GRID, np.array([1]), 0.5, True), "want one count a record"),
    (lambda: _C.rolled_blocks(*keys_of(1), 0, GRID, np.array([1]), 0.0, True), "aspect 0"),
    (lambda: RandomMasks(patch=0).draw(keys_of(1), 0, 32, 32), "has no patches of 0"),
    (lambda: RandomMasks(patch=64).draw(keys_of(1), 0, 32, 32), "has no patches of 64"),
    (lambda: MultiBlockMasks(patch=16).draw(keys_of(1), BatchKey(0, 0, 0, 0), 16, 16), "a predictor block is"),
    (lambda: _C.block_masks(*keys_of(2), 0, GRID, np.zeros(1), 4.0, 98.0, 0.3, False), "want one target a record"),
    (lambda: _C.block_masks(*keys_of(1), 0, GRID, np.array([np.nan]), 4.0, 98.0, 0.3, False), "target nan"),
    (lambda: _C.batch_uniforms(0, 0, 2**48, 0, 0, 1), "step"),
])  # fmt: skip
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_recipes_carry_them() -> None:
    assert recipes.dinov2().masks == StratifiedMasks() and recipes.dinov3().masks == StratifiedMasks(exact=True)
    assert recipes.ibot().masks == IBOTMasks() and recipes.ijepa().masks == MultiBlockMasks()
    assert "masks StratifiedMasks(patch=16, ratio=(0.1, 0.5)" in str(recipes.dinov2())
