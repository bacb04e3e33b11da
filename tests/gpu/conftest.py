from __future__ import annotations

import pytest

from ..helpers import cpu_lane
from ..helpers.cpu_lane import CpuLane
from ..helpers.nvjpeg_standin import host_gpu, library, standin  # noqa: F401  fixtures


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[CpuLane]:
    """Give lanes that the CPU executes to loaders of device="cuda"; returns the list of those that are made."""
    return cpu_lane.use(monkeypatch)
