"""Where an export writes its files and keeps what its tasks have found: beside a directory, or in a store."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..errors import PackError
from ..remote.address import Address, is_url
from ..remote.store import Changed
from ..remote.writing import Version, WritableStore
from .destination import working_folder
from .layout import changing, deleted_on_error, make_directory, publish, sync_directory, temporary_of
from .plain_json import plain_json
from .running import in_order
from .task_folder import delete_folder, keep, kept, task_folder

_TABLE = "metadata.csv"
_FILES = "files"  # in the folder of the tasks: what becomes the export
_MARK = "command.json"
_DONE = "done"  # stands in the mark of a store when all files are there: the counts
_AT_ONCE = 16  # small objects on their way
_LONGEST_KEY = 1024  # bytes: of S3 and of Google's; Azure's are counted in characters


class ExportFiles:
    """The files of an export into a directory. They lie in DIR.unfinished, and become DIR when all are there."""

    def __init__(self, out: Path, command: Mapping[str, Any]):
        self.out, self.command = out, dict(command)
        self._folder = out.with_name(f"{out.name}.unfinished")
        self._files = self._folder / _FILES

    @contextlib.contextmanager
    def begun(self, shared: bool) -> Iterator[dict[str, Any] | None]:
        """Hold the place for this command alone, or `shared` with others that run the same one.

        Yields what `complete` was given where the command was cut off after that, else None. Raises PackError where
        something else is there.
        """
        if self.out.exists():
            if not self._files.exists():
                delete_folder(self._folder)  # cut off when all was done
            raise PackError(f"{self.out} exists; give another --out, or delete it")
        with changing(self.out), task_folder(self._folder, self.command, shared=shared):
            make_directory(self._files, exist_ok=True)
            yield None

    def kept(self, task: int) -> Any | None:
        """Return what a task that is done has found, else None."""
        return kept(self._folder, task)

    def keep(self, task: int, found: Any) -> Any:
        """Keep what a task has found, of JSON's types, and return it. Its files are there already."""
        return keep(self._folder, task, None, found)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give a temporary path; what is written there becomes a file of the export."""
        temporary = temporary_of(self._folder / name)
        with deleted_on_error(temporary):
            yield temporary
        publish((temporary, self._files / name))

    @contextlib.contextmanager
    def rows(self, task: int) -> Iterator[Path]:
        """Give a temporary path; what is written there becomes a task's part of metadata.csv."""
        temporary = temporary_of(self._folder / _rows_name(task))
        yield temporary
        publish((temporary, self._folder / _rows_name(task)))

    def write_pictures(self, pictures: Iterable[tuple[str, bytes, str]]) -> None:
        """Write pictures, (name, bytes, id), so that they last. Raises PackError for a name that is too long."""
        for name, data, id in pictures:
            path = self._files / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise _too_long(id) from None
        os.sync()  # many small files at a time

    def join_rows(self, names: Sequence[str], tasks: int) -> None:
        """Write metadata.csv, with columns of these names, of the parts of all tasks."""
        with self.file(_TABLE) as path, open(path, "wb") as whole:
            whole.write(_line(names))
            self._append_rows(whole, tasks)

    def _append_rows(self, whole: IO[bytes], tasks: int) -> None:
        for task in range(tasks):
            with open(self._folder / _rows_name(task), "rb") as part:
                shutil.copyfileobj(part, whole)

    def complete(self, counts: dict[str, int]) -> None:
        """Make the export of its files, and delete what the tasks have kept."""
        sync_directory(self._files)
        self._files.rename(self.out)
        sync_directory(self.out.parent)
        delete_folder(self._folder)


