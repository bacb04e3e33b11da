"""Options of commands that consist of tasks: threads, runners, and shares for batch systems."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..pack.ray_runner import RUNNERS


def at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return integer


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=at_least(1), default=None, metavar="N", help="threads; default: one a core")


def add_runner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runner", choices=RUNNERS, default="local",
        help="run the tasks here, or on a Ray cluster that sees the same files; there --workers are a task's (local)",
    )  # fmt: skip
    parser.add_argument(
        "--ray-address", default=None, metavar="ADDRESS", help="of the cluster; default: RAY_ADDRESS, or one here"
    )


def running(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("workers", "runner", "ray_address")}


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add threads, runners and shares."""
    add_workers(parser)
    add_runner(parser)
    parser.add_argument(
        "--index", type=at_least(0), default=None, metavar="I",
        help="with --of: run only every N-th task from the I-th on; the same command without them does the rest",
    )  # fmt: skip
    parser.add_argument("--of", type=at_least(1), default=None, metavar="N", help="how many shares of tasks there are")


def tasks(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_tasks` has added, as arguments of functions. Raises ValueError for one of --index and --of."""
    if (options.index is None) != (options.of is None):
        raise ValueError("--index and --of go together")
    return running(options) | {"share": None if options.index is None else (options.index, options.of)}


def of_share(options: argparse.Namespace) -> str:
    """Return, in words, which share of the tasks was run; "" for all."""
    return "" if options.index is None else f" (share {options.index} of {options.of})"
