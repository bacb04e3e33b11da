"""Hugging Face's Parquet files: images as {"bytes", "path"}, or as bytes; the other columns are metadata."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PackError
from . import arrow
from .plain_json import plain_json
from .source import Entry, Source, label_problem

_BATCH = 64  # rows decoded at a time: some megabytes of pictures
_LABELS = ("label", "labels")


class ParquetSource(Source):
    """A Parquet file with a column of images.

    The id is the column `id`, or the base name of the image's path, or file name and row. The column `label` gives the
    label; its names stand in the file's schema where `datasets` wrote it.
    """

    at_random = False  # a row costs its whole group of rows

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._schema = self._read_schema()
        except PackError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise PackError(f"{self.place} is not a readable Parquet file: {error}; download it again") from None
        features = self._features()
        self._image = self._image_column(features)
        self._label = next((name for name in _LABELS if _is_integer(self._schema, name)), None)
        self._names = _class_names(features.get(self._label)) if self._label else []

    def _read_schema(self) -> pa.Schema:
        return pq.read_schema(self.path)

    @contextlib.contextmanager
    def _file(self) -> Iterator[pq.ParquetFile]:
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            yield file

    def _features(self) -> dict[str, Any]:
        """Return what `datasets` says of the columns, from the file's schema."""
        try:
            found = plain_json((self._schema.metadata or {}).get(b"huggingface", b"{}"))
        except ValueError as error:
            raise PackError(
                f"{self.place}: its schema's `huggingface` is damaged: {error}; download it again"
            ) from None
        for name in ("info", "features"):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def _image_column(self, features: dict[str, Any]) -> str:
        images = [name for name, about in features.items() if isinstance(about, dict) and about.get("_type") == "Image"]
        for name in (*images, "image", "img", "jpg", "picture"):
            if self._schema.names.count(name) == 1:
                type = self._schema.field(name).type
                if _holds_bytes(type):
                    return name
                raise PackError(f"{self.place}: its column {name!r} holds {type}; want bytes, or a struct with `bytes`")
        raise PackError(f"{self.place} has no column of images; its columns are {self._schema.names}")

    def classes(self) -> list[str]:
        return self._names

    def size(self) -> int:
        return self.path.stat().st_size

    def entries(self) -> Iterator[Entry]:
        row = 0
        for batch in self._batches(self._schema.names):
            try:
                entries = list(self._rows(batch, row))
            except (ValueError, OverflowError, RecursionError) as error:  # text that is no UTF-8, a date beyond 9999
                raise PackError(f"{self.place}, {_wrong_place(batch, row)}: {error}") from None
            yield from entries
            row += len(batch)

    def _rows(self, batch: pa.RecordBatch, first: int) -> Iterator[Entry]:
        images = batch.column(self._image)
        others = arrow.without(batch, [self._image, *filter(None, [self._label])])
        labels = batch.column(self._label).to_pylist() if self._label else [None] * len(batch)
        for row, (image, metadata, label) in enumerate(zip(images, others.to_pylist(), labels), first):
            data, path = _bytes_of(image), _path_of(image)
            own = metadata.pop("id", None)
            id = str(own) if own is not None else PurePosixPath(path).stem or f"{self.path.stem}-{row}"
            named = label is not None and 0 <= label < len(self._names)
            number = None if named or label is None or label < 0 else label
            problem = None if data is not None else "the row holds no bytes"
            if number is not None and (wrong := label_problem(number)):
                number, problem = None, wrong
            entry = Entry(
                self, f"row {row}" + (f" ({path})" if path else ""), id, self._names[label] if named else None, row,
                len(data) if data is not None else 0, problem, number, metadata,
            )  # fmt: skip
            yield self._given(entry, data)

    def read(self, entry: Entry) -> bytes:
        """Return the image's bytes.

        Rows in order cost each thread one pass over the file. A thread keeps the file open that it read last.
        """
        at = _reading
        if at.source is not self or at.start > entry.offset:
            at.source, at.batches, at.start, at.end = self, self._batches([self._image]), 0, 0
        while at.end <= entry.offset:
            batch = next(at.batches, None)
            if batch is None:
                raise PackError(f"{self.path} has {at.end} rows, and had more before: it was changed meanwhile")
            at.images = batch.column(self._image)
            at.start, at.end = at.end, at.end + len(at.images)
        return _bytes_of(at.images[entry.offset - at.start]) or b""

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            with self._file() as file:
                yield from file.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False)
        except PackError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise PackError(f"{self.place} is damaged: {error}; download it again") from None


def _wrong_place(batch: pa.RecordBatch, first: int) -> str:
    """Return row and column of the first value that Python cannot have. first: the first row's number in the file."""
    for name, column in zip(batch.schema.names, batch.columns):
        for row in range(len(column)):
            try:
                column[row].as_py()
            except (ValueError, OverflowError, RecursionError):
                return f"row {first + row}, column {name!r}"
    return f"rows {first} to {first + len(batch) - 1}"


class _Reading(threading.local):
    """A thread's place in the file that it read last: the rows from `start` to `end` are at hand."""

    source: ParquetSource | None = None
    batches: Iterator[pa.RecordBatch] = iter(())
    start = end = 0
    images: pa.Array


_reading = _Reading()


def _class_names(feature: object) -> list[str]:
    names = feature.get("names", []) if isinstance(feature, dict) else []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _holds_bytes(type: pa.DataType) -> bool:
    if pa.types.is_struct(type):
        return type.get_field_index("bytes") >= 0 and _holds_bytes(type["bytes"].type)
    if pa.types.is_dictionary(type):
        return _holds_bytes(type.value_type)
    return str(type) in ("binary", "large_binary", "binary_view") or pa.types.is_fixed_size_binary(type)


def _is_integer(schema: pa.Schema, name: str) -> bool:
    return schema.names.count(name) == 1 and pa.types.is_integer(schema.field(name).type)


def _bytes_of(image: pa.Scalar) -> bytes | None:
    return (image["bytes"] if isinstance(image, pa.StructScalar) and image.is_valid else image).as_py()


def _path_of(image: pa.Scalar) -> str:
    if isinstance(image, pa.StructScalar) and image.is_valid and image.type.get_field_index("path") >= 0:
        return str(image["path"].as_py() or "")
    return ""
