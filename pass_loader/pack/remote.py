"""A pack in a store: its files as they come into the cache, and its records when they are asked for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _C
from ..errors import PackError
from ..remote.address import Address
from ..remote.cache import UNIT, Blocks, Cache, is_sparse, make_file, touch, units_of
from ..remote.fetcher import BLOCK_UNITS, Awaited, Fetcher, Piece
from ..remote.store import Known, Store, StoreError, Unchanged
from ..remote.stream import Scattered
from .foreign import urls_of
from .index_parts import IndexParts
from .layout import INDEX, INDEX_SCHEMA, MANIFEST, REFUSED, REMOVED, write_durably
from .manifest import has_checks, manifest_of
from .plain_json import plain_json
from .points import POINTS

_LOG = logging.getLogger(__name__)
WHOLE = "whole"  # stands in the folder of an edition of which `pass-pack fetch` has fetched everything
_BESIDE = 0.01  # of the shards' bytes: for tables and the index
_MOST_SHARE = 2  # one part in so many of the cache is needed by samples to come, at the most
_AHEAD_SHARE = 4  # one part in so many is fetched ahead
_POINTS_SHARE = 0.01  # of the cache, for entry points; PASS has 0.5 kB a picture of 110 kB
_PART_BYTES = 16 << 20
_WHOLE_INDEX_BYTES = 64 << 20  # an index of more than that comes in parts; PASS has 62
_ROW_BYTES = sum(type.bit_width // 8 for type in INDEX_SCHEMA.types)


class Place(NamedTuple):
    """Where a record lies. offset, length: bytes."""

    record: int
    shard: str
    offset: int
    length: int


class RemotePack:
    """What `Pack` needs of a pack that lies in a store.

    folder: with the metadata files of the pack's present edition; of the cache, as `of_shards` is, with the sparse
    files. An edition is all of a manifest but for the removals: another revision, codec or content under the same URL
    has a folder of its own. stored: the pack's own files lie in a store, not only what they refer to.
    Raises PackError where there is no pack, ImportError without obstore.
    """

    stored = True

    def __init__(self, address: Address):
        self.address = address
        self.store = Store(address)
        self.cache = Cache.at(address.cache, address.cache_bytes)
        self.folder = self.of_shards = Path()
        self._etags: dict[str, str | None] = {}
        self._contents: dict[str, bytes | None] = {}
        self._pack_id: str | None = None
        self._fetcher: Fetcher | None = None
        self._index_parts: IndexParts | None = None
        self._asked_for: Path | None = None  # the file of entry points that was asked for last
        self._known: dict[str, Blocks] = {}  # of shards of this edition that were asked for

    def sync(self, again: bool = True) -> Path:
        """Bring pack.json and removed.jsonl up to date; return the folder of the edition that they are of.

        again: what is damaged is fetched a second time. Without a connection a pack that `pass-pack fetch` has fetched
        is taken as it was then.
        """
        try:
            content = self._current(MANIFEST)
            if content is None:
                raise PackError(f"{self.address} is not a pack: it has no {MANIFEST} (`pass-pack build` makes one)")
            log = self._current(REMOVED)
        except StoreError as error:
            return self._as_fetched(error)
        try:
            manifest = manifest_of(f"{self.address}{MANIFEST}", content)
        except PackError:
            if not again:
                raise
            self._etags.clear()
            return self.sync(again=False)
        if self._pack_id not in (None, manifest["pack_id"]):
            raise PackError(f"{self.address} is another pack than the one that was opened")
        self._pack_id = manifest["pack_id"]
        folder = self.address.folder / edition_of(manifest)
        with self.cache.locked():
            self._with_room(folder, UNIT, lambda: folder.mkdir(parents=True, exist_ok=True))
            for name, found in ((REMOVED, log), (MANIFEST, content)):
                if found is None:
                    (folder / name).unlink(missing_ok=True)
                else:
                    self._put(folder / name, found)
            if folder != self.folder:
                self.folder = folder
                self._adopt(folder, manifest)
        touch(folder)
        return self.folder

    def _current(self, name: str) -> bytes | None:
        """Return an object as it is now, None where there is none."""
        try:
            self._contents[name], self._etags[name] = self.store.whole(name, self._etags.get(name))
        except Unchanged:
            pass
        except FileNotFoundError:
            self._contents[name] = self._etags[name] = None
        return self._contents[name]

    def _put(self, path: Path, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return
        self.cache.room_for_file(len(content), path.name)
        before = units_of(path.stat().st_size) if path.exists() else 0
        try:
            self._with_room(path, len(content), lambda: write_durably(path, content))
        except PackError:
            self.cache.add(-units_of(len(content)))
            raise
        self.cache.add(-before)

    def _with_room(self, path: Path, size: int, write: Callable[[], None]) -> None:
        """Make a file or folder of so many bytes. Raises PackError where the disk has no room or may not be written."""
        try:
            self.cache.with_room(size, write)
        except OSError as error:
            raise PackError(
                f"{path} of {size:,} bytes cannot be written ({error.strerror}): make room there, or give another "
                "cache= (--cache)"
            ) from None

    def _adopt(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Move on to an edition. Of earlier revisions of the pack nothing stays in the cache, as they were purged."""
        self.of_shards, self._manifest = folder, manifest
        self._fetcher, self._known = None, {}
        self._urls = urls_of(manifest["shards"])
        if self._urls:
            self.store = Scattered(self.address, self._urls, self.stored)
        self._sizes = {shard["tar"]: shard.get("foreign", shard).get("bytes", 0) for shard in manifest["shards"]}
        for other in self.address.folder.iterdir():
            if other != folder and _revision(other, manifest["pack_id"]) < manifest.get("revision", 0):
                self.cache.forget(other)

    def need_again(self, spans: dict[str, tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        """Have what was used in the last epoch dropped after what no epoch needs.

        spans: (offsets, lengths) of the records that this epoch needs, by shard; None: all. Other ranks that share the
        cache add theirs.
        """
        with self.cache.locked():
            for path, blocks in self.cache.blocks.items():
                if path.parent != self.of_shards:
                    continue
                if spans is None:
                    blocks.need_again()
                elif path.name in spans:
                    blocks.need_again(blocks.units_of(*spans[path.name]))

    def _as_fetched(self, error: StoreError) -> Path:
        whole = [path.parent for path in self.address.folder.glob(f"*/{WHOLE}")]
        if self.folder in whole:
            return self.folder
        if len(whole) != 1:
            raise PackError(f"{error}") from None
        manifest = manifest_of(str(whole[0] / MANIFEST), (whole[0] / MANIFEST).read_bytes())
        _LOG.warning("%s cannot be reached (%s): taken as `pass-pack fetch` found it", self.address, error)
        self._pack_id = manifest["pack_id"]
        with self.cache.locked():
            self.folder = whole[0]
            self._adopt(whole[0], manifest)
        touch(whole[0])
        return self.folder

    def file(self, name: str) -> Path:
        """Return the path of a file of metadata, fetched where it is missing and checked by the manifest.

        It does not exist where the pack has none.
        """
        path = self.folder / name
        if path.exists():
            if is_sparse(path) and (parts := self.index_parts()) is not None and parts.path == path:
                parts.fetch_whole()
            return path
        for attempt in (1, 2):
            try:
                content, _ = self.store.whole(name)
            except FileNotFoundError:
                return path
            except StoreError as error:
                raise PackError(str(error)) from None
            want = self._manifest.get("crc32c", {}).get(name)
            if not has_checks(self._manifest) or _C.crc32c(content) == want:
                break
            if attempt == 2:
                raise PackError(
                    f"{self.address}{name} is not the file that {MANIFEST} tells of: its CRC32C is another one. It is "
                    "being published anew, or was changed"
                )
        with self.cache.locked():
            if not path.exists():
                self._put(path, content)
        return path

    def forget(self, name: str) -> None:
        """Delete a file of metadata from the cache, so that it is fetched anew."""
        self.cache.forget_file(self.folder / name)
        self._index_parts = None

    def points(self, whole: bool = False) -> None:
        """Fetch the file of entry points, once, where the pack lies in a store and has one.

        whole: even where it takes more than its share of the cache. Raises PackError and StoreError then; else the file
        is of use, and not needed: where the store fails or the disk is full, there is none.
        """
        path = self.folder / POINTS
        if not self.stored or path.exists() or (path == self._asked_for and not whole):
            return
        self._asked_for = path
        try:
            about = self.store.about(POINTS)
            if whole or about.size <= _POINTS_SHARE * self.address.cache_bytes:
                with self.cache.locked():
                    if not path.exists():
                        self._bring_points(path, about)
        except FileNotFoundError:
            pass  # the pack has none
        except (OSError, PackError):  # StoreError is one of the first
            if whole:
                raise

    def _bring_points(self, path: Path, about: Known) -> None:
        self.cache.room_for_file(about.size, path.name)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            self._with_room(path, about.size, partial(make_file, temporary, about.size))
            with open(temporary, "rb+") as file:
                for begin in range(0, about.size, _PART_BYTES):
                    file.write(self.store.part(POINTS, begin, min(begin + _PART_BYTES, about.size), about))
            temporary.rename(path)
        except BaseException:
            self.cache.add(-units_of(about.size))
            temporary.unlink(missing_ok=True)
            raise

    def forget_points(self) -> None:
        """Delete the file of entry points from the cache, so that it is fetched anew when it is opened again."""
        if not self.stored:
            return
        self.cache.forget_file(self.folder / POINTS)
        self._asked_for = None

    def files(self) -> None:
        """Fetch every file of metadata. Raises PackError where the index is not that of the manifest."""
        for shard in self._manifest["shards"]:
            self.file(shard["table"])
        name = self._index_name
        parts = self.index_parts()
        if parts is None:
            self.file(name)
        elif parts.fetch_whole() != self._manifest.get("crc32c", {}).get(name) and has_checks(self._manifest):
            self.forget(name)
            raise PackError(f"{self.address}{name} is not the file that {MANIFEST} tells of: its CRC32C is another one")
        if REFUSED in self._manifest.get("crc32c", {}):
            self.file(REFUSED)

    @property
    def _index_name(self) -> str:
        return self._manifest.get("index", INDEX)

    def index(self) -> None:
        """Fetch the index, or where the pack has none, the tables that it is made from. Of a large one only what is
        needed to open it."""
        if self.index_parts() is None and not self.file(self._index_name).exists():
            self.files()

    def index_parts(self) -> IndexParts | None:
        """Return the parts of an index that is too large to be fetched whole; None for another one."""
        name = self._index_name
        path = self.folder / name
        if self._index_parts is not None and self._index_parts.path == path:
            return self._index_parts
        if self._manifest["records"] * _ROW_BYTES <= _WHOLE_INDEX_BYTES or (path.exists() and not is_sparse(path)):
            return None
        etag = None
        try:
            about = self.store.about(name)
            size, etag = about.size, about.condition
        except FileNotFoundError:
            return None
        except StoreError as error:
            if not path.exists():
                raise PackError(str(error)) from None
            size = path.stat().st_size
        if path.exists() and path.stat().st_size > size:
            self.forget(name)
        blocks = self._blocks_of(name, size, checked=True)
        try:
            self._index_parts = IndexParts(self.fetcher, blocks, name, etag, self._manifest["records"])
        except StoreError as error:
            raise PackError(str(error)) from None
        return self._index_parts

    def tables_of_log(self) -> None:
        """Fetch the tables that lines of the log are compared with: where it has more than the manifest counts."""
        log = self._contents.get(REMOVED) or b""
        if log.count(b"\n") != self._manifest.get("removed", {"lines": 0})["lines"]:
            for shard in self._manifest["shards"]:
                self.file(shard["table"])

    def shard(self, name: str) -> Path:
        """Return the path of a shard's sparse file."""
        return self._blocks(name).path

    def _blocks(self, name: str) -> Blocks:
        if self._sizes[name] <= 0:
            raise PackError(f"{self.address}: its {MANIFEST} does not tell the bytes of {name}; make the pack anew")
        return self._blocks_of(name, self._sizes[name])

    def _blocks_of(self, name: str, size: int, checked: bool = False) -> Blocks:
        try:
            return self.cache.open(self.of_shards / name, size, checked)
        except (OSError, OverflowError, MemoryError) as error:
            raise PackError(
                f"{self.of_shards / name} of {size:,} bytes cannot be made ({error}): where the disk is full, make "
                "room there or give another cache= (--cache); where the cache's folder was deleted, start again; else "
                f"{self.address}{MANIFEST} tells a wrong size"
            ) from None

    @property
    def fetcher(self) -> Fetcher:
        if self._fetcher is None:
            whole = sum(self._sizes.values()) <= self.address.cache_bytes // _MOST_SHARE
            self._fetcher = Fetcher(self.store, self.cache, whole)
        return self._fetcher

    @property
    def ahead_bytes(self) -> int:
        """The bytes of records that may be fetched ahead."""
        return self.address.cache_bytes // _AHEAD_SHARE

    def _piece(self, place: Place) -> Piece:
        record, shard, offset, length = place
        blocks = self._known.get(shard)
        if blocks is None:
            blocks = self._known[shard] = self._blocks(shard)
        first, end = blocks.unit_range(offset, length)
        return Piece(blocks, shard, first, end, record)

    def coming(self, places: Iterable[Place]) -> Awaited:
        """Begin to fetch records."""
        return self.fetcher.announce([self._piece(place) for place in places if place.length > 0])

    def size_of(self, tar: str) -> int:
        return self._blocks(tar).size

    def check_fits(self, tars: list[str]) -> None:
        """Raise PackError where these shards do not fit into the cache together, beside what else it has to hold."""
        total = sum(self._blocks(tar).size for tar in tars) * (1 + _BESIDE)
        if total > self.address.cache_bytes:
            raise PackError(
                f"{self.address}: {total:,.0f} bytes are needed at a time, and the cache may hold "
                f"{self.address.cache_bytes:,}: raise cache_bytes (--cache-bytes)"
            )

    def check_ranges(self) -> None:
        """Raise StoreError where the store sends no ranges of files."""
        with contextlib.suppress(FileNotFoundError):
            self.store.range(self._manifest["shards"][0]["tar"], 0, 1)

    def bring(self, tar: str, offset: int, length: int) -> None:
        """Fetch bytes of a shard, and wait for them. Raises StoreError."""
        step = BLOCK_UNITS * UNIT
        pieces = [Place(-1, tar, at, min(step, offset + length - at)) for at in range(offset, offset + length, step)]
        coming = self.coming(pieces)
        try:
            coming.wait()
        finally:
            coming.done(used=False)

    def mend(self, place: Place, crc: int) -> None:
        """Fetch a record anew where its bytes in the cache have another CRC32C than this.

        Raises OSError where they have it in the store too, or the store fails.
        """
        self.fetcher.until_room(partial(self._mended, place, crc))

    def _mended(self, place: Place, crc: int) -> bool:
        if self._crc_of(place) == crc:  # somebody had dropped it, and has fetched it since
            return True
        if not self.fetcher.fetch_now(self._piece(place)):
            return False
        if (found := self._crc_of(place)) != crc:
            where = self._urls.get(place.shard, f"{self.address}{place.shard}")
            raise OSError(
                f"{where} was fetched twice, and its bytes have the CRC32C {found:08x}, the index says {crc:08x}: the "
                "object was changed or damaged, or is being published anew"
            )
        return True

    def _crc_of(self, place: Place) -> int:
        with open(self.shard(place.shard), "rb") as file:
            return _C.crc32c(os.pread(file.fileno(), place.length, place.offset))

    def mark_whole(self) -> None:
        """Note that everything was fetched."""
        (self.folder / WHOLE).touch()

    def counts(self) -> dict[str, Any]:
        """Return what was fetched since the start."""
        fetcher = self.fetcher
        return {
            "bytes": self.store.bytes,
            "requests": self.store.requests,
            "retries": self.store.retries,
            "hits": fetcher.hits,
            "misses": fetcher.misses,
            "waited_s": fetcher.waited_s,
            "cache_bytes": self.cache.used_bytes,
        }


def edition_of(manifest: dict[str, Any]) -> str:
    """Return the name of what a manifest tells, but for removals."""
    checks = {name: crc for name, crc in manifest.get("crc32c", {}).items() if name != MANIFEST}
    told = {**{name: value for name, value in manifest.items() if name != "removed"}, "crc32c": checks}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _revision(folder: Path, pack_id: str) -> float:
    """Return the revision of that pack which a folder of the cache has; infinity where it is of another pack."""
    try:
        manifest = plain_json((folder / MANIFEST).read_bytes())
        return manifest.get("revision", 0) if manifest["pack_id"] == pack_id else np.inf
    except (OSError, ValueError, KeyError, AttributeError):
        return np.inf
