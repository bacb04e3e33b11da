"""`pass-pack remove`, `restore`, `purge` and `diff`, as commands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackError
from ..pack.purge import purge
from ..pack.removal import ids_of_file, remove, restore
from ..pack.versions import diff
from ..remote.address import told
from .packs import add_pack, opened
from .progress import ProgressBar


def add_removal_commands(commands: Any) -> None:
    take = commands.add_parser("remove", help="take pictures out of a pack; `purge` then erases their bytes")
    _add_ids(take)
    take.add_argument("--not-in", type=Path, metavar="TABLE", help="and every id that this CSV or Parquet file lacks")
    take.add_argument("--key", default="hash", metavar="COLUMN", help="the table's column of ids (%(default)s)")
    take.set_defaults(run=_remove)

    undo = commands.add_parser("restore", help="undo `remove`, before `purge`")
    _add_ids(undo)
    undo.set_defaults(run=_restore)

    erase = commands.add_parser("purge", help="write shards anew without the removed pictures' bytes and metadata")
    add_pack(erase)
    erase.set_defaults(run=_purge)

    compare = commands.add_parser("diff", help="which pictures of a pack a newer metadata table no longer has")
    add_pack(compare)
    compare.add_argument("table", type=Path, metavar="TABLE", help="a CSV or Parquet file")
    compare.add_argument("--key", default="hash", metavar="COLUMN", help="the table's column of ids (%(default)s)")
    compare.set_defaults(run=_diff)


def _add_ids(parser: argparse.ArgumentParser) -> None:
    add_pack(parser)
    parser.add_argument("id", nargs="*", metavar="ID")
    parser.add_argument("--ids", type=Path, metavar="FILE", help="a file of ids, one a line")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="for the log; name the request")
    parser.add_argument("--ignore-unknown", action="store_true", help="go on where the pack lacks an id")


def _ids(options: argparse.Namespace) -> list[str]:
    return options.id + (ids_of_file(options.ids) if options.ids else [])


def _remove(options: argparse.Namespace) -> int:
    ids = _ids(options)
    if not ids and options.not_in is None:
        raise PackError("nothing to remove: give ids, --ids FILE or --not-in TABLE")
    done = remove(
        opened(options), ids, reason=options.reason, not_in=options.not_in, key=options.key,
        ignore_unknown=options.ignore_unknown,
    )  # fmt: skip
    print(f"{told(options.pack)}: {done}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    ids = _ids(options)
    if not ids:
        raise PackError("nothing to restore: give ids or --ids FILE")
    done = restore(opened(options), ids, reason=options.reason, ignore_unknown=options.ignore_unknown)
    print(f"{told(options.pack)}: {done}")
    return 0


def _purge(options: argparse.Namespace) -> int:
    pack = opened(options)
    lengths, shards = pack.column("length"), pack.column("shard")
    affected = np.isin(shards, shards[pack.removed[lengths[pack.removed] > 0]])
    affected[pack.removed] = False
    with ProgressBar(int(lengths[affected].sum()), "kept") as progress:
        done = purge(pack, progress=progress)
    print(f"{told(options.pack)}: {done}")
    return 0


def _diff(options: argparse.Namespace) -> int:
    """Print the ids alone to standard output, so that they can go into a file for `remove --ids`."""
    found = diff(opened(options), options.table, key=options.key)
    for id in found.gone:
        print(id)
    print(
        f"{len(found.gone):,} live ids of {told(options.pack)} are not in {options.table}; {found.common:,} are; of "
        f"its other ids {found.removed:,} were removed from the pack and {found.added:,} were never in it",
        file=sys.stderr,
    )
    return 0
