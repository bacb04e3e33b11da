"""The command `pass-pack`."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from .. import recipes
from ..data.preview import preview
from ..errors import PackError, RecordError
from ..pack.layout import JPEG_CODECS
from ..pack.reader import Pack
from ..pack.verify import verify
from ..pack.versions import info
from ..remote.address import told
from ..version import __version__
from .attribution import add_attribution_command
from .bench import add_bench_command
from .packs import add_fetch_command, add_pack, opened
from .pairs import add_pairs_command
from .progress import ProgressBar
from .removal import add_removal_commands
from .sources import add_limits, add_recipe, add_source_commands, with_formats
from .stats import add_stats_command
from .tasks import add_tasks, at_least, of_share, tasks


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(with_formats(sys.argv[1:] if arguments is None else arguments))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"pass-pack: {message}", file=sys.stderr)
            return options.run(options)
    except (PackError, RecordError, OSError, ValueError, ImportError) as error:
        print(f"pass-pack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pass-pack: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pass-pack", description="Make packs of pictures, look at them, check them.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add_source_commands(commands)
    facts = commands.add_parser("info", help="what a pack holds, and which version of PASS it is")
    add_pack(facts)
    facts.add_argument(
        "--metadata", type=Path, metavar="TABLE", help="prove the version: compare the ids with its pass_metadata.csv"
    )
    facts.add_argument("--key", default="hash", metavar="COLUMN", help="the table's column of ids (%(default)s)")
    facts.add_argument("--json", action="store_true", help="for machines")
    facts.set_defaults(run=_info)

    check = commands.add_parser("verify", help="check every byte of a pack; exit with 1 where something is wrong")
    add_pack(check)
    check.add_argument("--decode", action="store_true", help="prove every live picture by decoding it")
    add_tasks(check)
    check.add_argument(
        "--results", type=Path, metavar="DIR",
        help="a folder for what the tasks find, from which the command goes on when it was cut off; deleted at the end",
    )  # fmt: skip
    add_limits(check, "with --decode, report larger pictures", "with --decode, report JPEGs with more scans")
    check.add_argument("--json", action="store_true", help="for machines")
    check.set_defaults(run=_verify)

    sheet = commands.add_parser("preview", help="a contact sheet of samples and their views")
    add_pack(sheet)
    add_recipe(sheet)
    sheet.add_argument("--out", required=True, type=Path, metavar="FILE.png")
    sheet.add_argument("--count", type=at_least(1), default=4, metavar="N", help="samples (%(default)s)")
    sheet.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="the views' seed (%(default)s)")
    sheet.add_argument("--epoch", type=at_least(0), default=0, metavar="N", help="the views' epoch (%(default)s)")
    sheet.set_defaults(run=_preview)
    add_pairs_command(commands)
    add_stats_command(commands)
    add_fetch_command(commands)
    add_removal_commands(commands)
    add_attribution_command(commands)
    add_bench_command(commands)
    return parser


def _info(options: argparse.Namespace) -> int:
    facts = info(opened(options), options.metadata, key=options.key)
    if options.json:
        print(json.dumps(facts, indent=1))
        return 0
    bytes_, height, width = facts["picture_bytes"], facts["height"], facts["width"]
    lines = {
        "pack id": facts["pack_id"],
        "PASS version": _version(facts),
        "records": f"{facts['records']:,}, live {facts['live']:,}, removed {facts['removed']:,} "
                   f"(purged {facts['purged']:,})",
        "ids of the live": f"SHA-256 {facts['id_digest']}",
        "shards": f"{facts['shards']}, {facts['tar_bytes']:,} bytes of tar",
        "codec": _codecs(facts),
        "bytes a picture": f"mean {facts['mean_picture_bytes']:,}, least {bytes_['least']:,}, most {bytes_['most']:,}",
        "height x width": f"median {height['median']} x {width['median']}, least {height['least']} x {width['least']}, "
                          f"most {height['most']} x {width['most']}",
        "classes": f"{facts['classes']}, {facts['without_label']:,} records without a label",
        "metadata": ", ".join(facts["metadata"]) or "none",
        "sources": ", ".join(facts["sources"]),
    }  # fmt: skip
    for name, value in lines.items():
        print(f"{name + ':':18}{value}")
    return 0


def _codecs(facts: dict[str, Any]) -> str:
    """Return the records of each codec; those of dct in zstd frames by that name."""
    names = {"dct": facts["codec"]} if facts["codec"] in JPEG_CODECS[1:] else {}
    counted = (f"{names.get(name, name)} {count:,}" for name, count in facts["codecs"].items() if count)
    return ", ".join(counted) or facts["codec"]


def _version(facts: dict[str, Any]) -> str:
    if facts["compared"] is not None:
        return facts["compared"]["verdict"]
    if facts["pass_version"] is None:
        return "none by its number of records"
    return (
        f"{facts['pass_version']} by its number of records; its ids were not compared (--metadata pass_metadata.csv "
        "does)"
    )


def _verify(options: argparse.Namespace) -> int:
    try:
        pack: Pack | str = opened(options)
        total = int(pack.column("length").sum())  # type: ignore[union-attr]
    except PackError:
        pack, total = options.pack, 0  # verify says what is wrong
    with ProgressBar(total, "checked") as progress:
        found = verify(
            pack, decode=options.decode, max_pixels=options.max_pixels, max_scans=options.max_scans,
            results=options.results, progress=progress, **tasks(options),
        )  # fmt: skip
    if options.json:
        print(json.dumps(found.summary(), indent=1))
    else:
        for problem in found:
            print(problem)
        print(f"{told(options.pack)}{of_share(options)}: {found}")
    return 1 if found else 0


def _preview(options: argparse.Namespace) -> int:
    preview(
        opened(options), recipes.named(options.recipe), options.out, count=options.count, seed=options.seed,
        epoch=options.epoch,
    )  # fmt: skip
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
