"""GCC, linking against an old glibc: the compilers of a processor, and the stand-ins for glibc that they link against.

GCC compiles, as in the builds that the benchmarks measure. Symbols of glibc carry the version that the linker finds, so
the linker must find an old one: zig writes such libraries, which hold names alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLIBC = "2.28"  # RHEL 8, Debian 10, Ubuntu 20.04 and newer
PREFIX = {"x86_64": "", "aarch64": "aarch64-linux-gnu-"}
LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libld.so.2"}


@dataclass(frozen=True)
class Toolchain:
    """The tools for one processor."""

    processor: str  # as in platform tags: x86_64, aarch64
    folder: Path  # of everything that is built for it
    cc: str
    cxx: str
    ar: str
    glibc: Path  # the folder of the stand-ins

    @property
    def tag(self) -> str:
        return f"manylinux_{GLIBC.replace('.', '_')}_{self.processor}"

    @property
    def compile_flags(self) -> list[str]:
        """What every object gets: position-independent code that names no folder of this machine."""
        return ["-fPIC", "-DNDEBUG", "-g0", f"-ffile-prefix-map={ROOT}=.", f"-ffile-prefix-map={self.folder}=build"]


def run(command: list[object], **options: object) -> None:
    """Run a command. Raises SystemExit with what it printed, if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def toolchain(processor: str, build: Path) -> Toolchain:
    """Return the tools for a processor. Raises SystemExit where a compiler is missing."""
    folder = build / processor
    names = [PREFIX[processor] + name for name in ("gcc", "g++", "ar")]
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        sys.exit(f"wheels for {processor}: not installed: {', '.join(missing)}")
    cc, cxx, ar = names
    return Toolchain(processor, folder, cc, cxx, ar, _glibc(processor, folder / "glibc"))


def native_tools(folder: Path) -> Toolchain:
    """Return this machine's tools, with its own glibc."""
    return Toolchain(os.uname().machine, folder, "gcc", "g++", "ar", glibc=folder)


def _glibc(processor: str, folder: Path) -> Path:
    """Make zig link something, and take the stand-ins that it has written.

    Its own run-time libraries, which it would compile for 20 s, are left out.
    """
    if (folder / "libc.so").exists():
        return folder
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    source = folder / "any.c"
    source.write_text("int any(void) { return 0; }\n")
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    zig = [sys.executable, "-m", "ziglang", "build-lib", "-dynamic", "-lc", "-fno-compiler-rt", "-fno-ubsan-rt"]
    target = ["-target", f"{processor}-linux-gnu.{GLIBC}", f"-femit-bin={folder / 'any.so'}"]
    run([*zig, *target, source], env=environment)
    for path in cache.glob("o/*/*"):
        if path.name in LIBRARIES or path.name == "libc_nonshared.a":
            shutil.copyfile(path, folder / path.name)
            if ".so." in path.name:
                (folder / path.name.rpartition(".so.")[0]).with_suffix(".so").unlink(missing_ok=True)
                os.symlink(path.name, folder / f"{path.name.partition('.so.')[0]}.so")
    shutil.rmtree(cache)
    (folder / "libc.so").unlink()
    whole = f"GROUP({folder}/libc.so.6 {folder}/libc_nonshared.a AS_NEEDED({folder}/libld.so.2))\n"
    (folder / "libc.so").write_text(whole)
    return folder
