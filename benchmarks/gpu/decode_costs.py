"""What a picture costs until a GPU has its pixels, by codec and `decode`: time on a CPU core and bytes to the GPU,
which are measured here, and the GPU's memory traffic, which is counted. No GPU is needed.

    python -m benchmarks.gpu.decode_costs [--pictures 128]

What cores allow is calculated from the first; the least time on a GPU from the last, at the bandwidth of an H200.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from pass_loader import _C, DataLoader, ShardDataset, recipes
from pass_loader.gpu.batches import FILES, PIXELS, RECORDS
from pass_loader.pack import Pack, build
from pass_loader.pack.convert import convert
from pass_loader.pack.index_points import index_points

from ..machine import describe
from ..pictures import write_pass

CORES = 2, 4, 8, 16
BANDWIDTH = 4.8e12  # bytes a second, an H200's
ROUNDS = 7
WAYS = [
    ("JPEG", "cpu", "jpeg", PIXELS),
    ("dct-zstd", "cpu", "dct-zstd", PIXELS),
    ("dct", "cpu", "dct", PIXELS),
    ("JPEG", "nvjpeg", "jpeg", FILES),
    ("dct-zstd", "cuda", "dct-zstd", RECORDS),
    ("dct", "cuda", "dct", RECORDS),
    ("JPEG, entry points", "cuda", "points", RECORDS),
]
# Of csrc/gpu_form.h, in 32-bit words: where a form has its number of components, and each component its rows and
# columns of blocks. Bytes of a block between the kernels, by the form's kind: its place in streams, or coefficients.
COMPONENTS_AT, FIRST_AT, COMPONENT_WORDS, BLOCK_BYTES = 3, 8, 36, (24, 128)


def decode(
    pack: Path, held: int, most: int | None = None, rounds: int = ROUNDS
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Decode the pictures of a pack, `most` at most, as for a GPU. Returns seconds of CPU time a picture, and arena,
    rows, lengths."""
    dataset = ShardDataset(pack, recipes.dino())
    engine = DataLoader(dataset, 4)._get_renderer()._engine
    count = min(len(dataset), most or len(dataset))
    records, none = np.arange(count, dtype=np.int64), np.zeros(count, np.uint32)
    rows = np.zeros((count, 5), np.int64)
    plans = np.zeros((count, len(dataset.recipe.views)), _C.view_plan_dtype)
    sizes = [dataset.pack.size_of(record) for record in range(count)]
    arena = np.zeros(sum(3 * height * (width + 15) + 256 for height, width in sizes), np.uint8)
    best = np.inf
    for _ in range(rounds):
        lengths = np.full(count, held, np.int64)
        began = time.process_time()
        failures = engine.decode(records, none, none, arena, rows, plans, lengths).wait()
        best = min(best, time.process_time() - began)
        assert failures == [] and (rows[:, 0] >= 0).all()
    return best / count, arena, rows, lengths


def traffic(arena: np.ndarray, rows: np.ndarray) -> float:
    """Return bytes a record that the kernels read and write: the form, what lies between them twice, RGB."""
    total = 0
    for begin, _, _, _, plane in rows.tolist():
        words = arena[begin : begin + 4 * (FIRST_AT + 3 * COMPONENT_WORDS)].view(np.int32)
        blocks = sum(
            int(words[FIRST_AT + c * COMPONENT_WORDS + 0]) * int(words[FIRST_AT + c * COMPONENT_WORDS + 1])
            for c in range(words[COMPONENTS_AT])
        )
        total += 2 * blocks * (BLOCK_BYTES[int(words[0])] + 64) + 3 * plane
    return total / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=128)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packs = {"jpeg": Path(folder) / "jpeg"}
        build([write_pass(Path(folder) / "in", chosen.pictures)[0]], packs["jpeg"])
        for codec in ("dct", "dct-zstd"):
            packs[codec] = Path(folder) / codec
            convert(packs["jpeg"], packs[codec], codec)
        packs["points"] = Path(folder) / "points"
        shutil.copytree(packs["jpeg"], packs["points"])
        index_points(Pack(packs["points"]))
        print(describe())
        print("| record | `decode` | CPU ms a picture | kB to the GPU | GPU memory, kB | GPU, at least us | "
              + " | ".join(f"{cores} cores" for cores in CORES) + " |")  # fmt: skip
        print("| --- " * (6 + len(CORES)) + "|")
        for record, way, codec, held in WAYS:
            seconds, arena, rows, lengths = decode(packs[codec], held)
            sent = float(np.where(lengths > 0, lengths, 3 * rows[:, 4]).mean())
            moved = sent + traffic(arena, rows) if held == RECORDS else 0.0
            there = ["", ""] if held == FILES else [f"{moved / 1e3:.0f}", f"{moved / BANDWIDTH * 1e6:.2f}"]
            if held == PIXELS:
                there = ["0", "0"]
            per_second = [f"{round(cores / seconds, -2):,.0f}" for cores in CORES]
            print("| " + " | ".join([record, f'`"{way}"`', f"{seconds * 1e3:.3f}", f"{sent / 1e3:.0f}", *there,
                                     *per_second]) + " |")  # fmt: skip


if __name__ == "__main__":
    main()
