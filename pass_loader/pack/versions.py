"""`pass-pack info` and `diff`: which version of PASS a pack holds, and what another list of ids no longer has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .layout import CODECS
from .metadata import read_keys
from .reader import Pack

# yukimasano/PASS, version_history.txt: pictures of each version; a later one only leaves pictures out.
PASS_VERSIONS = {1_440_191: "v1 (2021-09)", 1_439_719: "v2 (2021-10)", 1_439_588: "v3 (2022-04)"}


@dataclass(frozen=True)
class Difference:
    """The difference between a pack and a list of ids.

    gone: ids of live records that the list lacks. common: how many both have. added: how many of the list are new.
    """

    gone: list[str]
    added: int
    common: int
    removed: int  # ids of the list whose records were removed from the pack


def diff(pack: str | Path | Pack, table: str | Path, *, key: str = "hash") -> Difference:
    """Compare a pack's live ids with the column `key` of a CSV or Parquet file.

    Raises PackError where it is unreadable.
    """
    return _difference(pack if isinstance(pack, Pack) else Pack(pack), pc.unique(read_keys(table, key)))


def _difference(pack: Pack, keys: pa.Array) -> Difference:
    ids = pack.all_ids()
    listed = pc.is_in(ids, value_set=keys.cast(ids.type)).to_numpy(zero_copy_only=False)
    dead = np.zeros(pack.records, dtype=bool)
    dead[pack.removed] = True
    gone = ids.take(pa.array(np.flatnonzero(~listed & ~dead))).to_pylist()
    common, removed = int((listed & ~dead).sum()), int((listed & dead).sum())
    return Difference(gone, len(keys) - common - removed, common, removed)


def info(pack: str | Path | Pack, metadata: str | Path | None = None, *, key: str = "hash") -> dict[str, Any]:
    """Return what a pack holds: counts of records and bytes, sizes, classes, sources, version.

    metadata: a CSV or Parquet file, a version's pass_metadata.csv, whose column `key` the live ids are compared with;
    "compared" then says what came of it.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    whole = pack.column("length") > 0
    heights, widths, lengths = (pack.column(name)[whole] for name in ("height", "width", "length"))

    def spread(values: np.ndarray) -> dict[str, int]:
        if len(values) == 0:
            return {"least": 0, "median": 0, "most": 0}
        return {"least": int(values.min()), "median": int(np.median(values)), "most": int(values.max())}

    return {
        "pack_id": pack.pack_id,
        "revision": pack.revision,
        "records": pack.records,
        "live": len(pack),
        "removed": len(pack.removed),
        "purged": int((~whole).sum()),
        "pass_version": pass_version(pack),
        "id_digest": id_digest(pack),
        "compared": _compared(pack, Path(metadata), key) if metadata is not None else None,
        "shards": len(pack.shards),
        "tar_bytes": sum({shard["tar"]: shard.get("bytes", 0) for shard in pack.shards}.values()),
        "codec": pack.manifest.get("codec", "jpeg"),
        "codecs": {name: int((pack.column("codec")[whole] == place).sum()) for place, name in enumerate(CODECS)},
        "picture_bytes": spread(lengths),
        "mean_picture_bytes": round(float(lengths.mean())) if len(lengths) else 0,
        "height": spread(heights),
        "width": spread(widths),
        "classes": len(pack.classes),
        "without_label": int((pack.column("label") < 0).sum()),
        "metadata": pack.manifest.get("metadata", []),
        "sources": pack.manifest.get("sources", []),
    }


def id_digest(pack: Pack) -> str:
    """Return the SHA-256 of the live ids, sorted, a line each: equal for equal sets, however they were packed."""
    live = np.setdiff1d(np.arange(pack.records), pack.removed, assume_unique=True)
    return _digest(pack.all_ids().take(pa.array(live)))


def _digest(ids: pa.Array) -> str:
    digest = hashlib.sha256()
    for id in ids.take(pc.sort_indices(ids)):  # by bytes of UTF-8
        digest.update(id.as_buffer())
        digest.update(b"\n")
    return digest.hexdigest()


def _compared(pack: Pack, table: Path, key: str) -> dict[str, Any]:
    keys = pc.unique(read_keys(table, key)).drop_null()
    found = _difference(pack, keys)
    version = PASS_VERSIONS.get(len(keys)) if _are_pass_ids(keys) else None
    without = found.removed + found.added
    name = version or table.name
    if found.gone:
        verdict = f"not {name}: {len(found.gone):,} live ids are not in {table.name}"
    elif without:
        verdict = (
            f"{name} without {without:,} pictures ({found.removed:,} removed, {found.added:,} never packed): all live "
            f"ids are in {table.name}"
        )
    else:
        verdict = f"{name}: the live ids are those of {table.name}"
    return {
        "table": table.name,
        "ids": len(keys),
        "id_digest": _digest(keys),
        "pass_version": version,
        "equal": not found.gone and not without,
        "not_in_table": len(found.gone),
        "removed": found.removed,
        "never_packed": found.added,
        "verdict": verdict,
    }


def _are_pass_ids(ids: pa.Array) -> bool:
    return pc.all(pc.match_substring_regex(ids, r"^[0-9a-f]{16,32}$")).as_py()


def pass_version(pack: Pack) -> str | None:
    """Guess the version of PASS by the number of records and the look of the ids; None for anything else.

    PASS publishes no digest of its ids: a count is all there is. `info` with a version's pass_metadata.csv proves it.
    """
    if not _are_pass_ids(pack.table(0, columns=["id"]).column("id")):
        return None
    packed, live = PASS_VERSIONS.get(pack.records), PASS_VERSIONS.get(len(pack))
    if packed is None and live is None:
        return None
    if packed == live:
        return packed
    return f"packed from {packed or 'a part of PASS'}, live as many as {live or 'no version'}"
