"""`pass-pack attribution`, as a command."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import recipes
from ..data.samples import Samples
from ..errors import PackError
from ..pack.attribution import CHANGES, FORMATS, attribution
from ..pack.credits import write_attribution
from ..pack.removal import ids_of_file, listed
from .packs import add_pack, opened
from .progress import ProgressBar
from .tasks import add_tasks, of_share, tasks


def add_attribution_command(commands: Any) -> None:
    credit = commands.add_parser(
        "attribution", help="creator, licence and changes of every picture; exit with 1 where one is not known"
    )
    add_pack(credit)
    credit.add_argument("--ids", type=Path, metavar="FILE", help="of these ids only, one a line")
    credit.add_argument(
        "--batch", type=Path, metavar="STATE",
        help="of the batch that a run was given last before it saved this state of its loader (JSON or torch.save); "
        "--ids then names the ids of a dataset that is a part of the pack",
    )  # fmt: skip
    credit.add_argument("--format", choices=FORMATS, default="txt", help="default: %(default)s")
    credit.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    credit.add_argument("--changes", default=CHANGES, metavar="TEXT", help="the notice of changes")
    credit.add_argument("--creator", metavar="COLUMN", help="the metadata's column of creators; default: PASS's")
    credit.add_argument("--licence", metavar="COLUMN", help="the metadata's column of licences; default: PASS's")
    add_tasks(credit)
    credit.set_defaults(run=_attribution)


def _attribution(options: argparse.Namespace) -> int:
    how = tasks(options)
    ids = ids_of_file(options.ids) if options.ids else None
    pack, records = opened(options), None
    columns = {"changes": options.changes, "creator": options.creator, "licence": options.licence}
    if options.out is not None and ids is None and options.batch is None and _may_be_replaced(options.out):
        with ProgressBar(int(pack.column("length").sum()), "gone through") as progress:
            done = write_attribution(pack, options.out, options.format, progress=progress, **columns, **how)
        return _told(done.pictures, done.without, done.first_without, of_share(options))
    if how["runner"] != "local" or how["share"] is not None:
        raise ValueError("tasks are for the credits of a whole pack, into a file: --out, without --ids and --batch")
    if options.batch is not None:
        from ..loading.replay import read_state, records_of_last_batch  # needs torch, the command without it does not

        try:
            dataset = Samples(pack, recipes.evaluate(), ids=ids)  # any recipe: no picture is read
        except KeyError as error:
            raise PackError(error.args[0]) from None
        records, ids = records_of_last_batch(dataset, read_state(options.batch)), None
    credits = attribution(pack, records, ids=ids, **columns)
    with contextlib.ExitStack() as stack:
        file = sys.stdout
        if options.out is not None:
            file = stack.enter_context(open(options.out, "w", encoding="utf-8"))
        credits.write(file, options.format)
    without = credits.without
    return _told(len(credits), len(without), without)


def _may_be_replaced(path: Path) -> bool:
    """Return whether a file can be exchanged by a rename: a pipe or a device is written to."""
    return not path.exists() or (path.is_file() and not path.is_symlink())


def _told(pictures: int, without: int, first: Sequence[str], which: str = "") -> int:
    print(f"{pictures - without:,} of {pictures:,} pictures have creator and licence{which}", file=sys.stderr)
    if without:
        print(f"without: {listed(first, without)}", file=sys.stderr)
    return 1 if without else 0
