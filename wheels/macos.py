"""`python -m wheels.macos`: compile the native half, but for what includes Python, for macOS on arm64.

zig has Apple's headers. The objects are not linked and nothing is run: it tells that the sources compile, no more. The
headers of libjpeg-turbo, libpng, zlib and zstd are those that were made for this machine's wheels.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .third_party import build as build_third_party
from .toolchain import ROOT, run, toolchain

TARGET = "aarch64-macos.11.0"
# Those of setup.py that matter, without what takes long.
FLAGS = ["-std=c++20", "-O0", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-Icsrc"]


def main() -> None:
    build = ROOT / "build/wheels"
    (build / "sources").mkdir(parents=True, exist_ok=True)
    headers = build_third_party(toolchain(os.uname().machine, build), build / "sources") / "include"
    found = [path for room in (".", "cpu", "jpeg", "png") for path in sorted((ROOT / "csrc" / room).glob("*.cpp"))]
    sources = [path for path in found if not path.name.startswith("bindings")]
    zig = [sys.executable, "-m", "ziglang", "c++", "-target", TARGET, *FLAGS, "-isystem", headers]
    cache = str(build / "zig")
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    with tempfile.TemporaryDirectory() as folder:

        def compile_one(source: Path) -> None:
            made = Path(folder) / f"{source.parent.name}-{source.stem}.o"
            run([*zig, "-c", source.relative_to(ROOT), "-o", made], cwd=ROOT, env=environment)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, sources))
    print(f"{len(sources)} sources compile for {TARGET}")


if __name__ == "__main__":
    main()