class StoredFiles(ExportFiles):
    """The files of an export into a store, which has no renames: they get their names at once.

    What tasks have found lies below NAME.unfinished beside it, with a mark that says whose it is and goes last: where
    it is gone, the export is complete. Files are written where there are none, so that two runs of a task do no harm.
    """

    def __init__(self, address: Address, store: WritableStore, folder: Path, command: Mapping[str, Any]):
        """address: of the export. store: of the folder above it. folder: a local one, for files that are written."""
        self.command = dict(command)
        self._address, self._store, self._local = address, store, folder
        self._name = address.url.rstrip("/").rpartition("/")[2]
        self._beside = f"{self._name}.unfinished"

    @contextlib.contextmanager
    def begun(self, shared: bool) -> Iterator[dict[str, Any] | None]:
        found = self._mark() or self._first_mark()
        counts = found[0].get(_DONE)
        if self.command != {name: value for name, value in found[0].items() if name != _DONE}:
            raise PackError(
                f"in {self._store.address}{self._beside}/ lies what another command left, of another pack or with "
                "other options: run that to go on, or delete what lies there"
            )
        if counts is not None:
            self._clear()
        yield counts

    def _first_mark(self) -> tuple[dict[str, Any], Version | None]:
        """Write the mark where nothing is, and return it; or return that of a command that began at the same time."""
        for place, what in (self._name, "exists; give another --out, or delete it"), (self._beside, "is none of ours"):
            if self._store.holds_any(place):
                if mark := self._mark():
                    return mark
                raise PackError(f"{self._store.address}{place}/ {what}")
        name, content = f"{self._beside}/{_MARK}", json.dumps(self.command).encode()
        try:
            version = self._store.write(name, content, None)
        except Changed:
            return self._mark() or ({}, None)
        self._store.prove_conditions(name, content)
        return self.command, version

    def _mark(self) -> tuple[dict[str, Any], Version | None] | None:
        """Return what says whose the place is, and its version; None where there is none."""
        try:
            content, version = self._store.read(f"{self._beside}/{_MARK}")
            found = plain_json(content)
        except FileNotFoundError:
            return None
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}, version

    def _check_ours(self) -> Version | None:
        """Return the version of the mark. Raises PackError where the command is done, or another one began here."""
        mark = self._mark()
        if mark is None or mark[0] != self.command:
            raise PackError(
                f"{self._address}: the export that this is a part of was completed or begun anew meanwhile; nothing is "
                "changed any more"
            )
        return mark[1]

    def kept(self, task: int) -> Any | None:
        try:
            return plain_json(self._store.read(self._kept_name(task))[0])
        except (FileNotFoundError, ValueError):
            return None

    def keep(self, task: int, found: Any) -> Any:
        self._check_ours()
        self._create(self._kept_name(task), json.dumps(found).encode())
        return found

    def _kept_name(self, task: int) -> str:
        return f"{self._beside}/task-{task:05d}.json"

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        with self._sent(name, f"{self._name}/{name}") as path:
            yield path

    @contextlib.contextmanager
    def rows(self, task: int) -> Iterator[Path]:
        with self._sent(_rows_name(task), f"{self._beside}/{_rows_name(task)}") as path:
            yield path

    @contextlib.contextmanager
    def _sent(self, name: str, key: str) -> Iterator[Path]:
        path = temporary_of(self._local / name)
        try:
            yield path
            self._check_ours()
            self._told(key, partial(self._store.upload, path, key, f"{self._beside}/{name}.tmp"))
        finally:
            path.unlink(missing_ok=True)

    def _create(self, key: str, content: bytes) -> None:
        self._told(key, partial(self._store.create, key, content))

    def _told(self, key: str, write: Callable[[], None]) -> None:
        try:
            write()
        except Changed:
            raise PackError(
                f"{self._store.address}{key} is there already, with other bytes: of another command, or of another "
                "version of pass-loader or pyarrow. Delete what lies there, then run the same command again"
            ) from None

    def write_pictures(self, pictures: Iterable[tuple[str, bytes, str]]) -> None:
        self._check_ours()
        in_order(self._writes(pictures), _AT_ONCE)

    def _writes(self, pictures: Iterable[tuple[str, bytes, str]]) -> Iterator[partial[None]]:
        for name, data, id in pictures:
            if len(f"{self._address.url}{name}".encode()) > _LONGEST_KEY:
                raise _too_long(id)
            yield partial(self._create, f"{self._name}/{name}", data)

    def _append_rows(self, whole: IO[bytes], tasks: int) -> None:
        read = ((lambda task=task: self._store.read(f"{self._beside}/{_rows_name(task)}")[0]) for task in range(tasks))
        in_order(read, _AT_ONCE, whole.write)

    def complete(self, counts: dict[str, int]) -> None:
        version = self._check_ours()
        mark = json.dumps({**self.command, _DONE: counts}).encode()
        try:
            self._store.write(f"{self._beside}/{_MARK}", mark, version)
        except Changed:
            self._check_ours()
            raise
        self._clear()

    def _clear(self) -> None:
        """Delete what the tasks have kept, the mark last."""
        mark = f"{self._beside}/{_MARK}"
        names = [name for name in self._store.sizes(self._beside) if name != mark]
        if names:
            self._store.delete(*names)
        self._store.delete(mark)


@contextlib.contextmanager
def export_files(
    out: str | Path, command: Mapping[str, Any], storage_options: Mapping[str, Any] | None = None
) -> Iterator[ExportFiles]:
    """Give the place of an export, a path or a URL. command: of JSON's types, equal for what is to be done alike.

    Raises PackError for a store that can only be read or a URL that is a whole bucket, ValueError for storage_options
    of a directory.
    """
    if isinstance(out, str) and is_url(out):
        with working_folder() as folder:
            address = Address.of(out, folder, None, storage_options)
            above, _, name = address.url.rstrip("/").rpartition("/")
            if above.endswith("/") or not name:
                raise PackError(f"{address} is a whole bucket: give a folder of it")
            yield StoredFiles(address, WritableStore(Address.of(above, folder, None, storage_options)), folder, command)
    elif storage_options is not None:
        raise ValueError(f"{out} is a directory: storage_options are for stores")
    else:
        yield ExportFiles(Path(out), command)


def _rows_name(task: int) -> str:
    return f"metadata-{task:05d}.csv"


def _line(names: Sequence[str]) -> bytes:
    """Return a row of CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def _too_long(id: str) -> PackError:
    return PackError(
        f"the id {id[:40]!r} ... of {len(id):,} characters is too long for the name of a file: --format webdataset or "
        "parquet holds it"
    )
