"""The directory that a pack is made in: whose it is, what an unfinished packing has left there, and the last step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import PackError
from .layout import (
    FINISHED,
    MANIFEST,
    UNFINISHED,
    changing,
    locked,
    make_directory,
    publish,
    read_whole,
    temporary_of,
    write_durably,
)
from .manifest import write_manifest
from .metadata import METADATA_ROWS, METADATA_SCRATCH
from .plain_json import plain_json

_TASK_FILES = r"shard-\d{5,}(-\d{3,})?\.(tar|rows)|task-\d{5,}\.(json|refused|lock)|plan\.json"
_OURS = re.compile(
    rf"({_TASK_FILES}|shard-\d{{5,}}(-\d{{3,}})?\.parquet)(\.[0-9a-f]{{12}})?(\.tmp)?|index\.arrow.*|pack\.json\.tmp|"
    rf"(un)?finished(\.[0-9a-f]{{12}})?(\.tmp)?|locations\.json(\.tmp)?|re(moved|fused)\.jsonl(\.tmp)?|"
    rf"({METADATA_SCRATCH}|{METADATA_ROWS})"
)
_KEPT = re.compile(rf"{_TASK_FILES}|shard-\d{{5,}}\.parquet|unfinished")  # by a packing that goes on
_SCRATCH = re.compile(
    rf".*\.(rows|tmp)|task-\d{{5,}}\.(json|refused|lock)|plan\.json|{METADATA_SCRATCH}|{METADATA_ROWS}"
)
_MOST_BYTES = 64 << 20  # of a mark, which holds a report with 1,000 refusals
_FORMAT = 2  # of the files of an unfinished packing


@contextlib.contextmanager
def workplace(
    root: Path, sources: list[Path], plan: dict[str, Any], inputs: str = "", last: bool = True, shared: bool = False
) -> Iterator[dict[str, Any] | None]:
    """Hold the directory, made if missing, for this process alone, or `shared` with others that run the same plan.

    Yields the report of the same packing where it is finished already or was cut off after its last step, else None.
    plan: what is packed and how; leftovers of another plan are not used. inputs: of a finished pack compared with what
    `complete` was given. sources: must lie apart from the directory. last: the pack is made when this ends. Deletes
    nothing but what an unfinished packing left, and nothing at all where it is shared.
    """
    for source in sources:
        inside, around = source.resolve(), root.resolve()
        if inside == around or around in inside.parents or (source.is_dir() and inside in around.parents):
            raise PackError(f"source {source} and pack {root} lie in one another")
    with contextlib.ExitStack() as stack:
        stack.enter_context(changing(root, "; it goes on after the last whole shard"))
        make_directory(root, exist_ok=True)
        stack.enter_context(locked(root, wait_s=0, shared=shared))
        before = _begin(root, _digest(plan), inputs, tidy=not shared)
        with _room_for_tables():
            yield before
        if (last or before is not None) and not shared:
            _clear(root)


@contextlib.contextmanager
def begun(root: Path, shared: bool = False) -> Iterator[dict[str, Any] | None]:
    """Hold a directory in which `pass-pack plan` began a pack.

    shared: together with others who share it. Yields the report of the pack where it is finished, else None. Raises
    PackError where nothing was begun.
    """
    if not root.is_dir():
        raise PackError(f"{root} is no directory: `pass-pack plan SOURCE... --out {root}` begins a pack there")
    with changing(root), locked(root, shared=shared):
        marked, packed = (root / UNFINISHED).exists(), (root / MANIFEST).exists()
        if not marked and not packed:
            raise PackError(f"{root} holds no plan: `pass-pack plan SOURCE... --out {root}` begins a pack there")
        if marked and not packed:
            _check_format(root, _read(root / UNFINISHED))
        with _room_for_tables():
            yield _read(root / (UNFINISHED if marked else FINISHED)).get("report", {}) if packed else None
        if not shared and (root / MANIFEST).exists():
            _clear(root)


@contextlib.contextmanager
def joined(root: Path) -> Iterator[None]:
    """Hold a directory together with others that make parts of one pack. Raises PackError where none is being made."""
    with begun(root, shared=True) as before:
        if before is not None:
            raise PackError(f"{root} is a pack already")
        yield


@contextlib.contextmanager
def _room_for_tables() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise PackError(
            f"no space is left for the temporary tables of ids that SQLite keeps ({error}): make room in /var/tmp, "
            "or let the variable SQLITE_TMPDIR name a folder that has it, then run the same command again"
        ) from None


def _check_format(root: Path, mark: dict[str, Any]) -> None:
    if mark.get("format") != _FORMAT:
        raise PackError(
            f"in {root} lies an unfinished packing of another version of pass-loader: delete the directory and run the "
            "command again, or finish it with that version"
        )


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _begin(root: Path, plan: str, inputs: str, tidy: bool) -> dict[str, Any] | None:
    """Mark the directory as the place of this plan. tidy: delete what an unfinished packing left and nobody needs."""
    found = [path.name for path in root.iterdir()]
    marked, packed = UNFINISHED in found or (root / UNFINISHED).exists(), MANIFEST in found  # it may just be begun
    if packed and not marked:
        done = _read(root / FINISHED)
        if done.get("plan") == plan and done.get("inputs") == inputs:
            return done["report"]
        raise PackError(f"{root} is already a pack, of other sources or other options; give another --out")
    for name in found:
        if not (marked and (_OURS.fullmatch(name) or name == MANIFEST)):
            raise PackError(f"{root} is not empty: it holds {name}")
    before = _read(root / UNFINISHED)
    goes_on = before.get("plan") == plan
    if packed and not goes_on:
        if tidy:
            _clear(root)
        raise PackError(f"{root} is already a pack, of other sources or other options; give another --out")
    if packed:
        return before["report"]
    if before and any(name.endswith(".tar") for name in found):
        _check_format(root, before)
    if before and not goes_on and (not tidy or any(name.endswith(".tar") for name in found)):
        raise PackError(
            f"in {root} lies an unfinished packing of other sources, or with other options: run the command that "
            "began it to go on, or delete the directory"
        )
    for name in found if tidy else []:
        if name != UNFINISHED and not (goes_on and _KEPT.fullmatch(name)):
            (root / name).unlink()
    if not goes_on:
        if (root / UNFINISHED).is_symlink():
            (root / UNFINISHED).unlink()
        (root / UNFINISHED).touch()
        temporary = temporary_of(root / UNFINISHED)
        temporary.write_bytes(json.dumps({"plan": plan, "format": _FORMAT}).encode())
        publish((temporary, root / UNFINISHED))
    return None


def _read(mark: Path) -> dict[str, Any]:
    """Read UNFINISHED or FINISHED: an empty dict where it is missing, was just made or is damaged."""
    try:
        found = plain_json(read_whole(mark, _MOST_BYTES))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def complete(root: Path, report: dict[str, Any], manifest: dict[str, Any], inputs: str = "") -> None:
    """Write the manifest, the last step, which makes the files a pack.

    report: of JSON's types. inputs: equal for equal sources.
    """
    done = _read(root / UNFINISHED) | {"inputs": inputs, "report": report}
    write_durably(root / UNFINISHED, json.dumps(done).encode())
    write_manifest(root, manifest)


def _clear(root: Path) -> None:
    """Delete, after the last step, what only a packing that goes on needs, the mark last."""
    for path in root.iterdir():
        if _SCRATCH.fullmatch(path.name):
            path.unlink()
    if (root / UNFINISHED).exists():  # should a failing machine bring it back, the same command takes it away again
        os.replace(root / UNFINISHED, root / FINISHED)
