"""The numbers of `pass-pack stats`, each against the plainest way to count the same."""

from __future__ import annotations

import datetime
import io
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pass_loader import Samples, recipes
from pass_loader.data import stats_index, stats_pictures
from pass_loader.data.stats_index import Least, Spread, binned, equal_bytes, index_numbers
from pass_loader.data.stats_metadata import Creators, Dates, Licences, Places, metadata_numbers
from pass_loader.data.stats_pictures import COLOURS, SAMPLINGS, Pictures, alike, drawn, jpeg_coding
from pass_loader.errors import PackError
from pass_loader.pack import Pack, build, remove

from ..helpers.corpus import jpeg, noise, position_coded
from ..helpers.packs import flip_a_bit
from ..helpers.pngwriter import png
from ..helpers.trees import write_tree


def nothing(_: int) -> None:
    pass


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_quantiles_are_those_of_sorting(count: int) -> None:
    """Across the edge between upper and lower bits, with repeated values, in parts."""
    rng = np.random.default_rng(count)
    values = np.where(rng.random(count) < 0.5, rng.integers(1, 300_000, count), rng.integers(65_000, 66_000, count))
    values[0] = (1 << 32) - 1
    spread, parts = Spread(), np.array_split(values, min(count, 5))
    for part in parts:
        spread.add(part)
    for part in parts:
        spread.add_again(part)
    found, ordered = spread.summary(), np.sort(values)
    for name, share in stats_index._QUANTILES.items():
        assert found[name] == ordered[int(share * (count - 1))], name
    assert found["sum"] == values.sum() and found["mean"] == pytest.approx(values.mean())


def test_least_keeps_the_first_of_equal_keys() -> None:
    rng = np.random.default_rng(0)
    keys, least = rng.integers(0, 9, 500).astype(float), Least(6)
    for part in np.array_split(np.arange(500), 7):
        least.add(keys[part], part)
    assert least.records.tolist() == np.lexsort((np.arange(500), keys))[:6].tolist()
    few = Least(6)
    few.add(np.array([3.0, 1.0]), np.array([4, 9]))
    assert few.records.tolist() == [9, 4]


def test_bins_hold_every_value() -> None:
    edges = np.linspace(-3, 3, 97)
    values = np.array([-9.0, -3.0, -2.999, 0.0, 2.999, 3.0, 9.0])
    found = binned(values, edges)
    assert found.sum() == 7 and found[0] == 3 and found[48] == 1 and found[-1] == 3
    inside = np.random.default_rng(0).uniform(-3, 3, 1000)
    assert np.array_equal(binned(inside, edges), np.histogram(inside, edges)[0])


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of sizes that differ in two classes, of which 3 and 33, and 5, 15 and 25 have equal bytes."""
    place = tmp_path_factory.mktemp("several")
    seeds = {33: 3, 15: 5, 25: 5}
    files = {}
    for number in range(40):
        seed = seeds.get(number, number)
        files[f"c{number % 2}/{number:02d}.jpg"] = jpeg(noise(20 + seed, 60 - seed, seed))
    build([write_tree(place / "in", files)], place / "pack", shard_bytes=30_000, workers=1)
    return place / "pack"


@pytest.mark.parametrize("bucket", [1, 7, 1 << 22])
def test_equal_bytes(several: Path, monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """However many buckets there are. Kills: a bucket that no record falls into, groups cut at parts."""
    monkeypatch.setattr(stats_index, "_BUCKET", bucket)
    monkeypatch.setattr(stats_index, "_PART", 11)
    steps: list[int] = []
    pack = Pack(several)
    found = equal_bytes(pack, steps.append)
    length, ids = pack.column("length"), pack.all_ids().to_pylist()
    wanted = {("c1/03", "c1/33"), ("c1/05", "c1/15", "c1/25")}
    assert {tuple(sorted(ids[record] for record in group["records"])) for group in found["largest"]} == wanted
    first = [pack.record_of(id) for id in ("c1/03", "c1/05")]
    assert (found["groups"], found["pictures"]) == (2, 5)
    assert found["repeated_bytes"] == length[first[0]] + 2 * length[first[1]]
    assert sum(steps) == pack.records


def test_numbers_of_the_index(several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counted again from the rows of live records; a removed one is in none of them."""
    monkeypatch.setattr(stats_index, "_PART", 13)
    monkeypatch.setattr(stats_index, "EXTREMES", 4)
    copytree(several, tmp_path / "pack")
    remove(tmp_path / "pack", ["c1/05", "c1/03", "c0/00"], reason="test")
    pack = Pack(tmp_path / "pack")
    steps: list[int] = []
    found = index_numbers(pack, steps.append)
    assert sum(steps) == pytest.approx(stats_index.PASSES_BYTES * pack.records, rel=0.01)
    rows = [pack.row(record) for record in range(40) if record not in pack.removed]
    sizes, bytes_ = found["sizes"], found["bytes"]
    for name, key in (("width_px", "width"), ("height_px", "height")):
        ordered = sorted(row[key] for row in rows)
        assert (sizes[name]["least"], sizes[name]["median"]) == (ordered[0], ordered[18])
    assert bytes_["record_bytes"]["sum"] == sum(row["length"] for row in rows)
    for counts in (
        sizes["aspect"]["pictures"], bytes_["histogram"]["pictures"], bytes_["density"]["pictures"],
        [sum(row) for row in sizes["plane"]["rows_of_heights"]],
    ):  # fmt: skip
        assert sum(counts) == 37
    assert sizes["landscape"] == sum(row["width"] > row["height"] for row in rows)
    assert sizes["most_frequent"][0] == {"height_px": 25, "width_px": 55, "pictures": 2}
    by_pixels = sorted(rows, key=lambda row: (-row["width"] * row["height"], row["record"]))
    assert found["extremes"]["largest"] == [row["record"] for row in by_pixels[:4]]
    by_density = sorted(rows, key=lambda row: (row["length"] / (row["width"] * row["height"]), row["record"]))
    assert found["extremes"]["most_compressed"] == [row["record"] for row in by_density[:4]]
    assert found["classes"]["largest"] == [{"class": "c0", "pictures": 19}, {"class": "c1", "pictures": 18}]
    assert found["equal_bytes"]["groups"] == 1 and found["codecs"] == {"jpeg": 37}


