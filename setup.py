"""Builds the extensions: pass_loader._C, and pass_loader._cuda where nvcc is found. The rest is in pyproject.toml.

PASS_LOADER_CUDA=1 fails without nvcc, PASS_LOADER_CUDA=0 leaves _cuda out. nvcc: that of CUDA_HOME, else of the PATH.
PASS_LOADER_CUDA_ARCHITECTURES="80 90" compiles for these compute capabilities, and for later ones PTX of the last.
PASS_LOADER_SANITIZE=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer.
PASS_LOADER_STATIC=1 puts libstdc++ inside, and whichever of the libraries pkg-config finds as archives: for wheels.
PASS_LOADER_WERROR=1 turns warnings into errors (used by our own tests).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.modified import newer_group

LIBRARIES = ["libjpeg", "libpng", "zlib", "libzstd"]
MISSING = """
pass-loader: the headers of libjpeg-turbo, libpng, zlib or zstd were not found (pkg-config libjpeg libpng zlib libzstd).
  Debian, Ubuntu:  apt-get install libjpeg62-turbo-dev libpng-dev libzstd-dev pkg-config   (Ubuntu: libjpeg-turbo8-dev)
  Fedora:          dnf install libjpeg-turbo-devel libpng-devel libzstd-devel pkgconf
  conda:           conda install -c conda-forge libjpeg-turbo libpng zlib zstd pkg-config
"""


def library_flags(option: str) -> list[str]:
    try:
        text = subprocess.run(["pkg-config", option, *LIBRARIES], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sys.exit(MISSING)
    return shlex.split(text)


# -ffp-contract=off: GCC fuses a*b+c by default in C++, and Pillow's bytes come from separate roundings.
# -fstrict-overflow: undoes the -fwrapv of Python's own flags, with which loops stay scalar.
# -Wno-maybe-uninitialized: GCC 12 warns, wrongly, inside its own immintrin.h (GCC bug 105593).
# -fno-trapping-math, -fno-math-errno: let loops vectorise; neither changes a value.
compile_args = library_flags("--cflags") + [
    "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden", "-Wall", "-Wextra",
    "-fstrict-overflow", "-Wno-maybe-uninitialized",
]  # fmt: skip
link_args = library_flags("--libs") + ["-pthread"]
if os.environ.get("PASS_LOADER_SANITIZE") == "1":
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compile_args += sanitizers + ["-g", "-O1", "-DPASS_LOADER_ASAN"]
    link_args += sanitizers
static_args = []
if os.environ.get("PASS_LOADER_STATIC") == "1":
    static_args = ["-static-libstdc++", "-s", "-Wl,--version-script=csrc/exports.map", "-Wl,--build-id=none"]
    link_args += static_args
if os.environ.get("PASS_LOADER_WERROR") == "1":
    compile_args.append("-Werror")

CUDA_ONLY = {*(f"csrc/bindings_{name}.cpp" for name in ("cuda", "nvjpeg", "exact")), *glob("csrc/cuda/*.cpp")}
KERNELS = sorted(glob("csrc/cuda/*.cu"))
SHARED = [f"csrc/{name}.cpp" for name in ("plan", "plan_checks", "blur_weights")]  # which both extensions contain
NVCC_AT_LEAST = 12  # C++20
ARCHITECTURES = (os.environ.get("PASS_LOADER_CUDA_ARCHITECTURES") or "80 90").split()  # Ampere (and Ada), Hopper


def find_nvcc() -> str | None:
    """The compiler of the CUDA extension; None: leave it out."""
    wish = os.environ.get("PASS_LOADER_CUDA", "")
    if wish == "0" or (wish != "1" and os.environ.get("PASS_LOADER_SANITIZE") == "1"):
        return None
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which(os.path.join(home, "bin", "nvcc")) if home else shutil.which("nvcc")
    found = "no nvcc was found on the PATH or in CUDA_HOME/bin"
    if nvcc is not None:
        text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
        release = re.search(r"release (\d+)", text)
        if release is not None and int(release[1]) >= NVCC_AT_LEAST:
            return nvcc
        found = f"{nvcc} is older than CUDA {NVCC_AT_LEAST}"
    if wish == "1":
        sys.exit(f"pass-loader: PASS_LOADER_CUDA=1, but {found}")
    print(f"pass-loader: built without CUDA: {found}")
    return None


def library_folders(nvcc: str) -> list[str]:
    """Where nvcc looks for libcudart_static.a."""
    text = subprocess.run([nvcc, "--dryrun", "-c", "any.cu"], capture_output=True, text=True).stderr
    line = re.search(r"LIBRARIES=(.*)", text)
    return [part[2:] for part in shlex.split(line[1] if line else "") if part.startswith("-L")]


def nvcc_command(nvcc: str) -> list[str]:
    """What compiles a kernel, without its names of files."""
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    codes.append("-gencode=arch=compute_{0},code=compute_{0}".format(ARCHITECTURES[-1]))  # PTX
    # -fmad=false, as -ffp-contract=off above.
    host = "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-ffp-contract=off"
    strict = ["-Werror=all-warnings"] if os.environ.get("PASS_LOADER_WERROR") == "1" else []
    return [nvcc, "-std=c++20", "-O3", "-fmad=false", "--threads=0", *codes, "-Icsrc", f"-Xcompiler={host}", *strict]


class BuildExtensions(build_ext):
    def build_extension(self, ext: Pybind11Extension) -> None:
        if ext.name == "pass_loader._cuda" and nvcc is not None:
            os.makedirs(self.build_temp, exist_ok=True)
            command = nvcc_command(nvcc)
            ext.extra_objects = []
            for source in KERNELS:
                made = os.path.join(self.build_temp, f"{os.path.basename(source)}.o")
                if self.force or newer_group(["setup.py", *ext.depends], made):
                    self.spawn([*command, "-c", source, "-o", made])
                ext.extra_objects.append(made)
        super().build_extension(ext)


nvcc = find_nvcc()
headers = sorted(glob("csrc/*.h") + glob("csrc/*/*.h") + glob("csrc/cuda/*.cuh"))
extensions = [
    Pybind11Extension(
        "pass_loader._C",
        sorted({*glob("csrc/*.cpp"), *glob("csrc/*/*.cpp")} - CUDA_ONLY),
        include_dirs=["csrc"],
        depends=headers,
        cxx_std=20,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
]
if nvcc is not None:
    extensions.append(
        Pybind11Extension(
            "pass_loader._cuda",
            sorted([*CUDA_ONLY, *SHARED]),
            include_dirs=["csrc"],
            depends=[*headers, *KERNELS],
            cxx_std=20,
            extra_compile_args=compile_args,
            # The runtime's names stay inside: torch brings another one.
            extra_link_args=["-Wl,--exclude-libs,ALL", "-pthread", *static_args],
            library_dirs=library_folders(nvcc),
            libraries=["cudart_static", "dl", "rt"],
        )
    )

ParallelCompile("PASS_LOADER_JOBS", default=os.cpu_count() or 1).install()
setup(cmdclass={"build_ext": BuildExtensions}, ext_modules=extensions)
