"""Pillow for aarch64 with the bytes of x86-64, for the tests of pixels under QEMU.

Pillow's own wheel for aarch64 fuses multiply-adds (csrc/README.md, "Where bytes differ"). Here its module `_imaging` is
compiled anew from PyPI's source of the same version, without them, against the libjpeg-turbo and zlib of our wheel.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .headers import headers_of
from .third_party import build as build_third_party
from .toolchain import run, toolchain

# As Pillow's setup.py has them. Without TIFF, JPEG 2000 and the rest: no test of pixels reads these.
PARTS = ("_imaging", "decode", "encode", "map", "display", "outline", "path")
DEFINES = ("-DHAVE_LIBJPEG", "-DHAVE_LIBZ")
FLAGS = ("-O2", "-std=c99", "-D_GNU_SOURCE", "-ffp-contract=off", "-fwrapv", "-w")


def exact_pillow(site: Path, tag: str, build: Path) -> Path:
    """Copy the Pillow for aarch64 that is installed in `site`, with another `_imaging`. Returns the folder.

    tag: the Python's, as in cp311. build: the folder of `python -m wheels.build`. Raises SystemExit where the source
    cannot be had.
    """
    (info,) = site.glob("pillow-*.dist-info")
    version = info.name.removeprefix("pillow-").removesuffix(".dist-info")
    folder = build / "aarch64/pillow" / f"{tag}-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("PIL", "pillow.libs"):
        shutil.copytree(site / name, folder / name)
    (replaced,) = (folder / "PIL").glob("_imaging.*.so")
    _compile(_source(version, build), version, tag, build, folder / "objects", replaced)
    return folder


def _source(version: str, build: Path) -> Path:
    """Return the folder with Pillow's source; download it where it is missing."""
    place = build / "sources/pillow"
    found = place / f"pillow-{version}"
    if not found.exists():
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download", "-d", place]
        # It builds the metadata, and nothing else.
        run([*pip, "--no-deps", "--no-binary=:all:", "--no-build-isolation", f"pillow=={version}"])
        with tarfile.open(place / f"pillow-{version}.tar.gz") as tar:
            tar.extractall(place, filter="data")
    return found


def _compile(source: Path, version: str, tag: str, build: Path, objects: Path, made: Path) -> None:
    tools = toolchain("aarch64", build)
    third_party = build_third_party(tools, build / "sources")
    flags = [*FLAGS, *tools.compile_flags, *DEFINES, f'-DPILLOW_VERSION="{version}"', f"-I{third_party}/include"]
    flags += [f"-I{source}/src/libImaging", f"-I{source}/src", "-isystem", headers_of(tag, build)]
    objects.mkdir()
    files = [source / "src" / f"{name}.c" for name in PARTS] + sorted((source / "src/libImaging").glob("*.c"))
    names = {path: objects / f"{path.parent.name}-{path.stem}.o" for path in files}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: run([tools.cc, *flags, "-c", path, "-o", names[path]]), files))
    libraries = [f"-L{third_party}/lib", "-ljpeg", "-lz", "-lm"]
    run([tools.cc, "-shared", f"-L{tools.glibc}", *names.values(), *libraries, "-o", made])
