"""Hugging Face's Parquet files: images as {"bytes", "path"}, or as bytes; the other columns are metadata."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PackError
from .source import Entry, Source

_BATCH = 64  # rows decoded at a time: some megabytes of pictures
_LABELS = ("label", "labels")


class ParquetSource(Source):
    """The id is the column `id`, or the base name of the image's path, or file name and row. The column `label` gives
    the label; its names stand in the file's schema where `datasets` wrote it."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise PackError(f"{path} is not a readable Parquet file: {error}; download it again") from None
        features = (
            json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        )
        self._image = self._image_column(features)
        self._label = next((name for name in _LABELS if _is_integer(self._schema, name)), None)
        self._names: list[str] = features.get(self._label, {}).get("names", []) if self._label else []
        self._local = threading.local()

    def _image_column(self, features: dict[str, Any]) -> str:
        for name, feature in features.items():
            if isinstance(feature, dict) and feature.get("_type") == "Image":
                return name
        for name in ("image", "img", "jpg", "picture"):
            if name in self._schema.names:
                return name
        raise PackError(f"{self.path} has no column of images; its columns are {self._schema.names}")

    def classes(self) -> list[str]:
        return self._names

    def size(self) -> int:
        return self.path.stat().st_size

    def entries(self) -> Iterator[Entry]:
        row = 0
        for batch in self._batches(self._schema.names):
            images = batch.column(self._image)
            others = batch.drop_columns([self._image, *filter(None, [self._label])])
            labels = batch.column(self._label).to_pylist() if self._label else [None] * len(batch)
            for image, metadata, label in zip(images, others.to_pylist(), labels):
                data, path = _bytes_of(image), _path_of(image)
                own = metadata.pop("id", None)
                id = str(own) if own is not None else PurePosixPath(path).stem or f"{self.path.stem}-{row}"
                named = label is not None and 0 <= label < len(self._names)
                yield Entry(
                    self, f"row {row}" + (f" ({path})" if path else ""), id, self._names[label] if named else None, row,
                    len(data) if data is not None else 0, None if data is not None else "the row holds no bytes",
                    None if named or label is None or label < 0 else label, metadata,
                )  # fmt: skip
                row += 1

    def read(self, entry: Entry) -> bytes:
        """Rows in order cost one pass over the file, a thread."""
        local = self._local
        if getattr(local, "end", -1) > entry.offset >= local.start:
            return _bytes_of(local.images[entry.offset - local.start]) or b""
        if getattr(local, "end", None) is None or local.start > entry.offset:
            local.batches, local.start, local.end = self._batches([self._image]), 0, 0
        while local.end <= entry.offset:
            local.images = next(local.batches).column(self._image)
            local.start, local.end = local.end, local.end + len(local.images)
        return _bytes_of(local.images[entry.offset - local.start]) or b""

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(self.path, pre_buffer=False) as file:
                yield from file.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise PackError(f"{self.path} is damaged: {error}; download it again") from None


def _is_integer(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and pa.types.is_integer(schema.field(name).type)


def _bytes_of(image: pa.Scalar) -> bytes | None:
    return (image["bytes"] if isinstance(image, pa.StructScalar) and image.is_valid else image).as_py()


def _path_of(image: pa.Scalar) -> str:
    if isinstance(image, pa.StructScalar) and image.is_valid and "path" in image.type.names:
        return image["path"].as_py() or ""
    return ""
