"""What `pass-pack bench` says is the limit: storage, decoding or rendering, each made so on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from pass_loader import recipes
from pass_loader.loading.bench import bench, limits
from pass_loader.loading.limits import Limits
from pass_loader.pack import Pack, build

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import serving
from ..helpers.trees import write_tree

STORAGE = Limits(100, 3000, 1500, 2, "blur", "", True)


@pytest.mark.parametrize(
    "found, words",
    [
        (
            STORAGE,
            "The limit is storage: the store sends 100 samples/s, and 2 threads could take 1,000. More threads do not "
            "help: a larger --cache-bytes, or order='blocks' where storage reads large blocks.",
        ),
        (
            Limits(100, 300, 300, 1, "blur", "it is kept", False),
            "The limit is storage: storage gives 100 samples/s, and one thread could take 150. That is the first "
            "epoch: it is kept. Then the limit is rendering: it takes 50% of the time of one thread. More threads help "
            "while there are idle cores; so do fewer or smaller views. Most of it is blur.",
        ),
        (
            Limits(2000, 1000, 3000, 2, "blur", "", False),
            "The limit is decoding: it takes 75% of the time of 2 threads. More threads help while there are idle "
            "cores; so does a pack that is decoded faster: `pass-pack convert --codec dct`.",
        ),
        (Limits(2000, 3000, 1000, 2, "resize", "", True), "The limit is rendering: it takes 75% of the time"),
    ],
)
def test_words(found: Limits, words: str) -> None:
    assert found.words().startswith(words)


def made(folder: Path, height: int, width: int) -> Path:
    files = {f"{number}.jpg": jpeg(noise(height, width, number)) for number in range(8)}
    build([write_tree(folder / "in", files)], folder / "pack")
    return folder / "pack"


@pytest.mark.slow
def test_decoding(tmp_path: Path) -> None:
    """Large pictures, whole, to one tiny view."""
    pack = made(tmp_path, 900, 1200)
    recipe = recipes.evaluate(resize=16, size=16)
    assert limits(pack, bench(pack, recipe, 1, 0.5), 0.2).later == "decoding"


@pytest.mark.slow
def test_rendering(tmp_path: Path) -> None:
    """Tiny pictures to large views, of which most are blurred."""
    pack = made(tmp_path, 40, 40)
    found = limits(pack, bench(pack, recipes.dino(), 1, 0.5), 0.2)
    assert found.first == "rendering" and found.longest != "read"


@pytest.mark.slow
def test_storage(tmp_path: Path) -> None:
    """A store that takes a second for each answer: at most 64 records a second."""
    made(tmp_path, 40, 40)
    recipe = recipes.evaluate(resize=16, size=16)
    with serving(tmp_path) as server:
        there = Pack(server.url + "pack", cache=tmp_path / "cache")
        measured = bench(there, recipe, 1, 0.5)
        server.delay_s = 1.0
        found = limits(there, measured, 0.5)
    assert found.first == "storage" and found.remote and found.storage < 65
    assert "the cache then has the whole pack" in found.words()
