"""Packs that tests share, as fixtures, and ways to make and damage packs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pictures import write_pass
from pass_loader.pack import Pack, build

from .corpus import jpeg, noise
from .pngwriter import RGB, png
from .trees import write_tree

ORIGINALS = 12
SEVERAL = {"00_s-0.25": 0.25, "00_s-3": 3.0, "01_s-0.5": 0.5}  # companions by their endings
PLAIN = ("02", "03", "05", "09")  # and by their own ids
HEATMAP_SIZES = [(70, 60), (31, 90), (64, 64), (5, 7), (120, 41)]
BAD = (5, 17, 18, 40)  # CRC; 61 is a picture that was bad when it was packed


def sources_of(root: Path, count: int = 12) -> tuple[Path, Path]:
    """Write pictures, two a shard, two refused ones, one of them with an id that comes again, and a metadata table."""
    files = {f"c{i % 3}/id{i:02d}.jpg": jpeg(noise(16, 16, i)) for i in range(count)}
    write_tree(root / "in", files | {"c0/bad.jpg": b"text"})
    with tarfile.open(root / "more.tar", "w") as tar:
        tar.add(root / "in" / "c0" / "bad.jpg", "x/id50.jpg")
        tar.add(root / "in" / "c0" / "id03.jpg", "y/id50.jpg")
    rows = "".join(f"c{i % 3}/id{i:02d},creator-{i}\n" for i in range(count))
    (root / "m.csv").write_text("hash,unickname\n" + rows)
    return root / "in", root / "more.tar"


def pack_sources(root: Path) -> None:
    build([root / "in", root / "more.tar"], root / "pack", metadata=root / "m.csv", shard_bytes=4100, workers=2)


@pytest.fixture(scope="session")
def companion_packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Originals 00 to 11 and a pack of companions of other sizes for half of them; tests do not write into them."""
    place = tmp_path_factory.mktemp("pair")
    originals = {f"{i:02d}.jpg": jpeg(noise(40 + i, 50, i)) for i in range(ORIGINALS)}
    names = [*SEVERAL, *PLAIN, "unknown", "11_s-x"]
    generated = {f"{name}.jpg": jpeg(noise(27, 30 + number, 100 + number)) for number, name in enumerate(names)}
    for name, files in (("a", originals), ("b", generated)):
        build([write_tree(place / f"in-{name}", files)], place / name, shard_bytes=9_000, workers=1)
    assert len(Pack(place / "b").shards) > 1
    return place / "a", place / "b"


def heatmaps_of(sizes: list[tuple[int, int]]) -> dict[str, bytes]:
    """Return PNGs of these sizes (height, width): one of 16 bits, one of colours, the others gray of 8 bits."""
    files = {f"{n}.png": png(noise(*size, n)[:, :, 0]) for n, size in enumerate(sizes)}
    rng = np.random.default_rng(0)
    files["1.png"] = png(rng.integers(0, 65536, sizes[1], dtype=np.uint16), 16)
    files["2.png"] = png(noise(*sizes[2]), 8, RGB)
    return files


@pytest.fixture(scope="module")
def heatmap_packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, and their heatmaps in another order with some that belong to none; tests do not write into them."""
    place = tmp_path_factory.mktemp("heatmaps")
    pictures = {f"{n}.jpg": jpeg(noise(*size)) for n, size in enumerate(HEATMAP_SIZES)}
    build([write_tree(place / "a", pictures)], place / "pictures")
    files = heatmaps_of(HEATMAP_SIZES)
    write_tree(place / "b", files | {"more.png": png(noise(3, 3)[:, :, 0])})
    (place / "b" / "order.txt").write_text("\n".join(["more.png", *reversed(files)]))
    build([place / "b" / "order.txt"], place / "heatmaps")
    return place / "pictures", place / "heatmaps"


def flip_a_bit(pack: Pack, record: int, place: float = 0.5) -> None:
    """Flip a bit of a record in its shard. place: where in the record, from 0 to 1."""
    row = pack.row(record)
    with open(pack.path / pack.shard_name(record), "r+b") as shard:
        at = row["offset"] + int(row["length"] * place)
        shard.seek(at)
        byte = shard.read(1)
        shard.seek(at)
        shard.write(bytes([byte[0] ^ 8]))


@pytest.fixture(scope="session")
def pass_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PASS.0.tar and pass_metadata.csv with 23 pictures, so that nothing divides evenly."""
    return write_pass(tmp_path_factory.mktemp("pass"), 23)


@pytest.fixture(scope="session")
def pack(pass_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a pack of several shards; tests do not write into it."""
    tar, table = pass_files
    out = tmp_path_factory.mktemp("packs") / "pack"
    build([tar], out, metadata=table, shard_bytes=1_000_000, workers=2)
    return out


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 62 pictures of 12 x 16 pixels in several shards, for tests of order; tests do not write into it."""
    place = tmp_path_factory.mktemp("tiny")
    files = {f"{number:02d}.jpg": jpeg(noise(12, 16, number)) for number in range(62)}
    build([write_tree(place / "in", files)], place / "pack", shard_bytes=20_000, workers=1)
    return place / "pack"


@pytest.fixture(scope="module")
def broken_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack `tiny` with bits flipped in the records BAD, and with a picture that was bad when it was packed."""
    place = tmp_path_factory.mktemp("broken")
    files = {f"{number:02d}.jpg": jpeg(noise(12, 16, number)) for number in range(61)}
    table = bytearray(files["60.jpg"])
    table[table.index(b"\xff\xc4") + 4] = 0x55  # a Huffman table of a class that does not exist
    files["61.jpg"] = bytes(table)
    build([write_tree(place / "in", files)], place / "pack", shard_bytes=20_000, workers=1)
    for record in BAD:
        flip_a_bit(Pack(place / "pack"), record)
    return place / "pack"
