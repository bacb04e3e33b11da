"""Records of the codec "dct" from given coefficients, written after docs/dct-codec.md alone: tests compare the native
encoder and decoder with them, and reach what no JPEG gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .jpegwriter import Component, Huffman, flat, segment, write_jpeg

COLOURS = {"gray": 0, "ycc": 1, "rgb": 2, "cmyk": 3, "ycck": 4}
MAGIC, VERSION, ESCAPE, WIDE_FROM = b"PLDC", 2, 0x80, 110
# Codes for every symbol that a baseline JPEG may use.
WIDE: dict[str, Huffman] = {
    "dc": flat(range(16), 5),
    "ac": flat((s for s in range(256) if s in (0, 0xF0) or s & 15), 9),
}
JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
ADOBE = {n: segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([n])) for n in range(3)}
# How each colour is told to a reader of the JPEG.
MARKERS = {"gray": JFIF, "ycc": JFIF, "rgb": ADOBE[0], "cmyk": ADOBE[0], "ycck": ADOBE[2]}


@dataclass
class Row:
    """The streams of one block row."""

    flags: bytearray = field(default_factory=bytearray)
    dc: bytearray = field(default_factory=bytearray)
    masks: bytearray = field(default_factory=bytearray)
    signs: list[bool] = field(default_factory=list)
    larger: list[bool] = field(default_factory=list)
    nibbles: bytearray = field(default_factory=bytearray)
    bytes: bytearray = field(default_factory=bytearray)
    dc_wide: list[int] = field(default_factory=list)
    wide: list[int] = field(default_factory=list)

    def add(self, block: list[int], before: int) -> None:
        """before: the DC of the block to the left."""
        difference = block[0] - before
        narrow = -127 <= difference <= 127
        self.dc.append(difference & 255 if narrow else ESCAPE)
        self.dc_wide += [] if narrow else [difference & 0xFFFF]
        masks = [sum(1 << x for x in range(8) if block[8 * y + x] and (x or y)) for y in range(8)]
        self.flags.append(sum(1 << y for y in range(8) if masks[y]))
        self.masks += bytes(mask for mask in masks if mask)
        values = [value for value in block[1:] if value]
        self.signs += [value < 0 for value in values]
        self.larger += [abs(value) > 1 for value in values]
        sizes = [abs(value) for value in values if abs(value) > 1]
        nibbles = [min(size - 2, 15) for size in sizes]
        nibbles += [0] * (len(nibbles) % 2)
        self.nibbles += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2]))
        self.bytes += bytes(min(size - 17, WIDE_FROM) for size in sizes if size >= 17)
        self.wide += [size for size in sizes if size >= 17 + WIDE_FROM]

    def streams(self) -> list[bytes]:
        """Return the streams as a record has them, the lengths first."""
        signs, larger = packed_bits(self.signs), packed_bits(self.larger)
        lengths = [len(self.masks), len(signs), len(self.nibbles), len(self.bytes), len(self.dc_wide), len(self.wide)]
        return [
            b"".join(map(varint, lengths)),
            bytes(self.flags),
            bytes(self.dc),
            bytes(self.masks),
            signs,
            larger,
            bytes(self.nibbles),
            bytes(self.bytes),
            u16(self.dc_wide),
            u16(self.wide),
        ]


def packed_bits(bits: list[bool]) -> bytes:
    return np.packbits(np.array(bits, dtype=bool), bitorder="little").tobytes()


def u16(values: list[int]) -> bytes:
    return np.array(values, dtype="<u2").tobytes()


def varint(value: int) -> bytes:
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def rows_of(height: int, width: int, components: list[Component]) -> Iterator[Row]:
    """Yield every block row, without the blocks of a component that lie beyond the picture."""
    tallest, widest = max(c.vertical for c in components), max(c.horizontal for c in components)
    for component in components:
        down = math.ceil(math.ceil(height * component.vertical / tallest) / 8)
        across = math.ceil(math.ceil(width * component.horizontal / widest) / 8)
        for blocks in component.blocks[:down, :across].tolist():
            row = Row()
            for before, block in zip([[0]] + blocks[:-1], blocks):
                row.add(block, before[0])
            yield row


def header(
    height: int, width: int, colour: str, components: list[Component], markers: bytes = b"", version: int = VERSION
) -> bytes:
    tables = list(dict.fromkeys(np.asarray(c.quantization).astype("<u2").tobytes() for c in components))
    out = MAGIC + bytes([version, COLOURS[colour], len(components), len(tables)])
    out += height.to_bytes(2, "little") + width.to_bytes(2, "little") + len(markers).to_bytes(4, "little")
    for c in components:
        place = tables.index(np.asarray(c.quantization).astype("<u2").tobytes())
        out += bytes([c.horizontal, c.vertical, place])
    return out + b"".join(tables) + markers


def write_streams(streams: Iterable[bytes]) -> bytes:
    """Return the part of a record after the header, with nothing compressed."""
    contents = list(streams)
    return b"".join(2 * len(content).to_bytes(4, "little") for content in contents) + b"".join(contents)


def write_dct(height: int, width: int, colour: str, components: list[Component], markers: bytes = b"") -> bytes:
    rows = [row.streams() for row in rows_of(height, width, components)]
    return header(height, width, colour, components, markers) + write_streams(map(b"".join, zip(*rows)))


def made(height: int, width: int, factors: list[tuple[int, int]], seed: int = 0, share: float = 0.1) -> list[Component]:
    """Return random components of these sampling factors (horizontal, vertical), in whole MCUs."""
    rng = np.random.default_rng((seed, height, width))
    across, down = (max(factor[axis] for factor in factors) for axis in (0, 1))
    components = []
    for horizontal, vertical in factors:
        shape = (-(-height // (8 * down)) * vertical, -(-width // (8 * across)) * horizontal, 64)
        blocks = rng.integers(-25, 26, shape) * (rng.random(shape) < share)
        blocks[..., 0] = rng.integers(-90, 91, shape[:2])
        components.append(Component(blocks, rng.integers(1, 12, 64), horizontal, vertical))
    return components


def one_row(blocks: np.ndarray, quantiser: int = 1) -> tuple[bytes, bytes]:
    """Return (record, JPEG) of a gray picture 8 high; blocks: (count, 64) coefficients, row-major."""
    component = Component(blocks[None], np.full(64, quantiser), **WIDE)
    width = 8 * len(blocks)
    return write_dct(8, width, "gray", [component], JFIF), write_jpeg(8, width, [component])


def example() -> np.ndarray:
    """Return three blocks that hold a value of each kind."""
    blocks = np.zeros((3, 64), np.int64)
    blocks[0, [0, 1, 2, 8, 17]] = 40, -1, 5, 2, -20
    blocks[1, 0] = -200  # a difference of -240 needs two bytes
    blocks[2, [0, 1, 63]] = -190, 300, 1
    return blocks
