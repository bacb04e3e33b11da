"""Packs: shards of pictures with one manifest. Works without torch."""

from .build import build
from .reader import Pack
from .verify import verify

__all__ = ["Pack", "build", "verify"]
