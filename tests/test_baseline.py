"""The project's own baseline decoder against Pillow, on coefficients that no encoder writes; and that it takes them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pass_loader import _C, reference

from .compare import assert_pixels_equal
from .jpegwriter import ZIGZAG, Component, Huffman, flat, write_jpeg

pytestmark = [pytest.mark.oracle, pytest.mark.hostile]
SAMPLINGS = {"444": (1, 1), "422": (2, 1), "440": (1, 2), "420": (2, 2), "gray": (0, 0)}
LONG = {"dc": flat(range(16), 16), "ac": flat(range(255), 16)}
# A look-up often holds two coefficients, or one and the end.
SHORT = {"ac": Huffman(dict.fromkeys(range(255), 12) | {0x01: 2, 0x00: 3, 0x11: 3, 0xF0: 4, 0x02: 4, 0x21: 5})}
WIDE = {"dc": flat(range(16), 5), "ac": flat(range(255), 9)}


def check(data: bytes, ours: bool = True, what: object = "") -> None:
    """Pillow's bytes, without libjpeg if `ours`, else by it."""
    assert _C.decodes_without_libjpeg(data) == ours, what
    assert_pixels_equal(_C.decode(data), pillows(data), what)


@cache
def pillows(data: bytes) -> np.ndarray:
    return np.asarray(reference.decode(data))


