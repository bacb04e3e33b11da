"""`pass-pack pairs`: the hardest and the easiest pairs of a run, from their scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import recipes
from ..data.pairs import pairs
from .packs import add_pack, opened
from .sources import add_recipe
from .tasks import at_least


def add_pairs_command(commands: Any) -> None:
    sheet = commands.add_parser("pairs", help="a sheet of the hardest and easiest pairs of views, from their scores")
    add_pack(sheet)
    sheet.add_argument(
        "--scores", required=True, type=Path, metavar="FILE.npy", help="similarities by (epoch, record), or by record"
    )
    add_recipe(sheet)
    sheet.add_argument("--out", required=True, type=Path, metavar="FILE.png")
    sheet.add_argument("--count", type=at_least(1), default=4, metavar="N", help="pairs of each kind (%(default)s)")
    sheet.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="the run's seed (%(default)s)")
    sheet.add_argument(
        "--epoch", type=at_least(0), default=0, metavar="N", help="the views' epoch of the first row (%(default)s)"
    )
    sheet.add_argument(
        "--views", type=at_least(0), nargs=2, default=(0, 1), metavar="N", help="which views are the pair (0 1)"
    )
    sheet.add_argument("--losses", action="store_true", help="scores are losses: the hardest have the highest")
    sheet.set_defaults(run=_pairs)


def _pairs(options: argparse.Namespace) -> int:
    pairs(
        opened(options), recipes.named(options.recipe), options.scores, options.out, count=options.count,
        seed=options.seed, epoch=options.epoch, views=options.views, losses=options.losses,
    )  # fmt: skip
    print(options.out)
    return 0
