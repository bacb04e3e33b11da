"""From bytes to RGB in memory that is kept: libjpeg-turbo, our decoder of untouched JPEGs, the codecs "dct" and
"dct-zstd", raw pixels; on the same pictures, 4:4:4 and 4:2:0 apart. And what packing costs.

libjpeg-turbo is simplejpeg's, a release with its SIMD code, writing interleaved RGB; and Debian's, through our own
decoder with everything of ours switched off, which adds the split into planes. `seconds` is the mean over the pictures
of each one's fastest round: a decode is shorter than a scheduler's slice, so that neighbours disturb it little.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pass_loader import _C, Samples, recipes
from pass_loader.recipes import reference

from .measure import run
from .table import LIBJPEG

SAMPLINGS = {"4:4:4": (1, 1), "4:2:0": (2, 2)}


@pytest.fixture(scope="session")
def pictures(pack: Path, records: list[int]) -> dict[str, list[bytes]]:
    """JPEGs by sampling."""
    samples = Samples(pack, recipes.mocov2())
    found: dict[str, list[bytes]] = {name: [] for name in SAMPLINGS}
    for record in records:
        data = samples.read(record)
        layers = Image.open(io.BytesIO(data)).layer  # type: ignore[attr-defined]
        for name, factors in SAMPLINGS.items():
            if len(layers) == 3 and tuple(layers[0][1:3]) == factors and layers[1][1:3] == layers[2][1:3] == (1, 1):
                found[name].append(data)
    return found


@pytest.fixture(params=SAMPLINGS)
def jpegs(request: pytest.FixtureRequest, pictures: dict[str, list[bytes]]) -> list[bytes]:
    if not pictures[request.param]:
        pytest.skip(f"no picture of the data is {request.param}")
    return pictures[request.param]


def time_all(
    benchmark: Any, work: Callable[[bytes], Any], data: list[bytes], jpegs: list[bytes], way: str, isa: str = ""
) -> None:
    best = np.full(len(data), np.inf)

    def each() -> None:
        for place, one in enumerate(data):
            began = time.perf_counter()
            work(one)
            best[place] = min(best[place], time.perf_counter() - began)

    sampling = next(name for name in SAMPLINGS if name in benchmark.name)
    ratio = sum(map(len, data)) / sum(map(len, jpegs))
    run(benchmark, each, len(data), rounds=15, table="codec", way=way, isa=isa, sampling=sampling, ratio=ratio)
    benchmark.extra_info["seconds"] = best.mean()


def assert_pillows(decoded: np.ndarray, jpeg: bytes) -> None:
    assert np.array_equal(decoded, np.asarray(reference.decode(jpeg)))


def bench_libjpeg(benchmark: Any, jpegs: list[bytes]) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    time_all(benchmark, simplejpeg.decode_jpeg, jpegs, jpegs, LIBJPEG)
    assert_pillows(simplejpeg.decode_jpeg(jpegs[-1]), jpegs[-1])


def bench_system_libjpeg(benchmark: Any, jpegs: list[bytes]) -> None:
    time_all(benchmark, _C.Decoder(libjpeg_alone=True).decode, jpegs, jpegs, "libjpeg-turbo (Debian's), to planes")


def bench_jpeg(benchmark: Any, jpegs: list[bytes], isa: str) -> None:
    time_all(benchmark, _C.Decoder().decode, jpegs, jpegs, "untouched JPEG", isa)
    assert_pillows(_C.decode(jpegs[-1]), jpegs[-1])


@pytest.mark.parametrize("codec", ["dct", "dct-zstd"])
def bench_dct(benchmark: Any, jpegs: list[bytes], codec: str, isa: str) -> None:
    records = [_C.jpeg_to_dct(one, codec == "dct-zstd") for one in jpegs]
    assert all(record is not None for record in records)
    time_all(benchmark, _C.Decoder().decode, records, jpegs, codec, isa)
    assert_pillows(_C.decode(records[-1]), jpegs[-1])


def bench_raw(benchmark: Any, jpegs: list[bytes]) -> None:
    """Raw pixels need one copy."""
    pixels = [np.asarray(reference.decode(one)).tobytes() for one in jpegs]
    to = np.empty(max(map(len, pixels)), np.uint8)
    time_all(
        benchmark, lambda one: np.copyto(to[: len(one)], np.frombuffer(one, np.uint8)), pixels, jpegs, "raw RGB, copied"
    )


@pytest.mark.parametrize("way", ["JPEG to dct", "JPEG to dct-zstd", "dct to JPEG"])
def bench_packing(benchmark: Any, pictures: dict[str, list[bytes]], way: str) -> None:
    jpegs = [one for data in pictures.values() for one in data]
    calls = {"JPEG to dct": _C.jpeg_to_dct, "JPEG to dct-zstd": partial(_C.jpeg_to_dct, zstd=True)}
    call = calls.get(way, _C.dct_to_jpeg)
    data = jpegs if way in calls else [_C.jpeg_to_dct(one) for one in jpegs]
    run(benchmark, lambda: [call(one) for one in data], len(data), table="packing", way=way)
    megabytes = sum(map(len, jpegs)) / 1e6
    benchmark.extra_info["megabytes_per_second"] = megabytes / benchmark.stats.stats.median
    assert np.array_equal(_C.decode(call(data[-1])), _C.decode(jpegs[-1]))
