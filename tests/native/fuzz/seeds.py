"""What the fuzzers start from: small pictures and records, and what earlier runs have found worth keeping.

python -m tests.native.fuzz.seeds FOLDER           writes FOLDER/decode, FOLDER/dct, FOLDER/png
python -m tests.native.fuzz.seeds --keep DIR NAME  keeps a merged corpus (`-merge=1`) of this fuzzer for the next run
"""

from __future__ import annotations

import io
import itertools
import sys
import tarfile
from pathlib import Path

import numpy as np

from pass_loader import _C

from ...helpers.corpus import decodable, jpeg, noise, position_coded, refused
from ...helpers.jpegwriter import SCRIPTS, Component, flat, scripted, write_jpeg
from ...helpers.pngwriter import KINDS, PALETTE, drawn, palette, png


KEPT = Path(__file__).parent / "corpus"


def sampled(height: int, width: int, horizontal: int, vertical: int, deep: bool) -> bytes:
    """Random coefficients; deep: codes of 12 bits for every symbol, with large values."""
    rng = np.random.default_rng(height)
    rows, columns = -(-height // (8 * vertical)), -(-width // (8 * horizontal))
    components = []
    for h, v in ((horizontal, vertical), (1, 1), (1, 1)):
        blocks = rng.integers(-900, 900, (rows * v, columns * h, 64)) * (rng.random((rows * v, columns * h, 64)) < 0.1)
        dc, ac = (flat(range(16), 12), flat(range(255), 12)) if deep else (None, None)
        components.append(Component(blocks if deep else blocks // 8, rng.integers(1, 9, 64), h, v, dc, ac))
    return write_jpeg(height, width, components)


def seeds() -> dict[str, bytes]:
    found = {name: data for name, data in (decodable() | refused()).items() if len(data) < 8192}
    for quality in (1, 10, 50, 75, 95, 100):
        for subsampling in range(3):
            options = {"quality": quality, "subsampling": subsampling, "optimize": quality % 2 == 0}
            found[f"q{quality}_{subsampling}"] = jpeg(position_coded(19, 35), **options)
    found["gray_noise"] = jpeg(noise(17, 20), mode="L", quality=50)
    found["restart_444"] = jpeg(noise(20, 20), quality=30, subsampling=0, restart_marker_rows=1)
    found["progressive_small"] = jpeg(position_coded(20, 28), progressive=True)
    for name, sampling in itertools.product(SCRIPTS, ("444", "420")):
        found[f"scans_{name.replace(' ', '_')}_{sampling}"] = scripted(name, sampling, 0.2, 21, 28)
    for horizontal, vertical in ((1, 1), (2, 1), (1, 2), (2, 2)):
        for deep in (False, True):
            name = f"sampled_{horizontal}x{vertical}_{deep}"
            found[name] = sampled(21 + 3 * deep, 13 + 9 * deep, horizontal, vertical, deep)
    return found


def records() -> dict[str, bytes]:
    """Return records of the codec "dct" of the small pictures."""
    found = {}
    for name, data in seeds().items():
        try:
            found[name] = _C.jpeg_to_dct(data)
        except _C.BadPictureError:
            continue
    for name, options in {"gray": {"mode": "L"}, "cmyk": {"mode": "CMYK"}, "420": {"subsampling": 2}}.items():
        for quality in (5, 60, 100):
            found[f"tiny_{name}_{quality}"] = _C.jpeg_to_dct(jpeg(position_coded(9, 17), quality=quality, **options))
    plain = {name: record for name, record in found.items() if record is not None and len(record) < 2048}
    return plain | {f"zstd_{name}": _C.layer_dct(record, True) for name, record in plain.items()}


def pngs() -> dict[str, bytes]:
    """Return PNGs of every kind, with the data in several chunks."""
    found = {}
    for bits, colour in KINDS:
        for interlaced in (False, True):
            own = palette(bits) if colour == PALETTE else None
            pixels = drawn(bits, colour, 9, 7)
            name = f"{bits}_{colour}_{interlaced}"
            found[name] = png(pixels, bits, colour, interlaced=interlaced, data_bytes=40, palette=own)
    return found


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def kept(name: str) -> dict[str, bytes]:
    path = KEPT / f"{name}.tar.xz"
    if not path.exists():
        return {}
    with tarfile.open(path) as archive:
        return {f"kept_{member.name}": archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def keep(corpus: Path, name: str) -> None:
    with tarfile.open(KEPT / f"{name}.tar.xz", "w:xz", preset=9) as archive:
        for number, path in enumerate(sorted(corpus.iterdir())):
            member = tarfile.TarInfo(f"{number:05d}")
            member.size = path.stat().st_size
            archive.addfile(member, io.BytesIO(path.read_bytes()))


if __name__ == "__main__":
    if sys.argv[1] == "--keep":
        keep(Path(sys.argv[2]), sys.argv[3])
    else:
        for name, made in (("decode", seeds), ("dct", records), ("png", pngs)):
            write(Path(sys.argv[1], name), made() | kept(name))
