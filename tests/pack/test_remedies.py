"""What a person is told when a pack cannot be made, changed or read: the cause and the remedy."""

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
from pass_loader.cli.main import main

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import tar_of, write_tree


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
    assert not (copy.parent / "new" / "pack.json").exists()
    CHANGES[change](copy)
    assert not (copy.parent / "new.unfinished").exists()


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


def test_out_is_a_file(tmp_path: Path, copy: Path) -> None:
    tree = write_tree(tmp_path / "in", {"1.jpg": jpeg(noise(9, 9)), "file": b""})
    for out in (tree / "file", tree / "file" / "below"):
        with pytest.raises(PackError, match="give another --out"):
            build([copy / "shard-00000-000.tar"], out)
        with pytest.raises(PackError, match="give another --out"):
            export(copy, out, "folder")


def test_tables_that_cannot_be_read(tmp_path: Path, copy: Path) -> None:
    tree = write_tree(tmp_path / "in", {"1.jpg": jpeg(noise(9, 9))})
    for content, want in (
        (b"", "is empty: download it again"),
        ("hash,name\n1,Jürgen\n".encode("latin-1"), "as UTF-8"),
        ("hash,näme\n1,a\n".encode("latin-1"), "as UTF-8"),
    ):
        (tmp_path / "m.csv").write_bytes(content)
        with pytest.raises(PackError, match=want):
            build([tree], tmp_path / "pack", metadata=tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes("hash,n\nJürgen,1\n".encode("latin-1"))
    with pytest.raises(PackError, match="save it as UTF-8"):
        remove(copy, not_in=tmp_path / "m.csv", reason="x")


def test_a_torn_log(copy: Path) -> None:
    log = copy / "removed.jsonl"
    remove(copy, ["03"], reason="asked")
    whole = log.read_text()
    for torn in (whole[:-20], whole[:-20].rpartition("\n")[0] + "\n", "?" + whole):
        log.write_text(torn)
        with pytest.raises(PackError, match=r"removed.jsonl.* take removed.jsonl and pack.json from a copy"):
            Pack(copy)
    log.write_text(whole)
    assert Pack(copy).removed.tolist() == [3, 7]


def test_tars_without_an_end_and_two_in_one(tmp_path: Path) -> None:
    """Each message's remedy is followed."""
    parts = [tar_of(tmp_path / f"{name}.tar", {f"{name}.jpg": jpeg(noise(9, 9, i))}) for i, name in enumerate("ab")]
    two = tmp_path / "two.tar"
    two.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    with pytest.raises(PackError, match=r"two tars in one.*`head -c 10240 .*`.*`tail -c \+10241 .*two.tar`") as e:
        build([two], tmp_path / "pack")
    assert "download" not in str(e.value)
    for name, option in (("first", "head -c 10240"), ("second", "tail -c +10241")):
        assert os.system(f"{option} {two} > {tmp_path / name}.tar") == 0
    assert build([tmp_path / "first.tar", tmp_path / "second.tar"], tmp_path / "pack").pictures == 2
    endless = tmp_path / "endless.tar"
    data = jpeg(noise(9, 9))
    member = tarfile.TarInfo("c.jpg")
    member.size = len(data)
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode="w").addfile(member, io.BytesIO(data))
    endless.write_bytes(file.getvalue())
    with pytest.raises(PackError, match="has no end: .*Download it again.*`truncate -s [+]1024 .*endless.tar`"):
        build([endless], tmp_path / "pack2")
    os.truncate(endless, endless.stat().st_size + 1024)
    assert build([endless], tmp_path / "pack2").pictures == 1


def test_nothing_to_locate(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="refers to no tars"):
        locate(copy, [tmp_path])
    assert not (copy / "locations.json").exists()
