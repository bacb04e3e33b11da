"""Types of the examples' arguments: what argparse tells who gives another one."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from typing import Any

import torch


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of whole numbers from `least` on."""

    def number(text: str) -> int:
        if int(text) < least:  # argparse tells of a ValueError itself
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return number


def above_zero(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return float(text)


def device(text: str) -> str:
    """A device of torch that is there."""
    try:
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(str(error).splitlines()[0]) from None
    return text


def named(text: str) -> Callable[..., Any]:
    """What MODULE:NAME names."""
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no MODULE:NAME that can be imported: {error}") from None


def json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"num_classes": 0}}')
    return found
