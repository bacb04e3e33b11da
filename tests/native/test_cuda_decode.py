"""The CUDA kernels that decode records of the codec dct and JPEGs with entry points, against the CPU's decoder: run by
the CPU, thread by thread, in both orders, under the sanitizers (tests/native/cuda/decode.cpp). Both take the same
records, to the same bytes."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pictures import photographs
from pass_loader import _C
from pass_loader.gpu import cuda

from ..helpers import exact_on_gpu
from ..helpers.corpus import decodable, jpeg, noise, position_coded
from ..helpers.dctrecords import gray, small, streams
from ..helpers.dctwriter import MARKERS, example, header, made, one_row, write_dct, write_streams
from ..helpers.jpegwriter import Component
from ..helpers.nvjpeg_standin import flags_of
from ..helpers.trials import trials

pytestmark = [pytest.mark.slow, pytest.mark.hostile]

ROOT = Path(__file__).parents[2]
DEVICES = [pytest.param("device", marks=pytest.mark.cuda)] if cuda.cuda_available() else []
Compare = Callable[[Iterable[bytes | tuple[bytes, bytes]]], str]


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("cuda") / "decode"
    flags = ["-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-DPASS_LOADER_ASAN", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-maybe-uninitialized", "-Icsrc", "-Itests/native/cuda"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += ["-Wno-clobbered", *flags_of("--cflags")]
    sources = [f"csrc/{name}.cpp" for name in ("isa", "crc32c", "entry_points")]
    sources += ["tests/native/cuda/decode.cpp", *map(str, sorted((ROOT / "csrc/jpeg").glob("*.cpp")))]
    subprocess.run(["g++", *flags, *sources, "-lzstd", *flags_of("--libs"), "-o", program], cwd=ROOT, check=True)
    return program


def by_host(emulator: Path, given: Sequence[tuple[bytes, bytes]]) -> str:
    body = b""
    for record, points in given:
        body += b"".join(len(part).to_bytes(8, "little") for part in (record, points)) + record + points
    done = subprocess.run([emulator], input=body, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


@pytest.fixture(scope="session", params=["host", *DEVICES])
def compare(request: pytest.FixtureRequest) -> Compare:
    """Returns a letter for each record, or pair of a record and its entry points: "=" decoded to the CPU's bytes, "r"
    refused by both, "-" left to the CPU, "c" taken by the CPU alone."""
    how = partial(by_host, request.getfixturevalue("emulator")) if request.param == "host" else exact_on_gpu.letters
    return lambda records: how([one if isinstance(one, tuple) else (one, b"") for one in records])


def record_of(data: bytes, zstd: bool = False) -> bytes:
    record = _C.jpeg_to_dct(data, zstd=zstd)
    assert record is not None
    return record


LEFT_TO_THE_CPU = {"cmyk", "cmyk_noise", "keep_rgb"}  # of decodable()


@pytest.mark.parametrize("zstd", [False, True])
def test_what_pillow_writes(compare: Compare, zstd: bool) -> None:
    """Every sampling and odd size. Kills: another order of streams, a shifted place, a rounding, another upsampling."""
    files = dict(sorted(decodable().items()))
    found = compare(record_of(data, zstd) for data in files.values())
    assert {name for name, letter in zip(files, found) if letter == "-"} == LEFT_TO_THE_CPU
    assert set(found) == {"=", "-"}


@pytest.mark.parametrize("sampling", [0, 1, 2, None])
def test_photographs_and_noise(compare: Compare, sampling: int | None) -> None:
    """Noise at quality 100 has wide sizes and differences. Kills: a value from another thread's, a lost wide size."""
    pictures = [np.asarray(picture)[::2, ::2].copy() for picture in photographs().values()]
    pictures += [noise(*size) for size in ((1, 1), (8, 300), (300, 8), (41, 67), (97, 200))]
    pictures += [position_coded(17, 33)]
    options = {"mode": "L"} if sampling is None else {"subsampling": sampling}
    records = [record_of(jpeg(p, quality=q, **options)) for p in pictures for q in (20, 90, 100)]
    assert compare(records) == "=" * len(records)


FACTORS = [
    [(1, 1)] * 3, [(2, 2)] * 3, [(2, 1), (1, 1), (1, 1)], [(1, 2), (1, 1), (1, 1)], [(2, 2), (1, 1), (1, 1)],
    [(2, 2), (2, 1), (2, 1)], [(2, 2), (1, 2), (1, 2)], [(4, 2), (2, 2), (2, 2)],
]  # fmt: skip
OTHER_FACTORS = [
    [(4, 1), (1, 1), (1, 1)], [(1, 4), (1, 1), (1, 1)], [(2, 2), (2, 1), (1, 1)], [(1, 1), (2, 1), (2, 1)],
    [(2, 1), (1, 1), (2, 1)],
]  # fmt: skip


