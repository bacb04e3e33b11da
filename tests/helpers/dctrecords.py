"""Small records of the codec dct, sound ones and rows to be damaged."""

from __future__ import annotations

import numpy as np

from pass_loader import _C

from .corpus import jpeg, position_coded
from .dctwriter import MARKERS, example, header, made, one_row, varint, write_dct, write_streams
from .jpegwriter import Component

ZSTD = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1


def small() -> dict[str, bytes]:
    lively = np.random.default_rng(0).choice([0, 0, 1, -2, 17, 200], (1, 3, 64))
    return {
        "example": one_row(example(), 16)[0],
        "lively": write_dct(8, 24, "gray", [Component(lively, np.full(64, 1))]),
        "420": _C.jpeg_to_dct(jpeg(position_coded(17, 18), quality=40, subsampling=2)),  # type: ignore[dict-item]
        "zstd": layered(),
        "ycck": write_dct(9, 17, "ycck", made(9, 17, [(2, 1), (1, 1), (1, 2), (2, 2)]), MARKERS["ycck"]),
    }


def layered() -> bytes:
    """Return a record with zstd's layer around some streams."""
    blocks = np.zeros((1, 40, 64), np.int64)
    blocks[0, ::3, [0, 9, 20]] = [[2], [-1], [5]]
    record = _C.layer_dct(write_dct(8, 320, "gray", [Component(blocks, np.full(64, 4))]), True)
    assert record.count(ZSTD) > 2
    return record


def gray(row: list[bytes], width: int = 8, **options: object) -> bytes:
    component = Component(np.zeros((1, width // 8, 64)), np.full(64, 1))
    return header(8, width, "gray", [component], **options) + write_streams(row)  # type: ignore[arg-type]


def streams(
    flags: bytes = b"\0", dc: bytes = b"\0", masks: bytes = b"", signs: bytes = b"", larger: bytes | None = None,
    nibbles: bytes = b"", bytes_: bytes = b"", dc_wide: bytes = b"", wide: bytes = b"",
) -> list[bytes]:  # fmt: skip
    numbers = [len(masks), len(signs), len(nibbles), len(bytes_), len(dc_wide) // 2, len(wide) // 2]
    lengths = b"".join(map(varint, numbers))
    larger = bytes(len(signs)) if larger is None else larger
    return [lengths, flags, dc, masks, signs, larger, nibbles, bytes_, dc_wide, wide]
