"""Scaling over threads, cost by the number of views, and a loader's start and memory in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pass_loader import DataLoader, Recipe, ShardDataset, recipes

from .measure import BATCH, assert_equals_pillow, last, run, run_beside

CORES = len(os.sched_getaffinity(0))
THREADS = sorted({2**power for power in range(1, 8) if 2**power < CORES} | ({CORES} if CORES > 1 else set()))


@pytest.mark.all_cores
@pytest.mark.parametrize("threads", THREADS)
def bench_threads(benchmark: Any, pack: Path, records: list[int], cores: int, threads: int) -> None:
    """Passes with one thread and with many take turns, so that both meet the same machine."""
    assert cores >= threads
    dataset = ShardDataset(pack, recipes.dino())
    positions = records * 2
    one, many = (DataLoader(dataset, BATCH, sampler=positions, num_workers=n, return_info=True) for n in (1, threads))
    rate, rate_of_one, batch = run_beside(benchmark, many, one, len(positions), rounds=7)
    benchmark.extra_info.update(
        table="threads", threads=threads, samples_per_second=rate, samples_per_second_of_one=rate_of_one
    )
    assert_equals_pillow(dataset, batch[0], batch[-1])


def recipe_of(views: int) -> Recipe:
    """DINO's first views: one or two global ones, then local ones."""
    recipe = recipes.dino(local_crops=max(views - 2, 0))
    return Recipe(f"dino, {views} views", recipe.views[:views])


@pytest.mark.parametrize("views", range(1, 13))
def bench_views(benchmark: Any, pack: Path, records: list[int], views: int) -> None:
    dataset = ShardDataset(pack, recipe_of(views))
    loader = DataLoader(dataset, BATCH, sampler=records, num_workers=1, return_info=True)
    batch = run(benchmark, lambda: last(loader), len(records), table="views", views=views)
    assert_equals_pillow(dataset, batch[0], batch[-1])


@pytest.mark.all_cores
def bench_fresh_process(benchmark: Any, pack: Path, cores: int) -> None:
    found = []

    def process() -> None:
        command = [sys.executable, "-m", "benchmarks.cpu.fresh_process", str(pack), "--threads", str(cores)]
        out = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        found.append(json.loads(out.stdout))

    benchmark.pedantic(process, rounds=3)
    private = [max(one["private_bytes"]) - one["live_bytes"] for one in found]
    first = [one["first_batch_s"] for one in found]
    benchmark.extra_info.update(
        table="process", threads=cores, first_batch_s=statistics.median(first), private_bytes=statistics.median(private)
    )
    assert all(0 < one["live_bytes"] < min(one["private_bytes"]) + 100e6 and one["first_batch_s"] > 0 for one in found)
