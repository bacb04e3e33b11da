"""What the examples' command lines share: a wrong argument is told in a line, without a traceback."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pass_loader.pack import Pack


def pack(text: str) -> str:
    """Return the path or URL of a pack."""
    try:
        Pack(text)
    except Exception as error:  # of a store, too
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of arguments: whole numbers from `least` on."""

    def number(text: str) -> int:
        found = int(text)
        if found < least:
            raise argparse.ArgumentTypeError(f"{found} is less than {least}")
        return found

    return number


def multiple_of(step: int) -> Callable[[str], int]:
    """Return a type of arguments: `step`, twice that ..."""

    def number(text: str) -> int:
        found = int(text)
        if found < 1 or found % step:
            raise argparse.ArgumentTypeError(f"{found} is no multiple of {step}")
        return found

    return number


def above_zero(text: str) -> float:
    """Return a number above 0."""
    found = float(text)
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return found


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object as a dict."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object such as '{{\"depth\": 12}}'")
    return found


def existing(text: str) -> Path:
    """Return the path of a file."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return Path(text)


def device(text: str) -> str:
    """Return a device's name as torch has it."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(str(error).splitlines()[0]) from None
    return text


def callable_of(text: str) -> Callable[..., Any]:
    """Return what MODULE:NAME names."""
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be had as MODULE:NAME: {error}") from None
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{text!r} is a {type(found).__name__}, want what makes a model")
    return found


def arguments(description: str | None, *others: str) -> list[str]:
    """Return the command line of an example that takes a pack, and folders or other words beside it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pack", type=pack, metavar="PACK", help="a directory or a URL")
    for other in others:
        parser.add_argument(other.lower(), metavar=other.upper())
    return [*vars(parser.parse_args()).values()]