def test_sizes_that_differ_much(tmp_path: Path) -> None:
    """The plane's cells hold each size between their edges."""
    files = {f"{n}.jpg": jpeg(noise(*size)) for n, size in enumerate([(1, 1), (3, 900), (700, 2), (64, 64)])}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack")
    plane = index_numbers(Pack(tmp_path / "pack"), nothing)["sizes"]["plane"]
    edges, cells = plane["edges_px"], np.array(plane["rows_of_heights"])
    for height, width in [(1, 1), (3, 900), (700, 2), (64, 64)]:
        row, column = (np.searchsorted(edges, side, side="right") - 1 for side in (height, width))
        assert cells[row, column] == 1


def test_an_impossible_index(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = Pack(several)
    wrong = pack.column("height").copy()
    wrong[7] = -1
    monkeypatch.setattr(pack, "column", lambda name, real=pack.column: wrong if name == "height" else real(name))
    with pytest.raises(PackError, match="index.arrow: record 7 has the height_px -1; `pass-pack verify`"):
        index_numbers(pack, nothing)


def test_licences() -> None:
    licences = Licences()
    licences.add(pa.chunked_array([["b", " a ", None], ["", "a", "b", "a"]]))
    licences.add(pa.chunked_array([pa.array([[1]], pa.list_(pa.int64()))]))
    found = licences.summary("licence")
    assert found["licences"] == [{"licence": "a", "pictures": 3}, {"licence": "b", "pictures": 2}]
    assert found["without"] == 3 and found["others"] == 0


def test_licences_of_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free text in the column does not fill the memory."""
    monkeypatch.setattr("pass_loader.data.stats_metadata._MOST_LICENCES", 2)
    licences = Licences()
    licences.add(pa.chunked_array([["a", "b", "c", "d", "a"]]))
    found = licences.summary("licence")
    assert found["licences"] == [{"licence": "a", "pictures": 2}, {"licence": "b", "pictures": 1}]
    assert found["others"] == 2


def test_dates() -> None:
    """PASS's, with and without a fraction, ISO 8601's, Exif's, and types of Parquet; text that is none is counted."""
    dates = Dates()
    read = ["2010-04-12 19:17:40.0", "2010-04-01T00:00:00Z", "2011:12:01 00:00:00", "2011-12"]
    unreadable = ["12.4.2010", "2010-13-01", "2010-1-1", "x2010-01-01", "20100412"]
    dates.add(pa.chunked_array([[*read, "", None, *unreadable]]))
    day = datetime.date(2011, 12, 24)
    dates.add(pa.chunked_array([pa.array([day, None], pa.date32())]))
    dates.add(pa.chunked_array([pa.array([datetime.datetime(1999, 1, 1)], pa.timestamp("us"))]))
    assert dates.summary("d") == {
        "column": "d", "without": 3, "unreadable": 5,
        "months": [{"month": "1999-01", "pictures": 1}, {"month": "2010-04", "pictures": 2},
                   {"month": "2011-12", "pictures": 3}],
    }  # fmt: skip


@pytest.mark.hostile
def test_columns_of_any_type() -> None:
    """What a Parquet file's columns may hold under these names is counted or has no value, and is no error."""
    huge = 1 << 62
    columns = [
        pa.array([1, huge, -huge, None], pa.timestamp("s")), pa.array([1, None], pa.timestamp("us", "Mars/Base")),
        pa.array([(1 << 31) - 1], pa.date32()), pa.array([1], pa.duration("s")), pa.array([[1]]), pa.array([b"\xff"]),
        pa.array([None], pa.null()), pa.array([{"a": 1}]), pa.array([huge, -huge]), pa.array([], pa.string()),
        pa.array(["x" * 100_000]), pa.array([float("inf"), 1e300]), pa.array(np.array([1.5], np.float16)),
    ]  # fmt: skip
    for column in columns:
        values = pa.chunked_array([column])
        for kind in (Dates, Licences, Creators):
            counts = kind()
            counts.add(values)
            found = counts.summary("c")
            named = [*found.get("months", []), *found.get("licences", [])]
            total = sum(one["pictures"] for one in named) + found.get("known", 0)
            assert total + found["without"] + found.get("unreadable", 0) + found.get("others", 0) == len(column)
            assert len(str(found)) < 1000
            assert all(re.fullmatch(r"\d{4}-\d\d", one["month"]) for one in found.get("months", []))
        places = Places()
        places.add(values, values)
        found = places.summary(["a", "b"])
        assert found["known"] + found["without"] + found["impossible"] == len(column)


def test_places() -> None:
    """At every edge of the world; halves of a pair, text that is no number, and what lies beyond count as none."""
    north = [90.0, -90.0, 0.0, -0.1, None, 1.0, 90.1, float("nan"), 51.5]
    east = [180.0, -180.0, 0.0, -0.1, 1.0, None, 0.0, 0.0, -0.2]
    want = {(89, 179): 1, (-90, -180): 1, (0, 0): 1, (-1, -1): 1, (51, -1): 1}
    as_text = [None if value is None else repr(value) for value in north]
    for columns in ((north, east), (as_text, east)):
        places = Places()
        places.add(*(pa.chunked_array([column]) for column in columns))
        found = places.summary(["latitude", "longitude"])
        assert {(row, column): count for row, column, count in found["cells"]} == want
        assert (found["known"], found["without"], found["impossible"]) == (5, 3, 1)


def test_metadata_of_live_records_alone(tmp_path: Path) -> None:
    files = {f"{n}.jpg": jpeg(noise(8, 8, n)) for n in range(6)}
    table = "hash,unickname,licensename,latitude,longitude,datetaken\n"
    table += "".join(f"{n},{'u' * (n % 2)},L{n % 2},{n},-{n},200{n}-05-01 00:00:00\n" for n in range(6))
    (tmp_path / "m.csv").write_text(table)
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", metadata=tmp_path / "m.csv", shard_bytes=2000)
    remove(tmp_path / "pack", ["0", "5"], reason="test")
    pack, steps = Pack(tmp_path / "pack"), []  # type: ignore[var-annotated]
    found = metadata_numbers(pack, steps.append)
    assert sum(steps) == 6 * 64
    assert [one["month"][:4] for one in found["dates"]["months"]] == ["2001", "2002", "2003", "2004"]
    assert found["creators"] == {"column": "unickname", "known": 2, "without": 2}
    assert found["licences"]["licences"] == [{"licence": "L0", "pictures": 2}, {"licence": "L1", "pictures": 2}]
    assert found["places"]["cells"] == [[n, -n, 1] for n in range(1, 5)]


def test_quality_of_every_jpeg_that_libjpeg_writes() -> None:
    picture = Image.fromarray(noise(24, 24))
    for quality in range(1, 101):
        for place, name in enumerate(("4:4:4", "4:2:2", "4:2:0")):
            picture.save(out := io.BytesIO(), "JPEG", quality=quality, subsampling=place)
            assert jpeg_coding(out.getvalue()) == (quality, SAMPLINGS.index(name))
    assert jpeg_coding(jpeg(noise(9, 9), mode="L", quality=77)) == (77, 0)
    assert jpeg_coding(jpeg(noise(9, 9), mode="CMYK", quality=77)) == (77, SAMPLINGS.index("other"))
    assert jpeg_coding(jpeg(noise(9, 9), progressive=True, quality=77, subsampling=0))[0] == 77


@pytest.mark.hostile
def test_quality_of_damaged_jpegs() -> None:
    whole = jpeg(noise(24, 24))
    rng = np.random.default_rng(0)
    for _ in range(2000):
        data = bytearray(whole[: int(rng.integers(0, len(whole)))])
        for place in rng.integers(0, max(len(data), 1), 3 if data else 0):
            data[place] = int(rng.integers(0, 256))
        quality, sampling = jpeg_coding(bytes(data))
        assert 0 <= quality <= 100 and 0 <= sampling < len(SAMPLINGS)


def test_alike_is_what_comparing_all_finds() -> None:
    """Chains of hashes that differ in at most 4 bits, by trying all pairs."""
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 1 << 63, 60).astype(np.uint64)
    for child, parent, bits in ((10, 3, 4), (11, 10, 4), (12, 3, 5), (20, 21, 0), (22, 21, 1), (30, 31, 3)):
        flipped = rng.choice(64, bits, replace=False).tolist()
        hashes[child] = hashes[parent] ^ np.uint64(sum(1 << bit for bit in flipped))
    near = [[bin(int(a) ^ int(b)).count("1") <= 4 for b in hashes] for a in hashes]
    groups: list[set[int]] = []
    for place in range(len(hashes)):
        together = {place} | {other for other in range(len(hashes)) if near[place][other]}
        for group in [group for group in groups if group & together]:
            groups.remove(group)
            together |= group
        groups.append(together)
    want = sorted((sorted(group) for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))
    assert [sorted(group.tolist()) for group in alike(hashes)] == want
    assert want[0] == [3, 10, 11] and [20, 21, 22] in want and [30, 31] in want
    spread = hashes[0] ^ np.uint64(1 << 5 | 1 << 21 | 1 << 37 | 1 << 53)  # a bit in each quarter
    assert len(alike(np.array([hashes[0], spread]))) == 1
    assert alike(hashes[:0]) == [] and alike(hashes[:1]) == []


