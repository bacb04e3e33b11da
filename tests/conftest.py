from __future__ import annotations

from collections.abc import Iterator

import pytest

from pass_loader import _C

from .helpers.packs import broken_pack, companion_packs, heatmap_packs, pack, pass_files, tiny  # noqa: F401  fixtures


@pytest.fixture(params=_C.supported_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once at each instruction-set level of this machine."""
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa("best")
