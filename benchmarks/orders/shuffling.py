"""How well order="blocks" shuffles: a table, and a plot. No pack is read: positions alone are drawn.

python -m benchmarks.orders.shuffling [--plot benchmarks/shuffling.png] [--write]
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pass_loader.data.blocks import BlockOrder, BlockSizes
from pass_loader.permutation import permute

from ..pages import write_between

RECORDS, RECORD_BYTES, CLASSES, BATCH, LOOKED_AT = 1_400_000, 110_000, 1000, 1024, 200
MIB, GIB = 1 << 20, 1 << 30
CACHE_GIB, UNIT_MIB = 16, 8
PAGE = Path(__file__).parents[2] / "docs" / "where-packs-lie.md"
# block in MiB, window in GiB, lanes
ROWS = [(32, 2, 1), (32, 8, 1), (32, 8, 8), (32, 16, 8), (8, 2, 1), (8, 2, 8), (8, 4, 8), (8, 8, 1), (8, 8, 8),
        (8, 16, 8), (8, 64, 8)]  # fmt: skip
DEFAULT = (8, 8, 8)
WINDOWS = (0.5, 1, 2, 4, 8, 16, 32, 64)  # GiB, of the plot


@dataclass(frozen=True)
class Mixed:
    """Means over global batches: how many others of its batch share a sample's block and its class, how many classes
    a batch has, and how much likelier than by chance two samples of a batch meet again in the next epoch."""

    block_mates: float
    class_mates: float
    classes: float
    again: float


def fetched(positions: np.ndarray) -> float:
    """Return the bytes that a cache in front of the storage fetches in an epoch over the bytes of the pack.

    It holds CACHE_GIB in blocks of UNIT_MIB, aligned to the start of the pack, and drops what was used last the longest
    time ago. Records lie end to end.
    """
    held: OrderedDict[int, None] = OrderedDict()
    room, misses = CACHE_GIB * GIB // (UNIT_MIB * MIB), 0
    begins = positions * RECORD_BYTES
    ends = (begins + RECORD_BYTES - 1) // (UNIT_MIB * MIB)
    for first, last in zip((begins // (UNIT_MIB * MIB)).tolist(), ends.tolist()):
        for unit in range(first, last + 1):
            if unit in held:
                held.move_to_end(unit)
                continue
            misses += 1
            held[unit] = None
            if len(held) > room:
                held.popitem(last=False)
    return misses * UNIT_MIB * MIB / (RECORDS * RECORD_BYTES)


def order(epoch: int, block: float, window: float, lanes: int) -> np.ndarray:
    """Return (RECORDS,) positions. block: MiB, window: GiB."""
    sizes = BlockSizes.of([RECORD_BYTES], [RECORDS], round(block * MIB), round(window * GIB), lanes, mixed=False)
    return BlockOrder(RECORDS, sizes, 0, epoch).at(np.arange(RECORDS))


def mixed(first: np.ndarray, second: np.ndarray, block: float, classes: np.ndarray) -> Mixed:
    """first, second: the positions of two epochs. classes: (RECORDS,) the class at each position."""
    run = round(block * MIB / RECORD_BYTES)
    batch_of = np.empty(RECORDS, np.int64)
    batch_of[second] = np.arange(RECORDS) // BATCH
    looked_at = np.random.default_rng(0).choice(RECORDS // BATCH, LOOKED_AT, replace=False)
    batches = [first[number * BATCH : (number + 1) * BATCH] for number in looked_at]

    def mates(kinds: np.ndarray) -> float:
        counts = np.unique(kinds, return_counts=True)[1]
        return float((counts * (counts - 1)).sum() / len(kinds))

    by_chance = (BATCH - 1) * (BATCH - 1) / (RECORDS - 1)
    return Mixed(
        float(np.mean([mates(batch // run) for batch in batches])),
        float(np.mean([mates(classes[batch]) for batch in batches])),
        float(np.mean([len(np.unique(classes[batch])) for batch in batches])),
        float(np.mean([mates(batch_of[batch]) for batch in batches])) / by_chance,
    )


def table() -> str:
    in_order = np.arange(RECORDS) * CLASSES // RECORDS
    shuffled = in_order[permute(np.arange(RECORDS), RECORDS, 1)]
    full = [permute(np.arange(RECORDS), RECORDS, seed) for seed in (1, 2)]
    lines = [
        ["order", "open blocks", "of its block", "of its class", "classes in a batch", "meet again", "fetched"],
        ["---", "---:", "---:", "---:", "---:", "---:", "---:"],
        _row("every record by itself", "", mixed(*full, 8, in_order), fetched(full[0])),
    ]

    def blocks(block: float, window: float, lanes: int, classes: np.ndarray, note: str = "") -> list[str]:
        epochs = [order(epoch, block, window, lanes) for epoch in (0, 1)]
        name = f"{block} MiB, {window} GiB, {lanes} lane{'s' * (lanes > 1)}{note}"
        return _row(name, f"{window * GIB / block / MIB:,.0f}", mixed(*epochs, block, classes), fetched(epochs[0]))

    for row in ROWS:
        bold = "**" if row == DEFAULT else ""
        lines.append([f"{bold}{cell}{bold}" for cell in blocks(*row, in_order)])
    lines += [blocks(*row, shuffled, ", written in a shuffled order") for row in ((32, 2, 1), DEFAULT)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, opened: str, found: Mixed, times: float) -> list[str]:
    return [name, opened, f"{found.block_mates:.2f}", f"{found.class_mates:.2f}", f"{found.classes:.0f}",
            f"{found.again:.1f}x", f"{times:.1f}x"]  # fmt: skip


def plot(out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    in_order = np.arange(RECORDS) * CLASSES // RECORDS
    full = [permute(np.arange(RECORDS), RECORDS, seed) for seed in (1, 2)]
    best = mixed(*full, 8, in_order)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8))
    for block, colour in ((2, "#2a9d8f"), (8, "#c23b22"), (32, "#7a869a")):
        found = [mixed(*(order(e, block, window, 8) for e in (0, 1)), block, in_order) for window in WINDOWS]
        for axis, values in zip(axes, ([one.class_mates for one in found], [one.classes for one in found])):
            axis.plot(WINDOWS, values, "o-", color=colour, label=f"blocks of {block} MiB")
    titles = ("others of its class in a batch of 1,024", "classes in a batch, of 1,000")
    for axis, value, title in zip(axes, (best.class_mates, best.classes), titles):
        axis.axhline(value, color="black", linestyle=":", label="every record by itself")
        axis.set_xscale("log", base=2)
        axis.set_xticks(WINDOWS, [f"{window:g}" for window in WINDOWS])
        axis.set_xlabel("window_bytes, GiB")
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--write", action="store_true", help="into docs/where-packs-lie.md")
    options = parser.parse_args()
    rows = table()
    print(rows)
    if options.write:
        write_between(PAGE, "shuffling", rows)
    if options.plot:
        plot(options.plot)
