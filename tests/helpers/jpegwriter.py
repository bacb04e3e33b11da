"""JPEGs (ITU T.81 Annexes B, F.1, G.1) from given coefficients, so that tests reach what no encoder writes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

EOB, ZRL = 0x00, 0xF0


def zigzag() -> list[int]:
    """Return the row-major index of the k-th coefficient, by walking the diagonals (T.81 figure 5)."""
    cells = [(y, x) for y in range(8) for x in range(8)]
    cells.sort(key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]))
    return [8 * y + x for y, x in cells]


ZIGZAG = zigzag()


class Huffman:
    """A canonical code: symbols of each length, shortest first (T.81 Annex C)."""

    def __init__(self, lengths: Mapping[int, int]) -> None:
        """lengths: bits of each symbol's code, 1 to 16; a tie goes to the symbol that comes first. The code of all
        ones, which T.81 forbids, is not withheld."""
        self.symbols = sorted(lengths, key=lengths.__getitem__)
        self.counts = [sum(length == n for length in lengths.values()) for n in range(1, 17)]
        self.codes: dict[int, str] = {}
        code = before = 0
        for symbol in self.symbols:
            code <<= lengths[symbol] - before
            before = lengths[symbol]
            self.codes[symbol] = format(code, f"0{before}b")
            code += 1
            assert code <= 1 << before, "too many codes"

    def segment(self, place: int) -> bytes:
        """place: class << 4 | destination."""
        return segment(0xC4, bytes([place, *self.counts, *self.symbols]))


def flat(symbols: Iterable[int], bits: int) -> Huffman:
    return Huffman({symbol: bits for symbol in symbols})


@cache
def standard() -> dict[int, Huffman]:
    """Return the tables of T.81 Annex K.3, as Pillow writes them, by class << 4 | destination."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    data, at, found = out.getvalue(), 2, {}
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        table = data[at + 4 : end] if data[at + 1] == 0xC4 else b""
        while table:
            lengths = [n for n, count in enumerate(table[1:17], 1) for _ in range(count)]
            found[table[0]] = Huffman(dict(zip(table[17:], lengths)))
            table = table[17 + len(lengths) :]
        at = end
    return found


@dataclass
class Component:
    blocks: np.ndarray  # (block rows, block columns, 64) row-major coefficients, quantised; whole MCUs
    quantization: np.ndarray  # (64,) row-major, 1 to 65535
    horizontal: int = 1
    vertical: int = 1
    dc: Huffman | None = None  # None: the standard's, of luma for the first component
    ac: Huffman | None = None
    end_by_runs: bool = False  # blocks whose zeros at the end are a multiple of 16 end with runs of 16, not with EOB
    eob: int = EOB  # the symbol that ends a block: libjpeg takes any run below 15 without a value for it


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def value_bits(value: int) -> str:
    """T.81 F.1.2.1.1: a negative value is its magnitude's complement."""
    size = abs(value).bit_length()
    return format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else ""


