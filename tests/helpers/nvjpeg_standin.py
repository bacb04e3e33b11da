"""Stand-ins for nvJPEG and for a GPU: a library on libjpeg-turbo (native/cuda/nvjpeg_standin.cpp), and a module whose
decoders are csrc/cuda/nvjpeg.cpp and exact.cpp on a lane's queue (native/cuda/host_gpu.cpp). g++ compiles both once a
session."""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from pass_loader.gpu import nvjpeg

from . import cpu_lane
from .cpu_lane import CpuLane

ROOT = Path(__file__).parents[2]
# -Wno-maybe-uninitialized: see setup.py.
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-Wall", "-Wextra", "-Wno-clobbered", "-Wno-maybe-uninitialized", "-Werror",
         "-Icsrc", "-Itests/native/cuda"]  # fmt: skip


def compiled(out: Path, *arguments: str) -> Path:
    subprocess.run(["g++", *FLAGS, *arguments, "-o", out], cwd=ROOT, check=True)
    return out


def flags_of(*option: str) -> list[str]:
    return subprocess.run(["pkg-config", *option, "libjpeg"], check=True, capture_output=True, text=True).stdout.split()


class Standin:
    """Settings and counts of tests/native/cuda/nvjpeg_standin.cpp."""

    def __init__(self, library: Path):
        self.library, self._native = library, ctypes.CDLL(str(library))
        self._native.standin_count.restype = ctypes.c_long

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self._native.standin_set(name.encode(), ctypes.c_long(value))

    def count(self, name: str) -> int:
        return self._native.standin_count(name.encode())

    def reset(self) -> None:
        self._native.standin_reset()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nvjpeg") / nvjpeg.LIBRARY
    return compiled(out, "-shared", *flags_of("--cflags"), "tests/native/cuda/nvjpeg_standin.cpp", *flags_of("--libs"))


@pytest.fixture(scope="session")
def host_gpu(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    pybind11 = pytest.importorskip("pybind11")
    out = tmp_path_factory.mktemp("host") / f"host_gpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    folders = [f"-I{sysconfig.get_paths()['include']}", f"-I{pybind11.get_include()}"]
    sources = ["tests/native/cuda/host_gpu.cpp", *(f"csrc/bindings_{name}.cpp" for name in ("nvjpeg", "exact")),
               *(f"csrc/cuda/{name}.cpp" for name in ("nvjpeg", "exact"))]  # fmt: skip
    compiled(out, "-shared", "-fvisibility=hidden", *folders, *sources, "-ldl")
    spec = spec_from_file_location("host_gpu", out, loader=ExtensionFileLoader("host_gpu", str(out)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def standin(library: Path, host_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    cpu_lane.use(monkeypatch)
    monkeypatch.setattr(CpuLane, "host_gpu", host_gpu)
    monkeypatch.setattr(CpuLane, "library", str(library))
    found = Standin(library)
    found.reset()
    yield found
    found.reset()
