"""Data and conditions of every benchmark: pinned cores, warm files, the machine and commit in the JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pass_loader
from pass_loader import _C
from pass_loader.pack import build, convert

from .. import machine
from ..pictures import write_pass


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data", action="append", type=Path, default=[], help="tars or folders of JPEGs; default: generated"
    )
    parser.addoption("--pictures", type=int, default=192, help="how many pictures of the data are used")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "all_cores: runs on every core of this process, not on one pinned core")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return how many cores the benchmark has: one, to which this thread and all that it starts are pinned, unless
    it is marked all_cores."""
    every = os.sched_getaffinity(0)
    if request.node.get_closest_marker("all_cores") is None:
        os.sched_setaffinity(0, {max(every)})
    yield len(os.sched_getaffinity(0))
    os.sched_setaffinity(0, every)


@pytest.fixture(scope="session")
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    sources = request.config.getoption("--data")
    if not sources:
        sources = [write_pass(folder / "pictures", request.config.getoption("--pictures"))[0]]
    build(sources, folder / "pack")
    return folder / "pack"


@pytest.fixture(scope="session")
def dct_packs(pack: Path) -> dict[str, Path]:
    """The same records in the codec "dct", without zstd's layer and with it."""
    packs = {codec: pack.with_name(codec) for codec in ("dct", "dct-zstd")}
    for codec, path in packs.items():
        convert(pack, path, codec)
    return packs


@pytest.fixture(scope="session")
def records(request: pytest.FixtureRequest, pack: Path) -> list[int]:
    records = pass_loader.Samples(pack, pass_loader.recipes.dino()).pack.records
    return list(range(min(records, request.config.getoption("--pictures"))))


@pytest.fixture(params=_C.supported_isas()[::-1])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the benchmark once at each instruction-set level of this machine, the best first."""
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa("best")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["pass_loader"] = machine.describe()
