"""Folders and tars, written and read; folders in memory."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .sealing import undated

MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Make an empty folder, in memory where there is a place for it: a disk takes long for thousands of small files."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        yield Path(name)


def members_of(path: Path) -> dict[str, bytes]:
    """Read the files in a tar."""
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder; returns the folder."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Read the files in a folder without folders; of a pack not the note of the command that made it."""
    return {path.name: path.read_bytes() for path in root.iterdir() if path.name != "finished"}


def tree(root: Path) -> dict[str, bytes]:
    """Read all files in and below a folder, or a file; of a pack not the note of the command, nor dates of removals."""
    if root.is_file():
        return {"": root.read_bytes()}
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found.pop("finished", None)
    return undated(found) if "removed.jsonl" in found else found


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar of files; returns its path."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
