from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pass_loader.remote import store

from ..helpers.object_server import ObjectServer, serving


@pytest.fixture
def server(pack: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """Serves the folder that holds the pack of 23 pictures, as `pack`. Pauses between attempts are short."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.005)
    with serving(pack.parent) as found:
        yield found