def test_a_sample_is_a_function_of_its_seed(several: Path) -> None:
    samples = Samples(several, recipes.evaluate())
    first = drawn(samples, 10, 5)
    assert len({*first.tolist()}) == 10 and np.array_equal(first, drawn(samples, 10, 5))
    assert not np.array_equal(first, drawn(samples, 10, 6))
    assert np.array_equal(first, drawn(samples, 20, 5)[:10])  # a larger sample holds the smaller
    assert sorted(drawn(samples, 1000, 5).tolist()) == [*range(40)]


def test_measures_of_pictures(tmp_path: Path) -> None:
    """One of each kind, whose brightness and contrast are known."""
    exif = Image.Exif()
    exif[0x0112] = 6
    half = np.full((40, 60, 3), 51, np.uint8)
    half[:, 30:] = 153
    files = {
        "black.png": png(np.zeros((9, 9), np.uint8)),
        "colour.jpg": jpeg(position_coded(40, 40), progressive=True),
        "cmyk.jpg": jpeg(position_coded(40, 40), mode="CMYK"),
        "deep.png": png(np.full((8, 8), 65535, np.uint16), 16),
        "gray.jpg": jpeg(half, mode="L", quality=100),
        "half.jpg": jpeg(half, exif=exif.tobytes(), quality=40),
    }
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack")
    samples = Samples(tmp_path / "pack", recipes.evaluate())
    found = Pictures(samples, 2).measure(np.arange(6), lambda picture: picture.width, nothing)
    rows: dict[str, Any] = {samples.id_of(int(row["record"])): row for row in found}
    kinds = {id: COLOURS[row["colour"]] for id, row in rows.items()}
    assert kinds == {
        "black": "gray", "colour": "colour", "cmyk": "CMYK", "deep": "16 bits a channel", "gray": "gray",
        "half": "colour file, gray picture",
    }  # fmt: skip
    assert rows["black"]["brightness"] == 0 and rows["deep"]["brightness"] == pytest.approx(1)
    for id in ("gray", "half"):
        assert rows[id]["brightness"] == pytest.approx(0.4, abs=0.01)
        assert rows[id]["contrast"] == pytest.approx(0.2, abs=0.01)
    assert [id for id, row in rows.items() if row["progressive"]] == ["colour"]
    assert [id for id, row in rows.items() if row["rotated"]] == ["half"]
    assert rows["half"]["quality"] == 40 and rows["black"]["quality"] == 0 and rows["gray"]["quality"] == 100
    assert [int(row["hash"]) for row in rows.values()] == [samples.pack.size_of(record)[1] for record in range(6)]


