"""Packs whose files were changed at random: opened, verified, looked at and served, or a PackError or RecordError."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from pass_loader import PackError, RecordError, Samples, recipes
from pass_loader.pack import Pack, attribution, info, verify

from ..helpers.sealing import reseal
from ..helpers.trials import trials

SAVED = (
    Path(__file__).parent.parent / "loading" / "saved" / "pack"
)  # of version 0.1.0, which has no checks of its files
CHANGES = trials(150, 20_000)


def serve(root: Path) -> None:
    """Everything that reads a pack."""
    pack = Pack(root)
    info(root)
    attribution(pack)
    samples = Samples(pack, recipes.mae(size=8))
    for record in range(pack.records):
        pack.row(record)
        try:
            samples.render(record)
        except RecordError as error:
            assert str(record) in str(error)


def changed(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if not out:
            break
        place, kind = rng.randrange(len(out)), rng.randrange(5)
        if kind < 3:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del out[place : place + rng.randrange(1, 9)]
        else:
            out[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pack.json", "removed.jsonl", "index.arrow", "shard-00000.parquet"])
@pytest.mark.parametrize("sealed", [False, True])
def test_files_changed_at_random(tmp_path: Path, name: str, sealed: bool) -> None:
    """sealed: the checksums of the manifest fit the changed file, as of one who makes packs to do harm."""
    rng = random.Random(f"{name} {sealed}")
    for number in range(CHANGES):
        root = Path(shutil.copytree(SAVED, tmp_path / str(number)))
        (root / name).write_bytes(changed((root / name).read_bytes(), rng))
        if sealed and name not in ("pack.json", "removed.jsonl"):
            reseal(root, removed={"lines": 0, "check": "0" * 16})
            (root / "removed.jsonl").unlink()
        assert verify(root) is not None
        try:
            serve(root)
        except PackError as error:
            assert str(root) in str(error), error
        shutil.rmtree(root)


@pytest.mark.parametrize(
    "name", ["pack.json", "removed.jsonl", "index.arrow", "shard-00000.parquet", "shard-00000.tar"]
)
@pytest.mark.parametrize("what", ["fifo", "zero", "folder", "text"])
def test_files_that_are_none(tmp_path: Path, name: str, what: str) -> None:
    """Neither a hang nor memory without end."""
    root = Path(shutil.copytree(SAVED, tmp_path / "pack"))
    (root / name).unlink()
    if what == "fifo":
        os.mkfifo(root / name)
    elif what == "zero":
        (root / name).symlink_to("/dev/zero")
    elif what == "folder":
        (root / name).mkdir()
    else:
        (root / name).write_bytes(b"\xff\xfe not text")
    assert verify(root), "a problem is found"
    samples = None
    try:
        samples = Samples(root, recipes.mae(size=8))
    except PackError as error:
        assert name in str(error)
    if name == "shard-00000.tar":
        assert samples is not None
        with pytest.raises(RecordError, match="shard-00000.tar, record 0"):
            samples.render(0)
    else:
        assert samples is None