def ac_symbols(block: list[int], component: Component) -> Iterable[tuple[int, str]]:
    """Yield the symbols of a block in zigzag order, each with the bits of its value."""
    run = 0
    for value in block[1:]:
        if value == 0:
            run += 1
            continue
        yield from [(ZRL, "")] * (run // 16)
        yield run % 16 << 4 | abs(value).bit_length(), value_bits(value)
        run = 0
    if run and component.end_by_runs and run % 16 == 0:
        yield from [(ZRL, "")] * (run // 16)
    elif run:
        yield component.eob, ""


def entropy(components: list[Component], tables: list[tuple[Huffman, Huffman]]) -> bytes:
    """Return the bytes of all MCUs, padded with ones, with a zero after each FF."""
    # An MCU of the only component is one block, whatever its factors (T.81 A.2.2).
    factors = [(c.vertical, c.horizontal) for c in components] if len(components) > 1 else [(1, 1)]
    rows, columns = (n // factor for n, factor in zip(components[0].blocks.shape, factors[0]))
    bits: list[str] = []
    before = [0] * len(components)
    for y, x in np.ndindex(rows, columns):
        for c, component in enumerate(components):
            dc, ac = tables[c]
            tall, wide = factors[c]
            for v, h in np.ndindex(tall, wide):
                row_major = component.blocks[y * tall + v, x * wide + h].tolist()
                block = [row_major[place] for place in ZIGZAG]
                difference, before[c] = block[0] - before[c], block[0]
                bits += dc.codes[abs(difference).bit_length()], value_bits(difference)
                for symbol, value in ac_symbols(block, component):
                    bits += ac.codes[symbol], value
    return stuffed("".join(bits))


def stuffed(bits: str) -> bytes:
    """Return the bytes of a scan's bits, padded with ones, with a zero after each FF."""
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def write_jpeg(height: int, width: int, components: list[Component]) -> bytes:
    """Return a JPEG of one baseline scan of 1 (gray) or 3 (YCbCr) components."""
    tables, scan, used = b"", b"", []
    for c, component in enumerate(components):
        place = min(c, 1)
        dc, ac = component.dc or standard()[place], component.ac or standard()[0x10 | place]
        used.append((dc, ac))
        tables += dc.segment(c) + ac.segment(0x10 | c)
        scan += bytes([c + 1, c << 4 | c])
    scan = segment(0xDA, bytes([len(components)]) + scan + b"\0\x3f\0") + entropy(components, used)
    return head(0xC0, height, width, components) + tables + scan + b"\xff\xd9"


def head(kind: int, height: int, width: int, components: list[Component]) -> bytes:
    """Return what comes before the Huffman tables. kind: the frame's marker."""
    quantization = b""
    frame = bytes([8, *height.to_bytes(2, "big"), *width.to_bytes(2, "big"), len(components)])
    for c, component in enumerate(components):
        values = [int(component.quantization[at]) for at in ZIGZAG]
        wide = max(values) > 255
        quantization += segment(0xDB, bytes([wide << 4 | c]) + b"".join(v.to_bytes(1 + wide, "big") for v in values))
        frame += bytes([c + 1, component.horizontal << 4 | component.vertical, c])
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    return b"\xff\xd8" + jfif + quantization + segment(kind, frame)


@dataclass
class Scan:
    """Of a progressive file: components by their places, coefficients of the zigzag order, T.81's Ah and Al."""

    components: list[int]
    first: int
    last: int
    high: int
    low: int


def write_progressive(
    height: int, width: int, components: list[Component], scans: list[Scan], dc: Huffman | None = None
) -> bytes:
    """Return a progressive JPEG of these scans. Tables have a code for every symbol, unless `dc` is given."""
    dc, ac = dc or WIDE["dc"], WIDE["ac"]
    data = head(0xC2, height, width, components) + dc.segment(0) + ac.segment(0x10)
    for scan in scans:
        named = b"".join(bytes([c + 1, 0]) for c in scan.components)
        bounds = bytes([scan.first, scan.last, scan.high << 4 | scan.low])
        bits = "".join(scan_bits(height, width, components, scan, dc, ac))
        data += segment(0xDA, bytes([len(scan.components)]) + named + bounds) + stuffed(bits)
    return data + b"\xff\xd9"


def scan_bits(
    height: int, width: int, components: list[Component], scan: Scan, dc: Huffman, ac: Huffman
) -> Iterable[str]:
    """Yield the bits of a scan, MCU by MCU; those of a component alone are its blocks, without the padding."""
    alone = len(scan.components) == 1
    most = max(c.vertical for c in components), max(c.horizontal for c in components)
    one = components[scan.components[0]]
    factors = (one.vertical, one.horizontal) if alone else (1, 1)
    rows, columns = (-(-pixels * factor // (8 * of)) for pixels, factor, of in zip((height, width), factors, most))
    before = [0] * len(components)
    for y, x in np.ndindex(rows, columns):
        for c in scan.components:
            component = components[c]
            tall, wide = (1, 1) if alone else (component.vertical, component.horizontal)
            for v, h in np.ndindex(tall, wide):
                block = component.blocks[y * tall + v, x * wide + h].tolist()
                if scan.first > 0:
                    yield band_bits([block[place] for place in ZIGZAG], scan, ac)
                elif scan.high > 0:
                    yield str(block[0] >> scan.low & 1)
                else:
                    difference, before[c] = (block[0] >> scan.low) - before[c], block[0] >> scan.low
                    yield dc.codes[abs(difference).bit_length()] + value_bits(difference)


def band_bits(block: list[int], scan: Scan, ac: Huffman) -> str:
    """Return a block's bits of an AC scan (T.81 G.1.2.2, G.1.2.3): each block has an end of its own."""
    bits, corrections, run = "", "", 0
    band = range(scan.first, scan.last + 1)
    new = [k for k in band if abs(block[k]) >> scan.low and not (scan.high and abs(block[k]) >> scan.high)]
    for k in band:
        size = abs(block[k]) >> scan.low
        while run > 15 and new and k <= new[-1]:
            bits, corrections, run = bits + ac.codes[ZRL] + corrections, "", run - 16
        if size == 0:
            run += 1
        elif k in new:
            value = size if block[k] > 0 else -size
            text = value_bits(value)
            bits, corrections, run = bits + ac.codes[run << 4 | size.bit_length()] + text + corrections, "", 0
        else:
            corrections += str(size & 1)
    return bits + ac.codes[EOB] + corrections if run or corrections else bits


SAMPLINGS = {"444": (1, 1), "422": (2, 1), "440": (1, 2), "420": (2, 2), "gray": (0, 0)}
WIDE = {"dc": flat(range(16), 5), "ac": flat(range(255), 9)}
LONG = {"dc": flat(range(16), 16), "ac": flat(range(255), 16)}
# A look-up often holds two coefficients, or one and the end.
SHORT = {"ac": Huffman(dict.fromkeys(range(255), 12) | {0x01: 2, 0x00: 3, 0x11: 3, 0xF0: 4, 0x02: 4, 0x21: 5})}


def grid(height: int, width: int, sampling: str) -> list[tuple[tuple[int, int, int], int, int]]:
    """Yield, for each component, the shape of its coefficients and its sampling factors."""
    if sampling == "gray":
        return [((-(-height // 8), -(-width // 8), 64), 1, 1)]
    horizontal, vertical = SAMPLINGS[sampling]
    rows, columns = -(-height // (8 * vertical)), -(-width // (8 * horizontal))
    return [((rows * v, columns * h, 64), h, v) for h, v in ((horizontal, vertical), (1, 1), (1, 1))]


def one_row(blocks: np.ndarray, quantization: np.ndarray | int = 1, **options: object) -> bytes:
    """Return a gray JPEG 8 high; blocks: (count, 64) coefficients, row-major."""
    return write_jpeg(8, 8 * len(blocks), [Component(blocks[None], np.full(64, quantization), **options)])


@cache
def sparse(height: int, width: int, sampling: str, seed: int = 0, share: float = 0.08, step: int = 9) -> bytes:
    """Return a JPEG of random blocks whose quantisers differ by component and place."""
    rng = np.random.default_rng((seed, height, width))
    components = []
    for shape, h, v in grid(height, width, sampling):
        blocks = rng.integers(-12, 13, shape) * (rng.random(shape) < share)
        blocks[..., 0] = rng.integers(-70, 71, shape[:2])
        components.append(Component(blocks, rng.integers(step - 5, step + 6, 64), h, v))
    return write_jpeg(height, width, components)


def in_zigzag(values: dict[int, int]) -> np.ndarray:
    """One block of these coefficients, by place in zigzag order."""
    block = np.zeros(64, np.int64)
    for k, value in values.items():
        block[ZIGZAG[k]] = value
    return block


CODES = range(9, 17)  # bits
EXTREMES = (1, 17, 255, 256, 257, 4099, 32767, 32768, 65535)  # quantisers


def every_size(size: int) -> list[bytes]:
    """JPEGs of coefficients with so many bits, below the first row, where large values are left to libjpeg."""
    half, full = 1 << size - 1, (1 << size) - 1
    values = [half, -half, full, -full, half + half // 3]
    blocks = np.stack([in_zigzag({0: 5, 2: v, 11: -v, 23: 1}) for v in values])
    return [one_row(blocks, quantiser, **tables) for tables in (WIDE, LONG) for quantiser in (1, 3)]


def extremes(quantiser: int) -> list[bytes]:
    """JPEGs whose products, sums and outputs leave 16 bits."""
    rng = np.random.default_rng(quantiser)
    pictures = []
    for share in (0.03, 0.2, 1.0):
        for limit in (3, 100, 2047):
            blocks = rng.integers(-limit, limit + 1, (24, 64)) * (rng.random((24, 64)) < share)
            blocks[:, :8] = 0
            pictures.append(one_row(blocks, quantiser, **WIDE))
    blocks = rng.choice([-2047, 2047], (24, 64)) * (np.arange(64) >= 8)
    return [*pictures, one_row(blocks, quantiser, **WIDE)]


def wrapped() -> bytes:
    """A JPEG with products in the first row that wrap around into the range."""
    quantization = np.full(64, 65528)  # -8 in 16 bits
    blocks = np.random.default_rng(2).integers(-1000, 1001, (17, 64))
    return write_jpeg(8, 8 * 17, [Component(blocks[None], quantization, **WIDE)])


def codes(bits: int) -> list[bytes]:
    """JPEGs of large coefficients whose codes have so many bits, all of them or some."""
    rng = np.random.default_rng(bits)
    blocks = rng.integers(-2000, 2001, (40, 64)) * (rng.random((40, 64)) < 0.4)
    blocks[:, :8] %= 500
    mixed = Huffman({symbol: int(n) for symbol, n in zip(range(255), rng.choice([9, bits], 255))})
    return [one_row(blocks, 1, dc=flat(range(16), bits), ac=ac) for ac in (flat(range(255), bits), mixed)]


def longest_symbols() -> list[bytes]:
    """JPEGs with 61 bits between two refills of a decoder, but for the one before a symbol of 31."""
    ac = Huffman(dict.fromkeys(range(255), 16) | {0x08: 2, 0x00: 3})
    rng = np.random.default_rng(8)
    longest = [k for k in range(4, 64, 4) if ZIGZAG[k] >= 8]
    blocks = np.stack([in_zigzag({k: int(rng.integers(128, 256)) for k in range(1, 64)}) for _ in range(30)])
    for k in longest:
        blocks[:, ZIGZAG[k]] = rng.choice([-1, 1], 30) * rng.integers(1 << 14, 1 << 15, 30)
    return [one_row(blocks, 1, dc=flat(range(16), bits), ac=ac) for bits in range(5, 12)]


def beyond_16_bits() -> list[bytes]:
    """All JPEGs of the last five kinds. libjpeg-turbo wraps around elsewhere on another processor than x86-64."""
    pictures = [wrapped(), *longest_symbols()]
    pictures += [data for size in range(1, 16) for data in every_size(size)]
    pictures += [data for quantiser in EXTREMES for data in extremes(quantiser)]
    return [*pictures, *(data for bits in CODES for data in codes(bits))]


# As libjpeg's; each component alone; all bits at once; one bit a scan; and a band that is cut in many.
SCRIPTS: dict[str, list[tuple[list[int], int, int, int, int]]] = {
    "libjpeg": [([0, 1, 2], 0, 0, 0, 1), ([0], 1, 5, 0, 2), ([2], 1, 63, 0, 1), ([1], 1, 63, 0, 1),
                ([0], 6, 63, 0, 2), ([0], 1, 63, 2, 1), ([0, 1, 2], 0, 0, 1, 0), ([2], 1, 63, 1, 0),
                ([1], 1, 63, 1, 0), ([0], 1, 63, 1, 0)],
    "alone": [*(([c], 0, 0, 0, 1) for c in range(3)), *(([c], 0, 0, 1, 0) for c in (2, 0, 1)),
              *(([c], 1, 63, 0, 0) for c in range(3))],
    "pairs": [([1, 2], 0, 0, 0, 0), ([0], 0, 0, 0, 2), ([0], 0, 0, 2, 1), ([0], 0, 0, 1, 0),
              *(([c], 1, 63, 0, 0) for c in range(3))],
    "bit by bit": [([0, 1, 2], 0, 0, 0, 3), *(([0, 1, 2], 0, 0, low + 1, low) for low in (2, 1, 0)),
                   *(([c], 1, 63, 0, 3) for c in range(3)),
                   *(([c], 1, 63, low + 1, low) for low in (2, 1, 0) for c in range(3))],
    "narrow": [([0, 1, 2], 0, 0, 0, 0), *(([c], k, k, 0, 1) for c in range(3) for k in (1, 2, 3)),
               *(([c], 4, 62, 0, 0) for c in range(3)), *(([c], 63, 63, 0, 1) for c in range(3)),
               *(([c], k, k, 1, 0) for c in range(3) for k in (63, 3, 1, 2))],
}  # fmt: skip


def scripted(name: str, sampling: str, share: float, height: int = 37, width: int = 54) -> bytes:
    """Return a progressive JPEG of random coefficients. share: of those that are not zero."""
    rng, components = np.random.default_rng(0), []
    for shape, horizontal, vertical in grid(height, width, sampling):
        blocks = rng.integers(-13, 14, shape) * (rng.random(shape) < share)
        blocks[..., 0] = rng.integers(-60, 61, shape[:2])
        components.append(Component(blocks, np.full(64, 4), horizontal, vertical))
    return write_progressive(height, width, components, [Scan(*scan) for scan in SCRIPTS[name]])
