"""What the sources themselves say of pictures: names of classes, numbers for labels, and columns of metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .layout import TABLE_SCHEMA
from .metadata import without_gps

_TYPES: dict[type, str] = {bool: "bool", int: "int64", float: "double", str: "string"}


@dataclass
class OwnColumns:
    """What some rows have in common; of several parts the whole follows.

    classes: their names. numbered: some rows have numbers for labels. types: of the columns of metadata, by the name
    that a pack gives them: "null", "bool", "int64", "double" or "string".
    """

    classes: list[str] = field(default_factory=list)
    numbered: bool = False
    types: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pa.Table, gps: bool) -> OwnColumns:
        """Return what rows of shards.ROWS_SCHEMA have. gps: False leaves the sources' own coordinates out."""
        names = {json.loads(name) for name in pc.unique(rows.column("class_name")).to_pylist() if name is not None}
        own = cls(sorted(names), rows.column("label").null_count < rows.num_rows)
        for row in own_rows(rows, gps):
            for name, value in row.items():
                own.types[name] = _wider(own.types.get(name, "null"), _type_of(value))
        return own

    def merge(self, other: OwnColumns) -> None:
        self.classes = sorted({*self.classes, *other.classes})
        self.numbered |= other.numbered
        for name, type in other.types.items():
            self.types[name] = _wider(self.types.get(name, "null"), type)

    def columns(self, rows: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        """Return the columns of metadata of rows that `own_rows` gave."""
        columns = {}
        for name, kind in self.types.items():
            type = pa.type_for_alias(kind)
            columns[name] = pa.array([_as_type(row.get(name), type) for row in rows], type)
        return columns


def own_rows(rows: pa.Table, gps: bool) -> list[dict[str, Any]]:
    """Return each row's metadata, by the pack's names of columns."""
    if rows.column("metadata").null_count == rows.num_rows:
        return [{}] * rows.num_rows
    found = []
    for text in rows.column("metadata").to_pylist():
        own = json.loads(text) if text is not None else {}
        found.append({own_name(name): value for name, value in (own if gps else without_gps(own)).items()})
    return found


def own_name(name: str) -> str:
    """Return the name of a source's own column beside those that every pack has."""
    return f"source_{name}" if name in TABLE_SCHEMA.names else name


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return "string"
    return _TYPES.get(type(value), "string")


def _wider(one: str, other: str) -> str:
    """Choose a type: whole numbers and fractions make fractions; anything else that is mixed or nested makes text."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    return "double" if {one, other} == {"int64", "double"} else "string"


def _as_type(value: Any, type: pa.DataType) -> Any:
    if type == pa.float64() and value is not None:
        return float(value)  # Arrow refuses whole numbers beyond 2**53
    if value is None or type != pa.string() or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
