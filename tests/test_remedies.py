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


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk(copy: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(path.name for path in copy.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if change.startswith("export") else (os, "fsync")), full)
        with pytest.raises(PackError, match="no space is left for .*make room there"):
            CHANGES[change](copy)
    assert sorted(path.name for path in copy.iterdir()) == before
    assert not (copy.parent / "new.unfinished").exists() and not (copy.parent / "new" / "pack.json").exists()
    CHANGES[change](copy)


@pytest.mark.parametrize("change", CHANGES)
def test_a_pack_that_may_only_be_read(copy: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refused)
        patch.setattr("pass_loader.pack.layout.open", refused, raising=False)
        with pytest.raises(PackError, match="cannot be changed .Read-only file system.: .*for writing"):
            CHANGES[change](copy)
    CHANGES[change](copy)


def test_an_export_that_was_refused_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "in", {"1.jpg": jpeg(noise(9, 9))})
    (tmp_path / "m.csv").write_text("hash,image\n1,a\n")
    build([tree], tmp_path / "pack", metadata=tmp_path / "m.csv")
    command = ["export", str(tmp_path / "pack"), "--out", str(tmp_path / "out"), "--format"]
    assert main([*command, "parquet"]) == 1 and "['image']" in capsys.readouterr().err
    assert main([*command, "folder"]) == 0, capsys.readouterr().err
