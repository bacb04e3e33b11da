"""`python -m wheels.build`: a wheel for each Python and processor, in dist/.

The kernels do not depend on Python: they are compiled once for a processor, and only csrc/bindings*.cpp for each
Python. Sources, flags and nvcc's command are those of setup.py. Python itself is not run for its wheel: its headers
suffice.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from distutils.core import run_setup
from functools import cache
from pathlib import Path
from typing import Any

import pybind11

from .headers import TAGS, defines_of, headers_of
from .licences import licences_of, with_licences, write_wheel
from .third_party import build as build_third_party
from .toolchain import PREFIX, ROOT, Toolchain, run, toolchain

ARCHITECTURES = "80 90 100 120"  # Ampere and Ada, Hopper, Blackwell of data centres, Blackwell of desks
NVCC_OTHER = "nvidia-cuda-runtime"  # the package with CUDA's static runtime for another processor


@dataclass(frozen=True)
class Builder:
    """What is built for one processor, and how."""

    tools: Toolchain
    third_party: Path
    jobs: int
    extensions: dict[str, Any]  # by name: setuptools' Extension
    nvcc: list[str] | None
    cudart: Path | None  # the folder of libcudart_static.a

    @staticmethod
    def of(processor: str, build: Path, jobs: int, cuda: bool) -> Builder:
        tools = toolchain(processor, build)
        third_party = build_third_party(tools, build / "sources")
        os.environ |= {
            "PASS_LOADER_CUDA": "1" if cuda else "0",
            "PASS_LOADER_CUDA_ARCHITECTURES": ARCHITECTURES,
            "PASS_LOADER_STATIC": "1",
            "PASS_LOADER_WERROR": "1",
            "PKG_CONFIG_LIBDIR": str(third_party / "lib/pkgconfig"),
        }
        made = run_setup("setup.py", ["-q", "build_ext"], stop_after="init")
        extensions = {one.name.rpartition(".")[2]: one for one in made.ext_modules}
        nvcc, cudart = None, None
        if cuda:
            build_ext: Any = made.cmdclass["build_ext"]
            names = build_ext.build_extension.__globals__  # those of setup.py
            nvcc = [*names["nvcc_command"](names["nvcc"]), "-ccbin", shutil.which(tools.cxx)]
            (cudart,) = [Path(one) for one in extensions["_cuda"].library_dirs if (Path(one) / CUDART).exists()][:1]
            if PREFIX[processor]:  # nvcc takes no headers of its own for another processor, and they are the same
                include = cudart.parent / "include"
                nvcc += [f"-I{include}", "-isystem", str(include / "cccl")]
                cudart = _other_cudart(processor, names["nvcc"], build)
        return Builder(tools, third_party, jobs, extensions, nvcc, cudart)

    def compile(self, objects: dict[Path, list[Any]]) -> None:
        """Run commands that make objects. objects: {object: command, its source last}.

        An object is kept while its command, its source and all headers are the same.
        """

        def one(made: Path) -> None:
            words = [*objects[made][:-1], "-o", made.with_suffix(".part.o"), "-c", objects[made][-1]]
            state, told = f"{words}\n{_digest(objects[made][-1])}\n", made.with_suffix(".made_of")
            if not (made.exists() and told.exists() and told.read_text() == state):
                made.parent.mkdir(parents=True, exist_ok=True)
                run(words, cwd=ROOT)
                words[-3].rename(made)
                told.write_text(state)

        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(one, objects))

    def objects(self, name: str, headers: Path, tag: str) -> list[Path]:
        """Compile an extension's sources for a Python. Returns the objects."""
        extension, folder = self.extensions[name], self.tools.folder / "objects"
        flags = [*extension.extra_compile_args, *self.tools.compile_flags, "-Icsrc"]
        of_python = [f"-isystem{headers}", f"-isystem{pybind11.get_include()}", *defines_of(tag)]
        made: dict[Path, list[Any]] = {}
        for source in extension.sources:
            binds = Path(source).name.startswith("bindings")
            place = folder / (tag if binds else "any") / Path(source).relative_to("csrc").with_suffix(".o")
            made[place] = [self.tools.cxx, *flags, *(of_python if binds else []), source]
        if name == "_cuda":
            assert self.nvcc is not None
            mapped = [f"-Xcompiler={flag}" for flag in self.tools.compile_flags if "," not in flag]
            for source in sorted(ROOT.glob("csrc/cuda/*.cu")):
                made[folder / "any/cuda" / f"{source.name}.o"] = [*self.nvcc, *mapped, str(source.relative_to(ROOT))]
        old = folder / "any/old_glibc.o"
        self.compile({old: [self.tools.cc, "-O2", *self.tools.compile_flags, "wheels/old_glibc.c"]})
        self.compile(made)
        return [*made, old]

    def link(self, name: str, tag: str) -> Path:
        """Make an extension for a Python. Returns the shared library."""
        objects = self.objects(name, headers_of(tag, self.tools.folder.parent), tag)
        folder = self.tools.folder / "extensions" / tag
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{name}.cpython-{tag[2:]}-{self.tools.processor}-linux-gnu.so"
        cudart = [f"-L{self.cudart}", "-lcudart_static", "-ldl", "-lrt"] if name == "_cuda" else []
        run([self.tools.cxx, "-shared", f"-L{self.tools.glibc}", *objects, *self.extensions[name].extra_link_args,
             *cudart, "-lm", "-o", made], cwd=ROOT)  # fmt: skip
        _check_undefined(made)
        return made

    def wheel(self, tag: str, dist_info: Path, out: Path) -> Path:
        """Make the wheel of a Python, with equal bytes for equal input. Returns its path."""
        abi = tag
        python = tag.removesuffix("t")
        made = out / f"{dist_info.name.removesuffix('.dist-info')}-{python}-{abi}-{self.tools.tag}.whl"
        files = {str(path.relative_to(ROOT)): path for path in (ROOT / "pass_loader").rglob("*")
                 if path.suffix in (".py", ".pyi") or path.name == "py.typed"}  # fmt: skip
        for name in self.extensions:
            library = self.link(name, tag)
            files[f"pass_loader/{library.name}"] = library
        texts = {name: path.read_bytes() for name, path in files.items()}
        texts |= {f"{dist_info.name}/{path.relative_to(dist_info)}": path.read_bytes() for path in dist_info.rglob("*")
                  if path.is_file()}  # fmt: skip
        tag_lines = f"Root-Is-Purelib: false\nTag: {python}-{abi}-{self.tools.tag}\n"
        texts[f"{dist_info.name}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: pass-loader\n{tag_lines}".encode()
        write_wheel(made, with_licences(texts, licences_of(self.third_party / "licenses")))
        return made


@cache
def _digest(source: str) -> str:
    """Return a digest of a source and of the headers that it may include: of bindings_*.h in bindings alone."""
    headers = sorted([*ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.cuh")])
    seen = [path for path in headers if "bindings" in source or "bindings" not in path.name]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in [ROOT / source, *seen])).hexdigest()


CUDART = "libcudart_static.a"


def _other_cudart(processor: str, nvcc: str, build: Path) -> Path:
    """Download CUDA's static runtime for another processor, of nvcc's version. Returns its folder."""
    folder = build / processor / "cudart"
    if not folder.exists():
        told = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
        release = told.partition("release ")[2].partition(",")[0]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        platform = f"--platform=manylinux2014_{processor}"
        run([*pip, "-d", folder / "download", platform, f"{NVCC_OTHER}=={release}.*"])
        (archive,) = (folder / "download").iterdir()
        with zipfile.ZipFile(archive) as files:
            (name,) = [name for name in files.namelist() if name.endswith(f"/{CUDART}")]
            (folder / CUDART).write_bytes(files.read(name))
    return folder


def _check_undefined(library: Path) -> None:
    """Exit where a symbol is missing that is neither Python's nor a versioned one of glibc or libgcc_s."""
    told = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    missing = [line for line in told.splitlines() if re.search(r" U (?!_?Py)[^@]*$", line)]
    if missing:
        sys.exit(f"{library} needs what no library has: {missing}")


def _dist_info(build: Path) -> Path:
    """Let setuptools write the metadata. Returns the folder."""
    out = build / "metadata"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    environment = os.environ | {"PASS_LOADER_CUDA": "0"}
    run([sys.executable, "setup.py", "-q", "dist_info", "--output-dir", out], cwd=ROOT, env=environment)
    (made,) = out.glob("*.dist-info")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wheels.build", description=__doc__)
    parser.add_argument("--processors", nargs="+", default=["x86_64"], choices=sorted(PREFIX))
    parser.add_argument("--pythons", nargs="+", default=[*TAGS], choices=[*TAGS], metavar="TAG")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--no-cuda", action="store_true", help="without pass_loader._cuda")
    options = parser.parse_args()
    os.chdir(ROOT)
    logging.getLogger("wheel").setLevel(logging.WARNING)  # else it names every file
    build = ROOT / "build/wheels"
    (build / "sources").mkdir(parents=True, exist_ok=True)
    options.out.mkdir(exist_ok=True)
    for processor in options.processors:
        builder = Builder.of(processor, build, options.jobs, not options.no_cuda)
        dist_info = _dist_info(build)
        for tag in options.pythons:
            made = builder.wheel(tag, dist_info, options.out)
            print(f"{made.name}  {made.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
