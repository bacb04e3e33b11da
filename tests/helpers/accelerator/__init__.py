"""An accelerator for torch that every machine has (accelerator.cpp): built here, and loaded in a process of its own,
because torch knows one accelerator a process."""

from __future__ import annotations

import ctypes
import subprocess
import types
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils import cpp_extension

SOURCE = Path(__file__).parent / "accelerator.cpp"
NAME = "standin"
LIBRARY = "PASS_LOADER_TEST_ACCELERATOR"  # the variable with its path


def build(folder: Path) -> Path:
    """Compile the library, which takes about ten seconds; returns its path."""
    library = folder / "accelerator.so"
    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    subprocess.run(["g++", "-std=c++20", "-O0", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
                    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}", *includes, str(SOURCE),
                    *libraries, "-ltorch_cpu", "-lc10", "-o", str(library)], check=True)  # fmt: skip
    return library


class Counts(NamedTuple):
    """What the accelerator has counted, see standin_counts in accelerator.cpp."""

    bytes: int
    given: int
    reused: int
    written_while_free: int
    queued: int
    under_way: int


class Accelerator:
    """The accelerator of this process."""

    def __init__(self, library: Path):
        torch.utils.rename_privateuse1_backend(NAME)
        self._library = ctypes.CDLL(str(library))
        module = types.ModuleType(f"torch.{NAME}")
        module.is_available = lambda: True  # type: ignore[attr-defined]
        module.device_count = lambda: 1  # type: ignore[attr-defined]
        module.current_device = lambda: 0  # type: ignore[attr-defined]
        module._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
        module.manual_seed_all = lambda seed: None  # type: ignore[attr-defined]
        torch._register_device_module(NAME, module)
        self.device = torch.device(NAME, 0)

    def counts(self) -> Counts:
        found = (ctypes.c_int64 * len(Counts._fields))()
        self._library.standin_counts(found)
        return Counts(*found)

    def synchronize(self) -> None:
        self._library.standin_synchronize()

    def look_at_the_free(self) -> None:
        """Count what was written into free memory; without this call it shows only when the memory is given out."""
        self._library.standin_look_at_the_free()