def test_damaged_pictures_are_named(several: Path, tmp_path: Path) -> None:
    copytree(several, tmp_path / "pack")
    flip_a_bit(Pack(tmp_path / "pack"), 6)
    pictures = Pictures(Samples(tmp_path / "pack", recipes.evaluate()), 3)
    found = pictures.measure(np.arange(40), None, nothing)
    assert found["record"].tolist() == [record for record in range(40) if record != 6]
    assert [*pictures.damaged] == [6] and "CRC" in pictures.damaged[6].cause and pictures.damaged[6].id == "c0/12"
    assert sorted(pictures.thumbnails([5, 6])) == [5]


@pytest.mark.hostile
def test_a_picture_of_another_size_than_the_index_says(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures(Samples(several, recipes.evaluate()), 1)
    pack = pictures.samples.parts[0].pack
    monkeypatch.setattr(pack, "size_of", lambda record: (1, 1))
    assert len(pictures.measure(np.arange(2), None, nothing)) == 0
    assert "the index says 1 x 1" in pictures.damaged[0].cause


def test_a_picture_with_too_many_scans(tmp_path: Path) -> None:
    """Holds nobody up: it counts as one that cannot be decoded."""
    whole = jpeg(noise(8, 8), progressive=True)
    scan = whole.rindex(b"\xff\xda")
    many = whole[:scan] + 600 * whole[scan:-2] + whole[-2:]
    build([write_tree(tmp_path / "in", {"a.jpg": many, "b.jpg": whole})], tmp_path / "pack", max_scans=1000)
    pictures = Pictures(Samples(tmp_path / "pack", recipes.evaluate()), 1)
    assert len(pictures.measure(np.arange(2), None, nothing)) == 1 and "scans" in pictures.damaged[0].cause


def test_thumbnails_fit(tmp_path: Path) -> None:
    """However long a picture is; small ones stay as they are."""
    sizes = {"a": (1, 900), "b": (900, 1), "c": (4, 4), "d": (600, 800)}
    files = {f"{name}.jpg": jpeg(noise(*size)) for name, size in sizes.items()}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack")
    thumbnails = Pictures(Samples(tmp_path / "pack", recipes.evaluate()), 2).thumbnails(range(4))
    found = [Image.open(io.BytesIO(thumbnails[record])).size for record in range(4)]
    assert found == [(320, 1), (1, 240), (4, 4), (320, 240)]


def test_large_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, and measured on some of their pixels."""
    monkeypatch.setattr(stats_pictures, "_LARGE_PIXELS", 1000)
    pixels = np.full((5000, 3, 3), 100, np.uint8)
    build([write_tree(tmp_path / "in", {"a.jpg": jpeg(pixels), "b.jpg": jpeg(pixels[:50])})], tmp_path / "pack")
    pictures = Pictures(Samples(tmp_path / "pack", recipes.evaluate()), 2)
    found = pictures.measure(np.arange(2), None, nothing)
    assert found["brightness"] == pytest.approx([100 / 255] * 2, abs=0.01) and len(pictures.thumbnails([0, 1])) == 2
