"""An earlier commit of this repository, to be measured beside the present one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tree_of(commit: str) -> Path:
    """Return a worktree of a commit below build/, built with the compiler of this one."""
    tree = ROOT / "build" / f"base-{commit}"
    if not tree.exists():
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True)
    if not list((tree / "pass_loader").glob("_C.*.so")):
        print(f"building {commit}", flush=True)
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, check=True,
                       env={**os.environ, "PASS_LOADER_CUDA": "0"})  # fmt: skip
    return tree
