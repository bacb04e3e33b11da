"""What a person is told when a pack cannot be made, changed or read: the cause, the remedy, and no leftovers."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pass_loader import PackError
from pass_loader.pack import Pack, build, convert, export, locate, purge, remove, restore
from pass_loader.pack.cli import main

from .corpus import jpeg, noise
from .test_pack import write_tree
from .test_sources import tar_of


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    out = Path(shutil.copytree(tiny, tmp_path / "copy"))
    remove(out, ["07"], reason="asked")
    return out


CHANGES: dict[str, Callable[[Path], object]] = {
    "remove": lambda pack: remove(pack, ["03"], reason="asked"),
    "restore": lambda pack: restore(pack, ["07"], reason="the wrong one"),
    "purge": purge,
    "convert": lambda pack: convert(pack, pack.parent / "new", "dct"),
    "export folder": lambda pack: export(pack, pack.parent / "new", "folder"),
    "export webdataset": lambda pack: export(pack, pack.parent / "new", "webdataset"),
    "export parquet": lambda pack: export(pack, pack.parent / "new", "parquet"),
}


def test_an_export_that_was_refused_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "in", {"1.jpg": jpeg(noise(9, 9))})
    (tmp_path / "m.csv").write_text("hash,image\n1,a\n")
    build([tree], tmp_path / "pack", metadata=tmp_path / "m.csv")
    command = ["export", str(tmp_path / "pack"), "--out", str(tmp_path / "out"), "--format"]
    assert main([*command, "parquet"]) == 1 and "['image']" in capsys.readouterr().err
    assert main([*command, "folder"]) == 0, capsys.readouterr().err