def grid(height: int, width: int, sampling: str) -> list[tuple[tuple[int, int, int], int, int]]:
    """Of each component: the shape of its coefficients, its sampling factors."""
    if sampling == "gray":
        return [((-(-height // 8), -(-width // 8), 64), 1, 1)]
    horizontal, vertical = SAMPLINGS[sampling]
    rows, columns = -(-height // (8 * vertical)), -(-width // (8 * horizontal))
    return [((rows * v, columns * h, 64), h, v) for h, v in ((horizontal, vertical), (1, 1), (1, 1))]


def one_row(blocks: np.ndarray, quantization: np.ndarray | int = 1, **options: object) -> bytes:
    """Gray, 8 high, of (count, 64) row-major coefficients."""
    return write_jpeg(8, 8 * len(blocks), [Component(blocks[None], np.full(64, quantization), **options)])


def in_zigzag(values: dict[int, int]) -> np.ndarray:
    """One block of these coefficients, by place in zigzag order."""
    block = np.zeros(64, np.int64)
    for k, value in values.items():
        block[ZIGZAG[k]] = value
    return block


@cache
def sparse(height: int, width: int, sampling: str, seed: int = 0, share: float = 0.08, step: int = 9) -> bytes:
    """Lively blocks: their quantisers differ by component and place."""
    rng = np.random.default_rng((seed, height, width))
    components = []
    for shape, h, v in grid(height, width, sampling):
        blocks = rng.integers(-12, 13, shape) * (rng.random(shape) < share)
        blocks[..., 0] = rng.integers(-70, 71, shape[:2])
        components.append(Component(blocks, rng.integers(step - 5, step + 6, 64), h, v))
    return write_jpeg(height, width, components)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_width_and_height(sampling: str, isa: str) -> None:
    """Kills: edges of upsampling, rows and columns of MCUs that are not whole, groups of blocks that are not."""
    for side in range(1, 41):
        check(sparse(19, side, sampling), True, (side, "wide"))  # two columns of colour or fewer are not smoothed
        check(sparse(side, 21, sampling), True, (side, "high"))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_coefficients_of_every_density(sampling: str, isa: str) -> None:
    """Kills: a place of the zigzag order, a run's length, the block's end."""
    for seed, share in enumerate((0.0, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0)):
        check(sparse(37, 75, sampling, seed, share), what=share)


def test_gray_of_two_by_two(isa: str) -> None:
    """The only component's sampling factors mean nothing (T.81 A.2.2)."""
    blocks = np.random.default_rng(3).integers(-20, 21, (3, 5, 64))
    check(write_jpeg(23, 37, [Component(blocks, np.full(64, 3), 2, 2)]))


def test_each_coefficient_alone(isa: str) -> None:
    """Kills: any place of the zigzag order, any quantiser's place, any constant of the IDCT."""
    quantization = np.random.default_rng(1).integers(1, 40, 64)
    for value in (1, -1, 7, -100):
        check(one_row(np.eye(64, dtype=np.int64) * value, quantization), what=value)


def test_every_value_of_every_size(isa: str) -> None:
    """Kills: EXTEND off by one, a size that spills over what a look-up or a refill holds."""
    for size in range(1, 16):
        half, full = 1 << size - 1, (1 << size) - 1
        values = [half, -half, full, -full, half + half // 3]
        for tables in (WIDE, LONG):
            # Below the first row of coefficients, where large values are left to libjpeg.
            blocks = np.stack([in_zigzag({0: 5, 2: v, 11: -v, 23: 1}) for v in values])
            check(one_row(blocks, 1, **tables), what=size)
            check(one_row(blocks, 3, **tables), what=size)


@pytest.mark.parametrize("quantiser", [1, 17, 255, 256, 257, 4099, 32767, 32768, 65535])
def test_extreme_coefficients(quantiser: int, isa: str) -> None:
    """Products, sums and outputs that leave 16 bits wrap and saturate as in libjpeg-turbo's SIMD code."""
    rng = np.random.default_rng(quantiser)
    for share in (0.03, 0.2, 1.0):
        for limit in (3, 100, 2047):
            blocks = rng.integers(-limit, limit + 1, (24, 64)) * (rng.random((24, 64)) < share)
            blocks[:, :8] = 0
            check(one_row(blocks, quantiser, **WIDE), what=(share, limit))
    blocks = rng.choice([-2047, 2047], (24, 64)) * (np.arange(64) >= 8)
    check(one_row(blocks, quantiser, **WIDE))


def test_wrapped_products_in_the_first_row(isa: str) -> None:
    """A product that wraps around into the range is one that libjpeg wraps likewise."""
    quantization = np.full(64, 65528)  # -8 in 16 bits
    blocks = np.random.default_rng(2).integers(-1000, 1001, (17, 64))
    check(write_jpeg(8, 8 * 17, [Component(blocks[None], quantization, **WIDE)]))


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("value,ours", [(8191, True), (-8192, True), (8192, False), (-8193, False), (32767, False)])
def test_range_of_the_first_row(place: int, value: int, ours: bool, isa: str) -> None:
    """Beyond it libjpeg-turbo's shortcut for empty rows wraps around: left to libjpeg, whichever block it is."""
    for count in (1, 2, 3, 4, 5, 9):
        blocks = np.zeros((count, 64), np.int64)
        blocks[-1, place] = value
        check(one_row(blocks, 1, **WIDE), ours)


def test_blocks_that_end_at_63(isa: str) -> None:
    """No end of block follows coefficient 63; what follows is the next block's. Its DC's code looks like any
    AC code. Kills: a look-up's second half taken for this block's."""
    ends = [{63: 1}, {62: 1, 63: -1}, {61: 1, 62: -1, 63: 1}, {60: 1, 62: 1, 63: 1}, {63: 300}, {62: -1, 63: 300},
            {62: 300, 63: -1}, {61: 1, 63: 1}, {46: 1, 63: 1}, {1: 1}, {62: 1}, {61: 1, 62: 1}, {}]  # fmt: skip
    rng = np.random.default_rng(4)
    for dc_bits in (4, 5, 7):
        symbols = rng.permutation(12).tolist()
        blocks = np.stack([in_zigzag(ends[n]) for n in rng.integers(len(ends), size=400)])
        blocks[:, 0] = rng.integers(-900, 900, 400)
        check(one_row(blocks, 1, dc=flat(symbols, dc_bits), **SHORT), what=dc_bits)
    dense = rng.integers(-1, 2, (200, 64))
    dense[:, 63] = 1
    check(one_row(dense, 5, **SHORT))


@pytest.mark.parametrize("tables", [SHORT, WIDE, LONG], ids=["short", "wide", "long"])
def test_runs_of_16_zeros(tables: dict[str, Huffman], isa: str) -> None:
    """Between coefficients, and up to the end of the block in place of its end."""
    places = [[1, 18, 63], [17], [33, 50], [16, 63], [48, 49], [15, 31, 47], [47], [31], [15], [32, 63], [1, 47], [63]]
    blocks = np.stack([in_zigzag({0: n, **dict.fromkeys(at, 3)}) for n, at in enumerate(places * 5)])
    for end_by_runs in (False, True):
        check(one_row(blocks, 9, end_by_runs=end_by_runs, **tables))


def test_unusual_end_of_block(isa: str) -> None:
    """libjpeg takes any run below 15 without a value for the end (jdhuff.c)."""
    blocks = np.random.default_rng(5).integers(-3, 4, (30, 64)) * (np.arange(64) < 30)
    for eob in (0x10, 0x70, 0xE0):
        for tables in (WIDE, LONG):
            check(one_row(blocks, 7, eob=eob, **tables))


@pytest.mark.parametrize("bits", range(9, 17))
def test_codes_of_every_length(bits: int, isa: str) -> None:
    """Kills: what lies at the borders of the look-ups, codes beyond them, a refill too few."""
    rng = np.random.default_rng(bits)
    blocks = rng.integers(-2000, 2001, (40, 64)) * (rng.random((40, 64)) < 0.4)
    blocks[:, :8] %= 500
    mixed = Huffman({symbol: int(n) for symbol, n in zip(range(255), rng.choice([9, bits], 255))})
    for ac in (flat(range(255), bits), mixed):
        check(one_row(blocks, 1, dc=flat(range(16), bits), ac=ac))


def test_large_differences_of_dc(isa: str) -> None:
    """Sizes 11 to 15; the sum may be any 16-bit number, and beyond that the file is libjpeg's."""
    for quantiser, limit in ((1, 8191), (4, 2047)):
        dc = np.random.default_rng(6).integers(-limit, limit + 1, 64)
        dc[::2] = np.abs(dc[::2])
        dc[1::2] = -np.abs(dc[1::2])
        check(one_row(dc[:, None] * (np.arange(64) == 0), quantiser, **WIDE))
    for dc, ours in (([16383, -16384, 16383], True), ([0, 32767, 16384, 0, -32768 // 2, -32768], True),
                     ([32767, 32768], False), ([-32767, -32768, -32769], False)):  # fmt: skip
        blocks = np.array(dc)[:, None] * (np.arange(64) == 0)
        check(one_row(blocks, 65532, **WIDE), ours, dc)  # times -4: some wrap into the range of the first row


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_empty_blocks(sampling: str, isa: str) -> None:
    components = [Component(np.zeros(shape, np.int64), np.full(64, 9), h, v) for shape, h, v in grid(9, 50, sampling)]
    check(write_jpeg(9, 50, components))


def test_what_is_left_to_libjpeg(isa: str) -> None:
    """Bits left over, tables of one colour that the other does not have, a cut."""
    data = sparse(20, 30, "420")
    check(data[:-2] + b"\0" + data[-2:], False)
    components = [Component(np.ones(shape, np.int64), np.full(64, 9), h, v) for shape, h, v in grid(9, 50, "444")]
    for field, other in (("dc", WIDE["dc"]), ("ac", WIDE["ac"])):
        setattr(components[2], field, other)
        check(write_jpeg(9, 50, components), False)
        setattr(components[1], field, other)
        check(write_jpeg(9, 50, components), True)
