"""Files of FFCV's, packed by hand: what ffcv 1.0.2 writes, and what it never would."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

FLOAT, INT, IMAGE, BYTES, ARRAY, JSON, TENSOR, OWN = 0, 1, 2, 3, 4, 5, 6, 255
PAGE_BYTES = 1 << 21
_SIZES = {FLOAT: (8, 8), INT: (8, 8), IMAGE: (13, 1), BYTES: (16, 1), ARRAY: (8, 8), JSON: (16, 1), TENSOR: (8, 8),
          OWN: (8, 8)}  # fmt: skip  # bytes, and what their place is a multiple of


class Raw:
    """A picture that is kept raw: RGB of width x height."""

    def __init__(self, width: int, height: int, pixels: bytes):
        self.width, self.height, self.pixels = width, height, pixels


def beton(fields: dict[str, int], samples: Sequence[Sequence[Any]], page_bytes: int = PAGE_BYTES) -> bytes:
    """Return a file. fields: types by name. samples: a value for each field: a JPEG's bytes or a Raw for an image."""
    places, row_bytes, widest = [], 0, 1
    for type in fields.values():
        size, step = _SIZES[type]
        row_bytes = -(-row_bytes // step) * step
        places.append(row_bytes)
        row_bytes, widest = row_bytes + size, max(widest, step)
    row_bytes = -(-row_bytes // widest) * widest
    described = b"".join(struct.pack("<B16s1024x", type, name.encode()) for name, type in fields.items())
    begin = 24 + len(described) + row_bytes * len(samples)
    pages = -(-begin // page_bytes) * page_bytes
    data, rows, table = bytearray(), bytearray(), bytearray()

    def keep(sample: int, part: bytes) -> int:
        at = pages + len(data)
        table.extend(struct.pack("<QQQ", sample, at, len(part)))
        data.extend(part)
        return at

    for number, sample in enumerate(samples):
        row = bytearray(row_bytes)
        for place, type, value in zip(places, fields.values(), sample):
            if type == IMAGE:
                raw = isinstance(value, Raw)
                sides = (value.width, value.height) if raw else (1, 1)
                at = keep(number, value.pixels if raw else value)
                packed = struct.pack("<BHHQ", raw, *sides, at)
            elif type in (BYTES, JSON):
                part = json.dumps(value).encode() + b"\0" if type == JSON else value
                packed = struct.pack("<QQ", keep(number, part), len(part))
            elif type in (ARRAY, TENSOR):
                packed = struct.pack("<Q", keep(number, value))
            else:
                packed = struct.pack("<d" if type == FLOAT else "<q", value)
            row[place : place + len(packed)] = packed
        rows += row
    data += bytes(-len(data) % page_bytes)
    header = struct.pack("<HHIQQ", 2, len(fields), page_bytes, len(samples), pages + len(data))
    return (header + described + rows).ljust(pages, b"\0") + data + table
