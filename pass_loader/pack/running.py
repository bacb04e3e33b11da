"""How tasks are run: by threads here, on a Ray cluster, or a share of them alone, as a batch system starts it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import PackError
from .cores import usable_cores
from .layout import MANIFEST, stamp_of
from .ray_runner import RUNNERS, run_on_ray
from .reader import Pack

T = TypeVar("T")


def in_order(calls: Iterable[Callable[[], T]], workers: int, take: Callable[[T], object] = lambda _: None) -> None:
    """Call functions by threads, and `take` what they return, in their order.

    workers: threads. So many calls and one more are begun before what the first of them returns is taken. Where one
    raises, or the iterable or `take` does, those that run come to their end first.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pass-pack") as pool:
        try:
            for call in calls:
                pending.append(pool.submit(call))
                while len(pending) > workers:
                    take(pending.popleft().result())
            while pending:
                take(pending.popleft().result())
        finally:
            for future in pending:
                future.cancel()


@dataclass(frozen=True)
class Running:
    """Where tasks are run, and which.

    workers: threads; None: one a core. On Ray those of a task, which asks for as many CPUs; None: one. runner,
    ray_address: as `build` explains them. share: (index, of): every of-th task from index on; None: all.
    Raises ValueError for what makes no sense.
    """

    workers: int | None = None
    runner: str = "local"
    ray_address: str | None = None
    share: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}: want at least 1")
        if self.runner not in RUNNERS:
            raise ValueError(f"runner is {self.runner!r}, want one of {RUNNERS}")
        if self.ray_address is not None and self.runner != "ray":
            raise ValueError("ray_address is for runner='ray'")
        if self.share is not None:
            index, of = self.share
            if not 0 <= index < of:
                raise ValueError(f"share is {index} of {of}: want the first number from 0 on and below the second")
            if self.runner != "local":
                raise ValueError("a share of the tasks is run here, without a runner")

    @property
    def threads(self) -> int:
        return self.workers or (usable_cores() if self.runner == "local" else 1)

    def chosen(self, tasks: Sequence[T]) -> Sequence[T]:
        """Return the tasks of the share, or all."""
        return tasks if self.share is None else tasks[self.share[0] :: self.share[1]]


class PackJob(Hashable, Protocol):
    """The tasks of a command that reads a pack. It can be pickled, and so can its tasks."""

    def on(self, pack: Pack, progress: Callable[[int], None]) -> Callable[[Any], Any]:
        """Return the function of one task. progress: called with the bytes of each record done."""

    def held(self) -> AbstractContextManager[PackJob]:
        """Return what a task on another machine runs in; it gives the job as it is there."""


def run(
    job: PackJob,
    pack: Pack,
    tasks: Sequence[Hashable],
    how: Running,
    take: Callable[[Any], object],
    bytes_of: Callable[[Any], int],
    progress: Callable[[int], None],
) -> None:
    """Run tasks, those of the share where there is one, and `take` what each returns, in their order.

    bytes_of: how much a task reads, for `progress` on Ray.
    """
    chosen = how.chosen(tasks)
    if how.runner == "local":
        do = job.on(pack, progress)
        in_order((partial(do, task) for task in chosen), how.threads, take)
        return
    at, cpus = _PackAt.of(pack), how.threads
    groups = [chosen[start : start + cpus] for start in range(0, len(chosen), cpus)]
    calls = [(at, job, group, cpus) for group in groups]
    for results in run_on_ray(
        _run_there, calls, address=how.ray_address, cpus=cpus,
        done=lambda place: progress(sum(map(bytes_of, groups[place]))),
    ):  # fmt: skip
        for result in results:
            take(result)


def _run_there(at: _PackAt, job: PackJob, tasks: Sequence[Hashable], workers: int) -> list[Any]:
    found: list[Any] = []
    with job.held() as here:
        do = _opened(at, here)
        in_order((partial(do, task) for task in tasks), workers, found.append)
    return found


@lru_cache(maxsize=1)
def _opened(at: _PackAt, job: PackJob) -> Callable[[Any], Any]:
    """Prepare for many calls of one process."""
    return job.on(_opened_pack(at), lambda _: None)


@lru_cache(maxsize=1)
def _opened_pack(at: _PackAt) -> Pack:
    return at.open()


class _PackAt(NamedTuple):
    """A pack as another machine opens it.

    known_by: what it is known by here. stamp: of its index, so that one that was made again is opened again.
    """

    path: str
    given: tuple[tuple[str, Any], ...]
    known_by: tuple[str, int, int]
    stamp: tuple[int, ...] | None

    @classmethod
    def of(cls, pack: Pack) -> _PackAt:
        given: dict[str, Any] = {}
        if pack.remote is not None:
            address = pack.remote.address
            given = {"cache": address.cache, "cache_bytes": address.cache_bytes}
            given["storage_options"] = tuple(sorted(address.options.items()))
        path = pack.remote.address.url if pack.remote is not None and pack.stored else os.path.abspath(pack.path)
        return cls(path, tuple(given.items()), _known_by(pack), stamp_of(pack.path / pack.manifest.get("index", "")))

    def open(self) -> Pack:
        """Raises PackError where the pack was changed."""
        given = dict(self.given)
        if "storage_options" in given:
            given["storage_options"] = dict(given["storage_options"])
        pack = Pack(self.path, **given)
        if _known_by(pack) != self.known_by:
            raise PackError(f"{pack.place} was changed meanwhile: run the same command again")
        return pack


def _known_by(pack: Pack) -> tuple[str, int, int]:
    return pack.pack_id, pack.revision, pack.generation


def known_as(pack: Pack) -> list[Any]:
    """Return, of JSON's types, where a pack lies and what changes with its content, metadata and removals."""
    checks = {name: crc for name, crc in pack.manifest.get("crc32c", {}).items() if name != MANIFEST}
    digest = hashlib.sha256(json.dumps(checks, sort_keys=True).encode()).hexdigest()[:32]
    return [pack.known_place, *_known_by(pack), digest]


def shard_bytes(pack: Pack) -> Callable[[int], int]:
    """Return the function that gives the bytes of a shard's records, by its number; 0 where there is no such shard."""

    def bytes_of(shard: int) -> int:
        return sum(int(pack.column("length")[first:end].sum()) for first, end in spans(pack, [shard]))

    return bytes_of


def spans(pack: Pack, shards: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first record of each shard, and the first of the next; nothing where there is no such shard."""
    for shard in shards:
        if shard < len(pack.shards):
            yield int(pack.first_record[shard]), int(pack.first_record[shard + 1])
