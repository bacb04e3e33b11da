"""`pass-pack build`, `index`, `plan`, `shard`, `merge`, `locate`, `convert`, `combine`, `export`, as commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import recipes
from ..pack.build import build, index, merge, plan, planned_bytes, shard, tables
from ..pack.combine import combine
from ..pack.convert import convert
from ..pack.export import FORMATS, export
from ..pack.foreign import locate
from ..pack.index_points import index_points
from ..pack.layout import JPEG_CODECS
from ..pack.plan import ON_DUPLICATE, TASK_BYTES, TRANSCODE
from ..pack.report import Report
from ..pack.source import IDS, Naming
from ..pack.sources import open_sources
from ..remote.address import as_path, told
from .packs import add_cache, add_pack, all_opened, opened, size_in_bytes
from .progress import ProgressBar
from .tasks import add_runner, add_tasks, add_workers, at_least, of_share, running, tasks

_ON_DUPLICATE = (
    "a picture whose bytes were packed under another id: keep it, pack the first only, or stop (%(default)s)"
)


def with_formats(arguments: list[str]) -> list[str]:
    """Return the arguments with "--transcode" as "--transcode=jpeg" where no format follows it, but a source may."""
    following = [*arguments[1:], ""]
    return [
        "--transcode=jpeg" if argument == "--transcode" and after not in TRANSCODE[1:] else argument
        for argument, after in zip(arguments, following)
    ]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", default="dino", metavar="NAME",
        help=f"one of {', '.join(recipes.PRESETS)}, or a call of it: 'dinov2(as_declared=True)' (%(default)s)",
    )  # fmt: skip


def add_source_commands(commands: Any) -> None:
    make = commands.add_parser("build", help="pack pictures; run again, it goes on where it was cut off")
    _add_sources(make)
    _add_packing(make)
    add_workers(make)
    add_runner(make)
    _add_strict(make)
    _add_writing(make)
    make.set_defaults(run=_build)

    refer = commands.add_parser("index", help="a pack that refers to tars where they lie; nothing is copied")
    refer.add_argument("sources", nargs="+", type=as_path, metavar="TAR")
    _add_packing(refer)
    add_workers(refer)
    add_runner(refer)
    _add_strict(refer)
    refer.set_defaults(run=_index)

    begin = commands.add_parser("plan", help="begin a pack on many machines: what its tasks are")
    _add_sources(begin)
    _add_packing(begin)
    _add_writing(begin)
    begin.add_argument("--in-place", action="store_true", help="refer to the tars where they lie, as `index` does")
    begin.set_defaults(run=_plan)

    part = commands.add_parser("shard", help="run tasks of a plan, on any machine")
    part.add_argument("pack", type=as_path, metavar="PACK", help="a directory or a URL")
    part.add_argument("--index", required=True, type=at_least(0), metavar="I", help="the task; the first is 0")
    part.add_argument("--of", type=at_least(1), default=None, metavar="N", help="every N-th task from the I-th on")
    add_workers(part)
    part.set_defaults(run=_shard)

    together = commands.add_parser("merge", help="make a pack of what the tasks have left, when all are done")
    together.add_argument("out", type=as_path, metavar="PACK", help="a directory or a URL")
    add_tasks(together)
    _add_strict(together)
    together.set_defaults(run=_merge)

    known = commands.add_parser("index-points", help="decode a pack's records once, so that crops need not all of them")
    known.add_argument("pack", metavar="PACK", help="a directory")
    add_cache(known, "where it refers to tars in stores")
    add_workers(known)
    known.set_defaults(run=_index_points)

    where = commands.add_parser("locate", help="find the moved tars of a pack that `index` made")
    where.add_argument("pack", type=as_path, metavar="PACK")
    where.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="where the tars are now")
    where.set_defaults(run=_locate)

    other = commands.add_parser("convert", help="the same records in another codec, as a new pack")
    add_pack(other)
    _add_out(other, "NEW")
    _add_codec(other)
    add_tasks(other)
    add_limits(other, "leave larger pictures as they are", "leave JPEGs with more scans as they are")
    other.set_defaults(run=_convert)

    one = commands.add_parser("combine", help="packs made apart become one new pack")
    one.add_argument("packs", nargs="+", metavar="PACK", help="a directory or a URL, in the order of their records")
    add_cache(one, "of URLs")
    _add_out(one, "OUT")
    one.add_argument(
        "--prefix", action="append", metavar="TEXT",
        help="put before the ids of a pack; give it once for each PACK, in their order, '' for none",
    )  # fmt: skip
    one.add_argument("--on-duplicate", choices=ON_DUPLICATE, default="keep", help=_ON_DUPLICATE)
    one.add_argument("--in-place", action="store_true", help="copy nothing: refer to the packs' tars where they lie")
    add_workers(one)
    one.set_defaults(run=_combine)

    out = commands.add_parser("export", help="the live records in another format")
    add_pack(out)
    out.add_argument("--out", required=True, type=as_path, metavar="DIR", help="a new directory, or a URL")
    out.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    out.add_argument("--shard-bytes", type=size_in_bytes, default=1 << 30, metavar="SIZE", help="default: 1GiB")
    add_tasks(out)
    out.set_defaults(run=_export)


def add_limits(parser: argparse.ArgumentParser, pixels: str, scans: str) -> None:
    """Add the limits of a picture. pixels, scans: what becomes of a picture beyond them."""
    parser.add_argument(
        "--max-pixels", type=at_least(1), default=None, metavar="N", help=f"{pixels}; default: 178956970"
    )
    parser.add_argument(
        "--max-scans", type=at_least(1), default=None, metavar="N",
        help=f"{scans}; default: 500, and 4e9 pixels times scans",
    )  # fmt: skip


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", type=as_path, metavar="SOURCE",
        help="a tar (PASS's, WebDataset's) or its URL, a folder of classes, a zip, Hugging Face's Parquet, FFCV's "
        ".beton, a .txt list of paths",
    )  # fmt: skip


def _add_out(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--out", required=True, type=as_path, metavar=name, help="a directory or a URL: new, or of a run cut off"
    )


def _add_packing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_out(parser, "PACK")
    add("--metadata", type=as_path, metavar="TABLE", help="a CSV or Parquet file whose rows are joined by id")
    add("--key", default="hash", metavar="COLUMN", help="the table's column of ids (%(default)s)")
    add("--id", choices=IDS, default="", help="a file's path, or its last part without suffix, is its id")
    add("--image-key", metavar="SUFFIX", help="of samples that hold several pictures: image.jpg (WebDataset)")
    add("--class-folders", action="store_true", help="read tars as folders are read: the first folder is the class")
    add("--no-gps", action="store_true", help="leave columns of coordinates out, the table's and the sources' own")
    add("--decode", action="store_true", help="prove every picture by decoding it; crops then decode what they need")
    add("--entry-points", action="store_true", help="--decode, and keep where decoding can begin inside a JPEG")
    add("--on-duplicate", choices=ON_DUPLICATE, default="keep", help=_ON_DUPLICATE)
    add("--md5", action="store_true", help="check PASS's files against the published sums first")
    add_limits(parser, "refuse larger pictures", "refuse JPEGs with more scans")
    add(
        "--task-bytes", type=size_in_bytes, default=TASK_BYTES, metavar="SIZE",
        help="of the sources that make a task; a larger tar is cut (16GiB)",
    )  # fmt: skip


def _add_writing(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is copied into the pack."""
    parser.add_argument("--shard-bytes", type=size_in_bytes, default=1 << 30, metavar="SIZE", help="default: 1GiB")
    parser.add_argument(
        "--transcode", nargs="?", const="jpeg", default=False, choices=TRANSCODE[1:],
        help="turn other formats into JPEG, quality 95, 4:4:4, or into PNG without loss; without a word: jpeg",
    )  # fmt: skip
    parser.add_argument(
        "--allow-empty", action="store_true", help="class folders without pictures are classes, not an error"
    )
    parser.add_argument(
        "--shuffle", type=at_least(0), default=None, metavar="SEED",
        help="pack in an order that this number decides: reads all over the sources",
    )  # fmt: skip
    _add_codec(parser, default="jpeg")


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="exit with 1 where anything was refused")


