"""The command `pass-pack`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import _C, recipes
from ..errors import PackError, RecordError
from .bench import BATCH_SIZE, bench
from .build import build
from .preview import preview
from .reader import Pack
from .sources import open_sources
from .verify import verify

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (PackError, RecordError, OSError, ValueError, ImportError) as error:
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

    info = commands.add_parser("info", help="what a pack holds")
    info.add_argument("pack", type=Path, metavar="PACK")
    info.set_defaults(run=_info)

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

    speed = commands.add_parser("bench", help="samples a second on this machine, and the share of each stage")
    speed.add_argument("pack", type=Path, metavar="PACK")
    speed.add_argument("--recipe", choices=sorted(recipes.PRESETS), default="dino", help="default: %(default)s")
    speed.add_argument("--threads", type=_at_least(1), metavar="N", help="beside one thread; default: one a core")
    speed.add_argument(
        "--seconds", type=_at_least(1), default=10, metavar="S", help="for each measurement (%(default)s)"
    )
    speed.set_defaults(run=_bench)
    return parser


def _build(options: argparse.Namespace) -> int:
    with _Progress(sum(source.size() for source in open_sources(options.sources)), "packed") as progress:
        report = build(
            options.sources, options.out, metadata=options.metadata, key=options.key,
            shard_bytes=options.shard_bytes, workers=options.workers, transcode=options.transcode,
            decode=options.decode, progress=progress,
        )  # fmt: skip
    print(f"{options.out}: {report}")
    return 1 if options.strict and report.refused else 0


def _info(options: argparse.Namespace) -> int:
    pack = Pack(options.pack)
    heights, widths = pack.column("height"), pack.column("width")
    lengths, labels = pack.column("length"), pack.column("label")
    lines = {
        "pack id": pack.pack_id,
        "records": f"{pack.records:,}, live {len(pack):,}",
        "shards": f"{len(pack.shards)}, {sum(shard['bytes'] for shard in pack.shards):,} bytes of tar",
        "codec": pack.manifest["codec"],
        "bytes a picture": f"mean {lengths.mean():,.0f}, least {lengths.min():,}, most {lengths.max():,}",
        "height x width": f"median {int(np.median(heights))} x {int(np.median(widths))}, "
                          f"least {heights.min()} x {widths.min()}, most {heights.max()} x {widths.max()}",
        "classes": f"{len(pack.classes)}, {int((labels < 0).sum()):,} records without a label",
        "metadata": ", ".join(pack.manifest["metadata"]) or "none",
        "sources": ", ".join(pack.manifest["sources"]),
    }  # fmt: skip
    for name, value in lines.items():
        print(f"{name + ':':18}{value}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    total = int(Pack(options.pack).column("length").sum())
    with _Progress(total, "checked") as progress:
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


def _bench(options: argparse.Namespace) -> int:
    pack, recipe = Pack(options.pack), recipes.PRESETS[options.recipe]()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{options.pack}: {len(pack):,} live records, mean {pack.column('length').mean() / 1e3:,.0f} kB; "
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
    return 0


class _Progress:
    """Bytes done: a bar on a terminal, a line every ten seconds elsewhere. Called from several threads."""

    def __init__(self, total: int, verb: str):
        self.total, self.verb, self.done = total, verb, 0
        self.began = self.told = time.monotonic()
        terminal = sys.stderr.isatty()
        self.bar: Any = None
        if terminal:
            self.bar = tqdm(total=total, unit="B", unit_scale=True, desc=verb)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, count: int) -> None:
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.told >= 10:
            self.told = time.monotonic()
            rate = self.done / (self.told - self.began) / 1e6
            print(f"{self.verb} {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {rate:.0f} MB/s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
