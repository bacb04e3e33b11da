"""Windows of pictures, decoded alone: the same pixels as of the whole picture, and nothing else is read."""

from __future__ import annotations

import numpy as np
import pytest

from pass_loader import BadPictureError, _C

from ..helpers.corpus import decodable, jpeg, noise
from ..helpers.dctwriter import COLOURS, made, write_dct
from ..helpers.jpegwriter import SAMPLINGS, sparse
from ..helpers.levels import every_level
from ..helpers.trials import trials

pytestmark = pytest.mark.hostile
SIZES = [(1, 1), (8, 8), (17, 9), (40, 70), (33, 200), (130, 129), (65, 64)]
FACTORS = {
    "gray": [[(1, 1)], [(3, 2)]],
    "ycc": [[(2, 2), (1, 1), (1, 1)], [(2, 1), (1, 2), (1, 1)], [(4, 1), (1, 1), (2, 1)], [(1, 4), (1, 2), (1, 1)]],
    "rgb": [[(1, 1)] * 3, [(2, 2), (1, 2), (2, 1)]],
    "cmyk": [[(1, 1)] * 4, [(2, 1), (1, 1), (1, 1), (2, 1)]],
    "ycck": [[(2, 2), (1, 1), (1, 1), (2, 2)], [(1, 2), (1, 1), (1, 1), (1, 2)]],
}


def windows(height: int, width: int, count: int, seed: int = 0) -> list[tuple[int, int, int, int]]:
    """Return windows (top, bottom, left, right): whole, the corners' pixels, and others."""
    rng = np.random.default_rng(seed)
    found = [(0, height, 0, width), (0, 1, 0, 1), (height - 1, height, width - 1, width)]
    for _ in range(count):
        rows, columns = (np.sort(rng.choice(size + 1, 2, replace=False)).tolist() for size in (height, width))
        found.append((*rows, *columns))
    return found


def check(record: bytes, whole: np.ndarray, points: bytes = b"", count: int = 12) -> None:
    """Compare windows with the whole picture, and that entry points were used where there are some."""
    for top, bottom, left, right in windows(*whole.shape[:2], count):
        pixels, by = _C.decode_part(record, (top, bottom, left, right), points)
        want = whole[top:bottom, left:right, : pixels.shape[2]]
        assert np.array_equal(pixels, want) and (by == "points") == bool(points), (top, bottom, left, right)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_baseline(sampling: str) -> None:
    """Kills: margins of upsampling, groups of blocks, rows of MCUs, predictions and bits at entry points."""
    for height, width in SIZES:
        file = sparse(height, width, sampling, share=0.2)
        clean, points = _C.prove(file)
        dct = _C.jpeg_to_dct(file)
        assert clean and len(points) % 10 == 0 and points[:10] == bytes(10) and dct is not None
        whole = _C.decode(file)
        for _ in every_level():
            check(file, whole)
            check(file, whole, points)
            check(dct, whole)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_frame_of_dct(colour: str) -> None:
    for factors in FACTORS[colour]:
        for height, width in SIZES[1:]:
            record = write_dct(height, width, colour, made(height, width, factors, seed=height))
            whole = _C.decode(record)
            for _ in every_level():
                check(record, whole, count=6)


def test_stuffed_bytes() -> None:
    """Entry points count the zeros after FF, of which noise has many."""
    file = jpeg(noise(120, 90), quality=98, subsampling=2)
    assert file.count(b"\xff\0") > 50
    clean, points = _C.prove(file)
    assert clean and len(points) == 10 * 8
    check(file, _C.decode(file), points, 60)


@pytest.mark.parametrize("name", decodable())
def test_whatever_decodes(name: str) -> None:
    """Progressive files, restart markers, CMYK: whole, with the same pixels; entry points where we decode ourselves."""
    file = decodable()[name]
    clean, points = _C.prove(file)
    assert bool(points) == (clean and _C.decodes_as_baseline(file))
    check(file, _C.decode(file), points, 20)
    ours = _C.decodes_as_baseline(file)
    check_any_points(file, ours)


