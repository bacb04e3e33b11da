"""A folder of what the tasks of a command have made and found, so that the command goes on after it was cut off."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import PackError
from .layout import changing, locked, make_directory, read_whole, write_by_many
from .plain_json import plain_json

_ABOUT = "command.json"
_MOST_BYTES = 1 << 30


@contextlib.contextmanager
def task_folder(root: Path, command: dict[str, Any], shared: bool) -> Iterator[None]:
    """Hold the folder of a command, made if missing.

    command: of JSON's types, equal for what is to be done alike. shared: hold it together with others who share it.
    Raises PackError where the folder is another command's, or is held by others.
    """
    about = json.dumps(command, sort_keys=True).encode()
    with changing(root, "; it goes on after the last whole task"):
        make_directory(root, exist_ok=True)
        with locked(root, wait_s=0, shared=shared):
            found = {path.name for path in root.iterdir()}
            if (root / _ABOUT).exists():
                if read_whole(root / _ABOUT, _MOST_BYTES) != about:
                    raise PackError(
                        f"in {root} lies what another command left, of another pack or with other options: run that to "
                        "go on, or delete the folder"
                    )
            elif any(not name.startswith(_ABOUT) for name in found):
                raise PackError(f"{root} is not empty and none of ours: it holds {min(found)}")
            else:
                write_by_many(root / _ABOUT, about)
            yield


def kept(root: Path, task: int, stamp: Any = None) -> Any | None:
    """Return what a task has found, as `keep` kept it with an equal stamp, else None."""
    try:
        found = plain_json(read_whole(_path(root, task), _MOST_BYTES))
        return found["found"] if found["stamp"] == json.loads(json.dumps(stamp)) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def keep(root: Path, task: int, stamp: Any, found: Any) -> Any:
    """Keep what a task has found, and return it. Both are of JSON's types. What the task has written lasts already."""
    write_by_many(_path(root, task), json.dumps({"stamp": stamp, "found": found}).encode())
    return found


def _path(root: Path, task: int) -> Path:
    return root / f"task-{task:05d}.json"


def delete_folder(root: Path) -> None:
    """Delete a folder when all is done.

    What is kept of tasks goes first, what says whose it is last: cut off, the same command begins anew.
    """
    with contextlib.suppress(OSError):
        for path in root.glob("task-*.json"):
            path.unlink()
        for path in root.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _ABOUT:
                path.unlink()
        (root / _ABOUT).unlink(missing_ok=True)
        root.rmdir()
