"""Packs: shards of pictures with one manifest. Works without torch, but for `bench`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .attribution import attribution
from .build import build, index, merge, plan, shard, tables
from .combine import combine
from .convert import convert
from .credits import write_attribution
from .export import export
from .fetch import fetch
from .foreign import locate
from .index_points import index_points
from .metadata import creator_name, date_taken
from .purge import purge
from .reader import Pack
from .removal import remove, restore
from .verify import verify
from .versions import diff, info

if TYPE_CHECKING:
    from ..data.pairs import pairs
    from ..data.preview import preview
    from ..data.stats import stats
    from ..loading.bench import bench

__all__ = [
    "Pack", "attribution", "bench", "build", "combine", "convert", "creator_name", "date_taken", "diff", "export",
    "fetch", "index", "index_points", "info", "locate", "merge", "pairs", "plan", "preview", "purge", "remove",
    "restore", "shard", "stats", "tables", "verify", "write_attribution",
]  # fmt: skip

# They draw or render pictures, which a pack knows nothing of.
_ABOVE = {"bench": "..loading.bench", "pairs": "..data.pairs", "preview": "..data.preview", "stats": "..data.stats"}


def __getattr__(name: str) -> Any:
    if name not in _ABOVE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_ABOVE[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return __all__
