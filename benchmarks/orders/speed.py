"""What the orders cost: positions alone, and a whole loader.

python -m benchmarks.orders.speed [--rounds 15]

Positions: microseconds of the processor for each sample of an epoch of 10^7, in batches of 64 on one of 8 ranks, after
the order was made. Loader: a pack of generated pictures under MoCo's recipe, one thread, on one pinned core; rounds
take turns, and the figure is the median of the rates over that of order="torch" in the same round.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.data.blocks import BLOCK_BYTES, WINDOW_BYTES, BlockSizes
from pass_loader.loading.sampler import EpochSampler
from pass_loader.pack import build

from ..pictures import write_pass

ORDERS = ("torch", "permute", "blocks")
COUNT, BATCHES, PICTURES = 10**7, 2000, 256


class Counted:
    """As much of a dataset as the sampler needs."""

    def __len__(self) -> int:
        return COUNT

    def counted(self) -> Counted:
        return self


def position_us(order: str) -> float:
    sampler = EpochSampler(Counted(), shuffle=True, order=order, rank=1, world_size=8)
    if order == "blocks":
        sampler.adopt(BlockSizes.of([110_000], [COUNT], BLOCK_BYTES, WINDOW_BYTES, 8, mixed=False))
    chunks = sampler.share(COUNT).chunks(64)
    next(chunks)
    began = time.process_time()
    for _ in itertools.islice(chunks, BATCHES):
        pass
    return (time.process_time() - began) / BATCHES / 64 * 1e6


def rate(loader: DataLoader) -> float:
    """Samples a second of one epoch."""
    began = time.perf_counter()
    samples = sum(len(labels) for _, labels in loader)
    return samples / (time.perf_counter() - began)


def main(rounds: int) -> None:
    for order in ORDERS:
        print(f"positions, order={order!r}: {position_us(order):.2f} us a sample")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        tar, _ = write_pass(Path(folder) / "in", PICTURES)
        build([tar], Path(folder) / "pack")
        dataset = ShardDataset(Path(folder) / "pack", recipes.mocov2())
        # Windows of a quarter of the pack.
        numbers = {"block_bytes": 1 << 20, "window_bytes": PICTURES * 25_000, "lanes": 1}
        loaders = {order: DataLoader(dataset, 64, shuffle=True, num_workers=1, order=order,
                                     **(numbers if order == "blocks" else {})) for order in ORDERS}  # fmt: skip
        for loader in loaders.values():
            rate(loader)
        found: dict[str, list[float]] = {order: [] for order in ORDERS}
        for number in range(rounds):
            turn = {order: rate(loaders[order]) for order in ORDERS[number % 3 :] + ORDERS[: number % 3]}
            for order in ORDERS:
                found[order].append(turn[order] / turn["torch"])
    for order in ORDERS[1:]:
        print(f"loader, order={order!r}: {statistics.median(found[order]):.3f} of the rate of order='torch'")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
