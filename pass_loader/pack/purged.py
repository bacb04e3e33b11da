"""What a purge makes: shards without the bytes and the metadata of what was removed, their tables, index, manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import PackError
from .layout import INDEX, append_member, end_tar, fresh, index_name, member_name, publish, shard_names, write_table
from .manifest import is_base_name
from .plain_json import plain_json
from .reader import Pack, index_rows, write_index
from .removal import listed
from .removed_log import Log

MOST_BYTES = 1 << 30  # of the note: a number for each record that goes
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


def doomed_of(pack: Pack) -> tuple[np.ndarray, list[int]]:
    """Return the removed records that still have bytes, and their shards.

    Raises PackError where they lie in tars that are not the pack's own.
    """
    doomed = pack.removed[pack.column("length")[pack.removed] > 0]
    shards = np.unique(pack.column("shard")[doomed]).tolist()
    foreign = [pack.shards[shard] for shard in shards if "foreign" in pack.shards[shard]]
    if foreign:
        remedy = (
            "remove and purge them in the packs that this one was combined of, then combine those anew"
            if any("file" in shard["foreign"] for shard in foreign)
            else "export the live records (`pass-pack export`) or build a pack without them, and delete the tars"
        )
        raise PackError(
            f"{pack.place} refers to tars that are not its own, and leaves them as they are: "
            f"{listed([shard['tar'] for shard in foreign])}. The removed records are not served any more. To be rid of "
            f"the bytes, {remedy}"
        )
    return doomed, shards


@dataclass(frozen=True)
class Exchange:
    """The files that come and go with a revision. names: of each shard's new tar and table."""

    pack: Pack
    shards: list[int]
    records: list[int]
    revision: int

    @property
    def names(self) -> dict[int, tuple[str, str]]:
        return {shard: shard_names(shard, self.revision) for shard in self.shards}

    def note(self) -> dict[str, Any]:
        """Return what is written down before anything is: which files come and go, and which records."""
        pack = self.pack
        old = [pack.shards[shard][kind] for shard in self.shards for kind in ("tar", "table")]
        return {
            "revision": self.revision,
            "old": [*old, pack.manifest.get("index", INDEX)],
            "new": [*(name for pair in self.names.values() for name in pair), index_name(self.revision)],
            "records": self.records,
        }

    def write(
        self,
        folder: Path,
        tar_of: Callable[[int], Path],
        keep: Callable[[Path], None],
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Write the new files into a folder; return the new manifest, but for what it says of the log.

        tar_of: gives a shard's present tar. keep: called with each file when it is whole. progress: called with the
        bytes kept of each record.
        """
        pack, revision = self.pack, self.revision
        manifest = {**pack.manifest, "revision": revision, "index": index_name(revision)}
        manifest["shards"] = [dict(shard) for shard in pack.shards]
        ends = zip(pack.first_record, pack.first_record[1:])
        parts = [pack.index.slice(int(first), int(end - first)) for first, end in ends]
        for shard, (tar, parquet) in self.names.items():
            table = _rewrite(pack, shard, tar_of(shard), folder / tar, {*self.records}, progress)
            publish((write_table(table, folder / parquet), folder / parquet))
            parts[shard] = index_rows(table, shard)
            manifest["shards"][shard] |= {"tar": tar, "table": parquet, "bytes": (folder / tar).stat().st_size}
            keep(folder / tar)
            keep(folder / parquet)
        index = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
        write_index(folder / index_name(revision), index, pack.pack_id)
        keep(folder / index_name(revision))
        return manifest


def encoded_note(note: dict[str, Any]) -> bytes:
    return (json.dumps(note) + "\n").encode()


def note_of(place: Path | str, content: bytes) -> dict[str, Any]:
    """Return the note that these bytes are. place: for messages. Raises PackError where it is damaged."""
    try:
        found = plain_json(content)
        note = {kind: [name for name in found.get(kind, [])] for kind in ("old", "new", "abandoned")}
        if not all(map(is_base_name, [*note["old"], *note["new"], *note["abandoned"]])):
            raise ValueError("it names files outside the pack")
        return {**note, "revision": int(found["revision"]), "records": list(found["records"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{place} is damaged: {error!r}") from None


def named_by(manifest: dict[str, Any]) -> set[str]:
    """Return the names of the shards' files and of the index."""
    names = {shard[kind] for shard in manifest["shards"] for kind in ("tar", "table")}
    return names | {manifest.get("index", INDEX)}


def purge_lines(log: Log, records: list[int]) -> list[dict[str, Any]]:
    """Return the entries of the log that tell of purged records, of those that it does not tell of yet."""
    ids: dict[int, str] = {}
    told: set[int] = set()
    for _, entry in log.entries():
        ids[entry["record"]] = entry["id"]
        if entry.get("purged"):
            told.add(entry["record"])
    return [
        {"id": ids[record], "record": record, "reason": "purge", "purged": True}
        for record in records
        if record not in told and record in ids
    ]


def _rewrite(
    pack: Pack, shard: int, source: Path, out: Path, doomed: set[int], progress: Callable[[int], None]
) -> pa.Table:
    """Write the shard's tar without the doomed records, and return its new table."""
    old = pack.table(shard)
    rows = old.to_pylist()
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
    return pa.Table.from_pylist(rows, schema=old.schema.remove_metadata())
