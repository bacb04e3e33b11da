"""Processes that have imported already: a template imports torch and the package once, each run is a fork of it.

For tests that start many processes of the same kind: importing is most of what such a process does. The template has
nothing but imports behind it. Here nothing needs torch: `make wheels` runs tests without it.
"""

from __future__ import annotations

import atexit
import functools
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
IMPORTED = ["pytest", "pass_loader.pack", "pass_loader.cli.main", "torch.utils.data", "pass_loader.loading.loader"]
SECONDS = 300.0  # that a process may take


class Template:
    """Forks processes that have run `imports`, in ROOT, with these variables of the environment from their beginning.

    Its processes run one at a time. Close it, or use it as a context.
    """

    def __init__(self, imports: str, environment: Mapping[str, str] | None = None):
        command = [sys.executable, "-m", "tests.helpers.forked", imports]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self, code: str, arguments: Sequence[object] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `code` as `python -c code *arguments` does; returns how it ended and what it wrote.

        environment: variables that code in Python and the C library's getenv see; what was decided while the process
        began, such as LD_PRELOAD, is the template's.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("stdout", "stderr")]
            told = {"code": code, "arguments": [*map(str, arguments)], "environment": environment or {}, "files": files}
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], SECONDS)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(code, SECONDS)
            status = self._process.stdout.readline()
            assert status, "the template has ended"
            out, errors = (Path(file).read_text() for file in files)
        return subprocess.CompletedProcess(["-c", *told["arguments"]], int(status), out, errors)

    def __enter__(self) -> Template:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()  # a forked process that still runs has its stdin too
        self._process.wait()
        self._process.stdout.close()


def ready() -> Any:
    """Return a context of multiprocessing whose processes have imported torch and the package when they begin.

    What they are given is pickled, as for spawned ones; but they are forked from a server, which has imported once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


@functools.cache
def usual() -> Template:
    """Return this process's template for all that needs no environment of its own."""
    made = Template(f"""
import contextlib, importlib
for name in {IMPORTED}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
""")
    atexit.register(made.close)
    return made


def _become(told: dict[str, object]) -> None:
    """In the fork: what a fresh process of that command has."""
    for number, file in enumerate(told["files"], 1):  # type: ignore[arg-type]
        there = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(there, number)
        os.close(there)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.environ.update(told["environment"])  # type: ignore[call-overload]
    sys.argv = ["-c", *told["arguments"]]  # type: ignore[misc]


def main() -> None:
    """Import, then fork for each line of stdin; returns in the forks alone, which end as scripts do."""
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(sys.argv[1], names)
    requests, replies = os.fdopen(os.dup(0), "rb", buffering=0), os.dup(1)
    while line := _line(requests.fileno()):
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            requests.close()
            os.close(replies)
            _become(told)
            exec(compile(told["code"], "<string>", "exec"), names)
            return
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(replies, f"{status}\n".encode())


def _line(descriptor: int) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        part = os.read(descriptor, 1)
        if not part:
            return b""
        found += part
    return found


if __name__ == "__main__":
    main()
