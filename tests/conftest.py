from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pictures import write_pass
from pass_loader import _C
from pass_loader.pack import build


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
