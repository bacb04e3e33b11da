"""Reading ahead on slow, cold and warm storage, by turns in one run: python -m benchmarks.cpu.read_ahead [PACK]

Bars: with 10 ms and with 50 ms added to every read, 2 threads keep 0.95 of the rate without it; with a cold page cache
on the local disk 0.98 of the rate with a warm one; where the page cache has the bytes, reading ahead costs 2 % at most.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import math
import mmap
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from .busy_threads import compile_shim

BATCH = 32


def forget(pack: Path) -> None:
    """Drop a pack's shards from the page cache."""
    for shard in pack.glob("*.tar"):
        with open(shard, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(pack: Path) -> float:
    """Return bytes/s of reading the first shard in pieces of 1 MiB past the page cache. NaN where that is refused."""
    piece = mmap.mmap(-1, 1 << 20)
    shard = min(pack.glob("*.tar"))
    try:
        file = os.open(shard, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return math.nan
    began, total = time.perf_counter(), 0
    while (got := os.readv(file, [piece])) == len(piece):
        total += got
    os.close(file)
    return (total + got) / (time.perf_counter() - began)


def page_cache_cost(pack: Path) -> float:
    """Return CPU seconds that the kernel takes to bring a record of 100 kB into the page cache, in a random order.

    The difference between reading a shard that is announced with POSIX_FADV_WILLNEED and one that is there.
    """
    size, ahead = 100 << 10, 64
    used = []
    with open(min(pack.glob("*.tar")), "rb") as file:
        places = list(range(0, os.fstat(file.fileno()).st_size - size, size))
        random.Random(0).shuffle(places)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for cold in (True, False):
            if cold:
                forget(pack)
            began = time.process_time()
            for number, place in enumerate(places):
                if cold and number + ahead < len(places):
                    os.posix_fadvise(file.fileno(), places[number + ahead], size, os.POSIX_FADV_WILLNEED)
                os.pread(file.fileno(), size, place)
            used.append((time.process_time() - began) / len(places))
    return used[0] - used[1]


def rate(pack: Path, threads: int, batches: int, read_ahead: int | None, *, cold: bool) -> tuple[float, dict[str, Any]]:
    """Return samples/s of so many batches after some others, and what became of the records."""
    import torch

    from pass_loader import DataLoader, ShardDataset, recipes

    torch.set_num_threads(1)
    if cold:  # before anything is looked at: a record that is forgotten afterwards is not read ahead
        forget(pack)
    loader = DataLoader(ShardDataset(pack, recipes.dino()), BATCH, shuffle=True, infinite=True, num_workers=threads,
                        read_ahead=read_ahead, rank=0, world_size=1)  # fmt: skip
    given = iter(loader)
    for _ in range(batches // 10 + 10):
        next(given)
    before, used, began = loader.stats()["samples"], time.process_time(), time.perf_counter()
    for _ in range(batches):
        next(given)
    took, used = time.perf_counter() - began, time.process_time() - used
    done = loader.stats()["samples"] - before
    return done / took, loader.stats()["read_ahead"] | {"cpu_ms_a_sample": round(1000 * used / done, 4)}


def in_a_process(shim: Path, pack: Path, threads: int, batches: int, ms: float | None, read_ahead: int | None = None,
                 cold: bool = False) -> tuple[float, dict[str, Any]]:  # fmt: skip
    """Return what `rate` returns, measured in a process of its own. ms: that each read takes longer; None: no shim."""
    options = {"threads": threads, "batches": batches, "read_ahead": read_ahead, "cold": cold}
    slow = {} if ms is None else {"LD_PRELOAD": str(shim), "SLOW_READS": str(ms)}
    command = [sys.executable, "-m", "benchmarks.cpu.read_ahead", str(pack), "--one", json.dumps(options)]
    done = subprocess.run(command, env={**os.environ, **slow}, capture_output=True, text=True, check=True)
    found, counts = json.loads(done.stdout)
    return found, counts


def make_pack(folder: Path, records: int) -> Path:
    """Pack so many pictures, 192 different ones: more than a measurement reads, so that cold stays cold."""
    from pass_loader.pack import build

    from ..pictures import cuts

    pictures = [jpeg for *_, jpeg in cuts(192)]
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        for number in range(records):
            member = tarfile.TarInfo(f"{number:05d}.jpg")
            member.size = len(pictures[number % 192])
            tar.addfile(member, io.BytesIO(pictures[number % 192]))
    build([folder / "pictures.tar"], folder / "pack")
    return folder / "pack"


def compare(name: str, bar: float, pairs: int, one: Any, other: Any, middle: Any) -> None:
    """Print the share of the second's rate that the first has, `pairs` alternating pairs, and what it takes of the
    processor beside the second, which other work on the machine disturbs less."""
    found = []
    for number in range(pairs):
        rates = {call: call() for call in ((one, other) if number % 2 else (other, one))}
        found.append((rates[one], rates[other]))
    share = middle(a[0] for a, _ in found) / middle(b[0] for _, b in found)
    verdict = "met" if share >= bar else "missed"
    cpu = [statistics.median(pair[place][1]["cpu_ms_a_sample"] for pair in found) for place in (0, 1)]
    words = ", ".join(f"{a[0]:.0f}/{b[0]:.0f}" for a, b in found)
    print(f"{name}: {share:.3f} (bar {bar}, {verdict}); CPU {cpu[0] / cpu[1]:.3f}; {found[-1][0][1]}", flush=True)
    print(f"  samples/s {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, nargs="?", help="of photographs; default: generated pictures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--warm-pairs", type=int, default=21)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        options = json.loads(given.one)
        print(json.dumps(rate(given.pack, options["threads"], options["batches"], options["read_ahead"],
                              cold=options["cold"])))  # fmt: skip
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pack = given.pack or make_pack(folder, BATCH * (given.batches + given.batches // 5 + 20))
        run = functools.partial(in_a_process, compile_shim(folder), pack, given.threads, given.batches)
        mean = statistics.mean
        for ms in (10, 50):
            compare(
                f"{ms} ms a read", 0.95, given.pairs, functools.partial(run, ms), functools.partial(run, None), mean
            )
        cold, warm = functools.partial(run, None, cold=True), functools.partial(run, None)
        print(f"the disk itself: {disk_rate(pack) / 1e6:.0f} MB/s, read past the page cache", flush=True)
        filling = 1e6 * statistics.median(page_cache_cost(pack) for _ in range(5))
        print(f"the kernel's work for a record that the page cache lacks: {filling:.0f} us CPU", flush=True)
        compare("cold page cache", 0.98, given.pairs, cold, warm, mean)
        off = functools.partial(run, None, read_ahead=0)
        cold_off = functools.partial(run, None, read_ahead=0, cold=True)
        compare("cold page cache, on against off", 1.0, given.pairs, cold, cold_off, mean)
        compare("warm page cache, on against off", 0.98, given.warm_pairs, warm, off, statistics.median)


if __name__ == "__main__":
    main()
