"""benchmarks/gpu/kit.py: what is carried to a machine with a GPU is used where it fits, and only there."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu import kit, native

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one source, in the place of ours."""
    for name in ("setup.py", "csrc/one.cpp", "benchmarks/gpu/first_pass.cu", "pass_loader/__init__.py"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("")
    monkeypatch.setattr(kit, "ROOT", tmp_path / "tree")
    monkeypatch.setattr(native, "BUILD", tmp_path / "tree/build/gpu")
    return tmp_path / "tree"


@pytest.fixture
def there(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit of two parts for this Python and that checkout."""
    python = "".join(map(str, sys.version_info[:2]))
    monkeypatch.setattr(kit, "PYTHON", python)
    folder = tmp_path / "kit"
    folder.mkdir()
    core = {f"pass_loader/{name}{SUFFIX}": "new" for name in kit.EXTENSIONS}
    core |= {"first_pass.so": "ways", "site/nvjpeg.py": "", "site/include/nvjpeg.h": "", "site/lib.a": ""}
    codecs = {f"site/nvidia/nvimgcodec/extensions/lib{name}_ext.so.0": "" for name in ("nvjpeg", "nvjpeg2k", "opencv")}
    for part, files in {"core": core, "dali": {"site/dali.py": "", **codecs}}.items():
        for name, text in files.items():
            path = tmp_path / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        archive = folder / f"{part}.tar.xz"
        assert kit.write_part(archive, tmp_path / part, 90) == archive.stat().st_size
    (folder / "kit.json").write_text(json.dumps({"python": python, "digest": kit.digest()}))
    return folder


def test_a_kit_that_fits(tree: Path, there: Path, tmp_path: Path) -> None:
    """Kills: a part that is left, packages of the kit before that stay, headers, archives and codecs that are carried
    in vain, a library that is written over while a process has it open."""
    work = tmp_path / "work"
    (work / "site/old").mkdir(parents=True)
    (tree / f"pass_loader/_C{SUFFIX}").write_text("old")
    with (tree / f"pass_loader/_C{SUFFIX}").open() as before:
        assert kit.use(there, work, dry=False) == "the kit's, with core, dali"
        assert before.read() == "old"
    assert {path.name: path.read_text() for path in (tree / "pass_loader").glob("*.so")} == {
        f"{name}{SUFFIX}": "new" for name in kit.EXTENSIONS
    }
    assert native.library_path().read_text() == "ways"
    assert sorted(path.name for path in (work / "site").rglob("*") if path.is_file()) == [
        "dali.py", "libnvjpeg_ext.so.0", "nvjpeg.py",
    ]  # fmt: skip
    with tarfile.open(there / "core.tar.xz") as tar:
        assert not [name for name in tar.getnames() if "include" in name or name.endswith(".a")]


def test_a_kit_that_does_not(
    tree: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Kills: a library of other sources or of another Python, an extension that is older than its sources."""
    built: list[bool] = []
    monkeypatch.setattr(kit, "build", built.append)

    def used(folder: Path = there, dry: bool = False) -> str:
        return kit.use(folder, tmp_path / "work", dry)

    assert used(tmp_path / "nowhere") == "built here" and built.pop() is False
    assert "there is none in" in capsys.readouterr().out
    about = json.loads((there / "kit.json").read_text())
    (there / "kit.json").write_text(json.dumps(about | {"python": "27"}))
    assert used() == "built here" and "it is for Python 27, this is 3" in capsys.readouterr().out
    (there / "kit.json").write_text(json.dumps(about))
    (tree / "benchmarks/gpu/first_pass.cu").write_text("int ways;")
    assert used() == "built here" and "of other sources" in capsys.readouterr().out and not built.pop()
    (tree / "benchmarks/gpu/first_pass.cu").write_text("")
    assert not kit.misfit(there)
    (tree / "csrc/one.cpp").write_text("int one;")
    assert used(dry=True) == "built here" and "of other sources" in capsys.readouterr().out and built == [False, True]
    assert not list((tree / "pass_loader").glob("*.so"))
    (tree / f"pass_loader/_C{SUFFIX}").write_text("")
    assert used() == "built here" and used(dry=True) == "as they lay here", "_cuda is needed on a GPU"
    (tree / f"pass_loader/_cuda{SUFFIX}").write_text("")
    assert used() == "as they lay here"
    later = (tree / f"pass_loader/_C{SUFFIX}").stat().st_mtime + 10
    for name in ("csrc/one.cpp", "setup.py"):
        os.utime(tree / name, (later, later))
        assert used() == "built here"
        os.utime(tree / name, (later - 20, later - 20))
        assert used() == "as they lay here"


def test_what_is_made_is_used(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a library that is not carried, a digest of less than the sources, a part that makes core's digest new."""
    monkeypatch.setattr(kit, "PYTHON", "".join(map(str, sys.version_info[:2])))
    with zipfile.ZipFile(tmp_path / "one.whl", "w") as wheel:
        for name in ("_C.cpython-{}-x86_64-linux-gnu.so", "_cuda.cpython-{}-x86_64-linux-gnu.so", "__init__.py"):
            wheel.writestr(f"pass_loader/{name.format(kit.PYTHON)}", "new")

    def install(packages: list[str], site: Path) -> None:
        site.mkdir()
        (site / packages[0]).write_text("")

    monkeypatch.setattr(kit, "install", install)
    monkeypatch.setattr(native, "compiled", lambda library, sms: library.write_text(f"ways for {sms}"))
    folder = tmp_path / "made"
    assert [*kit.make(folder, tmp_path / "one.whl", 90, ["core", "dali"])] == ["core", "dali"]
    assert kit.use(folder, tmp_path / "work", dry=False) == "the kit's, with core, dali"
    assert native.library_path().read_text() == "ways for ['90']"
    found = sorted(path.name for path in (tree / "pass_loader").iterdir())
    assert [name.partition(".")[0] for name in found] == ["_C", "__init__", "_cuda"]
    packages = sorted(path.name for path in (tmp_path / "work/site").iterdir())
    assert packages == [kit.PARTS[part][0] for part in ("dali", "core")]
    (tree / "csrc/one.cpp").write_text("int one;")
    kit.make(folder, tmp_path / "one.whl", 90, ["dali"])
    assert "of other sources" in kit.misfit(folder)


def test_what_is_built_there(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a build for every GPU in place of the one that is there, one without CUDA where there is a GPU."""
    told, asked = "9.0\n9.0\n", []

    def run(command: list[str], **how: Any) -> SimpleNamespace:
        asked.append((command, how.get("env", {})))
        return SimpleNamespace(stdout=told)

    monkeypatch.setattr(kit.subprocess, "run", run)
    monkeypatch.delenv("PASS_LOADER_CUDA", raising=False)
    for dry in (False, True):
        kit.build(dry)
        command, environment = asked[-1]
        assert command[1:] == ["setup.py", "-q", "build_ext", "--inplace"]
        assert environment["PASS_LOADER_CUDA_ARCHITECTURES"] == "90"
        assert environment.get("PASS_LOADER_CUDA") == (None if dry else "1")


def test_what_is_too_large_to_carry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Kills: a part that is looked at without core, which always goes with it."""
    sizes = {"core": 3 << 20, "dali": 62 << 20, "cvcuda": (61 << 20) - 1}
    monkeypatch.setattr(kit, "make", lambda *_: sizes)
    kit.main(["make", "its/place", "--wheel", "one.whl"])
    core, dali, cvcuda = capsys.readouterr().out.splitlines()
    assert "more than 64" in dali and "65.0" in dali and "more" not in core + cvcuda


def test_a_wheel_of_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "one.whl", "w") as wheel:
        wheel.writestr("pass_loader/_C.cpython-27-x86_64-linux-gnu.so", "")
    monkeypatch.setattr(kit, "install", lambda packages, site: site.mkdir(parents=True))
    with pytest.raises(SystemExit, match="want .* for cp312"):
        kit.make(tmp_path / "kit", tmp_path / "one.whl", 90, ["core"])
