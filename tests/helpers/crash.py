"""kill -9 at every change of the disk: `crashes` runs a function once for each, in a process that dies just before it.

It copies START to OUT/1, OUT/2, ... and calls FUNCTION(OUT/n) in a child that is killed before its n-th opening for
writing, fsync, rename or deletion, until one lives to its end: at each n under `make long`. Elsewhere a first run
counts, and leaves out where the files are those of n - 1 (after an fsync, or a file without a name); of the others each
EVERY-th is taken.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from .forked import usual
from .trials import LONG


def crashes(function: str, start: Path, out: Path, every: int = 1) -> list[Path]:
    """Return the directories that the killed processes left, in order; the last is that of the one that lived."""
    done = usual().run("from tests.helpers.crash import main; main()", [function, start, out, every])
    assert done.returncode == 0, done.stderr
    return sorted(out.iterdir(), key=lambda path: int(path.name))


def _at_each_step(event: Callable[[], None]) -> None:
    """Call `event` before each change of the disk by this process."""

    def audit(name: str, arguments: tuple[object, ...]) -> None:
        writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or name in ("os.rename", "os.remove", "os.mkdir"):
            event()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        event()
        fsync(descriptor)

    os.fsync = counted_fsync  # type: ignore[assignment]
    sys.addaudithook(audit)


def _die_at(step: int) -> None:
    count = 0

    def event() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    _at_each_step(event)


def _child(work: Callable[[], object]) -> int:
    """Run it in a child; returns the child's status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _files(root: Path) -> dict[Path, bytes | None]:
    found: dict[Path, bytes | None] = {}
    for path in root.rglob("*"):
        try:
            found[path] = path.read_bytes() if path.is_file() else None
        except FileNotFoundError:  # by another thread
            continue
    return found


def _steps(action: Callable[[Path], object], start: Path, place: Path) -> list[int]:
    """Return the numbers of the steps before which the files are others than before the step before it."""
    kept, lock = place.with_name(f"{place.name}.steps"), threading.RLock()
    shutil.copytree(start, place)

    def watch() -> None:
        count, before = 0, None
        with open(kept, "w") as out:

            def event() -> None:
                nonlocal count, before
                with lock:
                    count += 1
                    now = _files(place)
                    if now != before:
                        out.write(f"{count}\n")
                    before = now

            _at_each_step(event)
            action(place)

    status = _child(watch)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    steps = [int(line) for line in kept.read_text().splitlines()]
    shutil.rmtree(place)
    kept.unlink()
    return steps


def main() -> None:
    function, start, out, every = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    module, name = function.split(":")
    action = getattr(importlib.import_module(module), name)
    out.mkdir()
    steps: Iterable[int] = range(1, 1000)
    if not LONG:
        steps = [*_steps(action, start, out.with_name(f"{out.name}-counted"))[::every], 1000]
    for step in steps:
        place = out / str(step)
        shutil.copytree(start, place)

        def work(step: int = step, place: Path = place) -> None:
            _die_at(step)
            action(place)

        status = _child(work)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("it never comes to its end")
