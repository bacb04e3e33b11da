"""Changes of a pack's log: in a directory under the pack's lock, in a store by conditional writes.

In a store pack.json and removed.jsonl are exchanged only where they still are what was read. Whoever loses a race reads
both anew and decides anew. pack.json is read before the log, and written after it, as in a directory: a reader finds in
the log all lines that pack.json counts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import PackError
from ..remote.address import is_url
from ..remote.store import Changed
from ..remote.writing import Version, WritableStore
from .layout import MANIFEST, REMOVED, changing, locked
from .manifest import has_checks, manifest_bytes, manifest_of
from .reader import Pack
from .removed_log import Log, append_log, log_of

_ROUNDS = 20  # lost races
_PAUSE_S = 0.2  # after one, at the most
Result = TypeVar("Result")


def append(pack: str | Path | Pack, decide: Callable[[Pack], tuple[Result, list[dict[str, Any]]]]) -> Result:
    """Add entries to the log of a pack; durable on return.

    decide: returns what `append` returns, and the entries, for the pack as it is now; in a store it may be called
    several times. Raises PackError where others change the pack all the time, and what `decide` raises.
    """
    if (place := stored(pack)) is not None:
        return _append_in_store(place, decide)
    root = pack.path if isinstance(pack, Pack) else Path(pack)
    with changing(root), locked(root):
        result, entries = decide(Pack(root))
        append_log(root, entries)
        return result


def stored(pack: str | Path | Pack) -> Pack | None:
    """Open a pack for a change where it lies in a store; return None where it lies in a directory."""
    if isinstance(pack, Pack):
        return pack.reopened() if pack.stored else None
    return Pack(pack) if is_url(pack) else None


@dataclass(frozen=True)
class State:
    """What stands in a store: the manifest and the log, and what they are known by there."""

    manifest: dict[str, Any]
    manifest_version: Version
    log: Log
    log_version: Version | None  # None: there is none


class StoredPack:
    """A pack in a store that is changed. pack: of the revision that `state` was read of last."""

    def __init__(self, pack: Pack):
        assert pack.remote is not None
        self.pack, self.remote = pack, pack.remote
        self.store = WritableStore(pack.remote.address)

    def state(self, all_ids: bool = False) -> State:
        """Read manifest and log, and bring `pack` to them. all_ids: as for `read_log`."""
        for _ in self.rounds():
            content, version = self.store.read(MANIFEST)
            manifest = manifest_of(f"{self.pack.place}{MANIFEST}", content)
            if (manifest["pack_id"], manifest.get("revision", 0)) != (self.pack.pack_id, self.pack.revision):
                self.pack.refresh()  # raises where it is another pack
                continue
            try:
                lines, log_version = self.store.read(REMOVED)
            except FileNotFoundError:
                lines, log_version = b"", None
            log = log_of(self.pack.path / REMOVED, lines, manifest, self._ids_of, all_ids)
            self.pack.take(log)
            return State(manifest, version, log, log_version)
        raise AssertionError

    def _ids_of(self, shard: int) -> Any:
        return self.pack.table(shard, columns=["id"]).column("id")

    def rounds(self) -> Iterator[int]:
        """Count rounds, with pauses between them. Raises PackError after too many."""
        for number in range(_ROUNDS):
            yield number
            time.sleep(random.uniform(0, _PAUSE_S))
        raise PackError(f"{self.pack.place} is changed by others all the time; try again when they are done")

    def prove_conditions(self) -> None:
        """Raise StoreError for a store that has no conditional writes."""
        self.store.prove_conditions(MANIFEST, self.store.read(MANIFEST)[0])

    def append(self, decide: Callable[[State], list[dict[str, Any]]]) -> None:
        """Add to the log what `decide` returns, then count all lines in the manifest."""
        for _ in self.rounds():
            state = self.state()
            if entries := decide(state):
                try:
                    self.store.write(REMOVED, state.log.extended(entries)[0], state.log_version)
                except Changed:
                    continue
            break
        for _ in self.rounds():
            state = self.state()
            counted = state.log.extended([])[1]
            if has_checks(state.manifest) and state.manifest["removed"] == counted:
                break
            try:
                self.write_manifest({**state.manifest, "removed": counted}, state, self.remote.file)
                break
            except Changed:
                continue

    def write_manifest(self, manifest: dict[str, Any], before: State, path_of: Callable[[str], Path]) -> None:
        """Write pack.json in place of the one of `before`. Raises Changed."""
        place = f"{self.pack.place}{MANIFEST}"
        self.store.write(MANIFEST, manifest_bytes(manifest, place, path_of), before.manifest_version)


def _append_in_store(pack: Pack, decide: Callable[[Pack], tuple[Result, list[dict[str, Any]]]]) -> Result:
    changed = StoredPack(pack)
    changed.prove_conditions()
    decided: list[tuple[Result, list[dict[str, Any]]]] = []

    def entries(_: State) -> list[dict[str, Any]]:
        decided[:] = [decide(pack)]
        return decided[0][1]

    changed.append(entries)
    result, added = decided[0]
    purged = [entry["id"] for entry in added if entry.get("restored") and pack.is_purged(entry["record"])]
    if purged:
        raise PackError(f"{pack.place} was purged meanwhile: the bytes of {', '.join(purged[:10])} are gone")
    return result
