"""Where a pack is made: a directory; or a store, by way of a local folder.

The code that makes packs writes files into a folder and gives them their names when they are whole. Of a pack in a
store that folder is a temporary one: what is whole is sent, and tars are deleted here as soon as they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import PackError
from ..remote.address import Address, is_url
from ..remote.store import Changed
from ..remote.writing import PART_BYTES, Version, WritableStore
from .layout import MANIFEST, UNFINISHED, is_shard_file, publish, write_by_many, write_durably

MERGING = "merging"  # stands in the mark of a packing in a store while its tasks' files are put together
_PREFIX = "pass-pack-"
_YOUNG_S = 60  # so long a working folder may have no lock
_OF_TASKS = (".tar", ".rows", ".parquet", ".json", ".refused")
_AT_ONCE = 16  # small objects that are sent or brought


class Destination:
    """A directory in which a pack is made.

    folder: where its files are written and read. place: for messages. at_once: threads that are worth their while for
    reading small parts of files, whatever the number of cores.
    """

    stored = False
    at_once = 1

    def __init__(self, folder: Path):
        self.folder, self.place = folder, str(folder)

    @property
    def at(self) -> tuple[str, Mapping[str, Any] | None]:
        """Where it is, as `destination` takes it on another machine."""
        return os.path.abspath(self.folder), None

    def names(self) -> list[str]:
        """Return the names of what is there."""
        return [path.name for path in self.folder.iterdir()]

    def size_of(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        path = self.folder / name
        return path.stat().st_size if path.exists() else None

    def bring(self, name: str) -> bool:
        """Make a file readable in the folder. Returns False where there is none."""
        return (self.folder / name).exists()

    def bring_all(self, names: Iterable[str]) -> None:
        """The same for files that will be read soon."""

    def bring_parts(self, name: str, size: int, parts: Iterable[tuple[int, int]]) -> Path:
        """Make parts of a file of `size` bytes readable, (begin, end) of each; return the path to read them at."""
        return self.folder / name

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return a part of a file that need not be in the folder."""
        with open(self.folder / name, "rb") as file:
            return os.pread(file.fileno(), length, offset)

    def send(self, *names: str) -> None:
        """Publish files that were written in the folder, whole, each under its name there."""

    def send_other(self, path: Path, name: str) -> None:
        """Publish a file of this machine for who has another one; in a directory all read it at its own path."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file and publish it."""
        path = self.folder / name
        if path.is_symlink():
            path.unlink()
        path.touch()
        write_by_many(path, content)

    def delete(self, *names: str) -> None:
        """Delete files, where they are there."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def rename(self, name: str, other: str) -> None:
        os.replace(self.folder / name, self.folder / other)

    def settle(self, names: Mapping[str, str]) -> None:
        """Give whole files that tasks have left, which need not be in the folder, their names."""
        publish(*((self.folder / name, self.folder / other) for name, other in names.items()))

    def look_again(self) -> None:
        """Take note of what others have written or deleted meanwhile."""

    def close(self) -> None:
        """Let no task exchange what it has written before: what all of them have written is put together now."""


class InStore(Destination):
    """A store in which a pack is made, by way of a local folder.

    What is there is listed once, where all names are asked for, and again when others have run tasks; what this process
    does is kept up. Tasks write their files where there are none; only while nobody puts the tasks together, and the
    packing is still theirs, do they exchange another's of another content, and that only where it is what lay there
    then. The mark `unfinished` says whose packing it is; it is exchanged only where it is what was read.
    """

    stored = True
    at_once = _AT_ONCE

    def __init__(self, address: Address, folder: Path):
        self.folder, self.place = folder, str(address)
        self.store = WritableStore(address)
        self._sizes: dict[str, int] | None = None  # of what is there, once it was listed
        self._mark: Version | None = None
        self._closed = False

    @property
    def at(self) -> tuple[str, Mapping[str, Any] | None]:
        return self.store.address.url, self.store.address.options or None

    def names(self) -> list[str]:
        if self._sizes is None:
            self._sizes = self.store.sizes()
        return list(self._sizes)

    def size_of(self, name: str) -> int | None:
        return self.store.size_of(name) if self._sizes is None else self._sizes.get(name)

    def bring(self, name: str) -> bool:
        path = self.folder / name
        if path.exists():
            return True
        if self._sizes is not None and name not in self._sizes:
            return False
        temporary = path.with_name(f"{name}.brought")
        temporary.unlink(missing_ok=True)
        try:
            if name == UNFINISHED:
                content, self._mark = self.store.read(name)
                temporary.write_bytes(content)
            else:
                self.store.download(name, temporary)
        except FileNotFoundError:
            return False
        temporary.rename(path)
        return True

    def bring_parts(self, name: str, size: int, parts: Iterable[tuple[int, int]]) -> Path:
        path = self.folder / f"{name}.parts"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(descriptor, size)  # what is not brought is a hole
            for begin, end in parts:
                for start in range(begin, end, PART_BYTES):
                    content = memoryview(self.read(name, start, min(end - start, PART_BYTES)))
                    while content:
                        written = os.pwrite(descriptor, content, start)
                        content, start = content[written:], start + written
        finally:
            os.close(descriptor)
        return path

    def bring_all(self, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pass-pack") as pool:
            list(pool.map(self.bring, names))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return bytes(self.store.range(name, offset, offset + length))

    def send(self, *names: str) -> None:
        if len(names) > _AT_ONCE:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pass-pack") as pool:
                list(pool.map(self._send, names))
        else:
            for name in names:
                self._send(name)

    def send_other(self, path: Path, name: str) -> None:
        size = path.stat().st_size
        if self.size_of(name) != size:
            self.store.overwrite(path, name)
            self._note(name, size)

    def _send(self, name: str) -> None:
        path = self.folder / name
        size = path.stat().st_size
        if name == MANIFEST:
            self._create(name, path)
        elif self._closed or not name.endswith(_OF_TASKS):
            self.store.overwrite(path, name)
        else:
            self._check_ours()
            try:
                self.store.upload(path, name, f"{name}.{self._attempt()}.tmp")
            except Changed:
                self._exchange(path, name)
        self._note(name, size)
        if name.endswith(".tar"):
            path.unlink()

    def _exchange(self, path: Path, name: str) -> None:
        """Write a file in place of what lay there while the packing was still ours, and of nothing that came since."""
        while True:
            before = self.store.version_of(name)
            self._check_ours()
            with contextlib.suppress(Changed):
                self.store.write(name, path, before)
                return

    def _note(self, name: str, size: int) -> None:
        if self._sizes is not None:
            self._sizes[name] = size

    def _create(self, name: str, path: Path) -> None:
        try:
            self.store.upload(path, name, f"{name}.tmp")
        except Changed:
            raise PackError(f"{self.place} became a pack meanwhile, of another command; give another --out") from None

    def _attempt(self) -> str:
        """Return what is equal for runs that write the same bytes: 12 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._told()).encode()).hexdigest()[:12]

    def _told(self) -> dict[str, Any]:
        found = json.loads((self.folder / UNFINISHED).read_bytes())
        return {name: found[name] for name in ("plan", "inputs")}

    def _check_ours(self) -> None:
        """Raise PackError where the packing was put together or begun anew since this process has read its mark."""
        try:
            found = json.loads(self.store.read(UNFINISHED)[0])
        except (FileNotFoundError, ValueError):
            found = {}
        if {name: found.get(name) for name in self._told()} != self._told() or MERGING in found:
            raise PackError(
                f"{self.place}: the packing that this is a part of was put together or begun anew meanwhile; nothing "
                "is changed any more"
            )

    def write(self, name: str, content: bytes) -> None:
        write_durably(self.folder / name, content)
        if name != UNFINISHED:
            return self.send(name)
        try:
            self._mark = self.store.write(name, content, self._mark)
        except Changed:
            found, self._mark = self.store.read(name)
            if found == content:  # another part of the same has begun at the same time
                return
            raise PackError(
                f"{self.place}: another command began or goes on with a packing there; run this one again when it is "
                "done"
            ) from None
        self.store.prove_conditions(name, content)
        self._note(name, len(content))

    def delete(self, *names: str) -> None:
        super().delete(*names)
        sizes = self._sizes
        there = names if sizes is None else [name for name in names if sizes.pop(name, None) is not None]
        if there:
            self.store.delete(*there)

    def rename(self, name: str, other: str) -> None:
        os.replace(self.folder / name, self.folder / other)
        self.store.overwrite(self.folder / other, other)
        self._note(other, (self.folder / other).stat().st_size)
        self.delete(name)

    def settle(self, names: Mapping[str, str]) -> None:
        """Do so by copies in the store; what they are copies of is deleted with all else that tasks have left."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pass-pack") as pool:
            for other, size in pool.map(self._copy, names.items()):
                self._note(other, size)

    def _copy(self, names: tuple[str, str]) -> tuple[str, int]:
        name, other = names
        self.store.copy(name, other)
        return other, self.size_of(name) or 0

    def look_again(self) -> None:
        self._sizes = self.store.sizes()

    def close(self) -> None:
        told = json.loads((self.folder / UNFINISHED).read_bytes())
        self.write(UNFINISHED, json.dumps({**told, MERGING: True}).encode())
        self._closed = True


def delete_others(out: Destination, kept: set[str]) -> None:
    """Delete tars and tables of an earlier run, whose sources changed: it had more of them."""
    out.delete(*(name for name in out.names() if is_shard_file(name) and name not in kept))


@contextlib.contextmanager
def destination(out: str | Path, storage_options: Mapping[str, Any] | None = None) -> Iterator[Destination]:
    """Give the destination of a path or URL; a local folder of a store lies in TMPDIR, and is deleted in the end.

    Raises PackError for a store that can only be read, ValueError for storage_options of a directory.
    """
    if isinstance(out, str) and is_url(out):
        with working_folder() as folder:
            (folder / "pack").mkdir()
            yield InStore(Address.of(out, folder, None, storage_options), folder / "pack")
    elif storage_options is not None:
        raise ValueError(f"{out} is a directory: storage_options are for stores")
    else:
        yield Destination(Path(out))


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """Give a temporary folder; what processes that were killed have left of theirs is deleted."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _YOUNG_S:
                _delete_unlocked(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def _delete_unlocked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
