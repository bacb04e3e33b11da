"""kill -9 at every change of the disk: `crashes` runs a function once for each, in a process that dies just before it.

python -m tests.helpers.crash MODULE:FUNCTION START OUT EVERY: copies START to OUT/1, OUT/(1 + EVERY), ... and calls
FUNCTION(OUT/n) in a child that is killed before its n-th opening for writing, fsync, rename or deletion, until one
lives to its end.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path


def crashes(function: str, start: Path, out: Path, every: int = 1) -> list[Path]:
    """Return the directories that the killed processes left, in order; the last is that of the one that lived."""
    command = [sys.executable, "-m", "tests.helpers.crash", function, str(start), str(out), str(every)]
    subprocess.run(command, check=True)
    return sorted(out.iterdir(), key=lambda path: int(path.name))


def _die_at(step: int) -> None:
    count = 0

    def event() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

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


def _main(function: str, start: Path, out: Path, every: int) -> None:
    module, name = function.split(":")
    action = getattr(importlib.import_module(module), name)
    out.mkdir()
    for step in range(1, 1000, every):
        place = out / str(step)
        shutil.copytree(start, place)
        child = os.fork()
        if child == 0:
            _die_at(step)
            try:
                action(place)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("it never comes to its end")


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
