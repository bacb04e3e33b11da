"""The share of their time that threads are busy, by threads and batch size: python -m benchmarks.cpu.busy_threads

Reads sleep ten times as long as a DINO sample of an ImageNet photograph takes, and views are tiny, so that two cores
show what 64 do. Nothing is read ahead, and there may be as many batches as of DINO's. The bars: 0.95 by the loader's
own count; and 64 MiB a thread for so many of DINO's batches beside two, and for records that a loader reads ahead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

CASES = ((8, 64), (16, 64), (32, 64), (64, 64), (64, 256))
BAR = 0.95
BAR_BYTES = 64 << 20  # a thread
SHIM = Path(__file__).with_name("slow_reads.c")


def compile_shim(folder: Path) -> Path:
    """Compile slow_reads.c. Raises CalledProcessError without a compiler."""
    out = folder / "slow_reads.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(SHIM), "-o", str(out), "-ldl"], check=True)
    return out


def make_pack(folder: Path, records: int = 4096) -> Path:
    """Pack so many tiny JPEGs."""
    from PIL import Image

    from pass_loader.pack import build

    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(records):
        Image.new("RGB", (16, 16), (number % 256, number // 256, 0)).save(pictures / f"{number}.jpg")
    build([pictures], folder / "pack")
    return folder / "pack"


def bytes_a_thread(batches: int, threads: int, batch_size: int, pinned: bool) -> float:
    """Return what so many batches of DINO's in work take beside two, and records that are read ahead.

    Views of one size lie in one allocation, which torch rounds up to a power of two where it is pinned.
    """
    from pass_loader import recipes
    from pass_loader.loading.depth import bounds, sample_bytes

    dino = recipes.dino()
    bounded = bounds(2, threads, None, None, pinned, sample_bytes(dino, 4, False))
    batch_bytes = 0
    for size, views in Counter((view.height, view.width) for view in dino.views).items():
        group = views * batch_size * math.prod(size) * dino.channels * 4
        batch_bytes += 1 << (group - 1).bit_length() if pinned else group
    return ((batches - 2) * batch_bytes + bounded.record_bytes) / threads


def measure(pack: str, threads: int, batch_size: int, seconds: float, pinned: bool, two: bool) -> dict[str, float]:
    """Load for so many seconds after as many of warming up."""
    from pass_loader import DataLoader, ShardDataset, recipes
    from pass_loader.loading.depth import bounds, sample_bytes

    dino = recipes.dino()
    recipe = dino.override(size=8, jitter=0.0, blur=0.0, grayscale=0.0, solarize=0.0)
    samples = bounds(2, threads, None, None, pinned, sample_bytes(dino, 4, False)).samples
    room = 0 if two else samples * sample_bytes(recipe, 4, False)
    positions = np.random.default_rng(0).integers(0, 4096, 2_000_000).tolist()
    loader = DataLoader(ShardDataset(pack, recipe), batch_size, sampler=positions, num_workers=threads, drop_last=True,
                        prefetch_bytes=room, read_ahead=0)  # fmt: skip
    batches = iter(loader)
    seen = []
    for _ in range(2):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            next(batches)
        seen.append(loader.stats())
    before, after = seen
    busy_s = [one["busy"] * one["seconds"] for one in seen]
    return {
        "busy": (busy_s[1] - busy_s[0]) / (after["seconds"] - before["seconds"]),
        "samples_per_second": (after["samples"] - before["samples"]) / (after["seconds"] - before["seconds"]),
        "batches_ahead": after["batches_ahead"],
        "most": after["batches_ahead_most"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--pinned", action="store_true", help="half the bytes, as pinned loaders take")
    parser.add_argument("--two", action="store_true", help="two batches in work and no more")
    parser.add_argument("--case", nargs=3, metavar=("PACK", "THREADS", "BATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        pack, threads, batch = given.case
        print(json.dumps(measure(pack, int(threads), int(batch), given.seconds, given.pinned, given.two)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = {**os.environ, "LD_PRELOAD": str(compile_shim(folder)), "SLOW_READS": "x10"}
        pack = make_pack(folder)
        for threads, batch in CASES:
            command = [sys.executable, "-m", "benchmarks.cpu.busy_threads", "--seconds", str(given.seconds)]
            command += (
                ["--pinned"] * given.pinned + ["--two"] * given.two + ["--case", str(pack), str(threads), str(batch)]
            )
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            print(report(threads, batch, given.pinned, found), flush=True)


def report(threads: int, batch: int, pinned: bool, found: dict[str, float]) -> str:
    """Return the row in words, and which of its bars are met."""
    room = bytes_a_thread(int(found["most"]), threads, batch, pinned)
    busy = f"busy {found['busy']:.3f}, bar {BAR}: {'met' if found['busy'] >= BAR else 'missed'}"
    ahead = f"{found['batches_ahead']} of at most {found['most']} batches ahead"
    memory = f"{room / 2**20:.1f} MiB a thread, bar {BAR_BYTES >> 20}: {'met' if room <= BAR_BYTES else 'missed'}"
    rate = f"{found['samples_per_second']:.0f} samples/s"
    return f"{threads} threads x {batch}{', pinned' * pinned}: {busy}; {ahead}; {memory}; {rate}"


if __name__ == "__main__":
    main()
