"""order="blocks": an order that reads runs of neighbouring records, for storage that likes runs.

A block is a run of neighbouring positions. The blocks of an epoch, put end to end in a keyed order, are a line. Lane l
is a contiguous piece of the line and has the places l, l + lanes, l + 2 lanes ... of the epoch. A lane is cut into
windows, equally many in all lanes, and the places of a window are permuted among themselves. So a lane reads its blocks
once, a window at a time. All of it is a function of (seed, epoch, place): nothing is stored, and any place can be asked
for.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..permutation import permute_each, unpermute_each

BLOCK_BYTES = 8 << 20
WINDOW_BYTES = 8 << 30
MAX_PRODUCT = 2**63  # of int64 numbers that are multiplied here


@dataclass(frozen=True)
class BlockSizes:
    """The numbers of an order by blocks, fixed when a run begins and part of its states.

    block: records of a block; under weights one number for each dataset. window: records of one lane's window. lanes:
    how many places in a row belong to different lanes. block_bytes, window_bytes: what the numbers of records were made
    from.
    """

    block: int | tuple[int, ...]
    window: int
    lanes: int
    block_bytes: int
    window_bytes: int

    @staticmethod
    def of(
        means: Sequence[float], shares: Sequence[int], block_bytes: int, window_bytes: int, lanes: int, *, mixed: bool
    ) -> BlockSizes:
        """Return the numbers for datasets whose records have these mean bytes.

        shares: how many records or samples of each dataset an epoch has. mixed: under weights, where each dataset has
        blocks of its own; else one line runs over all datasets.
        """
        mean = sum(mean * share for mean, share in zip(means, shares)) / max(1, sum(shares)) or max(means)
        blocks = tuple(max(1, round(block_bytes / own)) for own in (means if mixed else [mean]))
        window = max(1, round(window_bytes / mean / lanes))
        return BlockSizes(blocks if mixed else blocks[0], window, lanes, block_bytes, window_bytes)

    @staticmethod
    def of_state(order: dict[str, Any]) -> BlockSizes:
        """Return the numbers that a state's order holds. Raises ValueError for values that no state has."""
        blocks = order.get("block")
        numbers = [order.get(name) for name in ("window", "lanes", "block_bytes", "window_bytes")]
        several = list(blocks) if isinstance(blocks, (list, tuple)) else [blocks]
        if not several or not all(type(number) is int and number >= 1 for number in (*several, *numbers)):
            raise ValueError(f"the state is damaged: its order is {order!r}")
        return BlockSizes(tuple(several) if isinstance(blocks, (list, tuple)) else several[0], *numbers)  # type: ignore[arg-type]

    @property
    def datasets(self) -> int | None:
        """How many datasets have blocks of their own; None without weights."""
        return len(self.block) if isinstance(self.block, tuple) else None

    def as_state(self) -> dict[str, Any]:
        """Return what a state holds, of JSON's types."""
        block = list(self.block) if isinstance(self.block, tuple) else self.block
        return {"block": block, "window": self.window, "lanes": self.lanes, "block_bytes": self.block_bytes,
                "window_bytes": self.window_bytes}  # fmt: skip

    def windows(self, count: int) -> int:
        """Return how many windows each lane has in an epoch of so many samples."""
        return max(1, math.ceil(math.ceil(count / self.lanes) / self.window))

    def open_blocks(self, counts: Sequence[int]) -> float:
        """Return how many blocks the windows of all lanes hold at one time, on average.

        counts: samples of each dataset in an epoch; one number where there are no weights.
        """
        blocks = self.block if isinstance(self.block, tuple) else (self.block,)
        return sum(count / block for count, block in zip(counts, blocks)) / self.windows(sum(counts))

    def times_read(self, world: int) -> int:
        """Return how often so many ranks together read each block in an epoch, apart from blocks that a lane or a
        window cuts in two."""
        return world // math.gcd(world, self.lanes)


