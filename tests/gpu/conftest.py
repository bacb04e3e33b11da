from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pass_loader.pack import build

from ..helpers import cpu_lane
from ..helpers.corpus import decodable, jpeg, noise
from ..helpers.cpu_lane import CpuLane
from ..helpers.jpegwriter import Component, write_jpeg
from ..helpers.nvjpeg_standin import host_gpu, library, standin  # noqa: F401  fixtures
from ..helpers.pngwriter import RGB, png
from ..helpers.trees import write_tree


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[CpuLane]:
    """Give lanes that the CPU executes to loaders of device="cuda"; returns the list of those that are made."""
    return cpu_lane.use(monkeypatch)


def of_440(height: int, width: int, seed: int) -> bytes:
    """Return a JPEG with colour halved in height alone, which Pillow does not write."""
    random, rows, columns = np.random.default_rng(seed), -(-height // 16), -(-width // 8)
    parts = []
    for tall in (2, 1, 1):
        blocks = np.zeros((tall * rows, columns, 64), np.int64)
        blocks[..., :5] = random.integers(-40, 40, (*blocks.shape[:2], 5))
        parts.append(Component(blocks, np.full(64, 7), 1, tall))
    return write_jpeg(height, width, parts)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of picture, what nvJPEG takes and what it does not."""
    place = tmp_path_factory.mktemp("mixed")
    files = {f"{name}.jpg": data for name, data in decodable().items()}
    kinds = {"444": {"subsampling": 0}, "422": {"subsampling": 1}, "420": {"subsampling": 2}, "gray": {"mode": "L"}}
    for number, size in enumerate([(41, 67), (66, 40), (120, 97), (2, 3), (3, 2)]):
        files |= {f"{kind}_{number}.jpg": jpeg(noise(*size, number), **how) for kind, how in kinds.items()}
        files[f"440_{number}.jpg"] = of_440(*size, number)
    files["long.jpg"] = jpeg(noise(20, 20), comment=b"x" * 60_000)  # more bytes than its pixels have
    files |= {"png.png": png(noise(21, 34), colour=RGB), "gray.png": png(noise(21, 34)[..., :1])}
    build([write_tree(place / "in", files)], place / "pack", workers=1)
    return place / "pack"
