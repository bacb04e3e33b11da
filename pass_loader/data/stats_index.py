"""Numbers of all live pictures, from the columns of a pack's index: exact, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import PackError
from ..pack.layout import CODECS, INDEX, INDEX_SCHEMA
from ..pack.reader import Pack

PASSES_BYTES = 3 * sum(type.bit_width // 8 for type in INDEX_SCHEMA.types)  # of a record, over all passes
EXTREMES = 6  # pictures of each kind that are kept
SIZE_CELLS = 60  # of the picture of sizes, along a side
_PART = 1 << 20  # records that are looked at together
_BUCKET = 1 << 22  # records whose checksums are sorted together
_GROUPS = 6  # of equal bytes that are kept
_MEMBERS = 4  # of such a group
_MOST_SIZES = 1 << 20  # different ones that are counted
_QUANTILES = {"least": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "most": 1.0}
_ASPECT_BINS = np.linspace(-3, 3, 97)  # log2 of width / height; the outer bins hold what lies beyond
_DENSITY_BINS = np.linspace(-5, 6, 89)  # log2 of bits a pixel


def index_numbers(pack: Pack, progress: Callable[[int], None]) -> dict[str, Any]:
    """Return sizes, bytes, codecs, classes, equal bytes and extremes of the live records.

    progress: called with bytes, PASSES_BYTES a record in all. Raises PackError for an index with impossible numbers.
    """
    step = progress_of_pass(progress, 3)
    spreads = {name: Spread() for name in ("width_px", "height_px", "pixels", "record_bytes")}
    extremes = {name: Least(EXTREMES) for name in ("largest", "smallest", "widest", "tallest", "most_compressed")}
    codecs, classes, shapes = np.zeros(len(CODECS), np.int64), np.zeros(len(pack.classes) + 1, np.int64), np.zeros(3)
    sizes: Sizes | None = Sizes()
    for records in live_parts(pack, step):
        columns = _columns(pack, records)
        height, width, pixels = columns["height_px"], columns["width_px"], columns["pixels"]
        for name, spread in spreads.items():
            spread.add(columns[name])
        density, aspect = columns["record_bytes"] / pixels, width / height
        extremes["largest"].add(-pixels, records)
        extremes["smallest"].add(pixels, records)
        extremes["widest"].add(-aspect, records)
        extremes["tallest"].add(aspect, records)
        extremes["most_compressed"].add(density, records)
        codecs += np.bincount(pack.column("codec")[records], minlength=len(CODECS))[: len(CODECS)]
        if pack.classes:
            classes += np.bincount(pack.labels(records) + 1, minlength=len(classes))
        shapes += [
            np.count_nonzero(width > height),
            np.count_nonzero(width < height),
            np.count_nonzero(width == height),
        ]
        sizes = None if sizes is None or not sizes.add(height, width) else sizes
    low = min(spreads[name].least for name in ("width_px", "height_px"))
    high = max(spreads[name].most for name in ("width_px", "height_px"))
    axis = SizeAxis(low, high)
    plane = np.zeros((SIZE_CELLS, SIZE_CELLS), np.int64)
    aspects, densities = np.zeros(len(_ASPECT_BINS) - 1, np.int64), np.zeros(len(_DENSITY_BINS) - 1, np.int64)
    byte_bins = log_bins(spreads["record_bytes"].least, spreads["record_bytes"].most)
    byte_counts = np.zeros(len(byte_bins) - 1, np.int64)
    for records in live_parts(pack, step):
        columns = _columns(pack, records)
        for name, spread in spreads.items():
            spread.add_again(columns[name])
        height, width, length = columns["height_px"], columns["width_px"], columns["record_bytes"]
        cells = axis.cells(height) * SIZE_CELLS + axis.cells(width)
        plane += np.bincount(cells, minlength=SIZE_CELLS**2).reshape(plane.shape)
        aspects += binned(np.log2(width / height), _ASPECT_BINS)
        densities += binned(np.log2(8 * length / columns["pixels"]), _DENSITY_BINS)
        byte_counts += binned(np.log2(length), byte_bins)
    found = {name: spread.summary() for name, spread in spreads.items()}
    return {
        "sizes": {
            **{name: found[name] for name in ("width_px", "height_px", "pixels")},
            **dict(zip(("landscape", "portrait", "square"), map(int, shapes))),
            "most_frequent": None if sizes is None else sizes.most_frequent(),
            "plane": {"edges_px": axis.edges(), "rows_of_heights": plane.tolist()},
            "aspect": {"edges_log2": _ASPECT_BINS.tolist(), "pictures": aspects.tolist()},
        },
        "bytes": {
            "record_bytes": found["record_bytes"],
            "bits_per_pixel": 8 * found["record_bytes"]["sum"] / found["pixels"]["sum"],
            "histogram": {"edges_log2": byte_bins.tolist(), "pictures": byte_counts.tolist()},
            "density": {"edges_log2": _DENSITY_BINS.tolist(), "pictures": densities.tolist()},
        },
        "codecs": {name: int(count) for name, count in zip(CODECS, codecs) if count},
        "classes": _classes(pack, classes) if pack.classes else None,
        "equal_bytes": equal_bytes(pack, step),
        "extremes": {name: least.records.tolist() for name, least in extremes.items()},
    }


def progress_of_pass(progress: Callable[[int], None], passes: int) -> Callable[[int], None]:
    """Return what takes records of a pass where `progress` takes bytes."""
    return lambda records: progress(records * PASSES_BYTES // passes)


def live_parts(pack: Pack, step: Callable[[int], None]) -> Iterator[np.ndarray]:
    """Yield the live records in order, int64, some at a time. step: called with how many were looked at."""
    for first in range(0, pack.records, _PART):
        records = np.arange(first, min(first + _PART, pack.records))
        live = records[~pack.is_removed(records)]
        if len(live):
            yield live
        step(len(records))


def _columns(pack: Pack, records: np.ndarray) -> dict[str, np.ndarray]:
    """Return heights, widths, pixels and bytes of live records, int64. Raises PackError for impossible ones."""
    found = {
        name: pack.column(column)[records].astype(np.int64)
        for name, column in (("height_px", "height"), ("width_px", "width"), ("record_bytes", "length"))
    }
    for name, values in found.items():
        if (wrong := (values < 1) | (values >= 1 << 32)).any():
            raise PackError(
                f"{pack.path / pack.manifest.get('index', INDEX)}: record {records[wrong][0]} has the {name} "
                f"{values[wrong][0]}; `pass-pack verify` says which file was changed"
            )
    found["pixels"] = np.minimum(found["height_px"] * found["width_px"], (1 << 32) - 1)
    return found


class Spread:
    """Quantiles of whole numbers below 2^32 that come in parts, twice: by their upper 16 bits, then by the lower ones
    of those that hold a quantile."""

    def __init__(self) -> None:
        self._upper = np.zeros(1 << 16, np.int64)
        self._lower: dict[int, np.ndarray] = {}
        self.least, self.most, self.sum = 1 << 32, 0, 0

    def add(self, values: np.ndarray) -> None:
        self._upper += np.bincount(values >> 16, minlength=1 << 16)
        self.least, self.most = min(self.least, int(values.min())), max(self.most, int(values.max()))
        self.sum += int(values.sum())

    def add_again(self, values: np.ndarray) -> None:
        if not self._lower:
            self._lower = {upper: np.zeros(1 << 16, np.int64) for upper, _ in map(self._place, self._ranks())}
        upper = values >> 16
        for number, counts in self._lower.items():
            counts += np.bincount(values[upper == number] & 0xFFFF, minlength=1 << 16)

    def summary(self) -> dict[str, Any]:
        """Return sum, mean and quantiles: the value below which that share of the others lies."""
        found = {}
        for name, rank in zip(_QUANTILES, self._ranks()):
            upper, rest = self._place(rank)
            lower = int(np.searchsorted(np.cumsum(self._lower[upper]), rest, side="right"))
            found[name] = upper << 16 | lower
        return {**found, "mean": self.sum / int(self._upper.sum()), "sum": self.sum}

    def _ranks(self) -> list[int]:
        last = int(self._upper.sum()) - 1
        return [int(share * last) for share in _QUANTILES.values()]

    def _place(self, rank: int) -> tuple[int, int]:
        """Return the upper bits of the value with this rank, and its rank among those with the same."""
        before = np.cumsum(self._upper)
        upper = int(np.searchsorted(before, rank, side="right"))
        return upper, rank - int(before[upper] - self._upper[upper])


class Least:
    """The records with the least keys, of those that come in parts in their order; of equal keys the first ones."""

    def __init__(self, count: int):
        self.count, self.keys, self.records = count, np.zeros(0), np.zeros(0, np.int64)

    def add(self, keys: np.ndarray, records: np.ndarray) -> None:
        keys, records = np.concatenate([self.keys, keys]), np.concatenate([self.records, records])
        if len(keys) > self.count:
            last = np.partition(keys, self.count - 1)[self.count - 1]
            below, equal = np.flatnonzero(keys < last), np.flatnonzero(keys == last)
            chosen = np.concatenate([below, equal[: self.count - len(below)]])
            keys, records = keys[chosen], records[chosen]
        order = np.lexsort((records, keys))
        self.keys, self.records = keys[order], records[order]


class Sizes:
    """How many pictures have each size."""

    def __init__(self) -> None:
        self._sizes, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add(self, height: np.ndarray, width: np.ndarray) -> bool:
        """Return False where there are too many different ones to count."""
        sizes, counts = np.unique(height << 32 | width, return_counts=True)
        self._sizes, place = np.unique(np.concatenate([self._sizes, sizes]), return_inverse=True)
        together = np.zeros(len(self._sizes), np.int64)
        np.add.at(together, place, np.concatenate([self._counts, counts]))
        self._counts = together
        return len(self._sizes) <= _MOST_SIZES

    def most_frequent(self) -> list[dict[str, int]]:
        order = np.lexsort((self._sizes, -self._counts))[:EXTREMES]
        return [
            {"height_px": size >> 32, "width_px": size & 0xFFFFFFFF, "pictures": count}
            for size, count in zip(self._sizes[order].tolist(), self._counts[order].tolist())
        ]


class SizeAxis:
    """The cells of sizes in pixels: equally wide where sizes are alike, else of equal ratio; with some room around."""

    def __init__(self, least: int, most: int):
        self.is_log = most > 8 * least
        low, high = (np.log2(least), np.log2(most)) if self.is_log else (0.0, float(most))
        room = 0.04 * max(high - low, 1.0)
        self._least = low - room if self.is_log else 0.0
        self._step = (high + room - self._least) / SIZE_CELLS

    def cells(self, sizes: np.ndarray) -> np.ndarray:
        places = np.log2(sizes) if self.is_log else sizes
        return np.clip(((places - self._least) / self._step).astype(np.int64), 0, SIZE_CELLS - 1)

    def edges(self) -> list[float]:
        edges = self._least + self._step * np.arange(SIZE_CELLS + 1)
        return np.round(np.exp2(edges) if self.is_log else edges, 3).tolist()


def log_bins(least: float, most: float) -> np.ndarray:
    """Return edges in log2 that cover [least, most], 1/8 of an octave apart or further, about 100 at the most."""
    low, high = np.floor(np.log2(least)), np.floor(np.log2(most)) + 1
    return np.linspace(low, high, int(high - low) * (8 if high - low <= 12 else 4) + 1)


def binned(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Count values between edges that lie equally far apart; the outer bins hold what lies beyond."""
    places = ((values - edges[0]) * ((len(edges) - 1) / (edges[-1] - edges[0]))).astype(np.int64)
    return np.bincount(np.clip(places, 0, len(edges) - 2), minlength=len(edges) - 1)


