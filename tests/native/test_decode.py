"""Decode against Pillow: the same bytes where it decodes, a refusal where it refuses."""

from __future__ import annotations

import io
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pass_loader import BadPictureError, _C
from pass_loader.recipes import reference

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import bomb, decodable, each_bit_flipped, jpeg, many_scans, noise, position_coded, refused, small
from ..helpers.trials import trials
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch


pytestmark = [pytest.mark.oracle, pytest.mark.hostile]


def by_pillow(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except Exception:  # Pillow refuses in many ways
        return None


def by_us(data: bytes) -> np.ndarray | None:
    try:
        return _C.decode(data)
    except BadPictureError:
        return None


@pytest.mark.parametrize("name", decodable())
def test_equals_pillow(name: str, isa: str) -> None:
    """Kills: another IDCT or upsampling, swapped planes, CMYK without inversion, applied Exif rotation."""
    data = decodable()[name]
    assert_pixels_equal(_C.decode(data), np.asarray(reference.decode(data)), name)


@pytest.fixture(scope="module")
def every_chroma() -> bytes:
    """Blocks of one colour each, which quality 100 keeps: every pair of colour differences."""
    rng = np.random.default_rng(5)
    blue, red = np.meshgrid(np.arange(256), np.arange(256))
    colours = np.stack([rng.integers(0, 256, (256, 256)), blue, red], axis=-1).astype(np.uint8)
    picture = Image.fromarray(colours.repeat(8, 0).repeat(8, 1), "YCbCr")
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def test_colours_of_every_chroma(every_chroma: bytes, isa: str) -> None:
    """Kills: a factor or a rounding of the colour conversion that is off by one, which photographs hardly show."""
    assert np.array_equal(_C.decode(every_chroma), np.asarray(reference.decode(every_chroma)))


@pytest.mark.parametrize("name", refused())
def test_refuses_with_a_cause(name: str) -> None:
    data = refused()[name]
    with pytest.raises(BadPictureError, match="JPEG"):
        _C.decode(data)
    assert by_pillow(data) is None


def outcome(data: bytes) -> str:
    ours, pillows = by_us(data), by_pillow(data)
    if ours is None or pillows is None:
        return "both refuse" if ours is None and pillows is None else "one refuses"
    if ours.shape == pillows.shape and (ours == pillows).all():
        return "equal"
    return "within 2" if np.abs(ours.astype(int) - pillows).max() <= 2 else "different"


SMALL = small()


@pytest.mark.parametrize("name", SMALL)
def test_every_truncation_as_pillow(name: str) -> None:
    """Kills: a source that invents an end marker, which gives gray pixels for a cut-off file."""
    data = SMALL[name]
    outcomes = Counter(outcome(data[:length]) for length in range(len(data)))
    assert outcomes == {"both refuse": len(data)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_flipped_bit_as_pillow(name: str) -> None:
    """Kills: dropped errors of jpeg_finish_decompress. Also a crash test, under sanitizers."""
    outcomes = Counter(map(outcome, each_bit_flipped(SMALL[name])))
    # A progressive file that has lost a scan is smoothed, and libjpeg-turbo 3, which Pillow bundles, smooths otherwise
    # than 2.1, with which we are built: 14 of 6,456 flips, up to 2 levels in 3 % of the values.
    near = outcomes.pop("within 2", 0)
    assert near <= (20 if name == "progressive" else 0)
    if platform.machine() != "x86_64":  # libjpeg-turbo's NEON code has other bytes for blocks that leave 16 bits
        assert outcomes.pop("different", 0) <= 20  # test_aarch64.py compares those with x86-64's
    assert set(outcomes) <= {"equal", "both refuse"}, outcomes
    assert outcomes["equal"] > 1000 and outcomes["both refuse"] > 100


def test_random_bytes_do_not_crash() -> None:
    rng = np.random.default_rng(5)
    head = jpeg(position_coded(16, 16))[:300]
    for length in [*range(0, 2000, 7)] * trials(1, 100):
        by_us(rng.bytes(length))
        by_us(b"\xff\xd8\xff" + rng.bytes(length))
        by_us(head + rng.bytes(length))


def test_limit_on_pixels_is_pillows() -> None:
    """12,000 x 14,914 is the last size Pillow decodes at this height: 178,956,970 pixels are its limit."""
    with pytest.raises(BadPictureError, match="178956970"):
        _C.read_header(bomb(12_000, 14_914))
    assert _C.read_header(bomb(12_000, 14_913))["width"] == 14_913


def test_endless_scans_are_refused() -> None:
    with pytest.raises(BadPictureError, match="more than 500 scans"):
        _C.decode(many_scans())
    assert by_us(many_scans(100)) is not None


def test_a_refusal_leaves_the_next_decode_alone() -> None:
    """Kills: a decompressor that is not reset after an error. Both run in one process, one decoder a call here; the
    engine's decoder is tested by test_shard.py."""
    good = jpeg(noise(40, 40))
    want = np.asarray(reference.decode(good))
    for bad in (*refused().values(), good[:-300]):
        assert by_us(bad) is None
        assert_pixels_equal(_C.decode(good), want)


def without_tables(data: bytes, marker: int) -> bytes:
    """The JPEG without its DHT (C4) or DQT (DB) segments."""
    out, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != marker:
            out += data[at : at + length]
        at += length
    return bytes(out) + data[at:]


@needs_torch
def test_a_picture_owes_nothing_to_the_one_before(tmp_path: Path) -> None:
    """Kills: a decompressor that keeps tables. A motion-JPEG frame has no Huffman tables: Pillow takes the standard's,
    whatever was decoded before; one without quantisation tables is refused."""
    from pass_loader import RecordError, recipes
    from pass_loader.pack import build

    other = jpeg(noise(40, 40), optimize=True, quality=30)
    frame, broken = without_tables(jpeg(position_coded(40, 40)), 0xC4), without_tables(jpeg(noise(40, 40)), 0xDB)
    for name, data in {"0": other, "1": frame, "2": other, "3": broken}.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.jpg").write_bytes(data)
    build([tmp_path / "in"], tmp_path / "pack")
    dataset = ShardDataset(tmp_path / "pack", recipes.mocov2(size=24))
    views, _ = next(iter(DataLoader(dataset, 3, num_workers=1, sampler=[0, 1, 2])))
    plan = dataset.plan(1)[0]
    want = reference.normalize(reference.render(reference.decode(frame), plan), dataset.recipe)
    assert np.array_equal(views[0][1].numpy(), want)
    assert by_pillow(broken) is None
    with pytest.raises(RecordError, match="record 3, id 3"):
        list(DataLoader(dataset, 2, num_workers=1, sampler=[2, 3]))


def test_header() -> None:
    pictures = decodable()
    assert _C.read_header(pictures["exif_rotated"])["exif_orientation"] == 6
    assert _C.read_header(pictures["sub420"])["exif_orientation"] == 1
    assert _C.read_header(pictures["progressive"])["progressive"]
    assert _C.read_header(pictures["gray"])["components"] == 1
    assert _C.read_header(pictures["cmyk"])["components"] == 4
    header = _C.read_header(pictures["size_17x33_420"])
    assert (header["height"], header["width"]) == (17, 33)
    assert header["ends"]
    assert not _C.read_header(pictures["garbage_after_eoi"])["ends"]
    assert _C.read_header(pictures["zeros_after_eoi"])["ends"]


def test_crc32c(isa: str) -> None:
    """RFC 3720, B.4: the check values; and every length around the eight bytes of a step."""
    assert _C.crc32c(b"") == 0
    assert _C.crc32c(b"123456789") == 0xE3069283
    assert _C.crc32c(bytes(32)) == 0x8A9136AA
    assert _C.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert _C.crc32c(bytes(range(32))) == 0x46DD794E
    for length in range(40):
        data = bytes(range(length))
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        assert _C.crc32c(data) == crc ^ 0xFFFFFFFF
