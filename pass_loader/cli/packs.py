"""The argument PACK of commands that read a pack: a directory or a URL, with the options of its cache; and `fetch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..pack.fetch import fetch
from ..pack.reader import Pack
from ..pack.referring import reads_from_stores
from ..remote.address import as_path, bytes_of
from .progress import ProgressBar


def size_in_bytes(text: str) -> int:
    """Read a size such as '1GiB', '500MB' or '1000000'. Raises argparse.ArgumentTypeError for another text."""
    try:
        return bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pack", metavar="PACK", help="a directory, or a URL: s3://, gs://, az://, https://, hf://")
    add_cache(parser, "of a URL")


def add_cache(parser: argparse.ArgumentParser, whose: str) -> None:
    parser.add_argument("--cache", type=Path, metavar="DIR", help=f"{whose}: the folder of the cache")
    parser.add_argument("--cache-bytes", type=size_in_bytes, metavar="SIZE", help="what it may hold; default: 50GB")


def opened(options: argparse.Namespace) -> Pack:
    """Open the pack that the options name."""
    return Pack(as_path(options.pack), **_cache_of(options))


def all_opened(options: argparse.Namespace) -> list[Pack]:
    """Open the packs that the options name. The cache is for those that read from stores; where none does, the first
    one says so."""
    places = [as_path(place) for place in options.packs]
    stored = [reads_from_stores(place) for place in places]
    stored[0] |= not any(stored)
    return [Pack(place, **(_cache_of(options) if cached else {})) for place, cached in zip(places, stored)]


def _cache_of(options: argparse.Namespace) -> dict[str, Any]:
    return {"cache": options.cache, "cache_bytes": options.cache_bytes}


def add_fetch_command(commands: Any) -> None:
    whole = commands.add_parser("fetch", help="bring a whole pack from a store into a cache, for use without a network")
    add_pack(whole)
    whole.set_defaults(run=_fetch)


def _fetch(options: argparse.Namespace) -> int:
    pack = opened(options)
    with ProgressBar(sum(shard.get("bytes", 0) for shard in pack.shards), "fetched") as progress:
        fetched = fetch(pack, progress=progress)
    print(f"{pack.place}: {fetched:,} bytes in {pack.path}")
    return 0
