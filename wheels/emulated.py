"""Debian's Python for arm64 under QEMU, with a wheel and what it needs: wheels for aarch64 run on another machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .headers import version_of
from .third_party import apt
from .toolchain import run

SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}  # which release of Debian has which Python
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_26_aarch64", "manylinux2014_aarch64",
             "manylinux_2_17_aarch64"]  # fmt: skip


def emulated_python(wheel: Path, tag: str, folder: Path) -> Path | None:
    """Return a command that runs a Python for arm64, in which the wheel is installed.

    folder: where Debian's packages are unpacked; kept for later calls. None where Debian has no such Python, or this
    machine no QEMU. Raises SystemExit where a package cannot be had.
    """
    version, emulator = version_of(tag), shutil.which("qemu-aarch64-static")
    if tag.endswith("t") or version not in SUITES or emulator is None:
        return None
    root, site = folder / version / "root", folder / version / "site"
    if not (root / "usr/bin" / f"python{version}").exists():
        _unpack(version, folder / version, root)
    shutil.rmtree(site, ignore_errors=True)
    target = [f"--platform={name}" for name in PLATFORMS] + [f"--python-version={version}", "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--target", site, *target]
    run([*pip, wheel])
    command = folder / version / f"python{version}"
    command.write_text(
        f"#!/bin/sh\nexec {emulator} -L {root} -E PYTHONHOME={root}/usr -E PYTHONPATH={site} -0 {command} "
        f'{root}/usr/bin/python{version} "$@"\n'
    )
    command.chmod(0o755)
    return command


def _unpack(version: str, folder: Path, root: Path) -> None:
    """Download a Python for arm64 and all that it needs from Debian, and unpack it."""
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    command = apt(folder, "deb", (SUITES[version],), architecture="arm64")
    options = ["-o", f"Dir::Cache::archives={archives}", "-o", "Dir::State::status=/dev/null"]
    run([*command, *options, "install", "-y", "--download-only", "--no-install-recommends", f"python{version}"])
    for package in archives.glob("*.deb"):
        run(["dpkg", "-x", package, root])
    for name in ("bin", "lib", "sbin"):  # Debian 13's packages expect these links
        if not (root / name).exists():
            os.symlink(f"usr/{name}", root / name)
