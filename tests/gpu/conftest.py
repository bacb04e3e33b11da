from __future__ import annotations

import pytest

from ..helpers import cpu_lane
from ..helpers.cpu_lane import CpuLane
from ..helpers.nvjpeg_standin import host_gpu, library, standin  # noqa: F401  fixtures


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[CpuLane]:
    """Loaders of device="cuda" are given lanes that the CPU executes; the list of those that were made."""
    return cpu_lane.use(monkeypatch)
