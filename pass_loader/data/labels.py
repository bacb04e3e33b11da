"""Labels in place of those that a pack has: numbers given in Python, or columns of its metadata."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from ..pack.reader import Pack

# An array, names of columns, or the numbers of classes by name.
Labels: TypeAlias = np.ndarray | Sequence[Any] | str | Mapping[str, int]


def labels_from(pack: Pack, labels: Labels | None) -> np.ndarray | None:
    """Return labels (records,) or (records, L), int64 or float32; None for the pack's own.

    labels: the number of each class by its name, as another dataset's `class_to_idx`: (records,) int64. Or numbers of
        that shape, by record (whole ones and bool become int64, others float32). Or the name of a column of the pack's
        metadata, or a sequence of L names. Columns become int64 where all of them are of whole numbers and no value is
        missing, else float32, with NaN where one is missing.
    Raises PackError for a column that the pack does not have or that holds other than numbers, or a class whose number
        is not given; ValueError or TypeError for an array of another shape or type.
    """
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        return _by_name(pack, labels)
    if isinstance(labels, str):
        return _columns(pack, [labels])[:, 0].copy()
    if isinstance(labels, (list, tuple)) and labels and all(isinstance(name, str) for name in labels):
        return _columns(pack, list(labels))
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != pack.records:
        raise ValueError(
            f"labels of shape {array.shape}: want ({pack.records},) or ({pack.records}, L), a row for every record of "
            f"{pack.path}, removed ones too"
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(f"labels of {array.dtype}: want numbers, or names of columns of the metadata")
    return np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else np.int64)


def names_of(labels: Labels | None) -> list[str] | None:
    """Return the names of classes in the order of their numbers, where labels give both and numbers are 0, 1, ..."""
    if not isinstance(labels, Mapping) or sorted(labels.values()) != [*range(len(labels))]:
        return None
    return sorted(labels, key=lambda name: labels[name])


def _by_name(pack: Pack, numbers: Mapping[str, int]) -> np.ndarray:
    """Return the number of each record's class, (records,) int64; -1 where it has none."""
    if not pack.classes:
        raise PackError(f"labels: {pack.path} names no classes, so their numbers cannot be found by name")
    if unknown := [name for name in pack.classes if name not in numbers]:
        more = ", ..." if len(unknown) > 3 else ""
        raise PackError(
            f"labels: {pack.path} has the class {', '.join(map(repr, unknown[:3]))}{more}, and no number is given "
            f"for it ({len(unknown)} of {len(pack.classes)} classes)"
        )
    table = np.array([operator.index(numbers[name]) for name in pack.classes] + [-1], np.int64)
    if (table[:-1] < 0).any():
        raise ValueError(f"labels: the class {pack.classes[int(table[:-1].argmin())]!r} has a number below 0")
    return table[pack.labels(np.arange(pack.records))]


def _columns(pack: Pack, names: list[str]) -> np.ndarray:
    known = pack.manifest.get("metadata", [])
    if unknown := [name for name in names if name not in known]:
        raise PackError(f"labels: {pack.path} has no column {', '.join(map(repr, unknown))}; its metadata has {known}")
    tables = [pack.table(shard, columns=list(dict.fromkeys(names))) for shard in range(len(pack.shards))]
    table = pa.concat_tables(tables)
    purged = pack.column("length") == 0  # their metadata are gone: that must not change the type of the others
    columns = [numbers_of(pack, name, table.column(name), purged) for name in names]
    whole = all(column.dtype.kind == "i" for column in columns)
    return np.stack(columns, axis=1).astype(np.int64 if whole else np.float32)


def numbers_of(pack: Pack, name: str, column: pa.ChunkedArray, purged: np.ndarray) -> np.ndarray:
    """Return a column as numbers (records,): int64 with -1 for purged records, or float64 with NaN for missing values.

    Text is read as numbers, since a CSV's columns are text. Raises PackError for text that is none.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)
    missing = pc.is_null(column).to_numpy() & ~purged
    if not missing.any() and not pa.types.is_floating(column.type):
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pc.fill_null(pc.cast(column, pa.int64()), -1).to_numpy()
    try:
        return pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PackError(f"column {name!r} of {pack.path} holds other than numbers: {error}") from None
