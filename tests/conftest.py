from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pass_loader import _C

from .helpers.packs import broken_pack, companion_packs, heatmap_packs, pack, pass_files, tiny  # noqa: F401  fixtures

# The files that take longest, which begin first: so no process ends long after the other.
LONGEST = """gpu/test_standin_runtime loading/test_pinning native/test_cuda_decode pack/test_bad_sources
pack/test_hostile_packs pack/test_takedown loading/test_proof gpu/test_bench_cuda docs/test_examples_training
pack/test_removal pack/test_tasks pack/test_convert native/test_cuda_kernels pack/test_packing native/test_pool
loading/test_read_ahead data/test_preview pack/test_points test_packaging pack/test_ray native/test_exit
remote/test_loading gpu/test_exact native/test_allocations loading/test_torch_epochs data/test_stats""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put LONGEST first; else the order stays."""
    place = {Path(__file__).parent / f"{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(params=_C.supported_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once at each instruction-set level of this machine."""
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa("best")
