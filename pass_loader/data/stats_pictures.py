"""Numbers of a random sample of pictures, which have to be decoded: colours, brightness, qualities, near duplicates."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .. import _C
from ..errors import BadPictureError, RecordError, ShardError
from ..permutation import permute
from .live import Live
from .samples import Samples

DISTANCE = 4  # bits of 64 in which the perceptual hashes of pictures that look alike differ at the most
COLOURS = ("colour", "colour file, gray picture", "gray", "CMYK", "16 bits a channel")
MEASURES = np.dtype([
    ("record", "<i8"), ("colour", "u1"), ("quality", "u1"), ("sampling", "u1"), ("progressive", "?"), ("rotated", "?"),
    ("brightness", "<f4"), ("contrast", "<f4"), ("hash", "<u8"),
])  # fmt: skip
SAMPLINGS = ("one channel", "4:4:4", "4:2:2", "4:4:0", "4:2:0", "4:1:1", "other")
THUMBNAIL = (320, 240)  # width, height in pixels at the most
_SMALL = 256  # pixels a side at the most, of what is measured
_AT_ONCE = 1 << 8  # records in work
_LARGE_PIXELS = 1 << 25  # larger pictures are decoded one at a time, so that memory stays bounded
_GRAY = 2.0  # mean difference between the largest and the smallest channel, of 255, below which a picture is gray

# T.81, table K.1 in the order of a DQT segment: luminance at quality 50
_LUMINANCE = np.array([
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61,
    60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113,
    121, 112, 100, 120, 92, 101, 103, 99,
])  # fmt: skip


def _tables_by_quality() -> np.ndarray:
    """Return libjpeg's luminance tables for qualities 1 to 100, (100, 64) (jcparam.c, jpeg_quality_scaling)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)


_TABLES = _tables_by_quality()


@dataclass(frozen=True)
class Damaged:
    """A record that could not be read or decoded."""

    shard: str
    record: int
    id: str
    cause: str


def drawn(samples: Samples, count: int, seed: int) -> np.ndarray:
    """Return `count` different live records in random order, or all of them: a function of the seed."""
    live = Live.of(samples.parts[0].pack, None)
    return live.records_at(permute(np.arange(min(count, len(live))), len(live), seed))


