from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pictures import write_pass
from pass_loader import _C
from pass_loader.pack import build

from .corpus import jpeg, noise
from .test_pack import write_tree


@pytest.fixture(params=_C.supported_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once at each instruction-set level of this machine."""
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa("best")


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
