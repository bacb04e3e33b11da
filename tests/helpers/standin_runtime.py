"""The extension _cuda on a stand-in for the CUDA runtime (native/cuda/standin_runtime.cpp): nvcc's own host objects of
csrc/cuda/*.cu, and the bindings, executed by the CPU. Compiled once a session."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
SOURCES = ["bindings_cuda", "bindings_nvjpeg", "bindings_exact", "cuda/descriptors", "cuda/nvjpeg", "cuda/exact",
           "plan", "plan_checks", "blur_weights"]  # fmt: skip


def runtime_headers(nvcc: str) -> list[str]:
    """Return -I options for the folders of CUDA's own headers."""
    text = subprocess.run([nvcc, "--dryrun", "-c", "any.cu"], capture_output=True, text=True).stderr
    line = next(line for line in text.splitlines() if "INCLUDES=" in line)
    return [part.strip('"') for part in line.split("INCLUDES=")[1].split()]


def compile_runtime(folder: Path, nvcc: str, csrc: Path = ROOT / "csrc") -> Path:
    """Compile the stand-in and the extension on it into `folder`. The kernels' device code is never used: one
    architecture, not optimised."""
    import pybind11

    def run(*command: object) -> None:
        subprocess.run([*map(str, command)], cwd=ROOT, check=True)

    def compile(*command: object) -> Path:
        made = folder / f"{Path(str(command[-1])).name}.o"
        run(*command, "-o", made)
        return made

    own, headers = [f"-I{csrc}", "-Itests/native/cuda"], runtime_headers(nvcc)
    common = ["-std=c++20", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", *own]
    kernels = [nvcc, "-std=c++20", "-O0", "-Xptxas=-O0", "-fmad=false", "-arch=sm_90", f"-I{csrc}", "-Xcompiler=-fPIC"]
    python = [f"-I{sysconfig.get_paths()['include']}", f"-I{pybind11.get_include()}"]
    binding = ["g++", *common, "-O0", "-fvisibility=hidden", *python]
    commands = [["g++", *common, "-O2", *headers, "-c", "tests/native/cuda/standin_runtime.cpp"]]
    commands += [[*kernels, "-c", csrc / f"cuda/{name}.cu"] for name in ("render", "gpu")]
    commands += [[*binding, "-c", csrc / f"{name}.cpp"] for name in SOURCES]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = [*pool.map(lambda command: compile(*command), commands)]
    module = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    # One library that binds its own names: a torch with CUDA brings another runtime.
    run("g++", "-shared", "-Wl,-Bsymbolic", *objects, "-ldl", "-o", module)
    return folder


def find_nvcc() -> str | None:
    return shutil.which("nvcc")


class Runtime:
    """The stand-in: its streams, memory, counts and failures. _cuda: the extension on it."""

    def __init__(self, folder: Path):
        path = next(folder.glob("_cuda.*.so"))
        self.native = ctypes.CDLL(str(path))
        for name in ("stream", "used", "pieces"):
            getattr(self.native, f"standin_{name}").restype = ctypes.c_size_t
        self.native.standin_count.restype = ctypes.c_long
        spec = spec_from_file_location("_cuda", path, loader=ExtensionFileLoader("_cuda", str(path)))
        assert spec is not None and spec.loader is not None
        self._cuda: ModuleType = module_from_spec(spec)
        spec.loader.exec_module(self._cuda)

    def stream(self) -> int:
        return self.native.standin_stream()

    @contextmanager
    def open_memory(self) -> Iterator[None]:
        """Let the device's memory be touched, as nvJPEG's hardware does when it is called."""
        self.native.standin_open(1)
        yield
        self.native.standin_open(0)

    def synchronize(self) -> None:
        self.native.standin_synchronize()

    def shuffle(self, seed: int | None) -> None:
        """Execute in an order drawn from the seed; None: as late as may be."""
        self.native.standin_shuffle(-1 if seed is None else seed)

    @contextmanager
    def failing(self, call: str, after: int = 0, error: int = 0) -> Iterator[None]:
        """Let one call fail, after so many that succeed. error: CUDA's number of it; 0: the call's own."""
        self.native.standin_fail(call.encode(), ctypes.c_long(after), error)
        yield
        self.native.standin_fail(call.encode(), ctypes.c_long(-1), 0)

    def used(self) -> int:
        return self.native.standin_used()

    def pieces(self) -> int:
        """Return how many pieces of memory are there, on the device and pinned."""
        return self.native.standin_pieces()

    def count(self, call: str) -> int:
        return self.native.standin_count(call.encode())

    def has_context(self, device: int) -> bool:
        return bool(self.native.standin_has_context(device))

    def allocate(self, bytes: int) -> int:
        place = ctypes.c_void_p()
        if self.native.cudaMalloc(ctypes.byref(place), ctypes.c_size_t(bytes)):
            raise MemoryError
        assert place.value is not None
        return place.value

    def upload(self, array: np.ndarray) -> int:
        place = self.allocate(array.nbytes)
        self.native.cudaMemcpy(
            ctypes.c_void_p(place), array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes), 1
        )
        return place

    def read(self, place: int, bytes: int) -> np.ndarray:
        """Return what lies there now: nothing is waited for."""
        out = np.empty(bytes, np.uint8)
        self.native.standin_read(
            out.ctypes.data_as(ctypes.c_void_p), ctypes.c_void_p(int(place)), ctypes.c_size_t(bytes)
        )
        return out


class Opening:
    """A native decoder that writes to the device when `decode` is called."""

    def __init__(self, runtime: Runtime, native: Any):
        self._runtime, self._native = runtime, native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def decode(self, *arguments: Any) -> bool:
        with self._runtime.open_memory():
            return self._native.decode(*arguments)
