"""`pass-pack stats`: its files, and its page in a browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.data.stats import PLOTS, work_bytes
from pass_loader.errors import ShardError
from pass_loader.pack import Pack, build, convert, index, remove, stats

from ..helpers.browser import CHROMIUM, Browser
from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import serving
from ..helpers.packs import flip_a_bit
from ..helpers.trees import write_tree

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'pass-loader[report]'")
pytestmark = pytest.mark.slow

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; `make docs` installs it where it may")
HOSTILE = '"><script>document.title="broken"</script><img src=x onerror=alert(1)>\u202e$\\frac{'
EXCESS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LOADED = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of 30 pictures and a table like PASS's, whose texts are hostile; two have equal bytes, two look alike."""
    place = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    rows = "hash,unickname,licensename,latitude,longitude,datetaken\n"
    pictures = {}
    for number in range(30):
        rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        size = (200 + 10 * (number % 5), 150 + 30 * (number % 3))
        pictures[number] = jpeg(rough.resize(size, Image.Resampling.BICUBIC), quality=60 + number)
        licence = '"' + HOSTILE.replace('"', '""') + '"' if number % 2 else "Attribution License"
        rows += f"{number:02d},user+{number},{licence},{number},-{number},20{number:02d}-01-02 03:04:05\n"
    pictures[7] = pictures[3]
    pictures[9] = jpeg(Image.open(io.BytesIO(pictures[4])), quality=70)
    write_tree(place / "in", {f"{number:02d}.jpg": data for number, data in pictures.items()})
    (place / "table.csv").write_text(rows)
    with tarfile.open(place / "PASS.0.tar", "w") as tar:
        for number in range(30):
            tar.add(place / "in" / f"{number:02d}.jpg", f"{number:02d}.jpg")
    return place


