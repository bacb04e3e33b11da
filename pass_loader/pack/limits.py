"""Limits of what one picture may be, for pictures of strangers."""

from __future__ import annotations

import operator

from .. import _C


def limits(max_pixels: int | None, max_scans: int | None) -> dict[str, int]:
    """Return the limits as keywords of the native side's functions. None takes the default.

    max_pixels: 178,956,970 by default and at most, which is Pillow's limit. max_scans, of a JPEG: by default 500, and
    as many as make 4,000,000,000 pixels times scans. Raises ValueError for a number out of range.
    """
    pixels = _C.max_pixels if max_pixels is None else operator.index(max_pixels)
    if not 1 <= pixels <= _C.max_pixels:
        raise ValueError(f"max_pixels is {pixels}, want 1 to {_C.max_pixels}, which is Pillow's limit")
    scans = 0 if max_scans is None else operator.index(max_scans)
    if max_scans is not None and not 1 <= scans < 1 << 31:
        raise ValueError(f"max_scans is {scans}, want at least 1")
    return {"max_pixels": pixels, "max_scans": scans}
