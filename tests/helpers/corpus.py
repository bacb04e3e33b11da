"""JPEGs made by Pillow for the tests: position-coded, so that a shift, a swap or a missed flip shows."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image


def position_coded(height: int, width: int) -> np.ndarray:
    """Return (height, width, 3) uint8: red grows with x, green with y, blue is a fine checker of both."""
    y, x = np.mgrid[0:height, 0:width]
    red = x * 255 // max(width - 1, 1)
    green = y * 255 // max(height - 1, 1)
    blue = (x * 7 + y * 13) % 256
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(data: bytes) -> np.ndarray | None:
    """Return the pixels that Pillow decodes, (height, width, 3), or None where it refuses the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as picture:
                return np.asarray(picture.convert("RGB"))
        except Exception:
            return None


def jpeg(pixels: np.ndarray | Image.Image, mode: str = "RGB", **options: object) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    picture.convert(mode).save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def decodable() -> dict[str, bytes]:
    """Return small JPEGs of every kind that Pillow writes."""
    sizes = {f"size_{h}x{w}": jpeg(position_coded(h, w), subsampling=s)
             for s, (h, w) in enumerate([(1, 1), (7, 3), (8, 8)])}  # fmt: skip
    sizes |= {f"size_{h}x{w}_420": jpeg(position_coded(h, w), subsampling=2)
              for h, w in [(1, 1), (17, 33), (1, 500), (500, 1), (3, 7), (16, 16), (15, 17), (64, 65)]}  # fmt: skip
    base = position_coded(75, 101)
    exif = Image.Exif()
    exif[0x0112] = 6
    adobe_rgb = Image.fromarray(base)
    return sizes | {
        "sub444": jpeg(base, subsampling=0),
        "sub422": jpeg(base, subsampling=1),
        "sub420": jpeg(base, subsampling=2),
        "noise420": jpeg(noise(75, 101), subsampling=2),
        "q1": jpeg(base, quality=1),
        "q100": jpeg(noise(50, 50), quality=100, subsampling=0),
        "gray": jpeg(base, mode="L"),
        "cmyk": jpeg(base, mode="CMYK"),
        "cmyk_noise": jpeg(
            Image.merge("CMYK", [Image.fromarray(noise(40, 40, c)[:, :, 0]) for c in range(4)]), mode="CMYK"
        ),
        "progressive": jpeg(base, progressive=True, subsampling=2),
        "progressive_gray": jpeg(base, mode="L", progressive=True),
        "restart": jpeg(base, restart_marker_blocks=3, subsampling=2),
        "optimized": jpeg(base, optimize=True),
        "exif_rotated": jpeg(base, exif=exif.tobytes()),
        "comment": jpeg(base, comment=b"FF D9 inside: \xff\xd9"),
        "keep_rgb": jpeg(adobe_rgb, keep_rgb=True, subsampling=0),
        "garbage_after_eoi": jpeg(base) + bytes(range(256)),
        "zeros_after_eoi": jpeg(base) + bytes(12),
    }


def bomb(height: int = 65500, width: int = 65500) -> bytes:
    """Return a small file whose frame header claims a huge picture."""
    data = bytearray(jpeg(position_coded(16, 16)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def refused() -> dict[str, bytes]:
    whole = jpeg(noise(64, 64))
    return {
        "empty": b"",
        "html": b"<!DOCTYPE html><title>moved</title>",
        "soi_only": b"\xff\xd8\xff",
        "header_only": whole[:200],
        "truncated_half": whole[: len(whole) // 2],
        "no_eoi": whole[:-2],
        "bomb": bomb(),
        "no_marker": whole[:2] + b"\xff\x01" + whole[2:],
    }


def many_scans(scans: int = 600) -> bytes:
    """Return a progressive file whose last scan is repeated: few bytes, much work."""
    data = jpeg(position_coded(64, 64), progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * scans + data[-2:]


def every_colour() -> np.ndarray:
    """Return all 2^24 colours in one picture."""
    levels = np.arange(256, dtype=np.uint8)
    r, g, b = np.meshgrid(levels, levels, levels, indexing="ij")
    return np.stack([r, g, b], axis=-1).reshape(4096, 4096, 3)


def extremes(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (height, width) uint16 noise with black and white edges, where bicubic weights go beyond both ends."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 65536, (height, width), dtype=np.uint16)
    pixels[rng.random((height, width)) < 0.3] = 65535
    pixels[rng.random((height, width)) < 0.3] = 0
    return pixels


def small() -> dict[str, bytes]:
    """Return a JPEG of each kind that is small enough to be cut and changed everywhere."""
    return {
        "baseline": jpeg(position_coded(20, 28), subsampling=2),
        "progressive": jpeg(position_coded(20, 28), subsampling=2, progressive=True),
        "restart": jpeg(position_coded(20, 28), subsampling=0, restart_marker_rows=1),
        "cmyk": jpeg(position_coded(12, 12), mode="CMYK"),
    }


def each_bit_flipped(data: bytes) -> Iterator[bytes]:
    """Yield the file with one of its bits flipped, once for each bit."""
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            yield bytes(changed)
