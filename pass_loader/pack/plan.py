"""The plan of a packing: its tasks, a pure function of the sources' names, sizes and times, and what every task must
know.

A task is a row of whole sources, or a part of a large tar. It needs no other task's data, and a machine that runs it
needs nothing but the sources and the directory of the pack.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import PackError
from ..keys import check_seed
from ..remote.address import is_url
from ..remote.stream import RemoteObject, Stores, name_of
from .archives import TarSource
from .beton import BetonSource
from .destination import Destination
from .layout import JPEG_CODECS, PLAN
from .limits import limits
from .metadata import columns_of
from .published import check_md5
from .remote_sources import known_by
from .shards import Options
from .source import IDS, Naming, Source
from .sources import open_places, open_source, places_of

ON_DUPLICATE = ("keep", "first", "error")
TRANSCODE = (False, "jpeg", "png")
TASK_BYTES = 16 << 30


@dataclass(frozen=True)
class TaskPart:
    """A source, by its place in the plan, or of a tar the members that begin in [start, end); None: up to its end."""

    source: int
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Chosen:
    """The options of a packing, as `build` explains them."""

    options: Options
    naming: Naming
    metadata: tuple[Path, str] | None = None  # the table, and its column of ids
    shard_bytes: int = 1 << 30
    task_bytes: int = TASK_BYTES
    md5: bool = False
    shuffle: int | None = None

    def __post_init__(self) -> None:
        if self.shard_bytes < 1 or self.task_bytes < 1:
            raise ValueError(f"shard_bytes is {self.shard_bytes}, task_bytes {self.task_bytes}: want at least 1")
        if self.shuffle is not None:
            check_seed(self.shuffle)
        options = self.options
        limits(options.max_pixels, options.max_scans)
        if options.transcode not in TRANSCODE:
            raise ValueError(f"transcode is {options.transcode!r}, want one of {TRANSCODE}")
        if options.codec not in JPEG_CODECS:
            raise ValueError(f"codec is {options.codec!r}, want one of {JPEG_CODECS}")
        if options.on_duplicate not in ON_DUPLICATE:
            raise ValueError(f"on_duplicate is {options.on_duplicate!r}, want one of {ON_DUPLICATE}")
        if self.naming.id not in ("", *IDS):
            raise ValueError(f"id is {self.naming.id!r}, want one of {IDS}")
        if self.naming.image_key is not None and self.naming.class_folders:
            raise PackError("--image-key is for samples, --class-folders for tars that have none: give one of them")


@dataclass(frozen=True)
class Plan:
    """What is packed, and how.

    command: of JSON's types, equal for the same sources and options. stamps: by which each source is known, as it was
    when the plan was made. sizes: of the sources, in bytes. classes: of each source, as far as its listing is not
    needed for them. metadata_columns: those of the table that go into the pack. checked_md5: lines for the report.
    source_options: obstore's configuration of remote sources, which is not saved.
    """

    command: dict[str, Any]
    stamps: list[list[Any]]
    sizes: list[int]
    classes: list[list[str]]
    tasks: list[list[TaskPart]]
    metadata_stamp: list[Any] | None
    metadata_columns: list[str]
    checked_md5: list[str]
    source_options: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def sources(self) -> list[str]:
        """The paths and URLs of the sources."""
        return self.command["sources"]

    @property
    def paths(self) -> list[Path]:
        """The paths of those in the file system."""
        return [Path(source) for source in self.sources if not is_url(source)]

    @cached_property
    def names(self) -> list[str]:
        """The last parts of the sources' paths and URLs."""
        return [name_of(source) if is_url(source) else Path(source).name for source in self.sources]

    @cached_property
    def _stores(self) -> Stores:
        return Stores(self.source_options, "source_options")

    def streams(self, task: int) -> bool:
        """Return True where a task has a remote source."""
        return any(is_url(self.sources[part.source]) for part in self.tasks[task])

    @property
    def options(self) -> Options:
        return Options(**self.command["options"])

    @property
    def naming(self) -> Naming:
        return Naming(**self.command["naming"])

    @property
    def metadata(self) -> tuple[Path, str] | None:
        found = self.command["metadata"]
        return (Path(found[0]), found[1]) if found is not None else None

    def numbers(self, index: int, of: int | None) -> range:
        """Return the task `index`, or every `of`-th from it on. Raises ValueError where there is no such task."""
        count = len(self.tasks)
        if index < 0 or index >= (count if of is None else of):
            known = f"the plan has {count} tasks, which begin with 0" if of is None else f"want one below {of}"
            raise ValueError(f"index is {index}: {known}")
        return range(index, index + 1) if of is None else range(index, count, of)

    def sources_of(self, task: int) -> list[tuple[TaskPart, Source]]:
        """Open a task's sources.

        Raises PackError for one that is not as it was when the plan was made; one that `has_files` is not checked. A
        remote one is checked while it is read.
        """
        found = []
        for part in self.tasks[task]:
            source = open_source(self.place(part.source), self.naming, part.start, part.end)
            if not source.has_files:
                self.check(part, source.stamp())
            found.append((part, source))
        return found

    def place(self, source: int) -> Path | RemoteObject:
        """Return where a source lies."""
        place = self.sources[source]
        return self._stores.object(place, known_by(self.stamps[source])) if is_url(place) else Path(place)

    def check(self, part: TaskPart, stamp: list[Any]) -> None:
        """Raise PackError where a source has another stamp than the plan says."""
        if stamp != self.stamps[part.source]:
            raise PackError(
                f"{self.sources[part.source]} is not as it was when the plan was made: plan again with the same "
                "command; tasks whose sources are the same need not run again"
            )

    def digest_of(self, task: int) -> str:
        """Return a digest of what a task is made of: equal for equal sources, parts and options."""
        parts = [[self.stamps[part.source], asdict(part)] for part in self.tasks[task]]
        return _digest([self._command_digest, parts])

    @cached_property
    def _command_digest(self) -> str:
        return _digest(self.command)

    def bytes_of(self, task: int) -> int:
        """Return about how many bytes a task reads."""
        return sum(
            (self.sizes[part.source] if part.end is None else part.end) - part.start for part in self.tasks[task]
        )

    @cached_property
    def inputs(self) -> str:
        """A digest of all sources as they were when the plan was made."""
        return _digest([self.stamps, self.metadata_stamp, [[asdict(part) for part in parts] for parts in self.tasks]])

    def save(self, out: Destination) -> None:
        told = asdict(replace(self, source_options=None))
        del told["source_options"]
        out.write(PLAN, json.dumps({**told, "digest": _digest(told)}).encode())

    @classmethod
    def load(cls, root: Path, source_options: Mapping[str, Any] | None = None) -> Plan:
        """Read a directory's plan. Raises PackError where there is none, or another than was saved."""
        try:
            found = json.loads((root / PLAN).read_bytes())
            digest = found.pop("digest")
            if digest != _digest(found):
                raise ValueError("it was changed after it was made")
            tasks = [[TaskPart(**part) for part in parts] for parts in found.pop("tasks")]
            return cls(tasks=tasks, source_options=source_options, **found)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise PackError(f"{root / PLAN} cannot be read ({why}): run the same `pass-pack plan` again") from None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_plan(paths: Sequence[str | Path], chosen: Chosen, source_options: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan of packing these sources.

    Sources in a row are a task up to `task_bytes`; a tar that is larger is cut into parts, a task each, which takes a
    walk over its headers; other large sources, and remote tars, are a task each. A shuffled packing is one task.
    source_options: obstore's configuration of remote sources. Raises PackError for unusable sources.
    """
    places = places_of(paths, source_options)
    sources = open_places(places, chosen.naming)
    if chosen.options.in_place:
        _check_in_place(sources)
    for source in sources if chosen.shuffle is not None else []:
        if source.streamed:
            raise PackError(f"{source.place} is remote, and read once, in its order: a pack of it is not shuffled")
        if not source.at_random:
            raise PackError(
                f"{source.path} is a Parquet file, whose rows can be read in their order alone: to pack them shuffled, "
                "build a pack without --shuffle, `pass-pack export` it as WebDataset tars, and build from those"
            )
    if chosen.naming.class_folders and not any(isinstance(source, TarSource) for source in sources):
        raise PackError("--class-folders is for tars, and no source is one")
    if chosen.naming.image_key is not None and not any(isinstance(one, (TarSource, BetonSource)) for one in sources):
        raise PackError("--image-key is for tars and FFCV's files, and no source is one")
    metadata, metadata_stamp, metadata_columns = None, None, []
    files = [place for place in places if isinstance(place, Path)]
    if chosen.md5 and len(files) < len(places):
        raise PackError("--md5 reads sources before they are packed, and remote ones are read once: leave it out")
    if chosen.metadata is not None:
        table, key = chosen.metadata
        metadata, metadata_stamp = [os.path.abspath(table), key], _stamp(table)
        metadata_columns = columns_of(table, key, chosen.options.gps)
        files.append(table)
    checked = [check_md5(path) for path in files] if chosen.md5 else []
    for source in sources:
        source.check_quickly()
    surveys = [source.survey() for source in sources]
    command = {
        "sources": [place.url if isinstance(place, RemoteObject) else os.path.abspath(place) for place in places],
        "metadata": metadata,
        "shard_bytes": chosen.shard_bytes,
        "task_bytes": chosen.task_bytes,
        "shuffle": chosen.shuffle,
        "options": chosen.options.as_plan(),
        "naming": {name: value for name, value in asdict(chosen.naming).items() if value},
    }
    sizes, stamps = [size for size, _ in surveys], [stamp for _, stamp in surveys]
    tasks = _tasks(sources, sizes, chosen)
    classes = [source.classes() for source in sources]
    return Plan(command, stamps, sizes, classes, tasks, metadata_stamp, metadata_columns, checked, source_options)


def _tasks(sources: list[Source], sizes: list[int], chosen: Chosen) -> list[list[TaskPart]]:
    if chosen.shuffle is not None:  # an order of all entries, which takes a list of all
        return [[TaskPart(place) for place in range(len(sources))]]
    tasks: list[list[TaskPart]] = []
    filled = 0
    for place, (source, size) in enumerate(zip(sources, sizes)):
        if size > chosen.task_bytes and isinstance(source, TarSource) and not source.streamed:
            cuts = source.cuts(chosen.task_bytes)
            tasks += [[TaskPart(place, start, end)] for start, end in zip([0, *cuts], [*cuts, None])]
            filled = chosen.task_bytes
        elif tasks and filled + size <= chosen.task_bytes:
            tasks[-1].append(TaskPart(place))
            filled += size
        else:
            tasks.append([TaskPart(place)])
            filled = size
    return tasks


def _check_in_place(sources: list[Source]) -> None:
    for source in sources:
        if not isinstance(source, TarSource):
            raise PackError(
                f"{source.place} is no tar: only tars can be read in place; `pass-pack build` copies it into a pack"
            )
    if len({source.streamed for source in sources}) > 1:
        raise PackError("a pack refers to tars in stores or to tars of this machine, not to both: index them apart")
    names = sorted(source.name for source in sources)
    if len(set(names)) < len(names):
        raise PackError(f"two tars have the same name, by which they would be found again: {names}; rename one")


def _stamp(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}") from None
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
