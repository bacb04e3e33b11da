"""Compiles the ways of the first pass into a library, where it is missing or old. Needs neither torch nor numpy."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/gpu"
SOURCES = ["benchmarks/gpu/first_pass.cu", "csrc/cuda/descriptors.cpp",
           *(f"csrc/{name}.cpp" for name in ("plan", "plan_checks", "blur_weights"))]  # fmt: skip
ARCHITECTURES = ("80", "90")


def library_path(on_cpu: bool = False) -> Path:
    return BUILD / ("first_pass_host.so" if on_cpu else "first_pass.so")


def is_current(library: Path) -> bool:
    """Return True where the library is newer than all that it is made of."""
    made_of = [*ROOT.glob("csrc/*.h"), *ROOT.glob("csrc/cuda/*"), *map(ROOT.joinpath, SOURCES)]
    made_of.append(ROOT / "benchmarks/gpu/first_pass.h")
    return library.exists() and library.stat().st_mtime >= max(path.stat().st_mtime for path in made_of)


def compiled(on_cpu: bool = False, library: Path | None = None, sms: Sequence[str] = ARCHITECTURES) -> Path:
    """Return the library: by nvcc for GPUs of these compute capabilities, or by g++ for the CPU in their place."""
    library = library or library_path(on_cpu)
    if not is_current(library):
        library.parent.mkdir(parents=True, exist_ok=True)
        own = ["-std=c++20", "-O1" if on_cpu else "-O3", "-Icsrc", "-Ibenchmarks/gpu", "-shared"]
        if on_cpu:
            command = ["g++", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", *own, "-x", "c++"]
        else:
            codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in sms]
            command = ["nvcc", "-fmad=false", *codes, "-Xcompiler=-fPIC,-ffp-contract=off,-Wall,-Wextra", *own]
        subprocess.run([*command, *SOURCES, "-o", str(library)], cwd=ROOT, check=True)
    return library
