"""`pass-pack attribution`: who made which picture, under which licence, and what was done to it.

CC BY 2.0, section 4b, asks for the author's name, the licence's address and a notice of changes
(https://creativecommons.org/licenses/by/2.0/legalcode).
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from .metadata import creator_name
from .reader import Pack
from .removal import listed

CREATOR_COLUMNS = ("unickname", "creator_username", "creator", "author")
LICENCE_COLUMNS = ("licensename", "license_name", "license", "licence")
_ENCODED = ("unickname", "creator_username")  # PASS's and Hugging Face's name of it: form-encoded, "J%C3%BCrgen+K."
_LICENCES = {  # Flickr's name -> the licence's; others stay as they are: guessing would be wrong
    "Attribution License": ("CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/"),
}
CHANGES = (
    "The pictures are stored as the data set has them. For training they were cropped at random, resized, mirrored and "
    "changed in brightness, contrast, colour and sharpness."
)
FORMATS = ("txt", "csv", "html", "json")


@dataclass(frozen=True)
class Attribution:
    """Credits of pictures.

    table: a row a record, in the order of records: record, id, creator, creator_as_given, licence, licence_as_given,
    licence_url (strings; null where unknown). changes: the notice for all of them.
    """

    table: pa.Table
    changes: str

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def without(self) -> list[str]:
        """The ids of the pictures whose creator or licence is not known."""
        unknown = pc.or_(pc.is_null(self.table.column("creator")), pc.is_null(self.table.column("licence")))
        return self.table.filter(unknown).column("id").to_pylist()

    def write(self, file: TextIO, format: str = "txt") -> None:
        """Write the credits in one of FORMATS. Pictures without creator or licence are among them, marked."""
        if format not in FORMATS:
            raise ValueError(f"format is {format!r}, want one of {FORMATS}")
        text = CreditText(format, self.changes)
        file.write(text.begin(len(self)))
        file.writelines(text.listed(self.without))
        skipped = len(text.separator)
        for part in text.credits(self.rows()):
            file.write(part[skipped:])
            skipped = 0
        file.write(text.end())

    def rows(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from batch.to_pylist()


def attribution(
    pack: str | Path | Pack,
    records: Sequence[int] | np.ndarray | None = None,
    *,
    ids: Sequence[str] | None = None,
    changes: str = CHANGES,
    creator: str | None = None,
    licence: str | None = None,
) -> Attribution:
    """Return the credits of these records or ids, each once; of all live records where neither is given.

    Records that were removed since are credited too where they are asked for, until they are purged.
    changes: the notice of changes. creator, licence: names of the metadata's columns; None finds PASS's, Hugging
    Face's, or plain ones. Raises PackError for unknown ids, or where the pack's metadata has no such columns.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    creator, licence = credit_columns(pack, creator, licence)
    wanted = _wanted(pack, records, ids)
    shards = np.searchsorted(pack.first_record, wanted, side="right") - 1
    parts = []
    for shard in np.unique(shards).tolist():
        table = pack.table(shard, columns=list(dict.fromkeys(["record", "id", creator, licence])))
        rows = table.take(pa.array(wanted[shards == shard] - pack.first_record[shard]))
        parts.append(_credits(rows, creator, licence))
    return Attribution(pa.concat_tables(parts) if parts else _SCHEMA.empty_table(), changes)


_SCHEMA = pa.schema(
    [("record", pa.int64())]
    + [
        (name, pa.string())
        for name in ("id", "creator", "creator_as_given", "licence", "licence_as_given", "licence_url")
    ]
)


def credit_columns(pack: Pack, creator: str | None, licence: str | None) -> tuple[str, str]:
    """Return the names of the metadata's columns of creators and of licences, given or found. Raises PackError."""
    return _column(pack, creator, CREATOR_COLUMNS, "creators"), _column(pack, licence, LICENCE_COLUMNS, "licences")


def _column(pack: Pack, given: str | None, usual: tuple[str, ...], what: str) -> str:
    columns = pack.manifest.get("metadata", [])
    for name in [given] if given is not None else usual:
        if name in columns:
            return name
    raise PackError(
        f"{pack.place} has no column of {what}: its metadata has {columns or 'no columns'}; "
        + (f"{given!r} is none of them" if given is not None else "build it with --metadata, or name the column")
    )


