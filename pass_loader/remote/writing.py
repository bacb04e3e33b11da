"""Writes objects: whole, and under a condition, so that nobody overwrites what he has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import PackError
from .address import Address
from .store import ATTEMPTS, Changed, Store, StoreError, opened

PART_BYTES = 16 << 20  # of a large object, sent and fetched at a time
_AT_ONCE = 4  # parts on their way
_LEAST_S, _SLOWEST = 60, 1_000_000  # the time for a file in one request: this, and so many bytes in a second
_MOST_BYTES = 5 << 30  # that S3 copies in one request
_READ_ONLY = ("http", "https", "hf")


class Version(NamedTuple):
    """What a store knows a state of an object by: an ETag, and with Google's a generation."""

    e_tag: str | None
    version: str | None


class WritableStore(Store):
    """The objects below one URL, to be read and written. Raises PackError where the store can only be read."""

    def __init__(self, address: Address):
        if address.scheme in _READ_ONLY:
            raise PackError(f"{address} can only be read: change the pack where it was made, and publish it anew")
        super().__init__(address)

    def read(self, name: str) -> tuple[bytes, Version]:
        """Return an object's bytes and version. Raises FileNotFoundError, StoreError."""

        def get(obstore: Any, store: Any) -> tuple[bytes, Version]:
            found = obstore.get(store, name)
            return bytes(found.bytes()), _version_of(found.meta)

        return self._tried(name, get)

    def size_of(self, name: str) -> int | None:
        """Return the bytes of an object, None where there is none. Raises StoreError."""
        try:
            return int(self._tried(name, lambda obstore, store: obstore.head(store, name)["size"]))
        except FileNotFoundError:
            return None

    def version_of(self, name: str) -> Version | None:
        """Return the version of an object, None where there is none. Raises StoreError."""
        try:
            return self._tried(name, lambda obstore, store: _version_of(obstore.head(store, name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes | Path, before: Version | None) -> Version:
        """Write an object in place of the one with this version; None: where there is none. Returns the new version.

        content: or a file, which goes in one request whatever its size, as parts know no such condition.
        Raises Changed where another one is there, StoreError for a store that fails or has no conditional writes.
        """
        mode = "create" if before is None else {key: value for key, value in before._asdict().items() if value}
        attempts = 0

        def put(obstore: Any, store: Any) -> Version:
            nonlocal attempts
            attempts += 1
            if isinstance(content, Path):
                store = opened(obstore, self.address, timeout_s=_LEAST_S + content.stat().st_size // _SLOWEST)
            return _version_of(obstore.put(store, name, content, mode=mode, use_multipart=False))

        try:
            return self._tried(name, put)
        except FileNotFoundError:
            if before is None:
                raise StoreError(f"{self.address}{name} cannot be written: there is no such bucket") from None
            raise Changed(f"{self.address}{name} was deleted meanwhile") from None
        except Changed:
            if attempts == 1:
                raise
            return self._written_before(name, content)  # an attempt whose answer was lost may have written it

    def _written_before(self, name: str, content: bytes | Path) -> Version:
        try:
            found, version = self.read(name)
        except FileNotFoundError:
            found = None
        if found != (content.read_bytes() if isinstance(content, Path) else content):
            raise Changed(f"{self.address}{name} was changed by somebody else meanwhile")
        return version

    def prove_conditions(self, name: str, content: bytes) -> None:
        """Raise StoreError where the store writes whatever the condition. name, content: of an object that is there."""
        mode = Version('"0"', "0")._asdict()
        try:
            self._tried(name, lambda obstore, store: obstore.put(store, name, content, mode=mode, use_multipart=False))
        except Changed:
            return
        raise StoreError(
            f"{self.address} has no conditional writes (If-Match): two commands at a time would undo each other's "
            "changes. Change the pack in a directory, then publish it anew"
        )

    def delete(self, *names: str) -> None:
        """Delete objects, those that are there. Raises StoreError."""
        try:
            self._tried(names[0], lambda obstore, store: obstore.delete(store, list(names)))
        except FileNotFoundError:
            for name in names if len(names) > 1 else ():
                self.delete(name)

    def sizes(self, folder: str | None = None) -> dict[str, int]:
        """Return the bytes of each object, or of those below a folder, by its name. Raises StoreError."""

        def ask(obstore: Any, store: Any) -> dict[str, int]:
            return {meta["path"]: int(meta["size"]) for metas in obstore.list(store, folder) for meta in metas}

        return self._tried(folder or "", ask)

    def holds_any(self, folder: str) -> bool:
        """Return whether an object lies below a folder. Raises StoreError."""
        return self._tried(folder, lambda obstore, store: any(len(metas) for metas in obstore.list(store, folder)))

    def download(self, name: str, path: Path) -> None:
        """Write an object into a new file. Raises FileNotFoundError, StoreError, OSError of the file."""
        size = self.size_of(name)
        if size is None:
            raise FileNotFoundError(f"{self.address}{name} does not exist")
        with open(path, "xb") as file:
            for begin in range(0, size, PART_BYTES):
                file.write(self.range(name, begin, min(begin + PART_BYTES, size)))

    def create(self, name: str, content: bytes) -> None:
        """Write an object where there is none. Raises Changed where one of other bytes is there already, StoreError."""
        try:
            self.write(name, content, None)
        except Changed:
            if self.size_of(name) != len(content) or self.read(name)[0] != content:
                raise

    def upload(self, path: Path, name: str, temporary: str) -> None:
        """Write a file as an object, where there is none: it is there whole, or not at all.

        temporary: the object that a large file becomes first, in parts; it is deleted in the end, and left where the
        process dies. Raises Changed where an object of other bytes is there already, StoreError.
        """
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise PackError(f"{path.name} has {size:,} bytes, more than a store copies at once ({_MOST_BYTES:,})")
        if size <= PART_BYTES:
            self.create(name, path.read_bytes())
            return
        try:
            self._tried(temporary, lambda obstore, _: self._send(obstore, path, temporary))
            try:
                self._tried(name, lambda obstore, store: obstore.copy(store, temporary, name, overwrite=False))
            except FileNotFoundError:  # another run that sends the same was faster, or somebody tidied up
                if not self._is_same(name, path):
                    raise StoreError(f"{self.address}{temporary} was deleted while it was sent; try again") from None
            finally:
                self.delete(temporary)
        except Changed:
            if not self._is_same(name, path):
                raise

    def copy(self, name: str, other: str) -> None:
        """Make an object of the bytes of another one, whatever is there. Raises FileNotFoundError, StoreError."""
        self._tried(name, lambda obstore, store: obstore.copy(store, name, other))

    def overwrite(self, path: Path, name: str) -> None:
        """Write a file as an object, whatever is there: at every moment it is the old one or the new one."""
        self._tried(name, lambda obstore, _: self._send(obstore, path, name))

    def _send(self, obstore: Any, path: Path, name: str) -> None:
        """Send a file, a large one in parts. The library tries each again: the whole would seldom come through."""
        sender = opened(obstore, self.address, ATTEMPTS - 1)
        try:
            parts = path.stat().st_size > PART_BYTES
            obstore.put(sender, name, path, use_multipart=parts, chunk_size=PART_BYTES, max_concurrency=_AT_ONCE)
        except (obstore.exceptions.NotFoundError, FileNotFoundError) as error:  # it was ended, and the answer lost
            raise ConnectionError(str(error)) from None

    def _is_same(self, name: str, path: Path) -> bool:
        """Return whether an object has the bytes of a file."""
        size = path.stat().st_size
        if self.size_of(name) != size:
            return False
        with open(path, "rb") as file:
            for begin in range(0, size, PART_BYTES):
                if bytes(self.range(name, begin, min(begin + PART_BYTES, size))) != file.read(PART_BYTES):
                    return False
        return True


def _version_of(meta: Any) -> Version:
    return Version(meta.get("e_tag"), meta.get("version"))
