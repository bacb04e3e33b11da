"""Damaged records of the codec "dct": every cut and every flipped bit gives a picture or an error, the same at every
level; what contradicts itself is refused in words, before much is allocated."""

from __future__ import annotations

import numpy as np
import pytest

from pass_loader import _C

from ..helpers.corpus import decodable, noise
from ..helpers.dctwriter import JFIF, header, made, write_dct
from ..helpers.dctrecords import ZSTD, gray, small, streams
from ..helpers.jpegwriter import Component
from ..helpers.trials import trials


pytestmark = pytest.mark.hostile


def outcome(record: bytes) -> bytes | None:
    """Return the pixels, or None where the record is refused."""
    try:
        return _C.decode(record).tobytes()
    except _C.BadPictureError as error:
        assert "dct:" in str(error) or not record.startswith(b"PLDC"), error
        return None


def check(record: bytes) -> bool:
    """Return whether the record is taken. All levels agree, to the same pixels; the way back is a JPEG or an error."""
    try:
        outcomes = set()
        for isa in _C.supported_isas():
            _C.set_isa(isa)
            outcomes.add(outcome(record))
    finally:
        _C.set_isa("best")
    assert len(outcomes) == 1
    try:
        file = _C.dct_to_jpeg(record)
    except _C.BadPictureError:
        return outcomes != {None}
    if outcomes != {None}:
        assert outcomes == {_C.decode(file).tobytes()}
    return outcomes != {None}


@pytest.mark.parametrize("name", small())
def test_every_truncation(name: str) -> None:
    record = small()[name]
    assert check(record)
    for end in range(len(record)):
        assert not check(record[:end]), end
    for more in (b"\0", bytes(200)):
        assert not check(record + more)


@pytest.mark.slow
@pytest.mark.parametrize("name", small())
def test_every_flipped_bit(name: str) -> None:
    record = small()[name]
    taken = 0
    for bit in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        taken += check(bytes(flipped))
    assert taken > len(record), "tables and signs may be anything"


def test_random_bytes_in_the_row() -> None:
    """Streams filled with anything."""
    rng = np.random.default_rng(1)
    record = small()["lively"]
    start = len(header(8, 24, "gray", [Component(np.zeros((1, 3, 64)), np.full(64, 1))])) + 8 * 10
    taken, count = 0, trials(3000, 100_000)
    for _ in range(count):
        changed = bytearray(record)
        for place in rng.integers(start + 6, len(record), rng.integers(1, 6)):
            changed[place] = rng.integers(256)
        taken += check(bytes(changed))
    assert count / 30 < taken < count * 29 / 30


def test_a_row_by_hand() -> None:
    """So that the refusals below are refused for what they say."""
    assert check(gray(streams()))
    assert check(gray(streams(b"\2", masks=b"\1", signs=b"\0")))
    assert check(
        gray(streams(b"\2", masks=b"\1", signs=b"\1", larger=b"\1", nibbles=b"\x0f", bytes_=b"\x6e", wide=b"\x7f\0"))
    )
    assert check(gray(streams(b"\2", masks=b"\1", signs=b"\xff", larger=b"\xfe", dc=b"\x80", dc_wide=b"\xff\x0f")))
    assert check(gray(streams(b"\2", masks=b"\0"))), "a row that is flagged may be empty"


