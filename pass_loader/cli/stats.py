"""`pass-pack stats`, as a command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..data.stats import PAGE, SAMPLE, stats, work_bytes
from .packs import add_pack, opened
from .progress import ProgressBar
from .sources import at_least


def add_stats_command(commands: Any) -> None:
    report = commands.add_parser("stats", help="a report on what a pack holds, as numbers and pictures on one page")
    add_pack(report)
    report.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets index.html, report.json and plots")
    report.add_argument(
        "--sample", type=at_least(1), default=SAMPLE, metavar="N", help="pictures to decode, at random (%(default)s)"
    )
    report.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="which ones these are (%(default)s)")
    report.add_argument("--workers", type=at_least(1), metavar="N", help="threads; default: one a core")
    report.set_defaults(run=_stats)


def _stats(options: argparse.Namespace) -> int:
    pack = opened(options)
    with ProgressBar(work_bytes(pack, options.sample, options.seed), "read") as progress:
        stats(
            pack, options.out, sample=options.sample, seed=options.seed, workers=options.workers, progress=progress
        )  # fmt: skip
    print(options.out / PAGE)
    return 0