def _classes(pack: Pack, counts: np.ndarray) -> dict[str, Any]:
    """counts: of no label, then of each class."""
    order = np.argsort(-counts[1:], kind="stable")
    named = [{"class": pack.classes[place], "pictures": int(counts[place + 1])} for place in order.tolist()]
    return {"count": len(named), "without": int(counts[0]), "largest": named[:EXTREMES], "smallest": named[-EXTREMES:]}


def equal_bytes(pack: Pack, step: Callable[[int], None]) -> dict[str, Any]:
    """Return which live pictures have equal bytes: the same CRC-32C, length and size, in buckets by the CRC.

    Two different pictures agree in all of these by chance about once among 10^8.
    """
    crc, length = pack.column("crc32c"), pack.column("length")
    bits = (pack.records // _BUCKET).bit_length()
    found = {"groups": 0, "pictures": 0, "repeated_bytes": 0}
    largest: list[list[int]] = []
    stepped = 0
    for bucket in range(1 << bits):
        chosen = np.concatenate([
            first + np.flatnonzero(crc[first : first + _PART].astype(np.uint64) >> np.uint64(32 - bits) == bucket)
            for first in range(0, pack.records, _PART)
        ])  # fmt: skip
        records = chosen[~pack.is_removed(chosen)]
        for group in _repeated(pack, records):
            found["groups"] += 1
            found["pictures"] += len(group)
            found["repeated_bytes"] += (len(group) - 1) * int(length[group[0]])
            largest.append(group.tolist()[:_MEMBERS] + [-len(group)])
            if len(largest) > 1000:
                largest = _largest(largest)
        step(pack.records * (bucket + 1) // (1 << bits) - stepped)
        stepped = pack.records * (bucket + 1) // (1 << bits)
    return {**found, "largest": [{"pictures": -group[-1], "records": group[:-1]} for group in _largest(largest)]}


def _largest(groups: list[list[int]]) -> list[list[int]]:
    return sorted(groups, key=lambda group: (group[-1], group[0]))[:_GROUPS]


def _repeated(pack: Pack, records: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the records of each group that agrees in CRC-32C, length, height and width, in order."""
    keys = pack.column("crc32c")[records].astype(np.uint64) << np.uint64(32) | pack.column("length")[records].astype(
        np.uint64
    )
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    some = records[order[np.union1d(same, same + 1)]]
    columns = [pack.column(name)[some] for name in ("width", "height", "length", "crc32c")]
    some = some[np.lexsort((some, *columns))]
    ends = np.zeros(max(0, len(some) - 1), bool)
    for name in ("width", "height", "length", "crc32c"):
        values = pack.column(name)[some]
        ends |= values[1:] != values[:-1]
    yield from (group for group in np.split(some, np.flatnonzero(ends) + 1) if len(group) > 1)
