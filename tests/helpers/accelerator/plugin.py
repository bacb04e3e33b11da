"""A plugin of pytest that loads the accelerator where test_pinning.py has started this process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...helpers.accelerator import LIBRARY, Accelerator

LOADED = Accelerator(Path(os.environ[LIBRARY])) if LIBRARY in os.environ else None


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """The idle accelerator; fails the test if somebody wrote into pinned memory that was free."""
    assert LOADED is not None
    gc.collect()
    LOADED.synchronize()
    before = LOADED.counts()
    yield LOADED
    gc.collect()
    LOADED.synchronize()
    LOADED.look_at_the_free()
    assert LOADED.counts().written_while_free == before.written_while_free
