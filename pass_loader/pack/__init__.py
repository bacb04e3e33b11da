"""Packs: shards of pictures with one manifest. Works without torch."""

from .build import build
from .purge import purge
from .reader import Pack
from .removal import remove, restore
from .verify import verify
from .versions import diff, info

__all__ = ["Pack", "build", "diff", "info", "purge", "remove", "restore", "verify"]
