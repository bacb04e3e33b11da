"""Ours beside an earlier commit, in one run: python -m benchmarks.cpu.against COMMIT [--data TAR_OR_FOLDER ...]

`make bench BASE=COMMIT` does the same. The commit is checked out in a git worktree below build/ and built there with
the same compiler. Each tree packs the same pictures itself. Processes take turns, each on one pinned core without
threads: CPU time a sample of float32 batches, median; and of packing, a JPEG to the codec dct. The bars, and the aims
beyond them, are against c15b22a and for photographs: without --data the pictures are generated, and no bar is called
met or missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pass_loader import _C

from ..earlier import ROOT, tree_of
from ..pictures import write_pass

BATCH, PASSES = 32, 3
BARS_COMMIT = "c15b22a"
BARS: dict[tuple[str, str, str], float] = {
    ("dino", "jpeg", "avx512vbmi"): 1.15, ("dino", "jpeg", "avx512"): 1.2, ("dino", "jpeg", "avx2"): 1.05,
    ("dino", "dct", "avx512vbmi"): 1.22, ("dino", "dct", "avx512"): 1.3,
    ("swav", "jpeg", "avx512vbmi"): 1.08, ("swav", "jpeg", "avx512"): 1.08, ("swav", "jpeg", "avx2"): 1.08,
    ("mocov2", "jpeg", "avx512vbmi"): 1.08, ("mocov2", "jpeg", "avx512"): 1.08, ("mocov2", "jpeg", "avx2"): 1.08,
    # 400 pictures/s where c15b22a packed 204
    ("packing", "jpeg", "avx512vbmi"): 1.96, ("packing", "jpeg", "avx2"): 1.96,
}  # fmt: skip
AIMS = {("dino", "jpeg"): 1.25, ("dino", "dct"): 1.35}  # at any level
# Both use names that both trees have. The first passes fill caches.
ONE = f"""
import json, sys, time
import torch
from pass_loader import DataLoader, ShardDataset, recipes
torch.set_num_threads(1)
dataset = ShardDataset(sys.argv[1], getattr(recipes, sys.argv[2])())
loader = DataLoader(dataset, {BATCH}, sampler=list(range(len(dataset))), num_workers=0)
for _ in range(2):
    for _ in loader:
        pass
began = time.process_time()
for _ in range({PASSES}):
    for _ in loader:
        pass
print(json.dumps((time.process_time() - began) / {PASSES} / len(dataset)))
"""
PACKING = f"""
import json, sys, time
from pass_loader import ShardDataset, _C, recipes
dataset = ShardDataset(sys.argv[1], recipes.mocov2())
jpegs = [dataset.read(record) for record in range(len(dataset))]
for number in range(2 + {PASSES}):
    if number == 2:
        began = time.process_time()
    for jpeg in jpegs:
        _C.jpeg_to_dct(jpeg)
print(json.dumps((time.process_time() - began) / {PASSES} / len(dataset)))
"""


def _run(tree: Path, *command: str, isa: str = "best") -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PASS_LOADER_ISA": isa}
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(["taskset", "-c", str(core), sys.executable, *command], cwd=tree, env=environment,
                          stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--data", action="append", type=Path, default=[], help="tars or folders of JPEGs")
    parser.add_argument("--pictures", type=int, default=192, help="of the generated data (%(default)s)")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", nargs=3, action="append", metavar=("RECIPE", "CODEC", "LEVEL"))
    given = parser.parse_args()
    base = tree_of(given.commit)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = [str(path.absolute()) for path in given.data or [write_pass(folder / "data", given.pictures)[0]]]
        for tree in (ROOT, base):
            pack = folder / tree.name
            _run(tree, "-m", _cli(tree), "build", *data, "--out", f"{pack}-jpeg")
            _run(tree, "-m", _cli(tree), "convert", f"{pack}-jpeg", "--codec", "dct", "--out", f"{pack}-dct")
        rows: list[tuple[str, str, str]] = [(r, c, level) for r, c, level in given.only or BARS]
        for row in rows:
            recipe, codec, level = row
            bar = BARS.get(row) if given.commit == BARS_COMMIT else None
            if level in _C.supported_isas():
                found = measure(given.pairs, (ROOT, base), folder, row)
                print(report(row, *found, bar, photographs=bool(given.data)), flush=True)
            else:
                beside = "" if bar is None else f", bar {bar}: not measured"
                print(f"{recipe}, {codec}, {level}: this machine lacks the level{beside}", flush=True)


def _cli(tree: Path) -> str:
    """The module that is the command line: it moved."""
    return "pass_loader.cli" if (tree / "pass_loader" / "cli").exists() else "pass_loader.pack.cli"


def measure(pairs: int, trees: tuple[Path, Path], folder: Path, row: tuple[str, str, str]) -> tuple[float, float]:
    """Return the median seconds a sample of ours and of the base."""
    recipe, codec, level = row
    found: dict[Path, list[float]] = {tree: [] for tree in trees}
    for number in range(pairs):
        for tree in trees[:: -1 if number % 2 else 1]:
            code = PACKING if recipe == "packing" else ONE
            output = _run(tree, "-c", code, f"{folder / tree.name}-{codec}", recipe, isa=level)
            found[tree].append(json.loads(output))
    return statistics.median(found[trees[0]]), statistics.median(found[trees[1]])


def report(row: tuple[str, str, str], ours: float, base: float, bar: float | None, *, photographs: bool) -> str:
    """Return the row in words, and whether its bar is met and its aim reached."""
    ratio = base / ours
    words = f"{', '.join(row)}: {1e3 * ours:.3f} ms a sample, base {1e3 * base:.3f}: {ratio:.3f} times"
    if bar is None:
        return words
    aim = AIMS.get(row[:2])
    beyond = "" if aim is None else f", aim {aim}"
    if not photographs:
        return f"{words}, bar {bar}{beyond}: no verdict, generated pictures"
    reached = "" if aim is None else f": {'reached' if ratio >= aim else 'not reached'}"
    return f"{words}, bar {bar}: {'met' if ratio >= bar else 'missed'}{beyond}{reached}"


if __name__ == "__main__":
    main()
