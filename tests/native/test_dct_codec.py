"""The codec "dct": Pillow's pixels at every level, JPEGs restored, and the format as docs/dct-codec.md has it."""

from __future__ import annotations

import io
import platform
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pass_loader import _C
from pass_loader.recipes import reference

from benchmarks.pictures import photographs

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import decodable, jpeg, many_scans, noise, position_coded
from ..helpers.dctwriter import ADOBE, COLOURS, JFIF, MARKERS, example, made, one_row, write_dct
from ..helpers.jpegwriter import Component, segment, write_jpeg


pytestmark = [pytest.mark.oracle, pytest.mark.hostile]


@cache
def pillows(data: bytes) -> np.ndarray:
    return np.asarray(reference.decode(data))


def of_x86(data: bytes) -> np.ndarray:
    """The bytes of Pillow on x86-64, for coefficients that leave 16 bits: libjpeg-turbo wraps around elsewhere on other
    processors. There they are our JPEG decoder's, which test_aarch64.py compares with x86-64's."""
    return pillows(data) if platform.machine() == "x86_64" else _C.decode(data)


@pytest.mark.parametrize("name", sorted(decodable()))
def test_what_pillow_writes(name: str, isa: str) -> None:
    data = decodable()[name]
    record = _C.jpeg_to_dct(data)
    assert record is not None
    assert_pixels_equal(_C.decode(record), pillows(data))
    _C.check_decodes(record)
    header = _C.read_header(data)
    header.update(progressive=False, ends=True)  # a record has no scans
    assert _C.read_header(record) == header
    assert not _C.decodes_as_baseline(record)
    ours = _C.decodes_as_baseline(data) or _C.decodes_as_progressive(data)
    assert _C.is_read_without_libjpeg(data) == ours


@pytest.mark.parametrize("name", sorted(decodable()))
def test_zstd(name: str) -> None:
    """A layer around the same streams: off again, they are the same bytes."""
    data = decodable()[name]
    plain, layered = _C.jpeg_to_dct(data), _C.jpeg_to_dct(data, zstd=True)
    assert plain is not None and layered is not None and len(layered) <= len(plain)
    assert _C.layer_dct(layered, False) == plain == _C.layer_dct(plain, False)
    assert _C.layer_dct(plain, True) == layered == _C.layer_dct(layered, True)
    assert _C.read_header(layered) == _C.read_header(plain) and _C.dct_to_jpeg(layered) == _C.dct_to_jpeg(plain)
    assert_pixels_equal(_C.decode(layered), pillows(data))


def test_zstd_makes_photographs_smaller() -> None:
    """And the decoder, kept, takes either kind in any order."""
    decoder = _C.Decoder()
    for photograph in photographs().values():
        data = jpeg(photograph)
        plain, layered = _C.jpeg_to_dct(data), _C.jpeg_to_dct(data, zstd=True)
        assert plain is not None and layered is not None and len(layered) < 0.85 * len(plain)
        for record in (layered, plain, layered):
            decoder.decode(record)
        assert_pixels_equal(_C.decode(layered), pillows(data))


@pytest.mark.parametrize("name", sorted(decodable()))
def test_restored_files(name: str) -> None:
    """Pixels, EXIF, ICC, comment, density and mode; and the restored file makes the same record again."""
    data = decodable()[name]
    record = _C.jpeg_to_dct(data)
    restored = _C.dct_to_jpeg(record)
    assert_pixels_equal(pillows(restored), pillows(data))
    before, after = (Image.open(io.BytesIO(one)) for one in (data, restored))
    assert after.mode == before.mode and after.getexif() == before.getexif()
    assert {k: v for k, v in before.info.items() if not k.startswith("progressi")} == after.info
    assert _C.jpeg_to_dct(restored) == record