class Pictures:
    """Reads pictures of a pack. Those that cannot be read or decoded are in `damaged`, by their records."""

    def __init__(self, samples: Samples, workers: int):
        self.samples, self.workers = samples, workers
        self.damaged: dict[int, Damaged] = {}
        self._large = threading.Lock()
        self._thumbnails: dict[int, bytes | None] = {}

    def measure(
        self, records: np.ndarray, hash_of: Callable[[Image.Image], int] | None, progress: Callable[[int], None]
    ) -> np.ndarray:
        """Return (N,) MEASURES of those that can be decoded, in the order of records.

        hash_of: a perceptual hash of 64 bits; None: 0 stands in its place. progress: called with the records' bytes.
        Raises ShardError where a store fails.
        """

        def look(record: int) -> tuple[Any, ...] | None:
            try:
                data, pixels = self._decoded(record)
                return _measured(record, data, pixels, hash_of)
            except RecordError as error:
                self._note(error)
                return None

        lengths = self.samples.parts[0].pack.column("length")
        found = []
        for record, measured in zip(records.tolist(), self._mapped(look, records.tolist())):
            if measured is not None:
                found.append(measured)
            progress(int(lengths[record]))
        return np.array(found, MEASURES)

    def thumbnails(self, records: Sequence[int]) -> dict[int, bytes]:
        """Return small JPEGs of those that can be decoded."""

        def draw(record: int) -> bytes | None:
            try:
                picture = Image.fromarray(_shown(self._decoded(record)[1]))
            except RecordError as error:
                self._note(error)
                return None
            scale = min(1.0, *(most / side for most, side in zip(THUMBNAIL, picture.size)))
            width, height = (max(1, round(side * scale)) for side in picture.size)
            picture.resize((width, height), Image.Resampling.LANCZOS).save(out := io.BytesIO(), "JPEG", quality=80)
            return out.getvalue()

        new = [record for record in dict.fromkeys(records) if record not in self._thumbnails]
        self._thumbnails |= zip(new, self._mapped(draw, new))
        found = ((record, self._thumbnails[record]) for record in records)
        return {record: thumbnail for record, thumbnail in found if thumbnail is not None}

    def _mapped(self, function: Callable[[int], Any], records: list[int]) -> Iterator[Any]:
        with ThreadPoolExecutor(self.workers) as pool:
            for first in range(0, len(records), _AT_ONCE):
                yield from pool.map(function, records[first : first + _AT_ONCE])

    def _decoded(self, record: int) -> tuple[bytes, np.ndarray]:
        """Return a record's bytes and pixels, of a large picture some of them. Raises RecordError."""
        data = self.samples.read(record)
        size = self.samples.pack.size_of(record)
        with self.samples.named(record):
            header = _C.read_header(data)
            if (header["height"], header["width"]) != size:
                raise BadPictureError(
                    f"the picture is {header['height']} x {header['width']} (height x width), the index says "
                    f"{size[0]} x {size[1]}"
                )
            if size[0] * size[1] <= _LARGE_PIXELS:
                return data, _C.decode(data)
            with self._large:
                step = -(-max(size) // 4096)
                return data, _C.decode(data)[::step, ::step].copy()

    def _note(self, error: RecordError) -> None:
        if isinstance(error, ShardError) and self.samples.parts[0].pack.remote is not None:
            raise error  # the network fails, and would for every picture that follows
        self.damaged[error.record] = Damaged(error.shard, error.record, error.id, error.cause)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as (height, width, 3) uint8; of 16 bits the upper 8."""
    pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _measured(
    record: int, data: bytes, pixels: np.ndarray, hash_of: Callable[[Image.Image], int] | None
) -> tuple[Any, ...]:
    header = _C.read_header(data)
    picture = Image.fromarray(_shown(pixels))
    hash = 0 if hash_of is None else hash_of(picture)
    picture.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
    small = np.asarray(picture).astype(np.float32)
    luma = small @ np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as JPEG's
    if header["bits"] > 8:
        colour = COLOURS.index("16 bits a channel")
    elif header["components"] in (1, 4):
        colour = COLOURS.index("gray" if header["components"] == 1 else "CMYK")
    else:
        colour = COLOURS.index("colour file, gray picture" if np.ptp(small, 2).mean() < _GRAY else "colour")
    quality = sampling = 0
    if not data.startswith(b"\x89PNG"):
        quality, sampling = jpeg_coding(_C.dct_to_jpeg(data) if data.startswith(b"PLDC") else data)
    return (
        record, colour, quality, sampling, header["progressive"], header["exif_orientation"] != 1,
        luma.mean() / 255, luma.std() / 255, hash,
    )  # fmt: skip


def jpeg_coding(data: bytes) -> tuple[int, int]:
    """Return the quality of libjpeg whose luminance table is nearest to the JPEG's, and its place in SAMPLINGS.

    0 and 0 where the segments before its first scan do not tell it.
    """
    tables: dict[int, np.ndarray] = {}
    frame = b""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        segment = data[at + 4 : at + 2 + length]
        if marker == 0xDA or length < 2:
            break
        if marker == 0xDB:
            tables |= _quantisation(segment)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = segment
        at += 2 + length
    if len(frame) < 9 or frame[8] not in tables:
        return 0, 0
    distance = np.abs(_TABLES - tables[frame[8]]).sum(1)
    quality = 100 - int(np.argmin(distance[::-1]))  # of equal ones the best
    if frame[5] != 3 or len(frame) < 15:
        return quality, SAMPLINGS.index("one channel" if frame[5] == 1 else "other")
    factors = [(frame[place] >> 4, frame[place] & 15) for place in (7, 10, 13)]
    if factors[1] != factors[2] or 0 in factors[1]:
        return quality, SAMPLINGS.index("other")
    (across, down), (chroma_across, chroma_down) = factors[:2]
    names: dict[tuple[float, float], str] = {
        (1, 1): "4:4:4",
        (2, 1): "4:2:2",
        (1, 2): "4:4:0",
        (2, 2): "4:2:0",
        (4, 1): "4:1:1",
    }
    return quality, SAMPLINGS.index(names.get((across / chroma_across, down / chroma_down), "other"))


def _quantisation(segment: bytes) -> dict[int, np.ndarray]:
    """Return the tables of a DQT segment, (64,) each (T.81 B.2.4.1)."""
    found = {}
    at = 0
    while at < len(segment):
        wide, number = segment[at] >> 4, segment[at] & 15
        size = 128 if wide else 64
        values = segment[at + 1 : at + 1 + size]
        if len(values) < size:
            break
        found[number] = np.frombuffer(values, ">u2" if wide else "u1").astype(np.int64)
        at += 1 + size
    return found


def perceptual_hash() -> Callable[[Image.Image], int] | None:
    """Return imagehash's phash as an integer of 64 bits; None where imagehash is not installed."""
    try:
        from imagehash import phash
    except ImportError:
        return None
    return lambda picture: int(str(phash(picture)), 16)


def alike(hashes: np.ndarray) -> list[np.ndarray]:
    """Return groups of places, (n,) int64 each, that chains of hashes of at most DISTANCE bits connect; larger ones
    first.

    hashes: (N,) uint64. Two hashes that differ in at most 4 bits are equal in one of 5 parts.
    """
    different, inverse = np.unique(hashes, return_inverse=True)
    root = np.arange(len(different))

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = root[root[place]]
            place = int(root[place])
        return place

    cuts = np.linspace(0, 64, DISTANCE + 2).astype(int)
    for low, high in zip(cuts, cuts[1:]):
        part = different >> np.uint64(low) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(part, kind="stable")
        starts = np.flatnonzero(np.diff(part[order], prepend=~part[order[:1]]))
        for start, end in zip(starts, [*starts[1:], len(order)]):
            places = order[start:end]
            for row in range(len(places) - 1):
                near = _bits(different[places[row + 1 :]] ^ different[places[row]]) <= DISTANCE
                for other in places[row + 1 :][near].tolist():
                    root[find(other)] = find(int(places[row]))
    roots = np.array([find(place) for place in range(len(different))], np.int64)[inverse.reshape(-1)]
    order = np.argsort(roots, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), int(group[0])))


def _bits(values: np.ndarray) -> np.ndarray:
    """Return how many bits are set in each uint64 (numpy before 2.0 has no bitwise_count)."""
    values = values - (values >> np.uint64(1) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + (values >> np.uint64(2) & np.uint64(0x3333333333333333))
    values = values + (values >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return values * np.uint64(0x0101010101010101) >> np.uint64(56)