def _add_codec(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    parser.add_argument(
        "--codec", choices=JPEG_CODECS, default=default, required=default is None,
        help="jpeg: files untouched; dct: about 1.3 times the bytes, decoded several times as fast, the same pixels; "
        "dct-zstd: about the JPEG's bytes, decoded nearly as fast",
    )  # fmt: skip


def _packing(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "metadata": options.metadata,
        "key": options.key,
        "gps": not options.no_gps,
        "id": options.id,
        "image_key": options.image_key,
        "class_folders": options.class_folders,
        "decode": options.decode,
        "entry_points": options.entry_points,
        "on_duplicate": options.on_duplicate,
        "md5": options.md5,
        "max_pixels": options.max_pixels,
        "max_scans": options.max_scans,
        "task_bytes": options.task_bytes,
    }


def _writing(options: argparse.Namespace) -> dict[str, Any]:
    names = ("shard_bytes", "transcode", "allow_empty", "shuffle", "codec")
    return {name: getattr(options, name) for name in names}


def _done(options: argparse.Namespace, report: Report) -> int:
    print(f"{told(options.out)}: {report}")
    return 1 if options.strict and report.refused else 0


def _size(options: argparse.Namespace) -> int:
    """Return the bytes of all sources."""
    # A .beton with several fields of pictures opens only where one of them is chosen.
    sources = open_sources(options.sources, Naming(image_key=options.image_key))
    return sum(source.size() for source in sources)


def _build(options: argparse.Namespace) -> int:
    with ProgressBar(_size(options), "packed") as progress:
        report = build(
            options.sources, options.out, progress=progress, **_packing(options), **_writing(options),
            **running(options),
        )  # fmt: skip
    return _done(options, report)


def _index(options: argparse.Namespace) -> int:
    with ProgressBar(_size(options), "indexed") as progress:
        report = index(options.sources, options.out, progress=progress, **_packing(options), **running(options))
    return _done(options, report)


def _plan(options: argparse.Namespace) -> int:
    tasks = plan(options.sources, options.out, in_place=options.in_place, **_packing(options), **_writing(options))
    print(f"{tasks} tasks")
    return 0


def _shard(options: argparse.Namespace) -> int:
    with ProgressBar(planned_bytes(options.pack, options.index, options.of), "packed") as progress:
        shard(options.pack, options.index, options.of, workers=options.workers, progress=progress)
    return 0


def _merge(options: argparse.Namespace) -> int:
    share = tasks(options)["share"]
    if share is not None:
        written = tables(options.out, *share, workers=options.workers)
        print(f"{told(options.out)}{of_share(options)}: {written:,} tables")
        return 0
    return _done(options, merge(options.out, **running(options)))


def _locate(options: argparse.Namespace) -> int:
    for name, path in locate(options.pack, options.folders).items():
        print(f"{name}: {path}")
    return 0


def _index_points(options: argparse.Namespace) -> int:
    pack = opened(options)
    with ProgressBar(int(pack.column("length").sum()), "decoded") as progress:
        done = index_points(pack, workers=options.workers, progress=progress)
    print(f"{told(options.pack)}: {done}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    limits = {"max_pixels": options.max_pixels, "max_scans": options.max_scans}
    return _write(options, "converted", convert, codec=options.codec, **limits)


def _combine(options: argparse.Namespace) -> int:
    packs = all_opened(options)
    with ProgressBar(sum(int(pack.column("length").sum()) for pack in packs), "combined") as progress:
        done = combine(
            packs, options.out, on_duplicate=options.on_duplicate, prefixes=options.prefix, in_place=options.in_place,
            workers=options.workers, progress=progress,
        )  # fmt: skip
    print(f"{told(options.out)}: {done}")
    return 0


def _export(options: argparse.Namespace) -> int:
    return _write(options, "exported", export, format=options.format, shard_bytes=options.shard_bytes)


def _write(options: argparse.Namespace, verb: str, write: Callable[..., object], **how: Any) -> int:
    pack = opened(options)
    with ProgressBar(int(pack.column("length").sum()), verb) as progress:
        done = write(pack, options.out, progress=progress, **how, **tasks(options))
    print(f"{told(options.out)}{of_share(options)}: {done}")
    return 0
