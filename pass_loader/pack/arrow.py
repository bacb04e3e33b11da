"""Conversions between numpy and Arrow by their buffers.

pyarrow's own conversions import pandas where it is installed, which takes 0.2 s and swallows a Ctrl-C. Some fail where
it is not: `to_pandas_dtype` of pyarrow before 26.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def numbers(values: np.ndarray, valid: np.ndarray | None = None) -> pa.Array:
    """Return a one-dimensional array of numbers as an Arrow array. valid: bool, null where it is false."""
    buffers = [_bits(valid), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def strings(values: Sequence[str], valid: np.ndarray | None = None) -> pa.Array:
    """Return strings as an Arrow array. valid: bool, null where it is false.

    Raises OverflowError for 2 GiB and more of them.
    """
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    if ends[-1] >= 1 << 31:
        raise OverflowError(f"{ends[-1]} bytes in one array of strings")
    buffers = [_bits(valid), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def column(values: Sequence[Any], type: pa.DataType) -> pa.Array:
    """Return strings, bytes of one length or numbers as an Arrow array of this type, None as null."""
    valid = np.array([value is not None for value in values], bool) if None in values else None
    if type == pa.string():
        return strings([value or "" for value in values], valid)
    if type == pa.binary():
        ends = np.cumsum([0, *(len(value or b"") for value in values)], dtype=np.int32)
        joined = b"".join(value or b"" for value in values)
        return pa.Array.from_buffers(type, len(values), [_bits(valid), pa.py_buffer(ends), pa.py_buffer(joined)])
    if pa.types.is_fixed_size_binary(type):
        joined = b"".join(value or bytes(type.byte_width) for value in values)
        return pa.Array.from_buffers(type, len(values), [_bits(valid), pa.py_buffer(joined)])
    return numbers(np.array([value or 0 for value in values], dtype_of(type)), valid)


def _bits(valid: np.ndarray | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def dtype_of(type: pa.DataType) -> np.dtype:
    """Return the numpy dtype of an Arrow type of numbers. Raises ValueError for any other type."""
    if not (pa.types.is_integer(type) or pa.types.is_floating(type)):
        raise ValueError(f"{type} is not a type of numbers")
    kind = "f" if pa.types.is_floating(type) else "u" if pa.types.is_unsigned_integer(type) else "i"
    return np.dtype(f"{kind}{type.bit_width // 8}")


def to_numpy(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a column of numbers without nulls as an array; a view where it is one chunk."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    dtype = dtype_of(column.type)
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize) for chunk in chunks if chunk
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def without(batch: pa.RecordBatch, names: Collection[str]) -> pa.RecordBatch:
    """Return the batch without these columns. (Its `drop_columns` is new in pyarrow 16.)"""
    return batch.select([place for place, name in enumerate(batch.schema.names) if name not in names])


def check_values(batch: pa.RecordBatch, first: int = 0) -> None:
    """Raise ValueError, with row and column, for a value that nobody can read: text that is not UTF-8, a date beyond
    9999.

    first: the row's number in the file.
    """
    for name, column in zip(batch.schema.names, batch.columns):
        try:
            _check_column(column)
        except (ValueError, OverflowError):
            for row in range(len(column)):
                try:
                    _check_column(column.slice(row, 1))
                except (ValueError, OverflowError) as error:
                    raise ValueError(f"row {first + row}, column {name!r}: {error}") from None
            raise


def _check_column(column: pa.Array) -> None:
    column.validate(full=True)
    if pa.types.is_temporal(column.type):
        column.to_pylist()


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch without views and dictionaries at any depth.

    Arrow's kernels do not take views, nor its files dictionaries that differ from batch to batch.
    """
    types = [plain_type(type) for type in batch.schema.types]
    columns = [column if column.type == type else column.cast(type) for column, type in zip(batch.columns, types)]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def plain_type(type: pa.DataType) -> pa.DataType:
    """Return the type that holds the same values without views and dictionaries."""
    if str(type) in ("string_view", "binary_view"):
        return pa.large_string() if str(type) == "string_view" else pa.large_binary()
    if pa.types.is_dictionary(type):
        return plain_type(type.value_type)
    if pa.types.is_struct(type):
        return pa.struct([_plain_field(type[place]) for place in range(type.num_fields)])
    if pa.types.is_map(type):
        return pa.map_(plain_type(type.key_type), _plain_field(type.item_field))
    if pa.types.is_fixed_size_list(type):
        return pa.list_(_plain_field(type.value_field), type.list_size)
    if pa.types.is_large_list(type):
        return pa.large_list(_plain_field(type.value_field))
    return pa.list_(_plain_field(type.value_field)) if pa.types.is_list(type) else type


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type))
