"""benchmarks/gpu/kit.py: what is carried to a machine with a GPU is used where it fits, and only there."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu import kit, native

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one source, in the place of ours."""
    for name in ("setup.py", "csrc/one.cpp", "pass_loader/__init__.py"):
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
    for part, files in {"core": core, "dali": {"site/dali.py": ""}}.items():
        for name, text in files.items():
            path = tmp_path / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        kit.write_part(folder / f"{part}.tar.xz", tmp_path / part, 90)
    (folder / "kit.json").write_text(json.dumps({"python": python, "digest": kit.digest()}))
    return folder


def test_a_kit_that_fits(tree: Path, there: Path, tmp_path: Path) -> None:
    """Kills: a part that is left, packages of the kit before that stay, headers and archives that are carried."""
    work = tmp_path / "work"
    (work / "site/old").mkdir(parents=True)
    (tree / f"pass_loader/_C{SUFFIX}").write_text("old")
    assert kit.use(there, work, dry=False) == "the kit's, with core, dali"
    assert {path.name: path.read_text() for path in (tree / "pass_loader").glob("*.so")} == {
        f"{name}{SUFFIX}": "new" for name in kit.EXTENSIONS
    }
    assert native.library_path().read_text() == "ways"
    assert sorted(path.name for path in (work / "site").iterdir()) == ["dali.py", "nvjpeg.py"]
    with tarfile.open(there / "core.tar.xz") as tar:
        assert not [name for name in tar.getnames() if "include" in name or name.endswith(".a")]


def test_a_kit_that_does_not(
    tree: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Kills: an extension of other sources or of another Python, one that is older than its sources."""
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
    (tree / "csrc/one.cpp").write_text("int one;")
    assert used(dry=True) == "built here" and "of other sources" in capsys.readouterr().out and built == [False, True]
    assert not list((tree / "pass_loader").glob("*.so"))
    (tree / f"pass_loader/_C{SUFFIX}").write_text("")
    assert used() == "built here" and used(dry=True) == "as they lay here", "_cuda is needed on a GPU"
    (tree / f"pass_loader/_cuda{SUFFIX}").write_text("")
    assert used() == "as they lay here"
    later = (tree / f"pass_loader/_C{SUFFIX}").stat().st_mtime + 10
    os.utime(tree / "csrc/one.cpp", (later, later))
    assert used() == "built here"


def test_what_is_too_large_to_carry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Kills: a part that is looked at without core, which always goes with it."""
    sizes = {"core": 3 << 20, "dali": 62 << 20, "cvcuda": (61 << 20) - 1}
    monkeypatch.setattr(kit, "make", lambda *_: sizes)
    kit.main(["make", "its/place", "--wheel", "one.whl"])
    core, dali, cvcuda = capsys.readouterr().out.splitlines()
    assert "more than 64" in dali and "65.0" in dali and "more" not in core + cvcuda


def test_a_wheel_of_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "one.whl", "w") as wheel:
        wheel.writestr("pass_loader/_C.cpython-27-x86_64-linux-gnu.so", "")
    monkeypatch.setattr(kit, "install", lambda packages, site: site.mkdir(parents=True))
    with pytest.raises(SystemExit, match="want .* for cp312"):
        kit.make(tmp_path / "kit", tmp_path / "one.whl", 90, ["core"])
