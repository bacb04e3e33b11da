"""The directory that a pack is made in: whose it is, what an unfinished packing has left there, and the last step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import PackError
from .destination import MERGING, Destination
from .layout import (
    FINISHED,
    MANIFEST,
    PLAN,
    REFUSED,
    REMOVED,
    UNFINISHED,
    changing,
    locked,
    make_directory,
    read_whole,
)
from .manifest import write_manifest
from .plain_json import plain_json
from .points import POINTS

_TASK_FILES = (
    r"shard-\d{5,}(-\d{3,})?\.(tar|rows|parquet\.[0-9a-f]{12})|task-\d{5,}\.(json|refused|lock)|(plan|tables)\.json"
)
_JOIN_FILES = r"(metadata|pictures)-\d{5,}\.([0-9a-f]{12}|unfinished)\.(spread|joined|table)(\.lock)?"  # of join.py
_OURS = re.compile(
    rf"({_TASK_FILES}|{_JOIN_FILES}|shard-\d{{5,}}(-\d{{3,}})?\.parquet)(\.[0-9a-f]{{12}})?(\.tmp)?|"
    rf"(index|points)\.arrow.*|pack\.json\.tmp|"
    rf"(un)?finished(\.[0-9a-f]{{12}})?(\.tmp)?|locations\.json(\.tmp)?|re(moved|fused)\.jsonl(\.tmp)?"
)
_KEPT = re.compile(rf"{_TASK_FILES}|{_JOIN_FILES}|shard-\d{{5,}}\.parquet|unfinished")  # by a packing that goes on
_SCRATCH = re.compile(
    rf".*\.(rows|tmp|parquet\.[0-9a-f]{{12}})|task-\d{{5,}}\.(json|refused|lock)|(plan|tables)\.json|{_JOIN_FILES}"
)
_MOST_BYTES = 64 << 20  # of a mark, which holds a report with 1,000 refusals
_FORMAT = 3  # of the files of an unfinished packing


@contextlib.contextmanager
def workplace(
    out: Destination, sources: list[Path], plan: dict[str, Any], inputs: str = "", last: bool = True,
    shared: bool = False,
) -> Iterator[dict[str, Any] | None]:  # fmt: skip
    """Hold the directory, made if missing, for this process alone, or `shared` with others that run the same plan.

    A store is held by its mark.

    Yields the report of the same packing where it is finished already or was cut off after its last step, else None.
    plan: what is packed and how; leftovers of another plan are not used. inputs: of a finished pack compared with what
    `complete` was given. sources: must lie apart from the directory. last: the pack is made when this ends. Deletes
    nothing but what an unfinished packing left, and nothing at all where it is shared.
    """
    root = out.folder
    for source in sources if not out.stored else ():
        inside, around = source.resolve(), root.resolve()
        if inside == around or around in inside.parents or (source.is_dir() and inside in around.parents):
            raise PackError(f"source {source} and pack {root} lie in one another")
    with contextlib.ExitStack() as stack:
        stack.enter_context(changing(root, "; it goes on after the last whole shard"))
        make_directory(root, exist_ok=True)
        stack.enter_context(locked(root, wait_s=0, shared=shared))
        before = _begin(out, _digest(plan), inputs, tidy=not shared)
        with _room_for_tables():
            yield before
        if (last or before is not None) and not shared:
            _clear(out)


@contextlib.contextmanager
def begun(out: Destination, shared: bool = False) -> Iterator[dict[str, Any] | None]:
    """Hold a directory in which `pass-pack plan` began a pack.

    shared: together with others who share it. Yields the report of the pack where it is finished, else None. Raises
    PackError where nothing was begun.
    """
    root, remedy = out.folder, f"`pass-pack plan SOURCE... --out {out.place}` begins a pack there"
    if not root.is_dir():
        raise PackError(f"{root} is no directory: {remedy}")
    with changing(root), locked(root, shared=shared):
        marked, packed = (out.size_of(name) is not None for name in (UNFINISHED, MANIFEST))
        if not marked and not packed:
            raise PackError(f"{out.place} holds no plan: {remedy}")
        if marked and not packed:
            mark = _read(out, UNFINISHED)
            _check_format(out, mark)
            if not shared:
                _mark(out, mark, mark.get("plan", ""), mark.get("inputs", ""))
            out.bring(PLAN)
        with _room_for_tables():
            yield _read(out, UNFINISHED if marked else FINISHED).get("report", {}) if packed else None
        if not shared and MANIFEST in out.names():
            _clear(out)


@contextlib.contextmanager
def joined(out: Destination) -> Iterator[None]:
    """Hold a directory together with others that make parts of one pack. Raises PackError where none is being made."""
    with begun(out, shared=True) as before:
        if before is not None:
            raise PackError(f"{out.place} is a pack already")
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


def _check_format(out: Destination, mark: dict[str, Any]) -> None:
    if mark.get("format") != _FORMAT:
        raise PackError(
            f"in {out.place} lies an unfinished packing of another version of pass-loader: delete it and run the "
            "command again, or finish it with that version"
        )


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _begin(out: Destination, plan: str, inputs: str, tidy: bool) -> dict[str, Any] | None:
    """Mark the destination as the place of this plan. tidy: delete what an unfinished packing left and nobody needs."""
    found = out.names()
    marked, packed = UNFINISHED in found or out.bring(UNFINISHED), MANIFEST in found  # it may just be begun
    if packed and not marked:
        done = _read(out, FINISHED)
        if done.get("plan") == plan and done.get("inputs") == inputs:
            return done["report"]
        raise PackError(f"{out.place} is already a pack, of other sources or other options; give another --out")
    for name in found:
        if not (marked and (_OURS.fullmatch(name) or name == MANIFEST)):
            raise PackError(f"{out.place} is not empty: it holds {name}")
    before = _read(out, UNFINISHED)
    goes_on = before.get("plan") == plan
    if packed and not goes_on:
        if tidy:
            _clear(out)
        raise PackError(f"{out.place} is already a pack, of other sources or other options; give another --out")
    if packed:
        return before["report"]
    if before and any(name.endswith(".tar") for name in found):
        _check_format(out, before)
    if before and not goes_on and (not tidy or any(name.endswith(".tar") for name in found)):
        raise PackError(
            f"in {out.place} lies an unfinished packing of other sources, or with other options: run the command that "
            "began it to go on, or delete the directory"
        )
    if tidy:
        out.delete(*(name for name in found if name != UNFINISHED and not (goes_on and _KEPT.fullmatch(name))))
    if tidy or not goes_on:
        _mark(out, before, plan, inputs)
    return None


def _mark(out: Destination, before: dict[str, Any], plan: str, inputs: str) -> None:
    """Write whose packing it is, where something else stands there."""
    mark = {"plan": plan, "format": _FORMAT, "inputs": inputs}
    if before != mark:
        out.write(UNFINISHED, json.dumps(mark).encode())


def _read(out: Destination, mark: str) -> dict[str, Any]:
    """Read UNFINISHED or FINISHED: an empty dict where it is missing, was just made or is damaged."""
    try:
        out.bring(mark)
        found = plain_json(read_whole(out.folder / mark, _MOST_BYTES))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def complete(out: Destination, report: dict[str, Any], manifest: dict[str, Any], inputs: str = "") -> None:
    """Write the manifest, the last step, which makes the files a pack. Tars and tables are there.

    report: of JSON's types. inputs: equal for equal sources.
    """
    out.send(*(name for name in (manifest["index"], POINTS, REFUSED, REMOVED) if (out.folder / name).exists()))
    done = {name: value for name, value in _read(out, UNFINISHED).items() if name != MERGING}
    out.write(UNFINISHED, json.dumps(done | {"inputs": inputs, "report": report}).encode())
    write_manifest(out.folder, manifest)
    out.send(MANIFEST)


def _clear(out: Destination) -> None:
    """Delete, after the last step, what only a packing that goes on needs, the mark last."""
    names = out.names()
    out.delete(*(name for name in names if _SCRATCH.fullmatch(name)))
    if UNFINISHED in names:  # should a failing machine bring it back, the same command takes it away again
        out.bring(UNFINISHED)
        out.rename(UNFINISHED, FINISHED)
