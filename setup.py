"""Builds the one extension, pass_loader._C. Everything else is in pyproject.toml.

PASS_LOADER_SANITIZE=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer.
PASS_LOADER_WERROR=1 turns warnings into errors (used by our own tests).
"""

import os
import shlex
import subprocess
import sys
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

LIBRARIES = ["libjpeg", "libpng", "zlib"]
MISSING = """
pass-loader: the headers of libjpeg-turbo, libpng or zlib were not found (pkg-config libjpeg libpng zlib).
  Debian, Ubuntu:  apt-get install libjpeg62-turbo-dev libpng-dev pkg-config   (Ubuntu: libjpeg-turbo8-dev)
  Fedora:          dnf install libjpeg-turbo-devel libpng-devel pkgconf
  conda:           conda install -c conda-forge libjpeg-turbo libpng zlib pkg-config
"""


def library_flags(option: str) -> list[str]:
    try:
        text = subprocess.run(["pkg-config", option, *LIBRARIES], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sys.exit(MISSING)
    return shlex.split(text)


# -ffp-contract=off: GCC fuses a*b+c by default in C++, and Pillow's bytes come from separate roundings.
# -Wno-maybe-uninitialized: GCC 12 warns, wrongly, inside its own immintrin.h (GCC bug 105593).
# -fno-trapping-math, -fno-math-errno: let loops vectorise; neither changes a value.
compile_args = library_flags("--cflags") + [
    "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden", "-Wall", "-Wextra",
    "-Wno-maybe-uninitialized",
]  # fmt: skip
link_args = library_flags("--libs") + ["-pthread"]
if os.environ.get("PASS_LOADER_SANITIZE") == "1":
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compile_args += sanitizers + ["-g", "-O1", "-DPASS_LOADER_ASAN"]
    link_args += sanitizers
if os.environ.get("PASS_LOADER_WERROR") == "1":
    compile_args.append("-Werror")

ParallelCompile("PASS_LOADER_JOBS", default=os.cpu_count() or 1).install()
setup(
    cmdclass={"build_ext": build_ext},
    ext_modules=[
        Pybind11Extension(
            "pass_loader._C",
            sorted(glob("csrc/*.cpp") + glob("csrc/*/*.cpp")),
            include_dirs=["csrc"],
            depends=sorted(glob("csrc/*.h") + glob("csrc/*/*.h")),
            cxx_std=20,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ],
)