class BlockOrder:
    """The order of an epoch by blocks, with random access: which position each place has.

    Under weights (`sizes.block` is a tuple) the positions are places of the line that `MixedLive` lays through its
    datasets, and it finds the blocks itself.

    Raises ValueError for numbers that are too large to be multiplied.
    """

    def __init__(self, count: int, sizes: BlockSizes, seed: int, epoch: int):
        self.count, self.sizes, self.seed, self.epoch = count, sizes, seed, epoch
        if math.ceil(count / sizes.lanes) * sizes.windows(count) >= MAX_PRODUCT:
            raise ValueError(f"a window of {sizes.window} records is too small for {count:,} samples: raise it")

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the positions of int64 places, any from 0 on.

        A place past the end of the epoch, which pads it, has the position of the last place of its lane: that block is
        at hand. An epoch that does not reach into that lane repeats from its start.
        """
        lanes = self.sizes.lanes
        past = places >= self.count
        if past.any():
            rounds = -(-(places - self.count + 1) // lanes)
            last = np.where(past, places - lanes * rounds, places)
            places = np.where(last < 0, places % self.count, last)
        indices = in_windows(places, self.count, self.sizes, _key(self.seed, self.epoch))
        if isinstance(self.sizes.block, tuple):
            return indices
        passes = np.full(len(places), self.epoch, np.int64)
        return along_blocks(indices, self.count, self.sizes.block, self.seed, passes)


def in_windows(places: np.ndarray, count: int, sizes: BlockSizes, key: int) -> np.ndarray:
    """Return the index in the line of each place, both in [0, count), int64.

    Lanes differ by at most one record, and so do windows: no lane ends before the others, and no window is a small
    rest.
    """
    lanes, windows = sizes.lanes, sizes.windows(count)
    lane, step = places % lanes, places // lanes
    short, longer = divmod(count, lanes)
    length = short + (lane < longer)
    window = ((step + 1) * windows - 1) // length
    begin, end = window * length // windows, (window + 1) * length // windows
    largest = math.ceil(math.ceil(count / lanes) / windows)
    inside = permute_each(step - begin, largest, key, lane * windows + window, end - begin)
    return lane * short + np.minimum(lane, longer) + begin + inside


def along_blocks(indices: np.ndarray, count: int, block: int, seed: int, passes: np.ndarray) -> np.ndarray:
    """Return the position, in [0, count), of each index in a line of blocks, int64.

    passes: (N,) int64, which line: each has another order of the blocks. The last block is shorter than the others
    where `block` does not divide the count, and stands anywhere in the line.
    """
    blocks = -(-count // block)
    short = count - (blocks - 1) * block
    several, which = np.unique(passes, return_inverse=True)
    begin = block * np.array([_slot_of_last(blocks, seed, number) for number in several.tolist()], np.int64)[which]
    past = indices >= begin + short
    slot, offset = np.divmod(np.where(past, indices - short + block, indices), block)
    return permute_each(slot, blocks, seed, passes) * block + offset


@functools.lru_cache(maxsize=1024)
def _slot_of_last(blocks: int, seed: int, number: int) -> int:
    """Return where the last block stands in a line."""
    return int(unpermute_each(np.array([blocks - 1]), blocks, seed, np.array([number]))[0])


def interleaved(indices: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return which sample each index in a line through several datasets is, int64: those of the first dataset are
    numbered first, then those of the second.

    counts: (datasets,) int64, samples of each. In every piece of the line each dataset has its share, to one or two
    samples, and its samples stand in their order. Of the first q indices E(d) belong to datasets 0 to d: E(last) is q,
    E(d - 1) is E(d) times the share of those before d, rounded down. So E(d) never falls and grows by at most one from
    index to index, and the dataset at an index is the one that grows there.

    Raises ValueError for more samples than can be multiplied.
    """
    ends = np.cumsum(counts).tolist()
    if ends[-1] ** 2 >= MAX_PRODUCT:
        raise ValueError(f"{ends[-1]:,} samples an epoch: order='blocks' under weights goes up to 3,037,000,499")
    found = np.empty(len(indices), np.int64)
    rest = np.arange(len(indices))
    upto, following = indices, indices + 1  # E(d) of the indices in `rest`, and of the indices after them
    for number in range(len(ends) - 1, -1, -1):
        before = ends[number - 1] if number else 0
        below, below_following = (many * before // max(1, ends[number]) for many in (upto, following))
        own = below == below_following
        found[rest[own]] = before + (upto - below)[own]
        rest, upto, following = rest[~own], below[~own], below_following[~own]
    return found


def _key(seed: int, epoch: int) -> int:
    packed = struct.pack("<QQ", seed % 2**64, epoch % 2**64)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
