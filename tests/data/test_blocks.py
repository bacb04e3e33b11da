"""order="blocks" as numbers: bijections, lanes, windows, shares, padding. No pack and no pixel is read."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pass_loader import EpochSampler
from pass_loader.data.blocks import BlockOrder, BlockSizes, along_blocks, in_windows, interleaved
from pass_loader.data.live import ConcatLive, Live
from pass_loader.permutation import permute_each, unpermute_each
from pass_loader.data.weights import Mixture
from pass_loader.loading.drawing import EndlessDrawing
from pass_loader.loading.resume import Progress

COUNTS = (1, 2, 3, 5, 7, 8, 9, 31, 32, 33, 100, 999, 1000, 1001, 4097)
NUMBERS = ((1, 3, 10, 64, 5000), (1, 7, 100, 5000), (1, 2, 3, 4, 8, 16))  # block, window, lanes


def sizes(block: Any, window: int, lanes: int) -> BlockSizes:
    return BlockSizes(block, window, lanes, 1, 1)


class Counted:
    """As much of a dataset as a sampler needs whose numbers are given."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def counted(self) -> Counted:
        return self


def sampler(count: int, numbers: BlockSizes, rank: int, world: int, **arguments: Any) -> EpochSampler:
    made = EpochSampler(Counted(count), shuffle=True, order="blocks", rank=rank, world_size=world, **arguments)
    made.adopt(numbers)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_every_place_has_a_position_of_its_own(count: int) -> None:
    """1,800 combinations of sizes. And random access: what is asked for besides changes nothing, though windows differ
    in size by one, on both sides of a power of two. Kills: bits of the permutation by the sizes that were asked for."""
    random = np.random.default_rng(count)
    for block, window, lanes in itertools.product(*NUMBERS):
        order = BlockOrder(count, sizes(block, window, lanes), 3, 1)
        whole = order.at(np.arange(count))
        assert np.array_equal(np.sort(whole), np.arange(count)), (block, window, lanes)
        for places in (random.integers(0, count, 20), random.integers(0, count, 1)):
            assert np.array_equal(order.at(places), whole[places]), (block, window, lanes)


def test_other_epochs_and_seeds_have_other_orders() -> None:
    orders = [
        BlockOrder(1000, sizes(10, 100, 4), seed, epoch).at(np.arange(1000)).tobytes()
        for seed in (0, 1, 2**64 - 1) for epoch in range(3)
    ]  # fmt: skip
    assert len(set(orders)) == 9, "seed 0 in epoch 1 is not seed 1 in epoch 0"


def test_the_order_stays_as_it_is() -> None:
    """Runs are resumed with the next version of this package and of numpy."""
    assert BlockOrder(10**9, sizes(76, 20_000, 8), 7, 3).at(np.arange(10**8, 10**8 + 6)).tolist() == GOLDEN
    large = BlockOrder(3 * 10**9 + 1, sizes(76, 80_000, 64), 7, 3)
    found = large.at(np.arange(3 * 10**9 - 1000, 3 * 10**9 + 1))
    assert len(set(found.tolist())) == 1001 and found.min() >= 0 and found.max() <= 3 * 10**9
    with pytest.raises(ValueError, match="a window of 1 records is too small for 10,000,000,000 samples"):
        BlockOrder(10**10, sizes(76, 1, 1), 7, 3)


GOLDEN = [198290803, 530837903, 70218977, 76240139, 742772123, 795313516]


def test_inverse() -> None:
    for count in (1, 2, 5, 64, 65, 1000):
        places, passes = np.arange(count), np.full(count, 9)
        assert np.array_equal(unpermute_each(permute_each(places, count, 3, passes), count, 3, passes), places)