def test_markers_are_kept() -> None:
    """EXIF, an ICC profile of several segments, XMP, comments, in their order; stand-alone markers between them are
    passed over, and no marker after the scan is taken."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(150_000)
    data = jpeg(position_coded(20, 30), exif=exif.tobytes(), icc_profile=profile, comment=b"first", dpi=(72, 96))
    more = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + b"\xff\xd0\xff\xff" + segment(0xFE, b"") + b"\xff"
    data = data[:2] + b"\xff\xd1" + more + data[2:]
    record = _C.jpeg_to_dct(data)
    restored = _C.dct_to_jpeg(record)
    before, after = (Image.open(io.BytesIO(one)) for one in (data, restored))
    assert before.info["icc_profile"] == profile and before.getexif()[0x010F] == "maker" and "xmp" in before.info
    assert after.info == before.info and after.applist == before.applist
    assert _C.read_header(record)["exif_orientation"] == 6


FACTORS = [
    [(h, v), (1, 1), (1, 1)] for h in range(1, 5) for v in range(1, 5)
] + [[(1, 1), (2, 2), (1, 1)], [(2, 1), (1, 2), (1, 1)], [(1, 2), (2, 2), (2, 1)], [(4, 4), (2, 1), (1, 4)],
     [(2, 2), (2, 2), (2, 2)], [(1, 1), (1, 1), (4, 2)], [(3, 1), (1, 3), (3, 3)]]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_every_sampling(factors: list[tuple[int, int]], isa: str) -> None:
    """From 1 to 4 in either direction, also those that no JPEG of one scan has (more than 10 blocks an MCU)."""
    for height, width in ((1, 1), (17, 39), (40, 70), (33, 5)):
        components = made(height, width, factors)
        record = write_dct(height, width, "ycc", components, JFIF)
        restored = _C.dct_to_jpeg(record)
        assert_pixels_equal(_C.decode(record), pillows(restored), (height, width))
        assert _C.jpeg_to_dct(restored) == record
        if sum(h * v for h, v in factors) <= 10:
            data = write_jpeg(height, width, components)
            assert_pixels_equal(_C.decode(record), pillows(data), (height, width))
            assert _C.jpeg_to_dct(data) == record


def test_factors_that_do_not_divide() -> None:
    """libjpeg refuses them, so does the record."""
    for factors in ([(3, 1), (2, 1), (1, 1)], [(1, 3), (1, 2), (1, 1)], [(4, 1), (3, 1), (1, 1)]):
        components = made(20, 20, factors)
        with pytest.raises(_C.BadPictureError, match="does not fit its colour and sampling"):
            _C.decode(write_dct(20, 20, "ycc", components, JFIF))
        with pytest.raises(_C.BadPictureError, match="JPEG"):
            _C.jpeg_to_dct(write_jpeg(20, 20, components))


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour(colour: str, isa: str) -> None:
    count = {"gray": 1, "cmyk": 4, "ycck": 4}.get(colour, 3)
    for factors in ([(1, 1)] * count, [(2, 2)] + [(1, 1)] * (count - 2) + [(2, 2)] if count > 1 else [(1, 1)]):
        record = write_dct(21, 43, colour, made(21, 43, factors), MARKERS[colour])
        restored = _C.dct_to_jpeg(record)
        assert_pixels_equal(_C.decode(record), pillows(restored), colour)
        assert _C.jpeg_to_dct(restored) == record
        assert Image.open(io.BytesIO(restored)).info.get("adobe_transform") == {"rgb": 0, "cmyk": 0, "ycck": 2}.get(
            colour
        )


def test_factors_of_gray(isa: str) -> None:
    """Of one component they mean nothing (T.81 A.2.2): the record has 1 and 1."""
    blocks = np.random.default_rng(3).integers(-20, 21, (3, 5, 64))
    data = write_jpeg(23, 37, [Component(blocks, np.full(64, 3), 2, 2)])
    record = _C.jpeg_to_dct(data)
    assert record == write_dct(23, 37, "gray", [Component(blocks, np.full(64, 3))], JFIF)
    assert_pixels_equal(_C.decode(record), pillows(data))


def test_rgb_by_names_of_components() -> None:
    """Without an Adobe marker."""
    data = jpeg(position_coded(20, 30), keep_rgb=True, subsampling=0)
    at = data.index(ADOBE[0][:9]) if ADOBE[0][:9] in data else None
    bare = data if at is None else data[:at] + data[at + len(ADOBE[0]) :]
    record = _C.jpeg_to_dct(bare)
    assert_pixels_equal(_C.decode(record), pillows(bare))
    assert_pixels_equal(pillows(_C.dct_to_jpeg(record)), pillows(bare))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5, 0.9, 1.0])
def test_coefficients_of_every_density(share: float, isa: str) -> None:
    """Kills: a stream's place, a group of values that is not whole, in any kernel."""
    for width in (8, 16, 24, 37, 64, 75):
        components = made(19, width, [(1, 1)] * 3, seed=int(100 * share), share=share)
        record = write_dct(19, width, "ycc", components, JFIF)
        data = write_jpeg(19, width, components)
        assert _C.jpeg_to_dct(data) == record
        assert_pixels_equal(_C.decode(record), pillows(data), width)


def test_each_coefficient_alone(isa: str) -> None:
    """Kills: any place of a row-major mask, any shuffle's index."""
    for value in (1, -1, 2, -3, 17, -126, 127, -500):
        record, data = one_row(np.eye(64, dtype=np.int64) * value)
        assert_pixels_equal(_C.decode(record), pillows(data), value)
        assert _C.jpeg_to_dct(data) == record


@pytest.mark.slow
def test_every_size(isa: str) -> None:
    """Every size up to 1100 with either sign, and those around powers of 2: nibble, byte and 16 bits."""
    sizes = [*range(1, 1100), *(n + d for n in (2048, 4096, 8192, 16384, 32766) for d in (-1, 0, 1))]
    blocks = np.zeros((len(sizes), 64), np.int64)
    rng = np.random.default_rng(7)
    for block, size in zip(blocks, sizes):  # below the first row of coefficients: there large ones are libjpeg's
        places = rng.choice(np.arange(8, 64), 1 + size % 40, replace=False)
        block[places] = rng.choice([1, -1, 2, 16, 17, -18, 126, -127], len(places))
        block[rng.choice(places)] = size if size % 2 else -size
    for start in range(0, len(blocks), 400):
        record, data = one_row(blocks[start : start + 400])
        assert_pixels_equal(_C.decode(record), of_x86(data), start)