@pytest.fixture(scope="module")
def made(sources: Path) -> Path:
    build([sources / "PASS.0.tar"], sources / "pack", metadata=sources / "table.csv", shard_bytes=100_000, workers=2)
    return sources / "pack"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same ones twice; the numbers of report.json are those that the function returns, with the bar at its end."""
    steps: list[int] = []
    numbers = stats(made, tmp_path / "a", sample=20, seed=3, workers=1, progress=steps.append)
    assert sum(steps) == pytest.approx(work_bytes(Pack(made), 20, 3), rel=0.01)
    command = ["stats", str(made), "--out", str(tmp_path / "b"), "--sample", "20", "--seed", "3", "--workers", "3"]
    assert main(command) == 0 and capsys.readouterr().out == f"{tmp_path / 'b' / 'index.html'}\n"
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert {*contents(tmp_path / "a")} == {"index.html", "report.json", *(f"{name}.png" for name in PLOTS)}
    assert json.loads((tmp_path / "a" / "report.json").read_text()) == json.loads(json.dumps(numbers))
    assert numbers["sample"] == {"seed": 3, "drawn": 20, "measured": 20, "damaged": 0}
    assert numbers["equal_bytes"]["groups"] == 1 and len(numbers["contact_sheet"]) == 20
    for name in PLOTS:
        with Image.open(tmp_path / "a" / f"{name}.png") as picture:
            assert picture.width >= 700 and len(picture.convert("L").getcolors() or range(999)) > 10


def test_alike(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    found = stats(made, tmp_path / "report")["alike"]
    pack = Pack(made)
    assert (found["groups"], found["pictures"]) == (1, 2)
    assert pack.ids(np.array(found["largest"][0]["records"])) == ["04", "09"]


def test_every_codec_and_tars_in_place(made: Path, sources: Path, tmp_path: Path) -> None:
    """The pixels are the same, and so is what is said of them."""
    for codec in ("dct", "dct-zstd"):
        convert(made, tmp_path / codec, codec=codec)
    index([sources / "PASS.0.tar"], tmp_path / "in-place", metadata=sources / "table.csv")
    want = stats(made, tmp_path / "jpeg-report", sample=12)
    for kind in ("dct", "dct-zstd", "in-place"):
        found = stats(tmp_path / kind, tmp_path / f"{kind}-report", sample=12)
        for name in ("sizes", "qualities", "colours", "brightness", "contrast", "sample_extremes", "alike", "licences",
                     "dates", "places"):  # fmt: skip
            assert found[name] == want[name], (kind, name)
        assert found["equal_bytes"]["pictures"] == 2 and found["extremes"]["largest"] == want["extremes"]["largest"]
    assert want["qualities"]["jpegs"] == 12


def test_removed_pictures_are_nowhere(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "pack")
    gone = [f"{number:02d}" for number in range(0, 28)]
    remove(tmp_path / "pack", gone, reason="test")
    numbers = stats(tmp_path / "pack", tmp_path / "report")
    assert numbers["sample"]["drawn"] == 2 and numbers["places"]["known"] == 2
    assert {about["id"] for about in numbers["pictures"].values()} == {"28", "29"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert not re.search(r"id (0\d|1\d|2[0-7])\b", page) and "removed, not shown" in page
    remove(tmp_path / "pack", ["28", "29"], reason="test")
    with pytest.raises(PackError, match="no live picture to report on"):
        stats(tmp_path / "pack", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_damage_is_named(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "pack")
    flip_a_bit(Pack(tmp_path / "pack"), 4)
    os.truncate(Pack(tmp_path / "pack").tar_paths()[-1], 600)
    numbers = stats(tmp_path / "pack", tmp_path / "report")
    named = {one["id"]: one["cause"] for one in numbers["damaged"]}
    assert "CRC" in named["04"] and len(named) > 1 and len(named) + numbers["sample"]["measured"] == 30
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"<b>{len(named)}</b> of 30 sampled pictures cannot be read" in page
    assert all(f"<td><bdi>{id}</bdi></td>" in page for id in named)
    for tar in Pack(tmp_path / "pack").tar_paths():
        os.truncate(tar, 600)
    numbers = stats(tmp_path / "pack", tmp_path / "report")
    assert numbers["sample"]["measured"] == 0 and sum(numbers["sizes"]["aspect"]["pictures"]) == 30
    assert not (tmp_path / "report" / "brightness.png").exists(), "of the report before"


def test_a_pack_without_metadata(tmp_path: Path) -> None:
    """And with one picture, of one pixel."""
    build([write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(1, 1))})], tmp_path / "pack")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "places.png").write_bytes(b"of another pack")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    numbers = stats(tmp_path / "pack", tmp_path / "report")
    assert [numbers[name] for name in ("licences", "creators", "dates", "places", "classes")] == [None] * 5
    found = contents(tmp_path / "report")
    assert "places.png" not in found and found["notes.txt"] == b"mine"


def test_a_pack_on_a_web_server(made: Path, tmp_path: Path) -> None:
    with serving(made.parent) as server:
        command = ["stats", server.url + "pack", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "a")]
        assert main(command) == 0
        stats(made, tmp_path / "b")
        assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_store_that_fails(made: Path, tmp_path: Path) -> None:
    """Ends the report: its pictures are not damaged."""
    shutil.copytree(made, tmp_path / "served" / "pack")
    with serving(tmp_path / "served") as server:
        pack = Pack(server.url + "pack", cache=tmp_path / "cache")
        for tar in (tmp_path / "served" / "pack").glob("*.tar"):
            tar.unlink()
        with pytest.raises(ShardError):
            stats(pack, tmp_path / "report")


def test_words(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(made), "--out", str(made)]) == 1
    assert "is a pack: give a directory of its own for the report" in capsys.readouterr().err
    with pytest.raises(ValueError, match="sample is 0"):
        stats(made, tmp_path / "r", sample=0)
    monkeypatch.setitem(sys.modules, "imagehash", None)
    stats(made, tmp_path / "r", sample=3)
    assert "imagehash is not installed" in (tmp_path / "r" / "index.html").read_text()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["stats", str(made), "--out", str(tmp_path / "none")]) == 1
    assert "a report needs matplotlib: pip install 'pass-loader[report]'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@needs_chromium
def test_the_page(made: Path, tmp_path: Path) -> None:
    """Light and dark, wide and narrow: every picture is there, nothing is wider than the window, nothing is asked of a
    network, and what a pack's author wrote is text."""
    out = tmp_path / "a report"
    stats(made, out)
    for path in out.iterdir():
        if path.name != "index.html":
            path.unlink()
    with Browser(tmp_path / "profile") as browser:
        for scheme in ("light", "dark"):
            browser.colour_scheme(scheme)
            for width in (1280, 390):
                browser.resize(width, 900)
                browser.open((out / "index.html").as_uri())
                assert browser.value(LOADED) and browser.value(EXCESS) <= 0, (scheme, width)
        value: Any = browser.value
        assert value("document.title") == "pack: a report"
        assert value("document.querySelectorAll('script, link, iframe, object').length") == 0
        assert value("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
        assert value("[...document.images].filter(i => !i.alt).length") == 0
        assert value("[...document.images].filter(i => i.src.includes('svg')).length") == len(PLOTS)
        rows = value("[...document.querySelectorAll('#licences th[scope=row]')].map(e => e.textContent)")
        assert sorted(rows) == sorted(["Attribution License", HOSTILE.replace("\u202e", "\ufffd")])
        anchors = value("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
        assert anchors and value("document.querySelectorAll('#look img').length") == 30
        assert not browser.problems
