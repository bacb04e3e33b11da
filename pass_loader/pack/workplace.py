"""The directory that a pack is made in: whose it is, what an unfinished packing has left there, and the last step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import PackError
from .layout import FINISHED, MANIFEST, UNFINISHED, changing, locked, make_directory, read_whole, write_durably
from .manifest import write_manifest
from .metadata import METADATA_SCRATCH
from .plain_json import plain_json

_OURS = re.compile(
    r"shard-\d{5,}\.(tar|parquet|rows)(\.tmp)?|index\.arrow.*|pack\.json\.tmp|(un)?finished(\.tmp)?|"
    r"locations\.json(\.tmp)?|re(moved|fused)\.jsonl(\.tmp)?|" + METADATA_SCRATCH
)
_MOST_BYTES = 64 << 20  # of a mark, which holds a report with 1,000 refusals
_KEPT = re.compile(r"shard-\d{5,}\.(tar|rows)|unfinished")  # by a packing that goes on


@contextlib.contextmanager
def workplace(
    root: Path, sources: list[Path], plan: dict[str, Any], inputs: Callable[[], str] = str
) -> Iterator[dict[str, Any] | None]:
    """Hold the directory, made if missing, for this process alone.

    Yields the report of the same packing where it is finished already or was cut off after its last step, else None.
    plan: what is packed and how; leftovers of another plan are not used. inputs: called where a finished pack is found;
    compared with what `complete` was given. sources: must lie apart from the directory. Deletes nothing but what an
    unfinished packing left.
    """
    for source in sources:
        inside, around = source.resolve(), root.resolve()
        if inside == around or around in inside.parents or (source.is_dir() and inside in around.parents):
            raise PackError(f"source {source} and pack {root} lie in one another")
    with contextlib.ExitStack() as stack:
        stack.enter_context(changing(root, "; it goes on after the last whole shard"))
        make_directory(root, exist_ok=True)
        stack.enter_context(locked(root, wait_s=0))
        before = _begin(root, _digest(plan), inputs)
        try:
            yield before
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            raise PackError(
                f"no space is left for the temporary tables of ids that SQLite keeps ({error}): make room in /var/tmp, "
                "or let the variable SQLITE_TMPDIR name a folder that has it, then run the same command again"
            ) from None
        _clear(root)


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _begin(root: Path, plan: str, inputs: Callable[[], str]) -> dict[str, Any] | None:
    found = [path.name for path in root.iterdir()]
    marked, packed = UNFINISHED in found, MANIFEST in found
    if packed and not marked:
        done = _read(root / FINISHED)
        if done.get("plan") == plan and done.get("inputs") == inputs():
            return done["report"]
        raise PackError(f"{root} is already a pack, of other sources or other options; give another --out")
    for name in found:
        if not (marked and (_OURS.fullmatch(name) or name == MANIFEST)):
            raise PackError(f"{root} is not empty: it holds {name}")
    before = _read(root / UNFINISHED)
    goes_on = before.get("plan") == plan
    if packed and not goes_on:
        _clear(root)
        raise PackError(f"{root} is already a pack, of other sources or other options; give another --out")
    if packed:
        return before["report"]
    if before and not goes_on and any(name.endswith(".tar") for name in found):
        raise PackError(
            f"in {root} lies an unfinished packing of other sources, or with other options: run the command that "
            "began it to go on, or delete the directory"
        )
    for name in found:
        if name != UNFINISHED and not (goes_on and _KEPT.fullmatch(name)):
            (root / name).unlink()
    if not goes_on:
        if (root / UNFINISHED).is_symlink():
            (root / UNFINISHED).unlink()
        (root / UNFINISHED).touch()
        write_durably(root / UNFINISHED, json.dumps({"plan": plan}).encode())
    return None


def _read(mark: Path) -> dict[str, Any]:
    """Read UNFINISHED or FINISHED: an empty dict where it is missing, was just made or is damaged."""
    try:
        found = plain_json(read_whole(mark, _MOST_BYTES))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def complete(
    root: Path, plan: dict[str, Any], report: dict[str, Any], manifest: dict[str, Any], inputs: str = ""
) -> None:
    """Write the manifest, the last step, which makes the files a pack.

    report: of JSON's types. inputs: equal for equal sources.
    """
    done = {"plan": _digest(plan), "inputs": inputs, "report": report}
    write_durably(root / UNFINISHED, json.dumps(done).encode())
    write_manifest(root, manifest)


def _clear(root: Path) -> None:
    """Delete, after the last step, what only a packing that goes on needs, the mark last."""
    for path in root.iterdir():
        if path.suffix == ".rows" or path.name == METADATA_SCRATCH or path.name.endswith(".tmp"):
            path.unlink()
    if (root / UNFINISHED).exists():  # should a failing machine bring it back, the same command takes it away again
        os.replace(root / UNFINISHED, root / FINISHED)
