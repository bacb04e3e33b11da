"""Files that Pillow and we treat differently: csrc/README.md, docs/exactness.md, docs/gray-and-medical.md.

The first kind comes from libjpeg-turbo: 2.1 is Debian's, 3.x is in Pillow's wheels.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pass_loader import BadPictureError, _C

from ..helpers.corpus import by_pillow, jpeg, noise, position_coded

ROOT = Path(__file__).parent.parent.parent
WORST, DIFFERENT, FILES = 44, 289, 3300  # levels; of files with one or two scans taken out


def by_us(data: bytes) -> np.ndarray | None:
    try:
        return _C.decode(data, 3)
    except BadPictureError:
        return None


def without_scans(data: bytes) -> list[bytes]:
    """A progressive file without one or two of its scans, their Huffman tables apart."""
    at = [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xda"]
    starts: list[int] = []
    for number, start in enumerate(at):
        first = at[number - 1] if number else 0
        while (table := data.rfind(b"\xff\xc4", 0, start)) > max(first, starts[-1] if starts else 0):
            start = table
        starts.append(start)
    parts = [data[begin:end] for begin, end in zip(starts, [*starts[1:], len(data) - 2])]
    return [
        data[: starts[0]] + b"".join(part for number, part in enumerate(parts) if number not in lost) + b"\xff\xd9"
        for count in (1, 2)
        for lost in itertools.combinations(range(len(parts)), count)
    ]


@pytest.mark.slow
def test_lost_scans() -> None:
    """libjpeg-turbo smooths what is missing, and its versions do so differently."""
    files = different = worst = 0
    for (height, width), make in itertools.product(
        [(9, 17), (20, 28), (16, 16), (33, 41), (64, 64)], (noise, position_coded)
    ):
        for subsampling, quality in itertools.product((0, 2), (30, 75, 95)):
            whole = jpeg(make(height, width), progressive=True, subsampling=subsampling, quality=quality)
            for data in without_scans(whole):
                theirs, ours = by_pillow(data), by_us(data)
                assert (theirs is None) == (ours is None)
                if theirs is not None and ours is not None:
                    files += 1
                    difference = int(np.abs(theirs.astype(int) - ours).max())
                    different += difference > 0
                    worst = max(worst, difference)
    assert files == FILES and different <= DIFFERENT and worst <= WORST
    told = " ".join((ROOT / "csrc" / "README.md").read_text().split())
    assert f"{DIFFERENT} of {FILES:,}" in told and f"at most {WORST} levels" in told


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + marker]) + struct.pack(">H", len(body) + 2) + body


APPLICATION = {
    0: b"JFIF\0\1\2\1\0\x48\0\x48\0\0",
    1: b"Exif\0\0II*\0\x08" + bytes(9),
    2: b"ICC_PROFILE\0\1\1" + bytes(20),
    13: b"Photoshop 3.0\0" + b"8BIM" + bytes(20),
    14: b"Adobe\0\x64\0\0\0\0\1",
}


@pytest.mark.parametrize("marker", range(16))
def test_application_segments_that_are_cut_off(marker: int) -> None:
    """Pillow refuses a file for one that ends right after its name; the pixels do not need it."""
    data = jpeg(noise(9, 17))
    body = APPLICATION.get(marker, b"abcdefghijkl")
    refused = {0: {4, 5, 6}, 2: {12, 13}, 13: {20}, 14: {5, 6}}.get(marker, set())
    for length in range(len(body) + 1):
        changed = data[:2] + segment(marker, body[:length]) + data[2:]
        theirs, ours = by_pillow(changed), by_us(changed)
        assert ours is not None and (theirs is None) == (length in refused), length
        assert theirs is None or np.array_equal(theirs, ours)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(mode: str, extra: bytes) -> bytes:
    out = io.BytesIO()
    Image.fromarray(noise(5, 7)).convert(mode).save(out, "PNG")
    data = out.getvalue()
    place = data.index(b"IDAT") - 4
    return data[:place] + extra + data[place:]


# The lengths below which Pillow refuses a chunk of RGB.
SHORT = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tRNS": 6, b"iCCP": 2, b"fcTL": 10**9, b"fdAT": 10**9}
TAKEN_HERE = {
    f"{name.decode()} of {length} bytes": png("RGB", chunk(name, bytes(length)))
    for name, least in SHORT.items()
    for length in (0, 1, 3, 5, 8, 31)
    if length < least
} | {
    "text that unpacks to 2 MB, zTXt": png("RGB", chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 << 20)))),
    "text that unpacks to 2 MB, iTXt": png("RGB", chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2 << 20)))),
    "zTXt of an unknown method": png("RGB", chunk(b"zTXt", b"k\0\3" + zlib.compress(b"v"))),
    "iCCP of an unknown method": png("RGB", chunk(b"iCCP", b"k\0\3" + zlib.compress(b"v"))),
}
REFUSED_HERE = {
    "a palette of no colour": png("P", chunk(b"PLTE", b"")),
    "a palette of 13 bytes": png("P", chunk(b"PLTE", bytes(13))),
    "a palette of 13 bytes beside RGB": png("RGB", chunk(b"PLTE", bytes(13))),
    "a broken animation": png("RGB", chunk(b"acTL", bytes(8))),
    "two headers": png("RGB", chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 8, 2, 0, 0, 0))),
}


@pytest.mark.parametrize("name", TAKEN_HERE)
def test_chunks_that_pillow_refuses(name: str) -> None:
    """Chunks beside the pixels are not read, so that a fault in one of them refuses nothing."""
    plain = by_us(png("RGB", b""))
    found = by_us(TAKEN_HERE[name])
    assert by_pillow(TAKEN_HERE[name]) is None and found is not None and np.array_equal(found, plain)


@pytest.mark.parametrize("name", REFUSED_HERE)
def test_files_that_pillow_takes(name: str) -> None:
    assert by_pillow(REFUSED_HERE[name]) is not None and by_us(REFUSED_HERE[name]) is None


@pytest.mark.parametrize("name", [b"tEXt", b"bKGD", b"hIST", b"tIME", b"sBIT", b"sPLT", b"eXIf", b"cICP", b"xyzw"])
def test_chunks_that_mean_nothing_to_both(name: bytes) -> None:
    for length in (0, 1, 3, 5, 8, 31):
        data = png("RGB", chunk(name, bytes(length)))
        theirs, ours = by_pillow(data), by_us(data)
        assert theirs is not None and ours is not None and np.array_equal(theirs, ours), length
