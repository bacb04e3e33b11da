"""The project's own baseline decoder against Pillow, on coefficients that no encoder writes; and that it takes them."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pass_loader import BadPictureError, _C, recipes
from pass_loader.recipes import reference
from pass_loader.pack import build

from ..helpers.compare import assert_pixels_equal
from ..helpers.jpegwriter import (
    CODES,
    EXTREMES,
    LONG,
    SAMPLINGS,
    SHORT,
    WIDE,
    ZIGZAG,
    Component,
    Huffman,
    codes,
    every_size,
    extremes,
    flat,
    grid,
    in_zigzag,
    longest_symbols,
    one_row,
    sparse,
    wrapped,
    write_jpeg,
)
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch


pytestmark = [pytest.mark.oracle, pytest.mark.hostile]
# libjpeg-turbo's NEON code wraps around elsewhere. test_aarch64.py compares these pictures with x86-64's bytes.
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="Pillow has the bytes of x86-64 there alone")
# Tables that read each other's bits without a fault, and blocks that differ then. 1 and 10, a DC difference of 1 and
# the end, is 110 to the other DC table: no difference and another end.
ENDS = {0x01: 1, 0x00: 2, 0x10: 3}
DC_TWINS = flat([0, 1, 2], 5), flat([1, 0, 2], 5)
AC_TWINS = Huffman(ENDS | {0x11: 5, 0x21: 5}), Huffman(ENDS | {0x21: 5, 0x11: 5})
STEPS, PLACES = np.zeros((1, 6, 64), np.int64), np.zeros((1, 6, 64), np.int64)
STEPS[0, :, 0] = np.arange(1, 7)
PLACES[..., ZIGZAG[2]] = PLACES[..., ZIGZAG[5]] = 1


def check(data: bytes, ours: bool = True, what: object = "") -> None:
    """Pillow's bytes, without libjpeg if `ours`, else by it."""
    assert _C.decodes_as_baseline(data) == ours, what
    assert_pixels_equal(_C.decode(data), pillows(data), what)


@cache
def pillows(data: bytes) -> np.ndarray:
    return np.asarray(reference.decode(data))


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


@needs_x86
def test_every_value_of_every_size(isa: str) -> None:
    """Kills: EXTEND off by one, a size that spills over what a look-up or a refill holds."""
    for size in range(1, 16):
        for data in every_size(size):
            check(data, what=size)


@needs_x86
@pytest.mark.parametrize("quantiser", EXTREMES)
def test_extreme_coefficients(quantiser: int, isa: str) -> None:
    """Products, sums and outputs that leave 16 bits wrap and saturate as in libjpeg-turbo's SIMD code."""
    for number, data in enumerate(extremes(quantiser)):
        check(data, what=number)


@needs_x86
def test_wrapped_products_in_the_first_row(isa: str) -> None:
    """A product that wraps around into the range is one that libjpeg wraps likewise."""
    check(wrapped())


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("value,ours", [(8191, True), (-8192, True), (8192, False), (-8193, False), (32767, False)])
def test_range_of_the_first_row(place: int, value: int, ours: bool, isa: str) -> None:
    """Beyond it libjpeg-turbo's shortcut for empty rows wraps around: left to libjpeg, whichever block it is."""
    for count, block in ((1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (9, 0), (9, 6), (9, 8)):
        blocks = np.zeros((count, 64), np.int64)
        blocks[block, place] = value
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


@needs_x86
@pytest.mark.parametrize("bits", CODES)
def test_codes_of_every_length(bits: int, isa: str) -> None:
    """Kills: what lies at the borders of the look-ups, codes beyond them, a refill too few."""
    for data in codes(bits):
        check(data)


@needs_x86
def test_three_look_ups_then_the_longest_symbol(isa: str) -> None:
    """Kills: the refill before a symbol of 31 bits left out."""
    for data in longest_symbols():
        check(data)


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


def test_a_byte_too_many_or_too_few(isa: str) -> None:
    for seed in range(24):  # every number of bits that pad the last byte
        data = sparse(8, 24, "gray", seed)
        check(data[:-2] + b"\0" + data[-2:], False, seed)
        check(data[:-3] + data[-2:], False, seed)


def test_zeros_after_the_end_are_the_longest_symbols(isa: str) -> None:
    """An MCU of 1,476 bytes is read where there is none: under `make sanitize` this kills too little padding."""
    tables = {"dc": flat(range(12), 16), "ac": flat([0x0F, *range(15)], 16)}
    components = [Component(np.zeros(shape, np.int64), np.full(64, 9), h, v, **tables)
                  for shape, h, v in grid(16, 16, "420")]  # fmt: skip
    data = write_jpeg(16, 16, components)
    scan = data.index(b"\xff\xda") + 14
    check(data[:scan] + b"\xff\xd9", False)


@pytest.mark.parametrize("tables", [{"dc": flat([0, 1], 1)}, {"ac": flat([0, 1], 1)}], ids=["dc", "ac"])
def test_a_code_of_all_ones_is_refused(tables: dict[str, Huffman], isa: str) -> None:
    data = one_row(np.ones((8, 1), np.int64) * (np.arange(64) < 2), **tables)
    with pytest.raises(OSError):
        reference.decode(data)
    with pytest.raises(BadPictureError, match="Huffman"):
        _C.decode(data)


def test_tables_of_the_third_component(isa: str) -> None:
    """Both colours decode with one pair of tables; files that have two are libjpeg's."""
    blank = {"dc": DC_TWINS[0], "ac": AC_TWINS[0]}
    for blocks, field, twins in ((STEPS, "dc", DC_TWINS), (PLACES, "ac", AC_TWINS)):
        for blue, red in ((0, 1), (1, 0), (1, 1)):
            tables = [blank, blank | {field: twins[blue]}, blank | {field: twins[red]}]
            components = [Component(blocks * (c == 2), np.full(64, 30), **tables[c]) for c in range(3)]
            check(write_jpeg(8, 48, components), blue == red, (field, blue))


@needs_torch
def test_tables_of_the_picture_before(tmp_path: Path) -> None:
    """Kills: tables that are kept for a picture that has others. The engine's thread decodes with one decoder."""
    pictures = [write_jpeg(8, 48, [Component(blocks, np.full(64, 30), dc=DC_TWINS[dc], ac=AC_TWINS[ac])])
                for blocks in (STEPS, PLACES) for dc, ac in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 0))]  # fmt: skip
    assert all(map(_C.decodes_as_baseline, pictures))
    for number, data in enumerate(pictures):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.jpg").write_bytes(data)
    build([tmp_path / "in"], tmp_path / "pack")
    dataset = ShardDataset(tmp_path / "pack", recipes.mocov2(size=24))
    views, _ = next(iter(DataLoader(dataset, len(pictures), num_workers=1)))
    for number, data in enumerate(pictures):
        view = reference.render(reference.decode(data), dataset.plan(number)[0])
        assert np.array_equal(views[0][number].numpy(), reference.normalize(view, dataset.recipe)), number