def _wanted(pack: Pack, records: Sequence[int] | np.ndarray | None, ids: Sequence[str] | None) -> np.ndarray:
    """Return the records that are asked for, sorted, each once."""
    if records is None and ids is None:
        return np.setdiff1d(np.arange(pack.records), pack.removed, assume_unique=True)
    wanted = np.asarray([] if records is None else records, dtype=np.int64).reshape(-1)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < pack.records:
        raise IndexError(f"records go from {wanted.min()} to {wanted.max()}, want [0, {pack.records})")
    if ids is not None:
        found = pack.records_of(ids)
        if (found < 0).any():
            raise PackError(f"{pack.place} has no record with these ids: {listed(np.array(ids)[found < 0].tolist())}")
        wanted = np.concatenate([wanted, found])
    return np.unique(wanted)


def _credits(rows: pa.Table, creator: str, licence: str) -> pa.Table:
    names, licences = _given(rows, creator), _given(rows, licence)
    columns = {
        "creator": _mapped(names, creator_name if creator in _ENCODED else str),
        "creator_as_given": names,
        "licence": _mapped(licences, lambda name: _LICENCES[name][0] if name in _LICENCES else name),
        "licence_as_given": licences,
        "licence_url": _mapped(licences, _licence_url),
    }
    arrays = [rows.column("record"), rows.column("id"), *columns.values()]
    return pa.table(arrays, schema=_SCHEMA)


def _given(rows: pa.Table, name: str) -> pa.Array:
    """Return a column as strings; null where it is empty."""
    text = rows.column(name).cast(pa.string()).combine_chunks()
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), pa.scalar(None, pa.string()), text)


def _mapped(values: pa.Array, function: Any) -> pa.Array:
    """Call the function once for each different value: a creator has up to 80 pictures."""
    coded = values.dictionary_encode()
    different = pa.array([function(value) for value in coded.dictionary.to_pylist()], pa.string())
    return different.take(coded.indices)


def _licence_url(name: str) -> str | None:
    if name in _LICENCES:
        return _LICENCES[name][1]
    return name if name.startswith(("https://", "http://")) else None


@dataclass(frozen=True)
class CreditText:
    """Credits as text, in parts that come one after another: `begin`, `listed`, `credits`, `end`."""

    format: str
    changes: str

    def begin(self, count: int) -> str:
        """Return what comes before the credits of so many pictures."""
        if self.format == "txt":
            return f"{count:,} pictures\n\nChanges: {self.changes}\n\n"
        if self.format == "csv":
            return _line([*_SCHEMA.names, "changes"])
        if self.format == "json":
            return f'{{"changes": {json.dumps(self.changes)},\n'
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Credits</title></head><body>\n'
            f"<h1>Credits of {count:,} pictures</h1>\n<p>{html.escape(self.changes)}</p>\n"
            "<table>\n<tr><th>id</th><th>creator</th><th>licence</th></tr>\n"
        )

    def listed(self, without: Iterable[str]) -> Iterator[str]:
        """Yield the list of the pictures without creator or licence, which JSON alone has."""
        if self.format == "json":
            yield '"without": ['
            for number, id in enumerate(without):
                yield (", " if number else "") + json.dumps(id)
            yield '],\n"credits": ['

    @property
    def separator(self) -> str:
        """What every credit begins with, and the first of all must not."""
        return "," if self.format == "json" else ""

    def credits(self, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
        """Yield the credits of rows, each after a `separator`."""
        for row in rows:
            if self.format == "json":
                yield ",\n" + json.dumps(row, ensure_ascii=False)
            elif self.format == "csv":
                yield _line([*("" if value is None else value for value in row.values()), self.changes])
            else:
                yield _as_text(row) if self.format == "txt" else _as_html(row)

    def end(self) -> str:
        return {"json": "\n]}\n", "html": "</table>\n</body></html>\n"}.get(self.format, "")


def _line(values: list[Any]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _as_text(row: dict[str, Any]) -> str:
    licence = row["licence"] or "licence not known"
    url = f", {row['licence_url']}" if row["licence_url"] and row["licence_url"] != licence else ""
    return f"{row['id']}: {row['creator'] or 'creator not known'}, {licence}{url}\n"


def _as_html(row: dict[str, Any]) -> str:
    licence = html.escape(row["licence"] or "not known")
    if row["licence_url"]:
        licence = f'<a href="{html.escape(row["licence_url"])}">{licence}</a>'
    creator = html.escape(row["creator"] or "not known")
    return f"<tr><td>{html.escape(row['id'])}</td><td>{creator}</td><td>{licence}</td></tr>\n"
