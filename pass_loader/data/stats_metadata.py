"""Numbers of a pack's metadata: licences, dates and places of all live pictures, a shard's table at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..pack import arrow
from ..pack.attribution import CREATOR_COLUMNS, LICENCE_COLUMNS
from ..pack.reader import Pack

TABLE_BYTES = 64  # of a record, that progress counts for its row of metadata
DATE_COLUMNS = ("datetaken", "date_taken", "datetime", "date")
PLACE_COLUMNS = (("latitude", "longitude"), ("gps_latitude", "gps_longitude"))
_MOST_LICENCES = 10_000  # different ones that are counted by name
_MOST_SIGNS = 200  # of a licence's name
_DATE = r"^\d{4}[-:](0[1-9]|1[0-2])([-: T]|$)"  # PASS's, ISO 8601's, Exif's


def metadata_numbers(pack: Pack, progress: Callable[[int], None]) -> dict[str, Any]:
    """Return licences, creators, dates and places; None for what the metadata has no column of.

    progress: called with bytes, TABLE_BYTES a record in all. Raises PackError where a table is damaged.
    """
    names = pack.manifest.get("metadata", [])
    licence, creator, date = (
        next((name for name in usual if name in names), None)
        for usual in (LICENCE_COLUMNS, CREATOR_COLUMNS, DATE_COLUMNS)
    )
    place = next((pair for pair in PLACE_COLUMNS if {*pair} <= {*names}), None)
    wanted = [name for name in (licence, creator, date, *(place or ())) if name is not None]
    licences, creators, dates, places = Licences(), Creators(), Dates(), Places()
    for shard, (first, end) in enumerate(zip(pack.first_record.tolist(), pack.first_record[1:].tolist())):
        if wanted:
            records = np.arange(first, end)
            rows = pack.table(shard, columns=wanted).take(arrow.numbers(records[~pack.is_removed(records)] - first))
            if licence is not None:
                licences.add(rows.column(licence))
            if creator is not None:
                creators.add(rows.column(creator))
            if date is not None:
                dates.add(rows.column(date))
            if place is not None:
                places.add(*map(rows.column, place))
        progress((end - first) * TABLE_BYTES)
    return {
        "licences": licences.summary(licence) if licence else None,
        "creators": creators.summary(creator) if creator else None,
        "dates": dates.summary(date) if date else None,
        "places": places.summary(list(place)) if place else None,
    }


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as strings without blanks around them; null where it is empty or can be no text."""
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        with contextlib.suppress(pa.ArrowException):  # lists, durations
            text = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
            return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text)
    return pa.chunked_array([pa.nulls(len(column), pa.large_string())])


class Licences:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._without = self._others = 0

    def add(self, column: pa.ChunkedArray) -> None:
        for pair in pc.value_counts(pc.utf8_slice_codeunits(_text(column), 0, _MOST_SIGNS)):
            name, count = pair["values"].as_py(), pair["counts"].as_py()
            if name is None:
                self._without += count
            elif name in self._counts or len(self._counts) < _MOST_LICENCES:
                self._counts[name] += count
            else:
                self._others += count

    def summary(self, column: str) -> dict[str, Any]:
        named = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "column": column,
            "licences": [{"licence": name, "pictures": count} for name, count in named],
            "others": self._others,
            "without": self._without,
        }


class Creators:
    """How many pictures have a creator. Who made how many is not counted: names are there for attribution alone."""

    def __init__(self) -> None:
        self._known = self._without = 0

    def add(self, column: pa.ChunkedArray) -> None:
        unknown = _text(column).null_count
        self._without += unknown
        self._known += len(column) - unknown

    def summary(self, column: str) -> dict[str, Any]:
        return {"column": column, "known": self._known, "without": self._without}


class Dates:
    def __init__(self) -> None:
        self._months: Counter[tuple[int, int]] = Counter()
        self._without = self._unread = 0

    def add(self, column: pa.ChunkedArray) -> None:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp(column.type.unit))  # UTC: Arrow need not know the zone
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            self._without += column.null_count
            read = column.drop_null()
            years, months = pc.year(read).to_pylist(), pc.month(read).to_pylist()
        else:
            text = _text(column)
            self._without += text.null_count
            text = text.drop_null()
            read = text.filter(pc.match_substring_regex(text, _DATE))
            self._unread += len(text) - len(read)
            years, months = (
                pc.utf8_slice_codeunits(read, *place).cast(pa.int32()).to_pylist() for place in ((0, 4), (5, 7))
            )
        possible = [pair for pair in zip(years, months) if 0 <= pair[0] <= 9999]
        self._unread += len(years) - len(possible)
        self._months.update(possible)

    def summary(self, column: str) -> dict[str, Any]:
        months = sorted(self._months.items())
        return {
            "column": column,
            "months": [{"month": f"{year:04d}-{month:02d}", "pictures": count} for (year, month), count in months],
            "without": self._without,
            "unreadable": self._unread,
        }


class Places:
    """Pictures in cells of one degree."""

    def __init__(self) -> None:
        self._cells = np.zeros(180 * 360, np.int64)
        self._without = self._outside = 0

    def add(self, latitude: pa.ChunkedArray, longitude: pa.ChunkedArray) -> None:
        north, east = _degrees(latitude), _degrees(longitude)
        known = ~(np.isnan(north) | np.isnan(east))
        self._without += int(np.count_nonzero(~known))
        north, east = north[known], east[known]
        inside = (np.abs(north) <= 90) & (np.abs(east) <= 180)
        self._outside += int(np.count_nonzero(~inside))
        row = np.minimum(np.floor(north[inside] + 90), 179).astype(np.int64)
        column = np.minimum(np.floor(east[inside] + 180), 359).astype(np.int64)
        self._cells += np.bincount(row * 360 + column, minlength=len(self._cells))

    def summary(self, columns: list[str]) -> dict[str, Any]:
        used = np.flatnonzero(self._cells)
        return {
            "columns": columns,
            "known": int(self._cells.sum()),
            "cells": [  # south-west corner in degrees
                [cell // 360 - 90, cell % 360 - 180, count]
                for cell, count in zip(used.tolist(), self._cells[used].tolist())
            ],
            "without": self._without,
            "impossible": self._outside,
        }


def _degrees(column: pa.ChunkedArray) -> np.ndarray:
    """Return coordinates as float64, NaN where there is none that can be read."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        text = _text(column)
        is_number = pc.match_substring_regex(text, r"^[+-]?\d{1,3}(\.\d{1,20})?$")
        column = pc.if_else(is_number, text, pa.scalar(None, pa.large_string()))
    return arrow.to_numpy(pc.fill_null(column.cast(pa.float64(), safe=False), float("nan")))
