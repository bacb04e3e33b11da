"""A task of a plan: its sources become shards, each a tar with a file of rows beside it, and a note of what it saw.

Which entries share a shard depends on their listed sizes only. A task may run any number of times, at one time too:
every run writes the same bytes, under temporary names of its own, and what is published is not written again.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..errors import PackError
from ..permutation import permute
from .destination import Destination
from .foreign import stamp, stamp_of_object
from .layout import publish, temporary_of
from .metadata import Seen
from .own_columns import own_name
from .plan import Plan, TaskPart
from .remote_sources import RemoteTarSource
from .report import Refusal
from .running import in_order
from .shards import Shard, ShardWriter, refusal
from .source import Entry, EntryFile, Listing, Source

_TAR_BLOCK = 512
SHARD_RECORDS = 1 << 14  # at the most: what is known of a shard's pictures lies in memory


@dataclass
class Note:
    """What a task that is done has seen. Its refusals stand in a file beside, if any.

    digest: Plan.digest_of the task. shards: their names, in order. beside: files that were passed over, by suffix.
    foreign: of a pack in place, by source: stamps of its tars.
    """

    digest: str
    shards: list[str] = field(default_factory=list)
    beside: dict[str, int] = field(default_factory=dict)
    foreign: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, out: Destination, plan: Plan, task: int) -> Note | None:
        """Return the note of a task that is done; None where it is not, or was of other sources or options."""
        name = f"{task_name(task)}.json"
        try:
            out.bring(name)
            note = cls(**json.loads((out.folder / name).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return note if note.digest == plan.digest_of(task) else None


def task_name(task: int) -> str:
    return f"task-{task:05d}"


def refused_path(root: Path, task: int) -> Path:
    """Return the file of what the listing of a task's sources showed to be no pictures."""
    return root / f"{task_name(task)}.refused"


