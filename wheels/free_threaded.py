"""Pythons without a GIL, which Debian does not pack, built from its sources: for the tests of wheels.

`python -m wheels.free_threaded FOLDER [TAG...]` builds FOLDER/TAG/bin/python3.13t of each, where it is missing: four
minutes of two cores. What a mirror does not have is said and left out.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

from .headers import TAGS, version_of
from .third_party import apt
from .toolchain import run

SUITES = {"3.13": "trixie", "3.14": "sid"}  # which release of Debian has which source
# Without its own tests and its slow optimisations.
OPTIONS = ("-q", "--disable-gil", "--disable-test-modules", "--with-ensurepip=install")


def free_threaded(tag: str, folder: Path) -> Path:
    """Return the Python of a tag such as cp313t, built in `folder` where it is missing.

    Raises SystemExit where Debian's mirror has no source, or what it needs is not installed (its headers of OpenSSL and
    zlib, for pip).
    """
    version, folder = version_of(tag), folder.resolve()
    prefix = folder / tag
    python = prefix / f"bin/python{version}t"
    if python.exists():
        return python
    source = folder / f"source-{version}"
    shutil.rmtree(source, ignore_errors=True)
    with tarfile.open(_tarball(version, folder)) as tar:
        tar.extractall(source, filter="data")
    (unpacked,) = source.iterdir()
    run([unpacked / "configure", *OPTIONS, f"--prefix={prefix}"], cwd=unpacked)
    run(["make", "-s", f"-j{os.cpu_count()}"], cwd=unpacked)
    run([unpacked / "python", "-c", "import ssl, zlib, ctypes"], cwd=unpacked)
    run(["make", "-s", "install"], cwd=unpacked)
    shutil.rmtree(source)
    return python


def _tarball(version: str, folder: Path) -> Path:
    place = folder / f"debian-{version}"
    if not list(place.glob("*.orig.tar.*")):
        place.mkdir(parents=True, exist_ok=True)
        suite = SUITES[version]
        run([*apt(place, "deb-src", (suite,)), "source", "--tar-only", f"python{version}/{suite}"], cwd=place)
    (found,) = place.glob("*.orig.tar.*")
    return found


if __name__ == "__main__":
    for wanted in sys.argv[2:] or [one for one in TAGS if one.endswith("t")]:
        try:
            print(f"{wanted}: {free_threaded(wanted, Path(sys.argv[1]))}", flush=True)
        except SystemExit as refused:
            print(f"{wanted}: not to be had. {refused}", file=sys.stderr, flush=True)
