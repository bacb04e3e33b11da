"""A pack in a directory that refers to tars in stores: what it reads of them comes by way of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PackError
from ..remote.address import Address, is_url
from ..remote.cache import touch
from .foreign import urls_of
from .index_parts import IndexParts
from .layout import MANIFEST, stamp_of
from .manifest import read_manifest
from .remote import RemotePack, edition_of


class ReferringPack(RemotePack):
    """A remote pack whose metadata files lie in a directory, `folder`, and are not fetched."""

    stored = False

    def __init__(self, root: Path, address: Address):
        super().__init__(address)
        self.folder = root
        self._stamp: tuple[int, ...] | None = None

    def sync(self, again: bool = True) -> Path:
        stamp = stamp_of(self.folder / MANIFEST)
        if stamp is None or stamp != self._stamp:
            manifest = read_manifest(self.folder)
            folder = self.address.folder / edition_of(manifest)
            with self.cache.locked():
                folder.mkdir(parents=True, exist_ok=True)
                if folder != self.of_shards:
                    self._adopt(folder, manifest)
            self._stamp = stamp
        touch(self.of_shards)
        return self.folder

    def file(self, name: str) -> Path:
        return self.folder / name

    def files(self) -> None:
        """Nothing is to be fetched, as for `index` and `tables_of_log`."""

    index = tables_of_log = files

    def index_parts(self) -> IndexParts | None:
        return None

    def mark_whole(self) -> None:
        """The tars are in the cache, under the same place."""


def reads_from_stores(path: str | Path) -> bool:
    """Return whether a pack is read through a cache: a URL, or a directory that refers to tars in stores."""
    return is_url(path) or (Path(path).is_dir() and bool(urls_of(read_manifest(Path(path))["shards"])))


def referring(
    root: Path,
    manifest: dict[str, Any],
    cache: str | Path | None,
    cache_bytes: int | str | None,
    storage_options: Mapping[str, Any] | None,
) -> ReferringPack | None:
    """Return what reads the tars of a pack in a directory, None where they lie there or in the file system.

    Raises PackError where some lie in stores, and others do not; ValueError for options that are for stores.
    """
    urls = urls_of(manifest["shards"])
    if not urls:
        if cache is not None or cache_bytes is not None or storage_options is not None:
            raise ValueError(f"{root} is a directory: cache, cache_bytes and storage_options are for packs in stores")
        return None
    if any(shard["tar"] not in urls for shard in manifest["shards"]):
        raise PackError(f"{root / MANIFEST}: some tars lie in stores, others do not")
    pack = ReferringPack(root, Address.of_directory(root, cache, cache_bytes, storage_options))
    pack.sync()
    return pack
