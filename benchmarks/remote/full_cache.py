"""A pack whose records are all in the cache, beside the same pack in a directory: two processes that load by turns.

python -m benchmarks.remote.full_cache [--rounds 2] [--write]

The bar: 0.98 of the directory's rate. Neighbouring epochs of the same code differ by five percent, as what else runs
on a machine takes time from one or the other. So a lap is an epoch in PARTS turns: while one process loads a part, the
other one waits; and what is compared is the least time of each part in all laps. The start of an epoch, which asks the
store for removals, counts with each part. The median of the laps' shares is printed beside it. A round is a pair of
processes and LAPS laps. `--write` puts the table into docs/where-packs-lie.md.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..pages import write_between
from ..pictures import write_pack
from .loading import BATCH, PAGE, PICTURES, in_a_process, parser_for, size_of
from .server import serving

PARTS = 2
LAPS = 4
BAR = 0.98
HEAD = "| recipe, threads | directory, samples/s | full cache, by least times | by medians |"


def load_by_turns(place: str, recipe: str, threads: int, cache: str | None) -> None:
    """Load the part of an epoch that each line of the input says, and print the seconds that it took."""
    import torch

    from pass_loader import DataLoader, ShardDataset, recipes

    torch.set_num_threads(1)
    remote: dict[str, Any] = {} if cache is None else {"cache": cache, "cache_bytes": "50GB"}
    dataset = ShardDataset(place, recipes.named(recipe), **remote)
    records: list[int] = []  # of the part that is loaded
    loader = DataLoader(dataset, BATCH, sampler=records, num_workers=threads)
    parts = np.array_split(np.random.default_rng(0).permutation(len(dataset)), PARTS)
    for line in sys.stdin:
        records[:] = parts[int(line)].tolist()
        began = time.perf_counter()
        for _ in loader:
            pass
        print(time.perf_counter() - began, flush=True)


@contextlib.contextmanager
def loading(place: str, recipe: str, threads: int, cache: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that loads by turns, and has done so once."""
    given = json.dumps([place, recipe, threads, cache and str(cache)])
    command = [sys.executable, "-m", "benchmarks.remote.full_cache", "--one", given]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            turn(process, 0)
            yield process
        finally:
            process.kill()


def turn(process: subprocess.Popen[str], part: int) -> float:
    """Return the seconds that a process takes for a part."""
    assert process.stdin is not None and process.stdout is not None
    print(part, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def laps(pack: Path, url: str, cache: Path, recipe: str, threads: int) -> np.ndarray:
    """Return the seconds (LAPS, PARTS, 2) of a directory and of a cache that holds all that the URL has."""
    took = np.zeros((LAPS, PARTS, 2))
    with loading(str(pack), recipe, threads) as directory, loading(url, recipe, threads, cache) as full:
        for lap, part in np.ndindex(LAPS, PARTS):
            for place in (0, 1) if (lap + part) % 2 else (1, 0):
                took[lap, part, place] = turn((directory, full)[place], part)
    return took


def row(pack: Path, cache: Path, recipe: str, threads: int, rounds: int) -> tuple[str, float]:
    """Measure; return the row and the share."""
    with serving(pack.parent) as server:
        url = f"{server}{pack.name}"
        in_a_process(url, recipe, threads, cache)
        took = np.concatenate([laps(pack, url, cache, recipe, threads) for _ in range(rounds)])
    directory, full = took.min(0).sum(0)
    share, of_laps = float(directory / full), np.divide(*took.sum(1).T)
    median, kept = np.median(of_laps), "met" if share >= BAR else "missed"
    print(
        f"{recipe}, {threads}: {share:.3f}, bar {BAR}: {kept}; of laps {median:.3f} +- {np.std(of_laps):.3f}",
        flush=True,
    )
    rate = size_of(pack)[0] / directory
    return f"| {recipe}, {threads} | {rate:,.0f} | {share:.3f} | {median:.3f} |", share


def main() -> None:
    given = parser_for(__doc__, rounds=2).parse_args()
    if given.one:
        load_by_turns(*json.loads(given.one))
        return
    lines, missed = [HEAD, "| --- | ---: | ---: | ---: |"], []
    for recipe in given.recipes:
        for threads in given.threads:
            with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
                pack = write_pack(Path(temporary) / recipe, PICTURES[recipe])
                line, share = row(pack, Path(temporary) / "cache", recipe, threads, given.rounds)
            lines.append(line)
            if share < BAR:
                missed.append(f"{recipe}, {threads} ({share:.3f})")
    words = f"the bar of {BAR} was missed by {'; '.join(missed)}" if missed else f"the bar of {BAR} was met by all"
    lines += ["", f"Of {LAPS * given.rounds} epochs, each in {PARTS} parts by turns; {words}."]
    print("\n".join(lines))
    if given.write:
        write_between(PAGE, "full-cache", "\n".join(lines))


if __name__ == "__main__":
    main()
