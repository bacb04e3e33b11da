"""Python's headers for each wheel: from an installed Python of that version, else from Debian's package."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from .third_party import apt
from .toolchain import run

TAGS = ("cp310", "cp311", "cp312", "cp313", "cp313t", "cp314", "cp314t")


def version_of(tag: str) -> str:
    """Return 3.13 of cp313t."""
    return f"3.{tag[3:].removesuffix('t')}"


def defines_of(tag: str) -> list[str]:
    """The option that makes the headers those of a free-threaded Python: the files are the same."""
    return ["-DPy_GIL_DISABLED=1"] if tag.endswith("t") else []


def headers_of(tag: str, build: Path) -> Path:
    """Return a folder with Python.h and its own pyconfig.h, which serves every processor with 64 bits.

    Raises SystemExit where neither this machine nor Debian has them.
    """
    version = version_of(tag)
    folder = build / "headers" / version
    if not (folder / "pyconfig.h").exists():
        shutil.rmtree(folder, ignore_errors=True)
        source = _installed(version) or _of_debian(version, build / "python")
        shutil.copytree(source / f"python{version}", folder)
        for path in source.glob(f"*/python{version}/pyconfig.h"):  # Debian's other one includes one by the processor
            shutil.copyfile(path, folder / "pyconfig.h")
    return folder


def _installed(version: str) -> Path | None:
    """Return the folder above the headers of a Python on this machine; None if there is none."""
    paths = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    found = shutil.which(f"python{version}")
    for python in [*map(str, paths), *([found] if found else [])]:
        code = "import sysconfig, sys; print(sysconfig.get_paths()['include'], sys.abiflags)"
        told = subprocess.run([python, "-c", code], capture_output=True, text=True)
        path = Path(told.stdout.split(" ")[0].strip() or "none")
        if told.returncode == 0 and re.search(rf"python{version}$", str(path)) and (path / "Python.h").exists():
            return path.parent
    return None


def _of_debian(version: str, folder: Path) -> Path:
    """Unpack Debian's headers here. Returns the folder above them."""
    target = folder / version
    if not (target / "usr/include").exists():
        run([*apt(folder, "deb", ("trixie", "sid")), "download", f"libpython{version}-dev"], cwd=folder)
        (package,) = folder.glob(f"libpython{version}-dev_*.deb")
        run(["dpkg", "-x", package, target])
    return target / "usr/include"
