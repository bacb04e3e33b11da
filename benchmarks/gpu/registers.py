"""What nvcc makes of each kernel: registers of a thread, shared memory, spilled bytes, and the occupancy that follows.

    python -m benchmarks.gpu.registers [--sm 80 90] [--ways]

Compiles csrc/cuda/*.cu as setup.py does; with --ways also the ways of the first pass (first_pass.h). Needs nvcc and no
GPU. Occupancy is of a multiprocessor's threads, by the limits of CUDA's programming guide ("Compute Capabilities"): a
warp takes registers in units of 256, a block as many warps as it has.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
THREADS = 256  # of a block: csrc/cuda/descriptors.h, kThreads
WARP, UNIT, REGISTERS = 32, 256, 65536  # threads; registers a warp takes at once; registers of a multiprocessor
RESERVED = 1024  # bytes of shared memory that each block takes for CUDA itself, since 8.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of a multiprocessor."""

    threads: int
    blocks: int
    shared: int  # bytes


LIMITS = {80: Limits(2048, 32, 164 << 10), 86: Limits(1536, 16, 100 << 10), 89: Limits(1536, 24, 100 << 10),
          90: Limits(2048, 32, 228 << 10)}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kernel:
    name: str
    registers: int
    shared: int  # bytes of a block
    spilled: int  # bytes stored and loaded

    def blocks(self, sm: int) -> int:
        """Return how many blocks have room on a multiprocessor at once."""
        limits, warps = LIMITS[sm], THREADS // WARP
        of_warp = -(-self.registers * WARP // UNIT) * UNIT
        by_registers = REGISTERS // of_warp // warps
        return min(limits.blocks, limits.threads // THREADS, by_registers, limits.shared // (self.shared + RESERVED))

    def occupancy(self, sm: int) -> float:
        return self.blocks(sm) * THREADS / LIMITS[sm].threads


def told(text: str) -> list[Kernel]:
    """Read what ptxas says with -v."""
    kernels = []
    for part in text.split("Compiling entry function '")[1:]:
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        assert registers is not None, part
        name = part.partition("'")[0]
        kernels.append(Kernel(name, int(registers[1]), int(shared[1]) if shared else 0, spilled))
    return kernels


def plain(name: str) -> str:
    """Return a kernel's class without namespaces."""
    found = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    inside = re.search(r"run<(.*)>\(", found)
    return re.sub(r"pass_loader::cuda::|\(pass_loader::cuda::Read\)", "", inside[1] if inside else found)


def compiled(source: str, sm: int) -> list[Kernel]:
    """Return the kernels of a .cu file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-std=c++20", "-O3", "-fmad=false", f"-arch=sm_{sm}", "-Icsrc", "-Ibenchmarks/gpu",
                   "--resource-usage", "-cubin", source, "-o", f"{folder}/kernels.cubin"]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return [dataclasses.replace(kernel, name=plain(kernel.name)) for kernel in told(done.stderr + done.stdout)]


def table(sms: Sequence[int], sources: Sequence[str]) -> str:
    lines = [f"{'kernel':36}" + "".join(f"   sm_{sm}: registers  shared B  spilled B  occupancy" for sm in sms)]
    for source in sources:
        for same in zip(*(compiled(source, sm) for sm in sms), strict=True):
            cells = "".join(
                f"{one.registers:19}{one.shared:10}{one.spilled:11}{one.occupancy(sm):11.0%}"
                for one, sm in zip(same, sms)
            )
            lines.append(f"{same[0].name:36}{cells}")
    return "\n".join(lines)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sm", type=int, nargs="+", default=[80, 90], choices=sorted(LIMITS), help="80 90")
    parser.add_argument("--ways", action="store_true", help="also the ways of the first pass")
    arguments = parser.parse_args(given)
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/cuda/*.cu"))
    print(table(arguments.sm, [*sources, *(["benchmarks/gpu/first_pass.cu"] if arguments.ways else [])]))


if __name__ == "__main__":
    main()