def check_any_points(file: bytes, ours: bool) -> None:
    """Points that are not the file's: never a crash, and the right pixels where they are declined."""
    whole, rng = _C.decode(file), np.random.default_rng(3)
    _, points = _C.prove(file)
    count = len(points)
    for trial in range(trials(20, 1000)):
        wrong = bytearray(points)
        for place in rng.integers(0, max(count, 1), 3).tolist() if count else []:
            wrong[place] = int(rng.integers(256))
        if trial % 4 == 0:
            wrong = bytearray(rng.bytes(count))
        if trial % 5 == 0:
            wrong = bytearray(points[: int(rng.integers(1, 40))] + b"x")
        for top, bottom, left, right in windows(*whole.shape[:2], 2, trial):
            pixels, by = _C.decode_part(file, (top, bottom, left, right), bytes(wrong))
            assert ours or by != "points"
            if by != "points":
                assert np.array_equal(pixels, whole[top:bottom, left:right, : pixels.shape[2]])


def test_nothing_else_is_read() -> None:
    """A scan that is broken outside of the window is decoded without libjpeg: by this, work is seen to be left out."""
    file = jpeg(noise(128, 64), quality=90, subsampling=0)
    whole, (_, points) = _C.decode(file), _C.prove(file)
    scan = file.index(b"\xff\xda") + 14
    begins = [scan + int.from_bytes(points[at : at + 4], "little") // 8 for at in range(0, len(points), 10)]

    def broken(first: int, end: int) -> bytes:
        """Ones and stuffed zeros are no code."""
        return file[:first] + b"\xff\0" * ((end - first) // 2) + b"\0" * ((end - first) % 2) + file[end:]

    def by(data: bytes, window: tuple[int, int, int, int], points: bytes = b"") -> str:
        pixels, found = _C.decode_part(data, window, points)
        top, bottom, left, right = window
        assert not found or np.array_equal(pixels, whole[top:bottom, left:right])
        return found

    below = broken(begins[13] - 50, begins[13] - 10)
    assert not _C.decodes_as_baseline(below)
    assert [by(below, (3, end, 5, 60)) for end in (95, 96, 105)] == ["baseline", "baseline", ""]
    assert by(below, (97, 98, 0, 8), points) == "points", "left of it"
    above = broken(begins[1] + 9, begins[4] - 4)
    assert [by(above, (first, 90, 5, 60), points) for first in (24, 32)] == ["", "points"]
    assert by(above, (32, 90, 5, 60)) == ""
    right = broken(begins[8] - 41, begins[8] - 1)
    assert [by(right, (50, 60, 0, end), points) for end in (8, 64)] == ["points", ""]
    assert [by(right, (50, 60, 0, end)) for end in (8, 64)] == ["baseline", ""], "the last row that is needed"
    assert by(right, (50, 65, 0, 8)) == ""


def test_proof() -> None:
    """A warning is no error, and no proof."""
    file = jpeg(noise(40, 40), quality=90)
    assert _C.prove(file)[0]
    noisy = file[:-2] + b"\0\0\0\0" + file[-2:]  # bytes before the end
    assert np.array_equal(_C.decode(noisy), _C.decode(file))
    assert _C.prove(noisy) == (False, b"")
    with pytest.raises(BadPictureError):
        _C.prove(file[: len(file) // 2])


def test_another_marker_after_the_scan() -> None:
    """Only the end of the image may follow: what else comes is libjpeg's to judge, so that it may be refused."""
    file = jpeg(noise(40, 40), quality=90)
    assert _C.decodes_as_baseline(file)
    assert not _C.decodes_as_baseline(file[:-2] + b"\xff\xfe\0\4ab" + file[-2:])


@pytest.mark.parametrize("window", [(0, 0, 0, 1), (0, 41, 0, 1), (-1, 2, 0, 1), (0, 1, 5, 5), (0, 1, 0, 41)])
def test_no_part(window: tuple[int, int, int, int]) -> None:
    for record in (file := jpeg(noise(40, 40)), _C.jpeg_to_dct(file)):
        assert record is not None
        with pytest.raises(ValueError, match="no part of a picture"):
            _C.decode_part(record, window)
