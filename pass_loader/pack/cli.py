"""The command `pass-pack`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from .. import recipes
from ..errors import PackError, RecordError
from .build import build
from .cli_attribution import add_attribution_command
from .cli_removal import add_removal_commands
from .preview import preview
from .progress import Progress
from .reader import Pack
from .sources import open_sources
from .verify import verify
from .versions import info

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (PackError, RecordError, OSError, ValueError) as error:
        print(f"pass-pack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pass-pack: interrupted", file=sys.stderr)
        return 130


def size_in_bytes(text: str) -> int:
    """'1GiB', '500MB', '1000000'."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?|)B?", text.strip().upper())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; want for example 1GiB, 500MB, 1000000")
    return int(float(match[1]) * _UNITS[match[2]])


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return integer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pass-pack", description="Make packs of pictures, look at them, check them.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    make = commands.add_parser("build", help="pack tars and folders of JPEGs")
    make.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="a tar (as PASS's) or a folder of classes"
    )
    make.add_argument("--out", required=True, type=Path, metavar="PACK", help="the new pack's directory")
    make.add_argument("--metadata", type=Path, metavar="CSV", help="rows joined to the pictures by id")
    make.add_argument("--key", default="hash", metavar="COLUMN", help="the CSV's column of ids (%(default)s)")
    make.add_argument("--shard-bytes", type=size_in_bytes, default=1 << 30, metavar="SIZE", help="default: 1GiB")
    make.add_argument("--workers", type=_at_least(1), default=None, metavar="N", help="threads; default: one a core")
    make.add_argument("--transcode", action="store_true", help="turn other formats into JPEG, quality 95, 4:4:4")
    make.add_argument("--decode", action="store_true", help="prove every picture by decoding it")
    make.add_argument("--strict", action="store_true", help="exit with 1 where anything was refused")
    make.set_defaults(run=_build)

    facts = commands.add_parser("info", help="what a pack holds, and which version of PASS it is")
    facts.add_argument("pack", type=Path, metavar="PACK")
    facts.add_argument("--json", action="store_true", help="for machines")
    facts.set_defaults(run=_info)

    check = commands.add_parser("verify", help="check every byte of a pack; exit with 1 where something is wrong")
    check.add_argument("pack", type=Path, metavar="PACK")
    check.set_defaults(run=_verify)

    sheet = commands.add_parser("preview", help="a contact sheet of samples and their views")
    sheet.add_argument("pack", type=Path, metavar="PACK")
    sheet.add_argument("--recipe", choices=sorted(recipes.PRESETS), default="dino", help="default: %(default)s")
    sheet.add_argument("--out", required=True, type=Path, metavar="FILE.png")
    sheet.add_argument("--count", type=_at_least(1), default=4, metavar="N", help="samples (%(default)s)")
    sheet.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="the views' seed (%(default)s)")
    sheet.add_argument("--epoch", type=_at_least(0), default=0, metavar="N", help="the views' epoch (%(default)s)")
    sheet.set_defaults(run=_preview)
    add_removal_commands(commands)
    add_attribution_command(commands)
    return parser


def _build(options: argparse.Namespace) -> int:
    with Progress(sum(source.size() for source in open_sources(options.sources)), "packed") as progress:
        report = build(
            options.sources, options.out, metadata=options.metadata, key=options.key,
            shard_bytes=options.shard_bytes, workers=options.workers, transcode=options.transcode,
            decode=options.decode, progress=progress,
        )  # fmt: skip
    print(f"{options.out}: {report}")
    return 1 if options.strict and report.refused else 0


def _info(options: argparse.Namespace) -> int:
    facts = info(options.pack)
    if options.json:
        print(json.dumps(facts, indent=1))
        return 0
    bytes_, height, width = facts["picture_bytes"], facts["height"], facts["width"]
    lines = {
        "pack id": facts["pack_id"],
        "PASS version": facts["pass_version"] or "none by its number of records",
        "records": f"{facts['records']:,}, live {facts['live']:,}, removed {facts['removed']:,} "
                   f"(purged {facts['purged']:,})",
        "ids of the live": f"SHA-256 {facts['id_digest']}",
        "shards": f"{facts['shards']}, {facts['tar_bytes']:,} bytes of tar",
        "codec": facts["codec"],
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


def _verify(options: argparse.Namespace) -> int:
    total = int(Pack(options.pack).column("length").sum())
    with Progress(total, "checked") as progress:
        problems = verify(options.pack, progress=progress)
    for problem in problems:
        print(problem)
    print(f"{options.pack}: " + (f"{len(problems)} problems" if problems else "everything is as it was packed"))
    return 1 if problems else 0


def _preview(options: argparse.Namespace) -> int:
    preview(
        options.pack, recipes.PRESETS[options.recipe](), options.out, count=options.count, seed=options.seed,
        epoch=options.epoch,
    )  # fmt: skip
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
