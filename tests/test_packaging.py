"""What users install: the sdist is complete, and a wheel made from it has every module, away from the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import pass_loader
from pass_loader import _C
from wheels import runs

from .helpers.trials import LONG

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
NOT_COPIED = (".*", "build", "dist", "demo", "_build", "__pycache__", "*.so", "*.egg-info")
WITH_CUDA = LONG and shutil.which("nvcc") is not None
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def make(what: str, folder: Path, out: Path, **environment: str) -> Path:
    """An "sdist" or a "wheel" of the tree in `folder`, made by setuptools of this environment."""
    code = f"from setuptools import build_meta; print(build_meta.build_{what}({str(out)!r}))"
    out.mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | environment, check=True)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist made without nvcc of a clean copy of this tree, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*NOT_COPIED))
    sdist = make("sdist", folder / "tree", folder / "made", PASS_LOADER_CUDA="0")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"pass_loader-{pass_loader.__version__}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the sdist; WITH_CUDA: with the CUDA extension, for one architecture.

    pass_loader._C is this environment's: compiling it takes minutes, and its sources are compared by name.
    """
    library = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    built = unpacked / "build" / library / "pass_loader" / Path(_C.__file__).name
    built.parent.mkdir(parents=True)
    shutil.copyfile(_C.__file__, built)
    out = tmp_path_factory.mktemp("wheel") / "made"
    return make("wheel", unpacked, out, PASS_LOADER_CUDA=str(int(WITH_CUDA)), PASS_LOADER_CUDA_ARCHITECTURES="90")


def test_the_sdist_has_every_source(unpacked: Path) -> None:
    def sources(root: Path) -> set[Path]:
        return {path.relative_to(root) for path in (root / "csrc").rglob("*") if path.suffix in SUFFIXES}

    assert sources(unpacked) == sources(ROOT) != set()
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "csrc/README.md",
        "Makefile",
        "tests/loading/saved/states.json",
    ):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()


def test_a_wheel_has_every_module(wheel: Path, tmp_path: Path) -> None:
    """And nothing but the package; each module can be imported, and the command runs."""
    target = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    metadata = f"pass_loader-{pass_loader.__version__}.dist-info"
    assert {path.name for path in target.iterdir()} == {"pass_loader", metadata, "bin"}
    assert (target / "pass_loader" / "py.typed").exists() and (target / "pass_loader" / "_C.pyi").exists()

    files = sorted((ROOT / "pass_loader").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    code = f"""
import importlib, pathlib
for name in {names}:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to({str(target)!r}), module.__file__
"""
    environment = os.environ | {"PYTHONPATH": str(target)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    for option, words in {"--help": "COMMAND", "--version": f"pass-pack {pass_loader.__version__}"}.items():
        command = [sys.executable, str(target / "bin" / "pass-pack"), option]
        said = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
        assert words in said


@pytest.mark.skipif(
    not WITH_CUDA, reason="the CUDA extension is compiled again by `make long` alone, where nvcc is on the PATH"
)
def test_cuda_builds_from_an_sdist_made_without_nvcc(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        own = next(name for name in names if re.match(r"pass_loader/_C\.", name))
        assert archive.read(own) == Path(_C.__file__).read_bytes(), "compiled anew"
    assert sorted(re.sub(r"\..*", "", name) for name in names) == ["pass_loader/_C", "pass_loader/_cuda"]


@pytest.mark.long
@pytest.mark.parametrize("cuda", ["0", "1"])
def test_pip_builds_the_sdist_alone(unpacked: Path, tmp_path: Path, cuda: str) -> None:
    """In an empty environment, with only what pyproject.toml says, which pip brings; without nvcc and with it."""
    if cuda == "1" and not shutil.which("nvcc"):
        pytest.skip("no nvcc on the PATH")
    (sdist,) = (unpacked.parent / "made").iterdir()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv/bin/python", "-I", "-m", "pip", "--disable-pip-version-check", "-q"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PASS_LOADER_CUDA": cuda, "PASS_LOADER_CUDA_ARCHITECTURES": "90"}
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, sdist], cwd=tmp_path, env=environment, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        made = {name.split(".")[0] for name in archive.namelist() if name.endswith(".so")}
    assert made == {"pass_loader/_C"} | ({"pass_loader/_cuda"} if cuda == "1" else set())
    subprocess.run([*pip, "install", wheel], env=environment, check=True)
    code = "import pass_loader; from pass_loader import _C, recipes; print(recipes.dino(), _C.supported_isas())"
    subprocess.run([*pip[:2], "-c", code], cwd=tmp_path, env=environment, check=True)


def test_notes_of_other_wheels_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wheels/runs.py: what was run with a wheel that has changed since is not told."""
    wheel = tmp_path / "pass_loader-0.2.0-cp313-cp313-manylinux_2_28_aarch64.whl"
    monkeypatch.setenv(runs.NOTES, str(tmp_path / "notes"))
    for content, what in ((b"old", "scenario"), (b"new", "pixels"), (b"new", "batches")):
        wheel.write_bytes(content)
        runs.note(wheel, "3.13.5", what)
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    lines = runs.table(notes, [wheel]).splitlines()
    assert "| 3.13 | not made | 3.13.5: pixels, batches |" in lines
    assert "| 3.13t | not made | not made |" in lines
