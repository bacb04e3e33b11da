"""`pass-pack bench`: samples a second on the user's own machine and pictures."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .. import _C, recipes
from ..loading.bench import BATCH_SIZE, bench, limits, pieces
from ..loading.demand import Advice, Demand
from ..loading.limits import pack_bytes
from ..remote.address import told
from .packs import add_pack, opened
from .sources import add_recipe
from .tasks import at_least


def add_bench_command(commands: Any) -> None:
    speed = commands.add_parser("bench", help="samples a second on this machine, and what is the limit")
    add_pack(speed)
    add_recipe(speed)
    speed.add_argument("--threads", type=at_least(1), metavar="N", help="beside one thread; default: one a core")
    speed.add_argument(
        "--seconds", type=at_least(1), default=10, metavar="S", help="for each measurement (%(default)s)"
    )
    speed.add_argument(
        "--samples-per-second", type=_rate, metavar="R",
        help="what one GPU trains on where it never waits: say whether loading will be the limit, and what to set",
    )  # fmt: skip
    speed.add_argument("--gpus", type=at_least(1), metavar="N", help="with it: of this machine (1)")
    speed.add_argument("--batch-size", type=at_least(1), metavar="N", help="with it: of a GPU, for memory (64)")
    speed.set_defaults(run=_bench)


def _rate(text: str) -> float:
    if not 0 < (rate := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a rate")
    return rate


def _bench(options: argparse.Namespace) -> int:
    if options.samples_per_second is None and (options.gpus or options.batch_size):
        raise ValueError("--gpus and --batch-size go with --samples-per-second")
    pack, recipe = opened(options), recipes.named(options.recipe)
    cores = len(os.sched_getaffinity(0))
    mean = pack_bytes(pack) / pack.records
    print(
        f"{told(options.pack)}: {len(pack):,} live records, mean {mean / 1e3:,.0f} kB; "
        f"{recipe.name}: {len(recipe.views)} views, float32, batches of {BATCH_SIZE}; level {_C.isa()}, {cores} cores",
        flush=True,
    )
    found = [bench(pack, recipe, threads, options.seconds)
             for threads in sorted({1, options.threads or cores})]  # fmt: skip
    lines = {
        "threads": [f"{one.threads}" for one in found],
        "samples/s": [f"{one.samples_per_second:,.0f}" for one in found],
        "views/s": [f"{one.samples_per_second * len(recipe.views):,.0f}" for one in found],
        "times one thread": [f"{one.samples_per_second / found[0].samples_per_second:.2f}" for one in found],
    }
    for stage in found[0].stages:
        lines[stage] = [f"{one.stages[stage]:.1%}" for one in found]
    lines["waiting"] = [f"{max(1 - sum(one.stages.values()), 0):.1%}" for one in found]
    for name, cells in lines.items():
        print(f"{name:20}" + "".join(f"{cell:>12}" for cell in cells))
    alone = limits(pack, found[-1], options.seconds)
    print("each by itself, samples/s:")
    for name in ("storage", "decoding", "rendering"):
        print(f"{name:20}{getattr(alone, name):>12,.0f}")
    print(alone.words())
    if options.samples_per_second is not None:
        demand = Demand(options.samples_per_second, options.gpus or 1, options.batch_size or 64)
        gpus = "one GPU" if demand.gpus == 1 else f"each of {demand.gpus} GPUs"
        print(f"for {demand.samples_per_second:,g} samples/s on {gpus}, by a sample of the pack:", flush=True)
        advice = Advice(pieces(pack, recipe, found, alone, max(options.seconds / 5, 0.2)), demand)
        print(advice.table())
        print(advice.words())
    return 0