@pytest.mark.parametrize(
    "row",
    [
        streams(b"\1", masks=b"\1", signs=b"\0"),  # the DC among the others
        streams(b"\2", masks=b"", signs=b"\0"),
        streams(b"\2", masks=b"\1"),
        streams(b"\2", masks=b"\1\1", signs=b"\0"),
        streams(b"\2", masks=b"\1", signs=b"\0\0"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1"),
        streams(b"\2", masks=b"\1", signs=b"\0", nibbles=b"\0"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0f"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0e", bytes_=b"\0"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0f", bytes_=b"\x6e"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0f", bytes_=b"\xff", wide=b"\0"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0f", bytes_=b"\xff", wide=b"\x7e\0"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0f", bytes_=b"\xff", wide=b"\0\x80"),
        streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1", nibbles=b"\x0f", bytes_=b"\x6d", wide=b"\x7f\0"),
        streams(dc=b"\x80"),
        streams(dc_wide=b"\1\0"),
        streams(wide=b"\1"),
    ],
)  # fmt: skip
def test_streams_that_contradict(row: list[bytes]) -> None:
    assert not check(gray(row))


@pytest.mark.parametrize("short", ["masks", "signs", "nibbles", "bytes_", "dc_wide", "wide"])
def test_a_stream_that_ends_long_before_the_row(short: str, isa: str) -> None:
    """Noticed block by block: what is read stays within the padding. For the sanitizer."""
    blocks = 904
    bits = 63 * blocks // 8
    full = {
        "flags": b"\xff" * blocks, "dc": bytes(blocks), "masks": (b"\xfe" + b"\xff" * 7) * blocks, "signs": bytes(bits),
        "larger": b"\xff" * bits, "nibbles": b"\xff" * 32 * blocks, "bytes_": bytes(63 * blocks),
    }  # fmt: skip
    if short == "dc_wide":
        full = {"flags": bytes(blocks), "dc": b"\x80" * blocks, "dc_wide": bytes(2 * blocks)}
    if short == "wide":
        full |= {"bytes_": (b"\xff" * 19 + bytes(44)) * blocks, "wide": b"\x80\0" * 19 * blocks}
    assert _C.decode(gray(streams(**full), 8 * blocks)).shape == (8, 8 * blocks, 3)
    for left in (0, 2, len(full[short]) // 6 * 2):
        # The streams after it are empty, so that the record ends right there.
        later = dict.fromkeys(list(full)[list(full).index(short) + 1 :], b"")
        cut = full | later | {short: full[short][:left]}
        if short == "signs":
            cut["larger"] = full["larger"][:left]
        with pytest.raises(_C.BadPictureError, match="do not hold"):
            _C.decode(gray(streams(**cut), 8 * blocks))


def test_a_running_dc_beyond_16_bits() -> None:
    for step in (b"\xff\x7f", b"\0\x80"):
        one = streams(bytes(2), b"\x80\0", dc_wide=step)
        two = streams(bytes(2), b"\x80\x80", dc_wide=step + step)
        for row, message in ((one, "coefficients that no picture"), (two, "do not hold 2 blocks")):
            with pytest.raises(_C.BadPictureError, match=message):
                _C.decode(gray(row, 16))


def test_lengths() -> None:
    row = streams()
    for number in (b"\x81", b"\1", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"):
        for place in range(6):
            assert not check(gray([row[0][:place] + number + row[0][place + 1 :], *row[1:]]))
    assert check(gray([b"\x80\0" + row[0][1:], *row[1:]])), "more bytes than a length needs are no harm"
    for kind in range(10):
        with pytest.raises(_C.BadPictureError, match=f"stream {kind}: |the last row|bytes for 1 blocks"):
            _C.decode(gray([content + bytes(place == kind) for place, content in enumerate(row)]))
        for stored, content in ((1, 0), (2**32 - 1, 2**32 - 1), (0, 2**32 - 1), (0, 2**31)):
            record = bytearray(gray(row))
            place = len(record) - len(b"".join(row)) - 80 + 8 * kind
            record[place : place + 8] = stored.to_bytes(4, "little") + content.to_bytes(4, "little")
            assert not check(bytes(record))
    assert not check(gray(row) + b"\0")


def test_frames_of_zstd() -> None:
    """Written by hand (RFC 8878, 3.1.1): one segment, a block of one byte repeated. Whatever is not exactly one frame
    of exactly the content is refused, a frame of an old format too."""
    blocks = 300
    row = streams(bytes(blocks), bytes(blocks))

    def frame(count: int, size: int | None = None, magic: bytes = ZSTD) -> bytes:
        block = (1 | 1 << 1 | count << 3).to_bytes(3, "little") + b"\0"  # the last block; RLE
        return magic + b"\x60" + ((count if size is None else size) - 256).to_bytes(2, "little") + block

    def with_flags(bytes_: bytes) -> bytes:
        whole, streams_only = gray(row, 8 * blocks), b"".join(row)
        start = len(whole) - len(streams_only)
        sizes = len(bytes_).to_bytes(4, "little") + blocks.to_bytes(4, "little")
        streams_ = row[0] + bytes_ + b"".join(row[2:])
        return whole[: start - 72] + sizes + whole[start - 64 : start] + streams_

    assert check(with_flags(frame(blocks)))
    skippable = b"\x50\x2a\x4d\x18\0\0\0\0"
    for bad, message in (
        (b"", "no frame of zstd"), (ZSTD, "no frame"),
        (frame(blocks)[:-1], "no frame"), (frame(blocks) + b"\0", "no frame"),
        (frame(blocks) + skippable, "no frame"), (skippable + frame(blocks), "no frame"), (skippable, "no frame"),
        (frame(blocks, magic=b"\x27\xb5\x2f\xfd"), "no frame"),  # version 0.7
        (frame(blocks - 1), "299 bytes in a stream of 300"), (frame(blocks + 1), "zstd: "), (frame(60000), "zstd: "),
        (frame(blocks, blocks + 1), "zstd: "), (frame(blocks, blocks - 1), "zstd: "),
    ):  # fmt: skip
        with pytest.raises(_C.BadPictureError, match=message):
            _C.decode(with_flags(bad))
        with pytest.raises(_C.BadPictureError, match=message):
            _C.layer_dct(with_flags(bad), False)
        assert not check(with_flags(bad))


def test_a_frame_larger_than_its_content() -> None:
    """Such content stands in the record as it is."""
    row = streams()
    block = (1 | len(row[0]) << 3).to_bytes(3, "little") + row[0]  # the last block; raw
    frame = ZSTD + b"\x20" + bytes([len(row[0])]) + block
    record, streams_only = gray(row), b"".join(row)
    start = len(record) - len(streams_only) - 80
    sizes = len(frame).to_bytes(4, "little") + record[start + 4 : start + 80]
    record = record[:start] + sizes + frame + b"".join(row[1:])
    with pytest.raises(_C.BadPictureError, match="stream 0: 15 bytes stored of 6"):
        _C.decode(record)


def test_streams_beyond_what_blocks_have() -> None:
    """The memory of contents is bounded by the picture's size: 160 bytes a block."""
    full = np.full((1, 2, 64), 500)
    assert not check(write_dct(8, 16, "gray", [Component(full, np.full(64, 1))]))
    with pytest.raises(_C.BadPictureError, match="bytes for 2 blocks"):
        _C.decode(write_dct(8, 16, "gray", [Component(full, np.full(64, 1))]))
    full[..., 8:] = 16
    assert check(write_dct(8, 16, "gray", [Component(full // 2, np.full(64, 1))]))


def test_headers() -> None:
    """Each field that lies, refused by its name."""
    record = small()["420"]

    def changed(at: int, value: bytes) -> bytes:
        return record[:at] + value + record[at + len(value) :]

    for at, value, message in (
        (4, b"\0", "version 0, this pass-loader knows 2"), (4, b"\1", "version 1"), (5, b"\5", "colour 5"),
        (5, b"\0", "does not fit its colour"), (5, b"\3", "does not fit its colour"), (6, b"\0", "0 components"),
        (6, b"\5", "5 components"), (7, b"\0", "0 tables"), (7, b"\5", "5 tables"), (8, b"\0\0", "0 x|x 0 "),
        (10, b"\0\0", "0 x|x 0 "), (12, b"\xff\xff\xff\xff", "cut off"), (12, b"\x11", "markers"),
        (16, b"\0", "does not fit"), (16, b"\5", "does not fit"), (17, b"\3", "does not fit|stream 1"),
        (18, b"\2", "table 2 of 2"),
    ):  # fmt: skip
        with pytest.raises(_C.BadPictureError, match=message):
            _C.decode(changed(at, value))
    for markers in (
        b"\xff\xe0\0\1",
        b"\xff\xda\0\2",
        b"\xff\xd8\xff\xe0",
        b"\xff\xe0\0\2\xff",
        b"\xff\xfe\0\x09abc",
        b"x" * 8,
    ):
        with pytest.raises(_C.BadPictureError, match="APPn and COM"):
            _C.read_header(gray(streams(), markers=markers))
    assert check(gray(streams(), markers=b"\xff\xfe\0\2" + JFIF))


def test_few_bytes_cannot_claim_a_large_picture() -> None:
    """Refused before anything is allocated."""
    for factors in ([(1, 1)] * 3, [(4, 1), (1, 4), (1, 1)]):
        components = made(8, 8, factors)
        for side, more, message in (
            (65535, 100_000, "more than 178956970 pixels"), (13000, 0, "cut off: .* wanted"),
            (13000, 100_000, "stream 1: 0 bytes stored of 0"),
        ):  # fmt: skip
            for call in (_C.decode, _C.read_header, _C.dct_to_jpeg, _C.check_decodes):
                with pytest.raises(_C.BadPictureError, match=message):
                    call(header(side, side, "ycc", components) + bytes(more))


def test_large_markers_before_an_error() -> None:
    """libjpeg stops when its output has grown: nothing is freed twice. Kills: jpeg_mem_dest."""
    markers = b"".join(b"\xff\xe5\xff\xff" + noise(1, 21845, i).tobytes()[:65533] for i in range(4))
    block = np.zeros((1, 1, 64), np.int64)
    block[0, 0, 9] = 5000
    record = write_dct(8, 8, "gray", [Component(block, np.full(64, 1))], markers)
    for _ in range(3):
        with pytest.raises(_C.BadPictureError, match="libjpeg cannot write it"):
            _C.dct_to_jpeg(record)


def test_damaged_jpegs_at_packing() -> None:
    """Any flipped bit of a file: a record of the same pixels, no record, or an error."""
    data = decodable()["size_17x33_420"]
    records = 0
    for bit in range(0, 8 * len(data), 5):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            record = _C.jpeg_to_dct(bytes(flipped))
        except _C.BadPictureError:
            continue
        if record is not None:
            records += 1
            want = _C.decode(bytes(flipped))
            assert np.array_equal(_C.decode(record), want) and np.array_equal(_C.decode(_C.dct_to_jpeg(record)), want)
    assert records > 100
