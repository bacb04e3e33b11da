"""A file system of few bytes for a process of its own, which a test can fill to the last one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NOT_HERE = 77
_MOUNTED = f'mount -t tmpfs -o size="$1" none "$2" || exit {_NOT_HERE}; shift 2; "$@"'


def on_a_small_disk(size: str, disk: Path, code: str, *arguments: object) -> None:
    """Run Python code with the folder `disk` as its first argument, a file system of this size that no other process
    sees. Skips the test where none can be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here: no file system of its own can be mounted")
    disk.mkdir()
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-c", _MOUNTED, "sh", size, disk]
    command = [*shell, sys.executable, "-c", code, disk, *arguments]
    done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == _NOT_HERE or "unshare" in done.stdout:
        pytest.skip(f"no file system can be mounted here: {done.stdout.strip()}")
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout}"


def fill(disk: Path) -> Path:
    """Write a file until there is no room for one more byte."""
    path = disk / "filler"
    with open(path, "wb", 0) as file:
        for size in (4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return path
