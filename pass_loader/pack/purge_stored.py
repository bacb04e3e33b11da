"""A purge of a pack in a store, where nothing is locked and a process may die, or be late, at any moment.

Order of events: the note `purging` claims a revision that no other attempt has; the file of entry points forgets what
was removed; new shards, tables and index appear under names of that revision, each where there is none; pack.json is
exchanged where it still is what was read, which makes them the pack; the old objects are deleted; the log tells it; the
note goes.

An attempt that finds the note of another takes it over with a higher revision. The other one may be alive: its objects
are deleted only when pack.json was exchanged, after which it cannot exchange it any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..errors import PackError
from ..remote.store import Changed
from ..remote.writing import Version
from .changes import State, StoredPack
from .destination import working_folder
from .index_points import erase
from .layout import PURGING
from .points import POINTS
from .purged import Exchange, Purge, doomed_of, encoded_note, named_by, note_of, purge_lines
from .reader import Pack


class StoredPurge:
    """The purge of one pack. progress: called with the bytes kept of each record."""

    def __init__(self, pack: Pack, progress: Callable[[int], None]):
        self.place = StoredPack(pack)
        self.pack, self.store, self.progress = pack, self.place.store, progress

    def run(self) -> Purge:
        self.place.prove_conditions()
        for _ in self.place.rounds():
            with contextlib.suppress(Changed):
                return self._attempt()
        raise AssertionError

    def _attempt(self) -> Purge:
        """Purge the pack as it is now. Raises Changed where somebody else changes it meanwhile."""
        state = self.place.state(all_ids=True)
        note, version = self._note()
        if note is not None and state.manifest.get("revision", 0) >= note["revision"]:
            self._tidy(note, version)  # it was cut off after pack.json
            note = version = None
            state = self.place.state(all_ids=True)
        doomed, shards = doomed_of(self.pack)
        if len(doomed) == 0 and note is None:
            self.place.append(lambda _: [])
            return Purge(0, 0, 0)
        size = int(self.pack.column("length")[doomed].sum())
        exchange = Exchange(self.pack, shards, doomed.tolist(), self._revision(note))
        mine = exchange.note() | {"abandoned": [] if note is None else [*note["abandoned"], *note["new"]]}
        version = self.store.write(PURGING, encoded_note(mine), version)
        self._erase_points(exchange.records)
        self._exchange(exchange, state, version)
        self._tidy(mine, version)
        return Purge(len(doomed), len(shards), size)

    def _revision(self, note: dict[str, Any] | None) -> int:
        return max(self.pack.revision, 0 if note is None else note["revision"]) + 1

    def _note(self) -> tuple[dict[str, Any] | None, Version | None]:
        try:
            content, version = self.store.read(PURGING)
        except FileNotFoundError:
            return None, None
        return note_of(f"{self.pack.place}{PURGING}", content), version

    def _exchange(self, exchange: Exchange, state: State, claim: Version) -> None:
        """Write what is new, up to and including pack.json. Raises Changed."""
        with working_folder() as folder:

            def path_of(name: str) -> Path:
                return folder / name if (folder / name).exists() else self.place.remote.file(name)

            try:
                manifest = self._write(exchange, state, claim, folder)
                for _ in self.place.rounds():
                    self._check(claim)
                    with contextlib.suppress(Changed):
                        counted = {"removed": state.log.extended([])[1]}
                        return self.place.write_manifest(manifest | counted, state, path_of)
                    state = self._later(exchange, state)
            except (Changed, PackError):  # ours is never made the pack
                self._delete(exchange.note()["new"])
                raise

    def _write(self, exchange: Exchange, state: State, claim: Version, folder: Path) -> dict[str, Any]:
        """Write the new objects; return the new manifest, but for what it says of the log."""

        def keep(path: Path) -> None:
            self.store.upload(path, path.name, f"{path.name}.tmp")
            if path.suffix == ".tar":
                path.unlink()

        try:
            return exchange.write(folder, lambda shard: self._tar(shard, folder / "old"), keep, self.progress)
        except FileNotFoundError:  # an old object is gone
            self._check(claim)
            self._later(exchange, state)
            raise

    def _check(self, claim: Version) -> None:
        """Raise PackError where the note is not ours any more."""
        if self._note()[1] != claim:
            raise PackError(f"{self.pack.place}: another purge has begun since, and goes on with this one")

    def _later(self, exchange: Exchange, before: State) -> State:
        """Read anew what somebody has changed. Raises Changed where it was purged, or our records restored."""
        state = self.place.state(all_ids=True)
        purged = state.manifest.get("revision", 0) != before.manifest.get("revision", 0)
        if purged or not np.isin(exchange.records, state.log.removed()).all():
            raise Changed(f"{self.pack.place} was changed by somebody else meanwhile")
        return state

    def _tar(self, shard: int, path: Path) -> Path:
        """Fetch a shard's tar; once more where a record is not as it was packed."""
        for _ in range(2):
            path.unlink(missing_ok=True)
            self.store.download(self.pack.shards[shard]["tar"], path)
            if self._is_whole(shard, path):
                break
        return path

    def _is_whole(self, shard: int, path: Path) -> bool:
        first, end = self.pack.first_record[shard : shard + 2]
        offset, length, crc = (self.pack.column(name)[first:end].tolist() for name in ("offset", "length", "crc32c"))
        with open(path, "rb") as file:
            for begin, size, want in zip(offset, length, crc):
                file.seek(begin)
                if _C.crc32c(file.read(size)) != want:
                    return False
        return True

    def _tidy(self, note: dict[str, Any], version: Version | None) -> None:
        """Delete, after pack.json was exchanged, what it does not name any more; tell the log; delete the note."""
        self._delete([*note["old"], *note["abandoned"]])
        self.place.append(lambda state: purge_lines(state.log, note["records"]))
        if self._note()[1] == version:
            self.store.delete(PURGING)

    def _erase_points(self, records: list[int]) -> None:
        """Take what is known of records that go out of the file of entry points, in place of the file that was read.

        Before pack.json is exchanged: the file fits the pack at every moment.
        """
        for _ in self.place.rounds():
            before = self.store.version_of(POINTS)
            if before is None:
                return
            with contextlib.suppress(Changed, FileNotFoundError), working_folder() as folder:
                path = folder / POINTS
                self.store.download(POINTS, path)
                if not erase(self.pack, records, folder):
                    return
                if path.exists():
                    self.store.write(POINTS, path, before)
                else:
                    self.store.delete(POINTS)
                return

    def _delete(self, names: list[str]) -> None:
        """Delete objects that the manifest does not name, and what large ones were before they were whole."""
        used = named_by(self.place.state().manifest)
        for name in names:
            if name not in used:
                self.store.delete(f"{name}.tmp")
                self.store.delete(name)
