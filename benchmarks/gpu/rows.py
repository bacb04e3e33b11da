"""Rows of a table, measured in fresh processes that have so many cores and no more.

A library that crashes or hangs loses its own row, with the reason, and the next row has a new process; what it keeps
ends with its group's process. Processes are forked from one that has imported torch and has not touched a GPU.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch

PRELOAD = ["benchmarks.torchvision_cpu", "benchmarks.gpu.loading", "benchmarks.gpu.rendering"]
NO_TIME = "left out: the time was used up"
STARTS_S = 60.0  # importing torch on a busy machine
GRACE_S = 15.0  # which a row that has begun has beyond the deadline


@dataclasses.dataclass(frozen=True)
class Row:
    """keys: what it is of. measure: a function at the top of its module, which returns the figures."""

    keys: dict[str, Any]
    measure: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]


def figures(row: Row) -> dict[str, Any]:
    """Return what `measure` found, or the reason why it did not."""
    try:
        return row.measure(**row.arguments)
    except BaseException as error:  # also what a library raises to end its process
        return {"reason": f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]}


def _serve(connection: Connection, cores: int) -> None:
    """In the fresh process: figures for the rows that come, until there are no more."""
    os.setsid()  # so that it can be ended together with its workers
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)
    while (row := connection.recv()) is not None:  # which imports the module of its `measure`
        connection.send("begun")
        connection.send(figures(row))


class Fresh:
    """A process that has `cores` cores. Ended together with all that it started when the block is left."""

    def __init__(self, cores: int):
        self._cores, self.alive = cores, True

    def __enter__(self) -> Fresh:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._cores))
        self._process.start()
        theirs.close()
        return self

    def figures(self, row: Row, patience: float) -> dict[str, Any]:
        try:
            self._connection.send(row)
            for seconds in (STARTS_S, patience):  # until it has begun, then until its figures are there
                if not self._connection.poll(seconds):
                    reason = f"no answer within {seconds:.0f} s"
                    break
                answer = self._connection.recv()
            else:
                return answer
        except (EOFError, OSError):
            self._process.join(5)
            reason = f"the process ended with {self._process.exitcode}"
        self.alive = False
        return {"reason": reason}

    def __exit__(self, *_: object) -> None:
        try:
            self._connection.send(None)
        except OSError:
            pass
        self._process.join(5 if self.alive else 0)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # workers that are left, too
        except ProcessLookupError:
            pass
        self._process.join()


def measured(rows: Iterable[Row], cores: int, deadline: float, patience: float) -> Iterator[dict[str, Any]]:
    """Each row's keys and figures, in their order, from as few processes as it takes.

    deadline: by time.monotonic; rows that have not begun by then are left out. patience: seconds a row may take.
    """
    waiting, there = deque(rows), len(os.sched_getaffinity(0))
    while waiting:
        if cores > there or time.monotonic() > deadline:
            reason = f"this machine has {there} cores" if cores > there else NO_TIME
            yield from ({**row.keys, "reason": reason} for row in waiting)
            return
        with Fresh(cores) as process:
            while waiting and process.alive and time.monotonic() <= deadline:
                row = waiting.popleft()
                left = deadline + GRACE_S - time.monotonic()
                yield {**row.keys, **process.figures(row, min(patience, left))}
