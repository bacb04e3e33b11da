"""PNGs of the kinds that Pillow does not write: all bit depths, colour types and filters, interlaced or not, split into
chunks of any size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

MAGIC = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}  # a pixel


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    pixels: np.ndarray,
    bits: int = 8,
    colour: int = GRAY,
    *,
    interlaced: bool = False,
    data_bytes: int = 1 << 16,
    palette: bytes | None = None,
    extra: bytes = b"",
    filters: int | None = None,
) -> bytes:
    """Return a PNG of pixels, (height, width) or (height, width, samples). data_bytes: the most in an IDAT chunk.
    extra: chunks before them. filters: that of all rows; None: all five in turn."""
    height, width = pixels.shape[:2]
    pixels = pixels.reshape(height, width, -1)
    raw = bytearray()
    for rows, columns in _passes(height, width) if interlaced else [(range(height), range(width))]:
        if len(columns):
            raw += _filtered(pixels[np.ix_(rows, columns)], bits, filters)
    stream = zlib.compress(bytes(raw))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    data = [chunk(b"IDAT", stream[at : at + data_bytes]) for at in range(0, len(stream), data_bytes)]
    colours = b"" if palette is None else chunk(b"PLTE", palette)
    return MAGIC + chunk(b"IHDR", header) + colours + extra + b"".join(data) + chunk(b"IEND", b"")


def _passes(height: int, width: int) -> Iterator[tuple[range, range]]:
    """Adam7 (PNG, 8.2)."""
    for y, x, down, across in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
                               (1, 0, 2, 1)):  # fmt: skip
        yield range(y, height, down), range(x, width, across)


def _filtered(pixels: np.ndarray, bits: int, filters: int | None) -> bytes:
    """The rows of a pass, each with its filter (PNG, 9.2)."""
    out = bytearray()
    step = max(1, bits * pixels.shape[2] // 8)
    above = None
    for number, row in enumerate(pixels):
        line = np.frombuffer(_packed(row.reshape(-1), bits), np.uint8).astype(int)
        if above is None:
            above = np.zeros_like(line)
        left, corner = (np.concatenate([np.zeros(step, int), one])[: len(line)] for one in (line, above))
        guess = left + above - corner
        a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        kind = number % 5 if filters is None else filters
        predicted = (0 * line, left, above, (left + above) // 2, paeth)[kind]
        out += bytes([kind]) + ((line - predicted) & 255).astype(np.uint8).tobytes()
        above = line
    return bytes(out)


def _packed(row: np.ndarray, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    return np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes()


KINDS = [(bits, GRAY) for bits in (1, 2, 4, 8, 16)] + [(bits, PALETTE) for bits in (1, 2, 4, 8)]


def drawn(bits: int, colour: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height)
    return rng.integers(0, 2**bits, (height, width, SAMPLES[colour]), dtype=np.uint16)


def palette(bits: int) -> bytes | None:
    """Return a palette; that of 8 bits has fewer colours than a byte can name."""
    return np.random.default_rng(0).bytes(3 * min(2**bits, 200))
