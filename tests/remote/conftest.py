from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pass_loader.remote import store, writing

from ..helpers.object_server import ObjectServer, serving
from ..helpers.s3_server import S3Server, s3_serving


@pytest.fixture
def server(pack: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """Serves the folder that holds the pack of 23 pictures, as `pack`. Pauses between attempts are short."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.005)
    with serving(pack.parent) as found:
        yield found


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An empty store. Pauses are short, objects of more than 3,000 bytes are sent in parts."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(writing, "PART_BYTES", 3000)
    with s3_serving() as server:
        yield server