def test_samplings(compare: Compare) -> None:
    sizes = [(1, 1), (2, 3), (3, 2), (7, 9), (16, 16), (17, 15), (33, 70), (70, 5), (5, 270)]
    for taken, all_factors in (("=", FACTORS), ("-", OTHER_FACTORS)):
        for factors in all_factors:
            records = [write_dct(*s, "ycc", made(*s, factors, n, 0.3), MARKERS["ycc"]) for n, s in enumerate(sizes)]
            assert compare(records) == taken * len(records), factors
    for colour, count in (("rgb", 3), ("cmyk", 4), ("ycck", 4)):
        assert compare([write_dct(9, 17, colour, made(9, 17, [(1, 1)] * count), MARKERS[colour])]) == "-"
    assert compare([write_dct(19, 37, "gray", made(19, 37, [(1, 1)]))]) == "="


def test_coefficients_of_any_size(compare: Compare) -> None:
    """Products that wrap around and saturate, in every place. Kills: a sum that does not wrap, a shift too early, a
    range that is checked in another row, or before the product wraps."""
    rng = np.random.default_rng(3)
    records = []
    for _ in range(300):
        blocks = np.zeros((1, 6, 64), np.int64)
        count, most = int(rng.integers(1, 12)), int(2 ** rng.uniform(1, 15))
        for block in blocks[0]:
            block[rng.choice(64, count, replace=False)] = rng.integers(-most, most + 1, count)
        quantiser = rng.integers(1, int(2 ** rng.uniform(0.1, 16)) + 1, 64)
        records.append(write_dct(8, 48, "gray", [Component(blocks, quantiser)]))
    found = compare(records)
    assert found.count("=") > 50 and found.count("r") > 50
    assert compare([one_row(example(), 16)[0]]) == "="


