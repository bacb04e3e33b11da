"""Host memory of training processes with an 8-bit optimizer, without a loader and with one: python -m
benchmarks.cpu.beside_optimizer

Two processes train side by side, as two ranks of a node do, a few steps on DINO's global views, and measure themselves
while both live. Memory is pinned by the tests' accelerator (tests/helpers/accelerator), which rounds up as torch's
allocator does; a process's private memory is given without it. The optimizer is bitsandbytes' AdamW8bit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pages import write_between
from benchmarks.pictures import write_pack

BATCH, THREADS, STEPS = 64, 4, 4
ROWS: dict[str, dict[str, Any] | None] = {
    "without a loader": None,
    "`num_workers=4`, float32": {},
    "the same, `dtype=torch.uint8`": {"dtype": "uint8"},
    "the same, `prefetch_bytes=0`": {"dtype": "uint8", "prefetch_bytes": 0},
}


def memory() -> dict[str, int]:
    """Return the bytes of this process that no other shares, and those that others share."""
    found = {"private": 0, "shared": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        for kind in found:
            if line.startswith((f"{kind.title()}_Clean", f"{kind.title()}_Dirty")):
                found[kind] += int(line.split()[1]) * 1024
    return found


def train(pack: str, arguments: dict[str, Any] | None) -> dict[str, int]:
    """Train, and measure when the other process has come so far too: it answers the line that is written."""
    from tests.helpers.accelerator import LIBRARY, Accelerator

    Accelerator(Path(os.environ[LIBRARY]))
    import bitsandbytes
    import torch

    import pass_loader
    from pass_loader import recipes

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 16, 16), torch.nn.GELU(), torch.nn.Flatten(),
                                torch.nn.Linear(64 * 14 * 14, 256))  # fmt: skip
    optimizer = bitsandbytes.optim.AdamW8bit(model.parameters())
    loader, batches = None, iter(())
    if arguments is not None:
        dataset = pass_loader.ShardDataset(pack, recipes.dino())
        given = {name: getattr(torch, value) if name == "dtype" else value for name, value in arguments.items()}
        loader = pass_loader.DataLoader(dataset, BATCH, shuffle=True, num_workers=THREADS, pin_memory=True, **given)
        batches = iter(loader)
    for _ in range(STEPS):
        views = torch.zeros(8, 3, 224, 224) if loader is None else next(batches)[0][0][:8].float()
        model(views).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    print("trained", flush=True)
    sys.stdin.readline()
    pinned = 0 if loader is None else loader.stats()["pinned_bytes"]
    found = memory()
    print(json.dumps({"private": found["private"] - pinned, "shared": found["shared"], "pinned": pinned}), flush=True)
    sys.stdin.readline()
    return found


def measure(pack: Path, arguments: dict[str, Any] | None, environment: dict[str, str]) -> dict[str, int]:
    """Return the memory of the first of two processes."""
    command = [sys.executable, "-m", "benchmarks.cpu.beside_optimizer", "--train", str(pack), json.dumps(arguments)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        for _ in range(2):
            lines = [process.stdout.readline() for process in processes if process.stdout]
            if not all(lines):
                raise SystemExit("a process ended early")
            for process in processes:
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
        return json.loads(lines[0])
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="a page whose table is written anew")
    parser.add_argument("--train", nargs=2, metavar=("PACK", "ARGUMENTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train[0], json.loads(options.train[1]))
        return
    from tests.helpers.accelerator import LIBRARY, build

    lines = ["| MB of a process | private | shared | pinned |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, LIBRARY: str(build(Path(folder)))}
        pack = write_pack(Path(folder), 512)
        for name, arguments in ROWS.items():
            found = measure(pack, arguments, environment)
            cells = [f"{found[kind] / 1e6:,.0f}" for kind in ("private", "shared", "pinned")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if options.page:
        write_between(options.page, "benchmarks/cpu/beside_optimizer.py", "\n".join(lines))


if __name__ == "__main__":
    main()