class Task:
    """One run of a task. `shards` gives what can be done by any number of threads, `finish` is the last step."""

    def __init__(self, out: Destination, plan: Plan, number: int, progress: Callable[[int], None]):
        self.out, self.root = out, out.folder
        self.plan, self.number, self.progress = plan, number, progress
        self.note = Note(plan.digest_of(number))
        self._writer = ShardWriter(out, plan.options, progress, plan.inputs)
        self._refused = temporary_of(refused_path(self.root, number))
        self._refused_file: TextIO | None = None
        self._beside: Counter[str] = Counter()
        self._lock = _lock(self.root, number)

    def shards(self) -> Iterator[Callable[[], Shard]]:
        """Yield, in order, functions that write a shard each, or find it where it was written before."""
        for name, source, entries in self._groups():
            yield partial(self._writer.keep_or_write, name, list(entries), source)

    def stream(self, threads: int, stopped: threading.Event) -> Iterator[Shard]:
        """Write shards, or find them where they were written before, while the sources are read once.

        threads: that look at pictures. stopped: where it is set, the task is given up: it raises CancelledError.
        """

        def until_stopped(entries: Iterable[Entry]) -> Iterator[Entry]:
            for entry in entries:
                if stopped.is_set():
                    raise CancelledError
                yield entry

        for number, (name, source, entries) in enumerate(self._groups()):
            made_of = f"{self.note.digest} {number}"
            yield self._writer.keep_or_stream(name, until_stopped(entries), made_of, threads, source)

    def add(self, shard: Shard) -> None:
        """Take note of a shard that is written, in their order."""
        self.note.shards.append(shard.name)

    def finish(self) -> None:
        """Publish what the task has seen: now it is done."""
        self.note.beside = dict(self._beside)
        path = self.root / f"{task_name(self.number)}.json"
        temporary = temporary_of(path)
        temporary.write_text(json.dumps(asdict(self.note)), encoding="ascii")
        files, refused = [(temporary, path)], refused_path(self.root, self.number)
        if self._refused_file is not None:
            self._refused_file.close()
            files.insert(0, (self._refused, refused))
        else:
            self.out.delete(refused.name)
        publish(*files)
        self.out.send(*(published.name for _, published in files))
        self._unlock()

    def close(self) -> None:
        """Delete what a task that did not come to its end has left; its shards are kept for the next run."""
        if self._refused_file is not None:
            self._refused_file.close()
            self._refused.unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _groups(self) -> Iterator[tuple[str, int | None, Iterator[Entry]]]:
        """Yield each shard's name, the source that holds it in place, and its entries.

        They are to be taken before the next shard's.
        """
        for number, group in groupby(self._numbered(), lambda numbered: numbered[0]):
            first = next(group)
            name = f"shard-{self.number:05d}-{number:03d}"
            source = first[1].source if self.plan.options.in_place else None
            yield name, source, (entry for _, _, entry in chain([first], group))

    def _numbered(self) -> Iterator[tuple[int, TaskPart, Entry]]:
        """Yield the entries, each with the number of its shard, which follows from the listed sizes alone."""
        number = size = count = place = 0
        for part, entry in self._entries() if self.plan.command["shuffle"] is None else self._shuffled():
            padded = _TAR_BLOCK + -(-entry.length // _TAR_BLOCK) * _TAR_BLOCK
            apart = self.plan.options.in_place and part.source != place
            full = size + padded > self.plan.command["shard_bytes"] or count == SHARD_RECORDS
            if count and (full or apart):
                number, size, count = number + 1, 0, 0
            size, count, place = size + padded, count + 1, part.source
            yield number, part, entry

    def _entries(self) -> Iterator[tuple[TaskPart, Entry]]:
        """Yield what may be packed; what the listing shows to be no picture is refused."""
        sources = self.plan.sources_of(self.number)
        for _, source in sources:
            source.check()
        kinds = _Kinds(self.plan)
        for part, source in sources:
            if self.plan.options.in_place:
                known_by = stamp_of_object(source.of) if isinstance(source, RemoteTarSource) else stamp(source.path)
                self.note.foreign[str(part.source)] = known_by
            for entry in self._listed(part, source):
                reason = entry.problem or _bad_id(entry.id)
                if reason is None:
                    kinds.add(entry)
                    yield part, entry
                else:
                    self._refuse(refusal(entry, reason))
            self._beside.update(source.beside)

    def _shuffled(self) -> Iterator[tuple[TaskPart, Entry]]:
        """Yield the same in a keyed order, when all are listed; last those whose id came before, as they are listed."""
        seen = Seen()
        sources: list[Source] = []
        parts: list[TaskPart] = []
        first, later = EntryFile(self.root, sources), EntryFile(self.root, sources)
        for part, entry in self._entries():
            if not sources or sources[-1] is not entry.source:
                sources.append(entry.source)
                parts.append(part)
            (first if seen.is_new(entry.id) else later).append(entry)
        for begin in range(0, len(first), SHARD_RECORDS):
            places = np.arange(begin, min(begin + SHARD_RECORDS, len(first)))
            for entry in first.at(permute(places, len(first), self.plan.command["shuffle"]).tolist()):
                yield parts[sources.index(entry.source)], entry
        for entry in later:
            yield parts[sources.index(entry.source)], entry

    def _listed(self, part: TaskPart, source: Source) -> Iterator[Entry]:
        listing = Listing(source)
        try:
            for entry in source.entries():
                if source.has_files:
                    listing.add(entry)
                yield entry
        except OSError as error:
            raise PackError(
                f"{error.filename or source.place} cannot be read: {error.strerror or error}. Where the storage is "
                "failing, copy or download the source again; then run the same command to go on"
            ) from None
        if source.has_files:
            self.plan.check(part, listing.survey()[1])

    def _refuse(self, refused: Refusal) -> None:
        if self._refused_file is None:
            self._refused_file = open(self._refused, "x", encoding="ascii")
        self._refused_file.write(refused.line())


def _lock(root: Path, task: int) -> int:
    """Share a task's lock, and return its descriptor.

    Nobody else has it: then no other run of the task is alive, and what killed ones left is deleted.
    """
    descriptor = os.open(root / f"{task_name(task)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        for pattern in (f"shard-{task:05d}-*.tmp", f"{task_name(task)}.*.tmp"):
            for path in root.glob(pattern):
                path.unlink(missing_ok=True)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


class _Kinds:
    """What the sources of a task say of their pictures must go together: checked when they are listed."""

    def __init__(self, plan: Plan):
        self._table = plan.metadata
        self._columns = {*plan.metadata_columns}
        self._class_name: str | None = None
        self._numbered = False

    def add(self, entry: Entry) -> None:
        """Raise PackError where labels are names and numbers, or a source's own column is the table's too."""
        self._class_name = self._class_name or entry.class_name
        self._numbered |= entry.label is not None
        if self._numbered and self._class_name:
            raise PackError(
                f"some sources have numbers as labels, others names ({self._class_name}): pack them apart "
                f"({entry.source.name}: {entry.name})"
            )
        if self._columns and entry.metadata and (clash := self._columns & {*map(own_name, entry.metadata)}):
            raise PackError(
                f"{entry.source.name} and {self._table and self._table[0]} both have the columns {sorted(clash)}; "
                "rename them"
            )


def run_tasks(
    out: Destination, plan: Plan, numbers: Iterable[int], workers: int, progress: Callable[[int], None]
) -> None:
    """Run tasks here, up to `workers` shards at a time, of one task and of the next.

    Those with remote sources come last, up to `workers` of them at a time.
    """
    left = list(numbers)
    streamed = [number for number in left if plan.streams(number)]
    _run_local(out, plan, [number for number in left if not plan.streams(number)], workers, progress)
    if streamed:
        _run_streamed(out, plan, streamed, workers, progress)


def _run_streamed(
    out: Destination, plan: Plan, numbers: list[int], workers: int, progress: Callable[[int], None]
) -> None:
    at_once = min(workers, len(numbers))
    threads = -(-workers // at_once)
    stopped = threading.Event()

    def run(number: int) -> None:
        if stopped.is_set():
            return
        task = Task(out, plan, number, progress)
        try:
            for shard in task.stream(threads, stopped):
                task.add(shard)
            task.finish()
        finally:
            task.close()

    with ThreadPoolExecutor(at_once, thread_name_prefix="pass-pack") as pool:
        try:
            for done in as_completed([pool.submit(run, number) for number in numbers]):
                done.result()
        finally:
            stopped.set()


def _run_local(out: Destination, plan: Plan, numbers: list[int], workers: int, progress: Callable[[int], None]) -> None:
    begun: list[Task] = []

    def calls() -> Iterator[Callable[[], tuple[Task, Shard | None]]]:
        for number in numbers:
            task = Task(out, plan, number, progress)
            begun.append(task)
            for write in task.shards():
                yield partial(_written, task, write)
            yield partial(_written, task, lambda: None)

    def take(written: tuple[Task, Shard | None]) -> None:
        task, shard = written
        if shard is not None:
            task.add(shard)
        else:
            task.finish()
            begun.remove(task)

    try:
        in_order(calls(), workers, take)
    finally:
        for task in begun:
            task.close()


def _written(task: Task, write: Callable[[], Shard | None]) -> tuple[Task, Shard | None]:
    """Return a task and a shard of it; None where it has no more."""
    return task, write()


def _bad_id(id: str) -> str | None:
    if not id or id in (".", ".."):
        return "its name gives no id"
    try:
        id.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def done(out: Destination, plan: Plan, task: int) -> Note | None:
    """Return the note of a task that is done, with all that it wrote in place, else None."""
    note, inputs = Note.load(out, plan, task), plan.inputs
    whole = note is not None and all(Shard.find(out, name, inputs=inputs) is not None for name in note.shards)
    return note if whole else None


def half_done(out: Destination, plan: Plan) -> list[int]:
    """Return the tasks that were done and lack a shard: it was being written again without repeats, and cut off."""
    notes = ((task, Note.load(out, plan, task)) for task in range(len(plan.tasks)))
    return [task for task, note in notes if note is not None and done(out, plan, task) is None]
