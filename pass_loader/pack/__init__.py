"""Packs: shards of pictures with one manifest. Works without torch, but for `bench`."""

from .attribution import attribution
from .bench import bench
from .build import build, index
from .convert import convert
from .export import export
from .foreign import locate
from .metadata import creator_name, date_taken
from .preview import preview
from .purge import purge
from .reader import Pack
from .removal import remove, restore
from .verify import verify
from .versions import diff, info

__all__ = [
    "Pack", "attribution", "bench", "build", "convert", "creator_name", "date_taken", "diff", "export", "index", "info",
    "locate", "preview", "purge", "remove", "restore", "verify",
]  # fmt: skip
