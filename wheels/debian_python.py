"""Debian's Pythons, unpacked in a folder: of other versions than this machine's, and for arm64 under QEMU."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .headers import version_of
from .third_party import apt, debians_mirror
from .toolchain import run

SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}  # which release of Debian has which Python
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17")


def python_with(wanted: list[str | Path], tag: str, processor: str, folder: Path) -> Path | None:
    """Return a command that runs Debian's Python of a wheel's tag, with `wanted`, as pip takes it, installed in site/
    beside it. What PYTHONPATH names goes before.

    folder: where Debian's packages are unpacked; kept for later calls. None where Debian has no such Python,
    or this machine no mirror of Debian or no QEMU for the processor. Raises SystemExit where a package cannot be had.
    """
    version, emulator = version_of(tag), shutil.which(f"qemu-{processor}-static")
    native = processor == os.uname().machine
    if tag.endswith("t") or version not in SUITES or not (native or emulator) or debians_mirror() is None:
        return None
    place = folder / f"{tag}-{processor}"
    root, site, command = place / "root", place / "site", place / f"python{version}"
    python = root / "usr/bin" / command.name
    if not python.exists():
        _unpack(version, ARCHITECTURES[processor], place, root)
    # Its sys.executable is this command, so that it can start itself.
    start = f"{emulator} -L {root} -0 {command} {python}"
    if native:
        libraries = f"{root}/usr/lib/{processor}-linux-gnu"
        start = f"{root}/{LOADERS[processor]} --argv0 {command} --library-path {libraries} {python}"
    variables = f"export PYTHONPATH=${{PYTHONPATH:+$PYTHONPATH:}}{site} PYTHONHOME={root}/usr"
    shutil.rmtree(site, ignore_errors=True)
    target = [f"--platform=manylinux_{glibc}_{processor}" for glibc in GLIBC]
    target += [f"--platform=manylinux2014_{processor}", f"--python-version={version}", "--only-binary=:all:"]
    if not sys.version.startswith(f"{version}."):
        target += ["--no-compile"]  # this Python's bytecode is of no use to another version
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--target", site, *target]
    run([*pip, *wanted])
    command.write_text(f'#!/bin/sh\n{variables}\nexec {start} "$@"\n')
    command.chmod(0o755)
    return command


def _unpack(version: str, architecture: str, folder: Path, root: Path) -> None:
    """Download a Python and all that it needs from Debian, and unpack it."""
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    command = apt(folder, "deb", (SUITES[version],), architecture)
    options = ["-o", f"Dir::Cache::archives={archives}", "-o", "Dir::State::status=/dev/null"]
    wanted = [f"python{version}", "libstdc++6"]  # numpy and pyarrow need the second
    run([*command, *options, "install", "-y", "--download-only", "--no-install-recommends", *wanted])
    root.mkdir(exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):  # as Debian has them since its release 12
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            os.symlink(f"usr/{name}", root / name)
    for package in archives.glob("*.deb"):
        run(["sh", "-c", 'dpkg --fsys-tarfile "$0" | tar -x -k -C "$1" --keep-directory-symlink', package, root])