def test_a_line_of_blocks() -> None:
    """Whole blocks end to end, the short one anywhere; several lines at once."""
    places = set()
    for number in range(40):
        line = along_blocks(np.arange(103), 103, 10, 5, np.full(103, number))
        assert np.array_equal(np.sort(line), np.arange(103))
        ends = np.flatnonzero(np.diff(line) != 1) + 1
        runs = np.split(line, ends)
        assert all((run // 10 == run[0] // 10).all() or len(run) > 10 for run in runs)
        assert {run[0] % 10 for run in runs} == {0}, "a block begins in its middle"
        places.add(int(np.flatnonzero(line == 100)[0]) // 10)
    assert len(places) > 5, "the short block stands at one place"
    mixed = along_blocks(np.array([3, 3, 50]), 103, 10, 5, np.array([7, 8, 7]))
    assert mixed.tolist() == [along_blocks(np.array([i]), 103, 10, 5, np.array([p]))[0] for i, p in
                              ((3, 7), (3, 8), (50, 7))]  # fmt: skip


@pytest.mark.parametrize("count", [100_000, 99_991])
def test_ranks_read_blocks_of_their_own(count: int) -> None:
    """Blocks read by all ranks over blocks of the pack: world / gcd(world, lanes), and a little for blocks that are
    cut. Kills: places dealt to lanes in runs."""
    numbers = sizes(300, 4000, 8)
    blocks = BlockOrder(count, numbers, 0, 0).at(np.arange(count)) // 300
    for world, times in ((1, 1), (2, 1), (4, 1), (8, 1), (3, 3), (12, 3), (16, 2)):
        assert numbers.times_read(world) == times
        read = sum(len(set(blocks[rank::world].tolist())) for rank in range(world))
        assert times - 0.02 < read / len(set(blocks.tolist())) < times * 1.05, world


def test_a_lane_reads_window_by_window() -> None:
    """Each block of a lane is at hand for one window, or for two where it is cut; windows and lanes differ in size by
    at most one. Kills: a small last window, windows of `window` records with a rest."""
    for count, lanes in ((9_999, 4), (10_007, 3)):
        numbers = sizes(25, 700, lanes)
        line = in_windows(np.arange(count), count, numbers, key=5)
        assert np.array_equal(np.sort(line), np.arange(count))
        windows = numbers.windows(count)
        assert windows == math.ceil(math.ceil(count / lanes) / 700)
        for lane in range(lanes):
            own = line[lane::lanes]
            assert np.array_equal(np.sort(own), np.arange(own.min(), own.min() + len(own))), "a piece of the line"
            ends = [k * len(own) // windows for k in range(windows + 1)]
            assert {b - a for a, b in zip(ends, ends[1:])} <= {len(own) // windows, len(own) // windows + 1}
            for begin, end in zip(ends, ends[1:]):
                part = own[begin:end] - own.min()
                assert np.array_equal(np.sort(part), np.arange(begin, end)), "places of a window stay in it"
                assert not np.array_equal(part, np.arange(begin, end))


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("count", [997, 1000, 1024, 4099])
def test_global_batches_on_any_ranks(count: int, lanes: int, drop_last: bool) -> None:
    """The whole global batches are equal on 1 to 8 ranks, also of a run that goes on on other ranks from any fifth of
    them; ranks have equally many, and every record comes once."""
    step, numbers = 48, sizes(20, 200, lanes)

    def batches(world: int, begin: int) -> list[np.ndarray]:
        parts = []
        for rank in range(world):
            own = sampler(count, numbers, rank, world, drop_last=drop_last)
            stop = own.stop(count, world, begin, step, drop_last)
            positions = own.share(count, begin, stop).all().positions
            parts.append([*np.split(positions, range(step // world, len(positions), step // world))])
        assert len({len(part) for part in parts}) == 1
        return [np.sort(np.concatenate(several)) for several in zip(*parts)]

    want = batches(1, 0)
    whole = count // step
    assert drop_last or np.array_equal(np.sort(np.concatenate(want)), np.arange(count))
    for world in (2, 3, 4, 6, 8):
        found = batches(world, 0)
        assert all(np.array_equal(a, b) for a, b in zip(found[:whole], want[:whole]))
        assert drop_last or set(np.concatenate(found).tolist()) == set(range(count))
        for begun in range(0, whole, 5):
            rest = batches(world, begun * step)
            assert all(np.array_equal(a, b) for a, b in zip(rest[: whole - begun], want[begun:whole]))


def test_chunks_of_any_size() -> None:
    """Many chunks are found at once; what each holds does not depend on that."""
    for order in ("torch", "permute", "blocks"):
        share = EpochSampler(Counted(10_000), shuffle=True, order=order, rank=1, world_size=2)
        if order == "blocks":
            share.adopt(sizes(10, 500, 4))
        (whole,) = share.share(10_000).chunks()
        for size in (1, 48, 4096, 4999, 5000, 6000):
            chunks = [chunk.positions for chunk in share.share(10_000).chunks(size)]
            assert {len(chunk) for chunk in chunks[:-1]} <= {size} and len(chunks) == -(-5000 // size)
            assert np.array_equal(np.concatenate(chunks), whole.positions)


@pytest.mark.parametrize("order", ["torch", "permute", "blocks"])
def test_an_endless_order_finds_positions_ahead(order: str) -> None:
    """Batches that neither what is found at once nor a pass is a multiple of have the positions of their places."""
    count, size, world, batches = 10_000, 47, 2, 400
    made = EpochSampler(Counted(count), shuffle=True, order=order, rank=1, world_size=world, infinite=True)
    if order == "blocks":
        made.adopt(sizes(10, 500, 4))
    live = ConcatLive((Live(count, np.empty(0, np.int64), None),), np.array([0]), 0)
    drawing = EndlessDrawing(made, size, drop_last=True)
    begun = Progress(0, 0, 0, count, world, position=3 * size * world, endless=True)
    drawn = drawing.draw(begun, live, np.empty(0, np.int64), lambda number: live)
    found = np.concatenate([batch.keys.records for batch in itertools.islice(drawn, batches)])
    places = 3 * size * world + 1 + world * np.arange(batches * size)
    want = [made.order(count, epoch).at(places[places // count == epoch] - epoch * count) for epoch in range(5)]
    assert np.array_equal(found, np.concatenate(want))


def test_padding_is_of_the_last_blocks() -> None:
    """Places past the end have the last positions of their lanes; fewer samples than lanes wrap around."""
    order = BlockOrder(1003, sizes(10, 50, 4), 2, 5)
    whole = order.at(np.arange(1003))
    assert order.at(np.arange(1003, 1011)).tolist() == [whole[place] for place in
                                                         (999, 1000, 1001, 1002, 999, 1000, 1001, 1002)]  # fmt: skip
    few = BlockOrder(3, sizes(10, 50, 8), 2, 5)
    assert few.at(np.arange(9)).tolist() == few.at(np.array([0, 1, 2, 0, 1, 2, 0, 1, 0])).tolist()
    ranks = [list(sampler(1003, sizes(10, 50, 4), rank, 4)) for rank in range(4)]
    assert [len(rank) for rank in ranks] == [251] * 4 and ranks[3][-1] == ranks[3][-2]


@pytest.mark.parametrize(
    "counts", [(700, 350), (1, 999, 3000), (0, 25), (100,), (1, 1, 1), (5, 0, 7), (0, 0, 3), (3, 0)]
)
def test_a_line_through_several_datasets(counts: tuple[int, ...]) -> None:
    """Each dataset's samples in their order, each piece with its share of them. Kills: floors of q times a share, which
    do not add up."""
    whole = interleaved(np.arange(sum(counts)), np.array(counts))
    assert np.array_equal(np.sort(whole), np.arange(sum(counts)))
    ends = np.cumsum(counts)
    for number, (count, end) in enumerate(zip(counts, ends)):
        own = (whole >= end - count) & (whole < end)
        assert np.array_equal(whole[own], np.arange(end - count, end))
        share = np.arange(1, sum(counts) + 1) * count / sum(counts)
        assert np.abs(np.cumsum(own) - share).max() < len(counts), number
    with pytest.raises(ValueError, match="up to 3,037,000,499"):
        interleaved(np.arange(3), np.array([2 * 10**9, 2 * 10**9]))


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize(
    "records,counts", [([1000, 50], [700, 350]), ([5, 1000, 300], [1, 999, 3000]), ([10, 10], [0, 25]), ([7], [100])]
)
def test_weights(records: list[int], counts: list[int], lanes: int) -> None:
    """Counts are exact, no (record, draw) comes twice, no record comes again before all others of its dataset."""
    first = np.cumsum([0, *records])
    live = ConcatLive(tuple(Live(count, np.empty(0, np.int64), None) for count in records), first[:-1], 0)
    weighted = Mixture.of(counts, sum(counts), 5, len(counts)).over(live)
    assert weighted.counts.tolist() == counts
    numbers = sizes((4,) * len(counts), 50, lanes)
    made = sampler(sum(counts), numbers, 0, 1)
    served = made.along(weighted)
    times: Counter[int] = Counter()
    for epoch in range(4):
        made.set_epoch(epoch)
        places = made.share(sum(counts)).all().positions
        epochs = np.full(len(places), epoch, np.uint32)
        found, draws = served.at(places, np.zeros(len(places), np.uint32), epochs)
        assert [int(((found >= a) & (found < b)).sum()) for a, b in zip(first, first[1:])] == counts
        assert len({*zip(found.tolist(), draws.tolist())}) == sum(counts)
        times.update(found.tolist())
        for count, a, b in zip(counts, first, first[1:]):
            came = [times[record] for record in range(a, b)]
            assert max(came) - min(came) <= 1 and sum(came) == count * (epoch + 1)
    if counts == [700, 350]:
        assert len(np.unique(found[: 50 * lanes] // 4)) < 25 * lanes, "blocks of 4 come together in windows of 50"
        for lane in range(lanes):
            for begin in range(0, len(found) // lanes - 50, 50):
                part = found[lane::lanes][begin : begin + 50]
                assert 0.5 < (part < 1000).mean() < 0.85, "two thirds, in every part of every lane"


def test_numbers_of_records() -> None:
    """Bytes become records by the mean; open blocks and what ranks read follow."""
    numbers = BlockSizes.of([110_000], [1_400_000], 8 << 20, 8 << 30, 8, mixed=False)
    assert (numbers.block, numbers.window, numbers.lanes) == (76, round((8 << 30) / 110_000 / 8), 8)
    assert 950 < numbers.open_blocks([1_400_000]) < 1030 and numbers.windows(1_400_000) == 18
    assert BlockSizes.of_state(numbers.as_state()) == numbers
    mixed = BlockSizes.of([1000.0, 4000.0], [100, 300], 8000, 80_000, 2, mixed=True)
    assert mixed.block == (8, 2) and mixed.window == round(80_000 / 3250 / 2) and mixed.datasets == 2
    assert BlockSizes.of_state(mixed.as_state()) == mixed
    assert BlockSizes.of([1000.0, 4000.0], [100, 300], 8000, 80_000, 2, mixed=False).block == 2
    tiny = BlockSizes.of([10**9], [5], 8, 8, 16, mixed=False)
    assert (tiny.block, tiny.window) == (1, 1)