def test_blocks_full_of_escapes(isa: str) -> None:
    """Kills: a count of bytes taken from a stream, across the halves of a vector."""
    rng = np.random.default_rng(8)
    for choices in ([17], [16, 17], [127, -127], [126, -127, 1], [1000, -5], [-2, 2], [32767, -32767]):
        blocks = rng.choice(choices, (30, 64)) * (rng.random((30, 64)) < np.linspace(0.1, 1, 30)[:, None])
        blocks[:, :8] = 0
        for quantiser in (1, 7, 256, 65535):
            record, data = one_row(blocks, quantiser)
            assert_pixels_equal(_C.decode(record), of_x86(data), (choices, quantiser))


def test_differences_of_dc(isa: str) -> None:
    """One byte and two; the predictor starts anew in every block row."""
    for limit in (1, 127, 128, 129, 1000, 8191):
        dc = np.random.default_rng(limit).choice([-limit, 0, limit, limit // 2], 64)
        record, data = one_row(dc[:, None] * (np.arange(64) == 0))
        assert_pixels_equal(_C.decode(record), pillows(data), limit)
    column = np.zeros((5, 2, 64), np.int64)
    column[..., 0] = [[-500, 700], [-500, 0], [300, 1], [0, 0], [9, 9]]
    component = Component(column, np.full(64, 2))
    record, data = write_dct(40, 16, "gray", [component], JFIF), write_jpeg(40, 16, [component])
    assert_pixels_equal(_C.decode(record), pillows(data))
    assert _C.jpeg_to_dct(data) == record


@pytest.mark.skipif(platform.machine() != "x86_64", reason="libjpeg has other pixels there, so these stay JPEGs")
def test_16_bit_tables(isa: str) -> None:
    rng = np.random.default_rng(9)
    for most in (256, 5000, 65535):
        component = Component(rng.integers(-3, 4, (3, 4, 64)), rng.integers(1, most + 1, 64))
        component.blocks[..., :8] = 0
        data = write_jpeg(24, 32, [component])
        record = _C.jpeg_to_dct(data)
        assert record is not None and record == write_dct(24, 32, "gray", [component], JFIF)
        assert_pixels_equal(_C.decode(record), pillows(data), most)
        assert_pixels_equal(pillows(_C.dct_to_jpeg(record)), pillows(data), most)


def test_what_stays_a_jpeg() -> None:
    """Coefficients that libjpeg does not write, or beyond what our IDCT takes; damage that libjpeg only warns of. The
    pixels are Pillow's all the same."""
    stays = []
    for place, value in ((9, 1024), (9, -1024), (0, 1024), (0, -1025), (0, 2000), (3, 8192)):
        block = np.zeros((2, 64), np.int64)
        block[1, place] = value
        stays.append(one_row(block)[1])
    whole = jpeg(noise(40, 40), quality=80)
    scan = whole.index(b"\xff\xda")
    stays += [whole[:-40] + b"\xff\xd9", whole[: scan + 300] + b"\xff\xd3" + whole[scan + 300 :]]
    stays.append(whole[:20] + b"\0\0\0" + whole[20:])  # between the segments
    scans = jpeg(position_coded(40, 40), progressive=True, quality=60)
    first, second = (match.start() for match in list(re.finditer(b"\xff\xda", scans))[:2])
    assert first < second and _C.jpeg_to_dct(scans[:second] + b"\xff\xd9") is None, "smoothed, for want of scans"
    for data in stays:
        assert _C.jpeg_to_dct(data) is None
        assert_pixels_equal(_C.decode(data), pillows(data))
    for place, value in ((9, 1023), (9, -1023), (0, 1023), (0, -1024)):
        block = np.zeros((2, 64), np.int64)
        block[1, place] = value
        record, data = one_row(block)
        assert _C.jpeg_to_dct(data) == record
        assert_pixels_equal(pillows(_C.dct_to_jpeg(record)), pillows(data))


def test_what_cannot_be_decoded() -> None:
    for data in (b"", b"PLDC", jpeg(noise(20, 20))[:-30], many_scans()):
        with pytest.raises(_C.BadPictureError):
            _C.jpeg_to_dct(data)
    for record in (b"", b"PLD", jpeg(noise(9, 9))):
        with pytest.raises(_C.BadPictureError, match="no record of this codec"):
            _C.dct_to_jpeg(record)


def test_the_example_on_the_page() -> None:
    """The hex on docs/dct-codec.md is this picture's record, byte for byte, and decodes."""
    page = (Path(__file__).parents[2] / "docs" / "dct-codec.md").read_text()
    found = re.search(r"<!-- tests/native/test_dct_codec.py: example -->\n```\n(.*?)```", page, re.S)
    assert found is not None
    shown = bytes.fromhex("".join(line.split("  ")[0] for line in found[1].splitlines()))
    record, data = one_row(example(), quantiser=16)
    assert _C.jpeg_to_dct(data) == record
    assert shown == record
    assert_pixels_equal(_C.decode(shown), pillows(data))