def test_every_cut_and_every_flipped_bit(compare: Compare) -> None:
    """Of small records of each kind. Kills: a check of a row's parts that is left out."""
    records = [record[:end] for record in small().values() for end in range(4, len(record))]
    assert set(compare(records)) == {"r"}
    flipped = []
    for record in small().values():
        for bit in range(8 * len(record)):
            copy = bytearray(record)
            copy[bit // 8] ^= 1 << bit % 8
            flipped.append(bytes(copy))
    found = compare(flipped)
    assert found.count("=") > 1000 and found.count("r") > 1000


def test_random_bytes_in_the_rows(compare: Compare) -> None:
    """Streams filled with anything, of one row and of several components."""
    rng = np.random.default_rng(1)
    records = []
    for name in ("lively", "420", "zstd"):
        record = _C.layer_dct(small()[name], False)
        for _ in range(trials(1500, 50_000)):
            changed = bytearray(record)
            for place in rng.integers(len(record) // 2, len(record), rng.integers(1, 6)):
                changed[place] = rng.integers(256)
            records.append(bytes(changed))
    found = compare(records)
    assert found.count("=") > len(records) / 30 and found.count("r") > len(records) / 30


def test_the_fuzzers_corpus(compare: Compare) -> None:
    """What libFuzzer has found worth keeping, and both layers of it."""
    with tarfile.open(ROOT / "tests/native/fuzz/corpus/dct.tar.xz") as tar:
        files = [member.read() for entry in tar if (member := tar.extractfile(entry)) is not None]
    found = compare(files)
    assert {"=", "r"} <= set(found) and len(found) > 100
    sound = [data for data, letter in zip(files, found) if letter == "="]
    assert compare(_C.layer_dct(data, zstd) for data in sound for zstd in (False, True)) == "=" * 2 * len(sound)


def test_a_stream_that_ends_long_before_the_row(compare: Compare) -> None:
    """What is read stays within the form. For the sanitizer."""
    blocks = 904
    bits = 63 * blocks // 8
    full = {
        "flags": b"\xff" * blocks, "dc": bytes(blocks), "masks": (b"\xfe" + b"\xff" * 7) * blocks, "signs": bytes(bits),
        "larger": b"\xff" * bits, "nibbles": b"\xff" * 32 * blocks, "bytes_": bytes(63 * blocks),
    }  # fmt: skip
    wide = full | {"bytes_": (b"\xff" * 19 + bytes(44)) * blocks, "wide": b"\x80\0" * 19 * blocks}
    dc = {"flags": bytes(blocks), "dc": b"\x80" * blocks, "dc_wide": bytes(2 * blocks)}
    records = [gray(streams(**whole), 8 * blocks) for whole in (full, wide, dc)]
    for short in ("masks", "signs", "nibbles", "bytes_", "wide", "dc_wide"):
        whole = {"wide": wide, "dc_wide": dc}.get(short, full)
        for left in (0, 2, len(whole[short]) // 6 * 2):
            later = dict.fromkeys(list(whole)[list(whole).index(short) + 1 :], b"")
            cut = whole | later | {short: whole[short][:left]}
            if short == "signs":
                cut["larger"] = full["larger"][:left]
            records.append(gray(streams(**cut), 8 * blocks))
    assert compare(records) == "=" * 3 + "r" * 18


def test_rows_by_hand(compare: Compare) -> None:
    """Every way in which a row contradicts itself, and what is no contradiction."""
    wide = {"flags": b"\2", "masks": b"\1", "larger": b"\1", "nibbles": b"\x0f", "bytes_": b"\x6e", "signs": b"\1"}
    sound = [
        streams(), streams(b"\2", masks=b"\1", signs=b"\0"), streams(b"\2", masks=b"\0"),
        streams(**wide, wide=b"\x7f\0"),
        streams(b"\2", masks=b"\1", signs=b"\xff", larger=b"\xfe", dc=b"\x80", dc_wide=b"\xff\x0f"),
        streams(b"\1", masks=b"\2", signs=b"\0"),
    ]  # fmt: skip
    bad = [
        streams(b"\1", masks=b"\1", signs=b"\0"), streams(b"\2", masks=b"", signs=b"\0"),
        streams(b"\2", masks=b"\1"), streams(b"\2", masks=b"\1\1", signs=b"\0"),
        streams(b"\2", masks=b"\1", signs=b"\0\0"), streams(b"\2", masks=b"\1", signs=b"\0", larger=b"\1"),
        streams(b"\2", masks=b"\1", signs=b"\0", nibbles=b"\0"), streams(**wide), streams(**wide, wide=b"\x7e\0"),
        streams(**wide, wide=b"\0\x80"), streams(**wide, wide=b"\x7f\0\x7f\0"), streams(dc=b"\x80"),
        streams(dc_wide=b"\1\0"), streams(dc=b"\x80", dc_wide=b"\1\0\1\0"), streams(dc=b"\x80", dc_wide=b"\xff\x7f"),
    ]  # fmt: skip
    assert compare(map(gray, sound)) == "=" * len(sound)
    assert compare(map(gray, bad)) == "r" * len(bad)


def test_a_running_dc_beyond_16_bits(compare: Compare) -> None:
    """With a quantiser that wraps the products around, so that nothing else is wrong."""
    component = Component(np.zeros((1, 2, 64)), np.full(64, 2))
    records = []
    for one, step in (
        (b"\xff\x7f", b"\1\0"),
        (b"\xff\x7f", b"\xff\x7f"),
        (b"\0\x80", b"\xff\xff"),
        (b"\xff\x7f", b"\0\0"),
    ):
        row = streams(bytes(2), b"\x80\x80", dc_wide=one + step)
        records.append(header(8, 16, "gray", [component]) + write_streams(row))
    assert compare(records) == "rrr="


def with_points(data: bytes) -> tuple[bytes, bytes]:
    clean, points = _C.prove(data)
    return data, points if clean else b""


def test_jpegs_with_entry_points(compare: Compare) -> None:
    """What BaselineDecoder takes, of every sampling and odd size. Kills: a stuffed zero that is a bit of the scan,
    padding to whole MCUs that is stored, a table of another component, a zigzag."""
    files = dict(sorted(decodable().items()))
    taken = {name for name, data in files.items() if _C.decodes_as_baseline(data)}
    found = compare(map(with_points, files.values()))
    assert {name for name, letter in zip(files, found) if letter == "="} == taken and set(found) == {"=", "-"}
    pictures = [np.asarray(picture)[::2, ::2].copy() for picture in photographs().values()]
    pictures += [noise(*size) for size in ((1, 1), (8, 300), (300, 8), (41, 67), (97, 200), (2, 3), (3, 2))]
    for options in ({"mode": "L"}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"optimize": True}):
        jpegs = [jpeg(p, quality=q, **options) for p in pictures for q in (20, 90, 100)]
        assert compare(map(with_points, jpegs)) == "=" * len(jpegs)


def test_damaged_jpegs(compare: Compare) -> None:
    """Every flipped bit and every cut of files, with the entry points that they had; and every flipped bit of the entry
    points. Kills: a check that is left out, a row that ends elsewhere, bits beyond the end of the image."""
    for size, options in (((40, 24), {"subsampling": 2}), ((25, 17), {"subsampling": 1}), ((8, 60), {"mode": "L"})):
        data, points = with_points(jpeg(noise(*size), quality=60, **options))
        assert len(points) >= 10 and compare([(data, points)]) == "="
        damaged = [(data[:end], points) for end in range(0, len(data), 3)]
        for bit in range(0, 8 * len(data), 3):
            copy = bytearray(data)
            copy[bit // 8] ^= 1 << bit % 8
            damaged.append((bytes(copy), points))
        found = compare(damaged)
        assert found.count("=") > 50 and found.count("c") > 50
        damaged = []
        for bit in range(8 * len(points)):
            copy = bytearray(points)
            copy[bit // 8] ^= 1 << bit % 8
            damaged.append((data, bytes(copy)))
        assert set(compare(damaged)) == {"c"}
        assert set(compare([(data, points[:-10]), (data, points + points[:10])])) == {"-"}
