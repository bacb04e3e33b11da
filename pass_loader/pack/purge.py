"""`pass-pack purge`: writes shards anew without the bytes and the metadata of what was removed.

Order of events, so that the pack is whole after a crash at any of them: the note `purging` names the files that will
come and go; new shards, tables and index appear under new names; pack.json's rename makes them the pack; the old files
are deleted; the log tells it; the note goes. `settle` brings an interrupted purge to one of its two ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PackError
from .layout import (
    INDEX,
    PURGING,
    append_member,
    changing,
    end_tar,
    fresh,
    index_name,
    locked,
    member_name,
    publish,
    read_whole,
    shard_names,
    sync_directory,
    write_durably,
    write_table,
)
from .manifest import is_base_name, read_manifest, write_manifest
from .plain_json import plain_json
from .reader import Pack, index_rows, write_index
from .removal import listed
from .removed_log import Log, append_log, read_log

_MOST_BYTES = 1 << 30  # of the note: a number for each record that goes
# What a purged record's row says. Its id stays: the log names it too, and its number must not go to another picture.
_ERASED: dict[str, Any] = {"offset": 0, "length": 0, "width": 0, "height": 0, "crc32c": 0, "label": -1}


@dataclass(frozen=True)
class Purge:
    """Counts of a purge. records: purged; shards: written anew; bytes: of pictures that are gone."""

    records: int
    shards: int
    bytes: int

    def __str__(self) -> str:
        return f"purged {self.records:,} records, {self.bytes:,} bytes of pictures; {self.shards} shards written anew"


def purge(path: str | Path, *, progress: Callable[[int], None] | None = None) -> Purge:
    """Erase the bytes and the metadata of all removed records from the files of a pack.

    The other records keep number, bytes and metadata, and the pack its pack_id. Interrupted, the pack is as before or
    as after, and the next purge deletes what was left over. Jobs that read the pack meanwhile must be started again
    where they meet a shard that was exchanged. Needs room for one affected shard after the other, all at once.
    progress: called with the bytes kept of each record. Raises PackError where removed records lie in tars that are
    not the pack's own, or in shards that are links to files elsewhere; and where a line of removed.jsonl names a record
    that has another id: nothing is erased then.
    """
    root = Path(path)
    with changing(root), locked(root):
        settle(root)
        pack = Pack(root)
        log = read_log(root, pack.manifest, all_ids=True)
        doomed = pack.removed[pack.column("length")[pack.removed] > 0]
        if len(doomed) == 0:
            append_log(root, [])
            return Purge(0, 0, 0)
        shards = np.unique(pack.column("shard")[doomed]).tolist()
        _refuse_foreign(pack, shards)
        _refuse_links(pack, shards)
        size = int(pack.column("length")[doomed].sum())
        try:
            _exchange(pack, log, shards, doomed.tolist(), progress or (lambda _: None))
        finally:  # a full disk is not left full
            settle(root)
        return Purge(len(doomed), len(shards), size)


def _refuse_foreign(pack: Pack, shards: list[int]) -> None:
    foreign = [pack.shards[shard]["tar"] for shard in shards if "foreign" in pack.shards[shard]]
    if foreign:
        raise PackError(
            f"{pack.path} refers to tars that are not its own, and leaves them as they are: {listed(foreign)}. The "
            "removed records are not served any more. To be rid of the bytes, export the live records "
            "(`pass-pack export`) or build a pack without them, and delete the tars"
        )


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
    revision = pack.revision + 1
    names = {shard: shard_names(shard, revision) for shard in shards}
    old = [pack.shards[shard][kind] for shard in shards for kind in ("tar", "table")]
    note = {
        "revision": revision,
        "old": [*old, pack.manifest.get("index", INDEX)],
        "new": [*(name for pair in names.values() for name in pair), index_name(revision)],
        "records": records,
    }
    write_durably(pack.path / PURGING, (json.dumps(note) + "\n").encode())
    manifest = {**pack.manifest, "revision": revision, "index": index_name(revision), "removed": log.extended([])[1]}
    manifest["shards"] = [dict(shard) for shard in pack.shards]
    parts = [
        pack.index.slice(int(first), int(end - first)) for first, end in zip(pack.first_record, pack.first_record[1:])
    ]
    for shard, (tar, parquet) in names.items():
        table = _rewrite(pack, shard, pack.path / tar, set(records), progress)
        publish((write_table(table, pack.path / parquet), pack.path / parquet))
        parts[shard] = index_rows(table, shard)
        manifest["shards"][shard] |= {"tar": tar, "table": parquet, "bytes": (pack.path / tar).stat().st_size}
    index = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
    write_index(pack.path / index_name(revision), index, pack.pack_id)
    write_manifest(pack.path, manifest)


def _rewrite(pack: Pack, shard: int, out: Path, doomed: set[int], progress: Callable[[int], None]) -> pa.Table:
    """Write the shard's tar without the doomed records, and return its new table."""
    rows = pack.table(shard).to_pylist()
    source = pack.path / pack.shards[shard]["tar"]
    temporary = out.with_name(out.name + ".tmp")
    with open(source, "rb") as tar, open(fresh(temporary), "wb") as file:
        for row in rows:
            if row["record"] in doomed or row["length"] == 0:
                row.update({name: _ERASED.get(name) for name in row if name not in ("record", "id", "codec")})
                continue
            data = os.pread(tar.fileno(), row["length"], row["offset"])
            if len(data) != row["length"]:
                raise PackError(f"{source} is cut off: record {row['record']}, id {row['id']} is not whole")
            row["offset"] = append_member(file, member_name(row["id"], row["codec"]), data)
            progress(len(data))
        end_tar(file)
    publish((temporary, out))
    schema = pq.read_schema(pack.path / pack.shards[shard]["table"])
    return pa.Table.from_pylist(rows, schema=schema.remove_metadata())


def settle(root: Path) -> bool:
    """Bring a purge that was interrupted, or has just exchanged pack.json, to its end. Hold the pack's lock.

    Returns whether there was anything to do. Raises PackError where the note is damaged.
    """
    try:
        note = plain_json(read_whole(root / PURGING, _MOST_BYTES))
        names = {kind: [name for name in note[kind]] for kind in ("old", "new")}
        revision, records = int(note["revision"]), list(note["records"])
        if not all(map(is_base_name, names["old"] + names["new"])):
            raise ValueError("it names files outside the pack")
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise PackError(f"{root / PURGING} is damaged: {error!r}") from None
    manifest = read_manifest(root)
    done = manifest.get("revision", 0) >= revision
    used = {shard[kind] for shard in manifest["shards"] for kind in ("tar", "table")} | {manifest.get("index", INDEX)}
    for name in names["old"] if done else [part for new in names["new"] for part in (new, new + ".tmp")]:
        if name not in used:
            (root / name).unlink(missing_ok=True)
    for leftover in root.glob("index*.arrow*.tmp"):
        leftover.unlink(missing_ok=True)
    sync_directory(root)
    if done:
        _tell(root, records)
    (root / PURGING).unlink()
    sync_directory(root)
    return True


def _tell(root: Path, records: list[int]) -> None:
    """Add a line to the log for each purged record, once."""
    ids: dict[int, str] = {}
    told: set[int] = set()
    for _, entry in read_log(root, read_manifest(root)).entries():
        ids[entry["record"]] = entry["id"]
        if entry.get("purged"):
            told.add(entry["record"])
    append_log(
        root,
        [{"id": ids[r], "record": r, "reason": "purge", "purged": True} for r in records if r not in told and r in ids],
    )
