"""`pass-pack purge`: writes shards anew without the bytes and the metadata of what was removed.

Order of events, so that the pack is whole after a crash at any of them: the note `purging` names the files that will
come and go; new shards, tables and index appear under new names; pack.json's rename makes them the pack; the old files
are deleted; the log tells it; the note goes. `settle` brings an interrupted purge to one of its two ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import PackError
from .changes import stored
from .index_points import erase
from .layout import PURGING, changing, locked, read_whole, sync_directory, write_durably
from .manifest import read_manifest, write_manifest
from .purge_stored import StoredPurge
from .purged import MOST_BYTES, Exchange, Purge, doomed_of, encoded_note, named_by, note_of, purge_lines
from .reader import Pack
from .removed_log import Log, append_log, read_log


def purge(path: str | Path | Pack, *, progress: Callable[[int], None] | None = None) -> Purge:
    """Erase the bytes and the metadata of all removed records from the files of a pack.

    path: a directory, a URL, or a pack that is open, which shows it from its next `refresh` on. A shard at a time of a
    pack in a store lies in the folder of temporary files (TMPDIR), twice.
    The other records keep number, bytes and metadata, and the pack its pack_id. Interrupted, the pack is as before or
    as after, and the next purge deletes what was left over. Jobs that read the pack meanwhile must be started again
    where they meet a shard that was exchanged. Needs room for one affected shard after the other, all at once.
    progress: called with the bytes kept of each record. Raises PackError where removed records lie in tars that are
    not the pack's own, or in shards that are links to files elsewhere; and where a line of removed.jsonl names a record
    that has another id: nothing is erased then.
    """
    if (pack := stored(path)) is not None:
        return StoredPurge(pack, progress or (lambda _: None)).run()
    root = path.path if isinstance(path, Pack) else Path(path)
    with changing(root), locked(root):
        settle(root)
        pack = Pack(root)
        log = read_log(root, pack.manifest, all_ids=True)
        doomed, shards = doomed_of(pack)
        if len(doomed) == 0:
            append_log(root, [])
            return Purge(0, 0, 0)
        _refuse_links(pack, shards)
        size = int(pack.column("length")[doomed].sum())
        try:
            _exchange(pack, log, shards, doomed.tolist(), progress or (lambda _: None))
        finally:  # a full disk is not left full
            settle(root)
        return Purge(len(doomed), len(shards), size)


def _refuse_links(pack: Pack, shards: list[int]) -> None:
    for name in (pack.shards[shard][kind] for shard in shards for kind in ("tar", "table")):
        path = pack.path / name
        if path.is_symlink():
            raise PackError(
                f"{path} is a link to {os.path.realpath(path)}: its bytes would stay there; move it to the link's "
                "place, then purge"
            )


def _exchange(pack: Pack, log: Log, shards: list[int], records: list[int], progress: Callable[[int], None]) -> None:
    """Write what is new, up to and including the rename of pack.json."""
    exchange = Exchange(pack, shards, records, pack.revision + 1)
    write_durably(pack.path / PURGING, encoded_note(exchange.note()))
    manifest = exchange.write(pack.path, lambda shard: pack.path / pack.shards[shard]["tar"], lambda _: None, progress)
    write_manifest(pack.path, {**manifest, "removed": log.extended([])[1]})


def settle(root: Path) -> bool:
    """Bring a purge that was interrupted, or has just exchanged pack.json, to its end. Hold the pack's lock.

    Returns whether there was anything to do. Raises PackError where the note is damaged.
    """
    try:
        note = note_of(root / PURGING, read_whole(root / PURGING, MOST_BYTES))
    except FileNotFoundError:
        return False
    manifest = read_manifest(root)
    done = manifest.get("revision", 0) >= note["revision"]
    used = named_by(manifest)
    for name in note["old"] if done else [part for new in note["new"] for part in (new, new + ".tmp")]:
        if name not in used:
            (root / name).unlink(missing_ok=True)
    for leftover in (*root.glob("index*.arrow*.tmp"), *root.glob("points.arrow*.tmp")):
        leftover.unlink(missing_ok=True)
    sync_directory(root)
    if done:
        erase(Pack(root), note["records"])
        append_log(root, purge_lines(read_log(root, manifest), note["records"]))
    (root / PURGING).unlink()
    sync_directory(root)
    return True
