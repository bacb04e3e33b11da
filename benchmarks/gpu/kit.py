"""What is carried to a machine with a GPU and without a registry: extensions that are built here, and packages.

    python -m benchmarks.gpu.kit make FOLDER --wheel WHEEL [--sm 90] [--parts core dali cvcuda]     here: make kit
    python -m benchmarks.gpu.kit use FOLDER --work WORK [--dry]                                     there: on_gpu.sh

`make` writes kit.json and an archive a part: core (the extensions of the wheel, the ways of the first pass, nvJPEG,
simplejpeg), dali, cvcuda. The packages lose code for other GPUs (slim.py), and what our benchmarks do not load. What is
carried together, kit.json, core and any one of the others, should be below 64 MiB.

`use` leaves the extensions in pass_loader/ and the packages in WORK/site: from the kit where it is of this Python and
of these sources, else as they lie there, if they are newer than their sources, else by building. Needs neither torch
nor numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from . import native, slim

ROOT = Path(__file__).parents[2]
PYTHON = "312"
MOST_BYTES = 64 << 20  # that are carried at a time
PARTS = {
    "core": ["nvidia-nvjpeg", "simplejpeg"],
    # Of what DALI requires, what its dynamic mode alone imports is not there: nvtx, makefun, libcst.
    "dali": ["nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "astunparse", "gast", "optree", "six"],
    "cvcuda": ["cvcuda-cu13"],
}
PLATFORMS = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1"]
LEFT_OUT = (  # folders and files that nobody needs there
    "include", "tests", "test", "__pycache__", "*.a",
    "libopencv_ext.so*", "libtiff_ext.so*", "libnvtiff_ext.so*", "libnvjpeg2k_ext.so*",  # nvImageCodec's, no JPEGs
)  # fmt: skip
EXTENSIONS = ("_C", "_cuda")


def digest() -> str:
    """Return a digest of all that the libraries of core are made of."""
    made = hashlib.sha256()
    sources = [ROOT / "setup.py", *ROOT.glob("csrc/**/*"), *ROOT.glob("benchmarks/gpu/first_pass.*")]
    for path in sorted(path for path in sources if path.is_file()):
        made.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return made.hexdigest()


def install(packages: Sequence[str], site: Path) -> None:
    """Install wheels for the other machine's Python, without what they require."""
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(site), "--no-deps", "--no-compile",
         "--only-binary=:all:", "--python-version", f"{PYTHON[0]}.{PYTHON[1:]}", "--implementation", "cp", *platforms,
         *packages],
        check=True,
    )  # fmt: skip


def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    left_out = any(fnmatch(part, pattern) for part in Path(member.name).parts for pattern in LEFT_OUT)
    return None if left_out else member


def write_part(archive: Path, folder: Path, sm: int) -> int:
    """Pack a folder, slimmed. Returns the archive's bytes."""
    slim.slim(folder, sm, PYTHON)
    with tarfile.open(archive, "w:xz", preset=6) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=wanted)
    return archive.stat().st_size


def make(folder: Path, wheel: Path, sm: int, parts: Sequence[str]) -> dict[str, int]:
    """Write the kit. Returns the bytes of each part."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as name:
            made = Path(name)
            install(PARTS[part], made / "site")
            if part == "core":
                with zipfile.ZipFile(wheel) as files:
                    for one in files.namelist():
                        if one.endswith(".so"):
                            files.extract(one, made)
                found = [path.name.partition(".")[0] for path in (made / "pass_loader").glob(f"*cpython-{PYTHON}-*.so")]
                if sorted(found) != sorted(EXTENSIONS):
                    raise SystemExit(f"{wheel} has {found}, want {EXTENSIONS} for cp{PYTHON}")
                native.compiled(library=made / "first_pass.so", sms=[str(sm)])
            sizes[part] = write_part(folder / f"{part}.tar.xz", made, sm)
    if "core" in parts:  # the digest is of its libraries
        about = {"python": PYTHON, "sm": sm, "digest": digest()}
        (folder / "kit.json").write_text(json.dumps(about, indent=1) + "\n")
    return sizes


def misfit(kit: Path) -> str:
    """Return why the kit cannot be used by this Python on these sources; empty where it can."""
    if not (kit / "kit.json").exists() or not (kit / "core.tar.xz").exists():
        return f"there is none in {kit}"
    about = json.loads((kit / "kit.json").read_text())
    python = "".join(map(str, sys.version_info[:2]))
    if about["python"] != python:
        return f"it is for Python {about['python']}, this is {python}"
    if about["digest"] != digest():
        return "it is of other sources than these"
    return ""


def unpack(kit: Path, work: Path) -> list[str]:
    """Leave the extensions in pass_loader/, the ways of the first pass in build/gpu, packages in work/site. Returns the
    parts that were there."""
    shutil.rmtree(work / "site", ignore_errors=True)
    found = []
    for archive in sorted(kit.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        found.append(archive.name.partition(".")[0])
    for library in (work / "pass_loader").glob("*.so"):
        place(library, ROOT / "pass_loader" / library.name)
    place(work / "first_pass.so", native.library_path())
    return found


def place(library: Path, to: Path) -> None:
    """Put it there in one step, as new: a process may have the one before open."""
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_suffix(".part")
    shutil.copyfile(library, part)
    part.rename(to)


def are_here(with_cuda: bool) -> bool:
    """Return True where this Python's extensions are newer than their sources."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    newest = max(path.stat().st_mtime for path in [ROOT / "setup.py", *ROOT.glob("csrc/**/*.*")])
    libraries = [ROOT / f"pass_loader/{name}{suffix}" for name in EXTENSIONS[: 2 if with_cuda else 1]]
    return all(path.exists() and path.stat().st_mtime >= newest for path in libraries)


def build(dry: bool) -> None:
    """Build in place, for this machine's GPUs alone. dry: without CUDA where it is missing."""
    environment = dict(os.environ) if dry else os.environ | {"PASS_LOADER_CUDA": "1"}
    try:
        asked = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True).stdout.split()
    except OSError:
        told = []
    if told:
        environment["PASS_LOADER_CUDA_ARCHITECTURES"] = " ".join(sorted({one.replace(".", "") for one in told}))
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT, env=environment, check=True)


def use(kit: Path, work: Path, dry: bool) -> str:
    """Make the extensions ready. Returns where they are from."""
    reason = misfit(kit)
    if not reason:
        return f"the kit's, with {', '.join(unpack(kit, work))}"
    print(f"the kit is not used: {reason}", flush=True)
    if are_here(with_cuda=not dry):
        return "as they lay here"
    build(dry)
    return "built here"


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--wheel", type=Path, required=True, help=f"ours for cp{PYTHON}, of these sources")
    making.add_argument("--sm", type=int, default=90, help="whose code packages keep: a compute capability")
    making.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    using = commands.add_parser("use")
    using.add_argument("folder", type=Path)
    using.add_argument("--work", type=Path, required=True, help="where packages go")
    using.add_argument("--dry", action="store_true", help="without CUDA where nvcc is missing")
    arguments = parser.parse_args(given)
    if arguments.command == "use":
        print(f"extensions: {use(arguments.folder, arguments.work, arguments.dry)}")
        return
    sizes = make(arguments.folder, arguments.wheel, arguments.sm, arguments.parts)
    for part, size in sizes.items():
        together = size + (0 if part == "core" else sizes.get("core", 0))
        fits = "" if together < MOST_BYTES else f", with core {together / 2**20:.1f}: more than {MOST_BYTES >> 20}"
        print(f"{part}.tar.xz  {size / 2**20:.1f} MiB{fits}")


if __name__ == "__main__":
    main()
