"""Functions run on several ranks of torch.distributed, each a process; processes killed; this process's threads."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Sized
from pathlib import Path
from typing import Any

import torch

from .forked import ready


def free_port() -> str:
    """Return a TCP port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def in_rank(rank: int, world: int, port: str, queue: Any, main: Callable[..., Any], arguments: Any) -> None:
    """What a process of `on_ranks` does: puts (rank, result or error) into the queue."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    try:
        queue.put((rank, main(rank, world, *arguments)))
    except BaseException as error:
        queue.put((rank, error))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_ranks(main: Callable[..., Any], *arguments: Any, world: int = 2) -> list[Any]:
    """Call main(rank, world, *arguments) in `world` processes; returns the results in order of ranks."""
    context = ready()
    queue, port = context.Queue(), free_port()
    children = [context.Process(target=in_rank, args=(rank, world, port, queue, main, arguments))
                for rank in range(world)]  # fmt: skip
    for child in children:
        child.start()
    found = dict(queue.get(timeout=180) for _ in children)
    for child in children:
        child.join(60)
    for result in found.values():
        if isinstance(result, BaseException):
            raise result
    return [found[rank] for rank in range(world)]


def killed_in_the_middle(command: list[str], environment: dict[str, str], log: Sized, seconds: float) -> bool:
    """Run a command, and kill it so long after it has begun. Returns False where it ended before, without an error.

    log: grows when it begins.
    """
    before = len(log)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(log) == before:
            time.sleep(0.01)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    assert process.returncode == 0
    return False


def native_threads(name: str = "pass-", but: Collection[Path] = ()) -> list[Path]:
    """Return the folders in /proc of this process's threads whose names begin so, but for some.

    The native half's are pass-render, pass-scout and pass-reader. Of the last there are as many as storage is slow,
    so that a test that counts all threads depends on the machine.
    """
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            if (task / "comm").read_text().startswith(name) and task not in but:
                found.append(task)
    return found


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until another thread has made it so. Raises AssertionError where it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.001)
