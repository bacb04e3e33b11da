"""The project's own progressive decoder against Pillow; and what it takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pass_loader import BadPictureError, _C

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import by_pillow, jpeg, noise, position_coded
from ..helpers.jpegwriter import SCRIPTS, Component, Scan, flat, scripted, write_progressive

pytestmark = [pytest.mark.oracle, pytest.mark.hostile]

DHT, SOS, DQT, EOI = 0xC4, 0xDA, 0xDB, b"\xff\xd9"


def check(data: bytes, ours: bool = True, what: object = "") -> None:
    """Pillow's bytes, by our decoder if `ours`, else by libjpeg."""
    assert _C.decodes_as_progressive(data) == ours, what
    want = by_pillow(data)
    assert want is not None, what
    assert_pixels_equal(_C.decode(data), want, what)


def pieces(data: bytes) -> list[bytes]:
    """Split a file into its segments, each scan with the bits that follow it."""
    found, at = [data[:2]], 2
    while data[at : at + 2] != EOI:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == SOS:
            while data[end] != 0xFF or data[end + 1] == 0:
                end += 1
        found.append(data[at:end])
        at = end
    return [*found, data[at:]]


def is_of(piece: bytes, marker: int) -> bool:
    return piece[:2] == bytes([0xFF, marker])


@pytest.mark.parametrize("make", [position_coded, noise])
@pytest.mark.parametrize("quality", [3, 50, 90, 100])
@pytest.mark.usefixtures("isa")
def test_pillows_pixels(make: Callable[[int, int], np.ndarray], quality: int) -> None:
    """Every sampling that Pillow writes, gray, odd sizes. Kills: another place for a coefficient; a correction for the
    wrong coefficient, in another order or towards zero; a run over other zeros; a run of blocks that is one too long; a
    component's blocks in a scan of its own taken from the padding of MCUs; a scan with the tables of the one before; a
    row of blocks that lies elsewhere."""
    for height, width in ((1, 1), (8, 8), (9, 17), (40, 33), (64, 129)):
        for sampling in (0, 1, 2):
            data = jpeg(make(height, width), progressive=True, quality=quality, subsampling=sampling)
            check(data, what=(height, width, sampling))
        check(jpeg(make(height, width), mode="L", progressive=True, quality=quality), what=(height, width, "gray"))


@pytest.mark.usefixtures("isa")
def test_long_runs_of_blocks() -> None:
    """Blocks without coefficients, far more than a short run has. Kills: a run's length of too few bits."""
    picture = np.full((1200, 1200, 3), 90, np.uint8)
    picture[:16, :16] = noise(16, 16)
    picture[-24:, -24:] = noise(24, 24)
    check(jpeg(picture, progressive=True, quality=95, subsampling=0))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("sampling", ["444", "422", "440", "420"])
@pytest.mark.parametrize("share", [0.03, 0.5])
def test_scans_that_no_usual_encoder_writes(name: str, sampling: str, share: float) -> None:
    """Kills: a component's blocks in a scan of its own counted in MCUs, of DC too; bits of another place."""
    check(scripted(name, sampling, share), what=(name, sampling))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("sampling", ["444", "422", "440", "420", "gray"])
def test_as_records_of_the_codec_dct(sampling: str) -> None:
    """Of the coefficients that a baseline file has. Kills: rows of another width; blocks in the order of lanes; the
    padding of MCUs taken for blocks."""
    files = [scripted(name, sampling, 0.3) for name in SCRIPTS] if sampling != "gray" else [
        jpeg(noise(height, 35), mode="L", progressive=True) for height in (1, 24, 50)]  # fmt: skip
    for data in files:
        record = _C.jpeg_to_dct(data)
        assert record and _C.is_read_without_libjpeg(data)
        baseline = _C.dct_to_jpeg(record)
        assert _C.decodes_as_baseline(baseline)
        assert _C.jpeg_to_dct(baseline) == record
        assert_pixels_equal(_C.decode(record), by_pillow(data), sampling)


def test_parts_of_it() -> None:
    """Kills: needed blocks of another component's size; columns in other groups."""
    for sampling in (0, 2):
        data = jpeg(noise(70, 90), progressive=True, subsampling=sampling)
        whole = by_pillow(data)
        assert whole is not None
        for top, bottom, left, right in ((0, 70, 0, 90), (31, 32, 0, 90), (0, 8, 77, 90), (17, 59, 40, 41)):
            part, _ = _C.decode_part(data, (top, bottom, left, right))
            assert_pixels_equal(part, whole[top:bottom, left:right], (sampling, top, left))


def test_what_is_left_to_libjpeg() -> None:
    """Files that are not complete, or not as an encoder writes them. Kills: each check of `ProgressiveDecoder`."""
    whole = pieces(jpeg(noise(40, 50), progressive=True, subsampling=2))
    scans = [place for place, piece in enumerate(whole) if is_of(piece, SOS)]
    tables = next(piece for piece in whole if is_of(piece, DHT))
    others = {
        "a comment between scans": [*whole[: scans[1]], b"\xff\xfe\0\4ab", *whole[scans[1] :]],
        "a quantisation table between scans": [*whole[: scans[1]], next(p for p in whole if is_of(p, DQT)),
                                               *whole[scans[1] :]],
        "a restart interval": [*whole[: scans[0]], b"\xff\xdd\0\4\0\5", *whole[scans[0] :]],
        "the first scan twice": [*whole[: scans[0]], whole[scans[0]], *whole[scans[0] :]],
        "a byte too many": [*whole[: scans[0]], whole[scans[0]] + b"\0", *whole[scans[0] + 1 :]],
        "no end": whole[:-1],
    }  # fmt: skip
    check(b"".join(whole))
    check(b"".join([*whole[: scans[1]], tables, *whole[scans[1] :]]))
    for what, other in others.items():
        data = b"".join(other)
        want = by_pillow(data)
        if want is None:
            with pytest.raises(BadPictureError, match="JPEG"):
                _C.decode(data)
            continue
        assert not _C.decodes_as_progressive(data), what
        if "restart" not in what:  # libjpeg-turbo 3, which Pillow bundles, mends it otherwise
            assert_pixels_equal(_C.decode(data), want, what)
    for lost in scans[1:]:  # smoothed, or with fewer bits
        assert not _C.decodes_as_progressive(b"".join(whole[:lost] + whole[lost + 1 :])), lost


def test_a_table_with_a_size_that_no_dc_coefficient_has() -> None:
    """Pillow refuses the table, though nothing uses that symbol."""
    gray = [Component(np.zeros((1, 1, 64), np.int64), np.full(64, 4))]
    scans = [Scan([0], 0, 0, 0, 0), Scan([0], 1, 63, 0, 0)]
    check(write_progressive(8, 8, gray, scans))
    data = write_progressive(8, 8, gray, scans, dc=flat(range(17), 5))
    assert by_pillow(data) is None
    with pytest.raises(BadPictureError, match="Bogus Huffman table"):
        _C.decode(data)


def test_large_ones_are_left_to_libjpeg() -> None:
    """What is kept of their coefficients stays small."""
    for height, ours in ((2048, True), (2049, False)):
        check(jpeg(np.full((height, 2048, 3), 200, np.uint8), mode="L", progressive=True), ours)


def test_too_many_scans_are_libjpegs_error() -> None:
    data = jpeg(position_coded(40, 40), progressive=True)
    _C.check_decodes(data, max_scans=10)
    with pytest.raises(BadPictureError, match="more than 9 scans"):
        _C.check_decodes(data, max_scans=9)
