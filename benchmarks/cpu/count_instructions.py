"""Executed instructions of DINO samples, by source file: aarch64's levels under QEMU beside x86-64's AVX2.

    python -m benchmarks.cpu.count_instructions [--pictures 2] [--json FILE] [--page docs/install.md]

For machines that are here only by emulation: instructions are counted, nothing is timed. QEMU logs each block of
instructions when it translates it and each execution of a block; a link map tells which source file it belongs to. The
sample's second pass counts, when tables are made and memory has grown. Needs what `make aarch64` installs.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from pass_loader import _C, recipes

from ..pages import write_between
from ..pictures import cuts

ROOT = Path(__file__).parents[2]
FLAGS = ["-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"]  # setup.py's, those that matter
MACHINES = {
    "aarch64": ("aarch64-linux-gnu-g++", "qemu-aarch64-static", "build/aarch64/sysroot/usr", "aarch64-linux-gnu"),
    "x86_64": ("g++", "qemu-x86_64-static", "/usr", "x86_64-linux-gnu"),
}
RUNS = [("aarch64", "base"), ("aarch64", "neon"), ("x86_64", "avx2")]
STAGES = {  # source files, without what follows the first underscore -> stage
    "huffman": "Huffman decoding", "baseline": "Huffman decoding", "dct_unpack": "dct unpacking",
    "dct_codec": "dct unpacking", "idct": "IDCT", "colour": "colour", "frame": "colour", "resample": "resize",
    "weights": "resize", "jitter": "brightness, contrast, saturation", "hue": "hue", "blur": "blur",
    "normalize": "normalise", "crc32c": "checksum",
}  # fmt: skip
WHOLE = "whole sample"


def build(machine: str, folder: Path) -> Path:
    """Compile count_instructions.cpp and the native half without Python, threads and PNG; one object a file."""
    compiler, _, prefix, triple = MACHINES[machine]
    prefix = ROOT / prefix
    left_out = ("bindings", "engine", "decode", "render_batch", "pool", "read_ahead")
    sources = [path for path in sorted((ROOT / "csrc").glob("*.cpp")) if not path.stem.startswith(left_out)]
    sources += [path for room in ("cpu", "jpeg") for path in sorted((ROOT / "csrc" / room).glob("*.cpp"))]
    sources.append(Path(__file__).with_suffix(".cpp"))
    headers = [part for path in ("include", f"include/{triple}") for part in ("-idirafter", prefix / path)]
    objects, jobs = [], []
    for source in sources:
        objects.append(folder / f"{machine}-{source.parent.name}-{source.stem}.o")
        command = [compiler, "-std=c++20", *FLAGS, "-I", ROOT / "csrc", *headers, "-c", source, "-o", objects[-1]]
        jobs.append(subprocess.Popen(list(map(str, command))))
        if len(jobs) == (os.cpu_count() or 1):
            finish(jobs)
    finish(jobs)
    program = folder / machine
    libraries = [prefix / "lib" / triple / name for name in ("libjpeg.a", "libzstd.a")]
    link = [compiler, "-static", *objects, *libraries, "-pthread", f"-Wl,-Map={program}.map", "-o", program]
    subprocess.run(list(map(str, link)), check=True)
    return program


def finish(jobs: list[subprocess.Popen[bytes]]) -> None:
    for job in jobs:
        if job.wait() != 0:
            raise SystemExit(f"failed: {job.args!r}")
    jobs.clear()


class LinkMap:
    """Addresses of code -> object file."""

    def __init__(self, path: Path) -> None:
        text = path.read_text()
        text = text[text.index("Linker script and memory map") :]
        parts = re.findall(r"^ \.(?:text|init|plt|iplt)\S*\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S+)$", text, re.MULTILINE)
        ranges = sorted((int(begin, 16), int(size, 16), name) for begin, size, name in parts if int(size, 16) > 0)
        self._begins, self._names = [begin for begin, _, _ in ranges], [name for _, _, name in ranges]

    def __call__(self, address: int) -> str:
        at = bisect.bisect_right(self._begins, address) - 1
        name = self._names[at] if at >= 0 else ""
        inside = re.search(r"(lib\w+)\.a\(", name)
        return inside[1] if inside else Path(name).stem.partition("-")[2]


def executed(program: Path, machine: str, level: str, data: bytes) -> tuple[Counter[tuple[int, str]], str]:
    """Return executed instructions by address and symbol of their blocks, and what the programme printed."""
    command = [MACHINES[machine][1], "-cpu", "max", "-d", "in_asm,exec,nochain", program]
    environment = {**os.environ, "PASS_LOADER_ISA": level}
    with tempfile.TemporaryFile() as given, subprocess.Popen(
        command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:  # fmt: skip
        given.write(data)
        given.seek(0)
        assert process.stderr is not None and process.stdout is not None
        sizes: dict[bytes, int] = {}
        blocks: Counter[bytes] = Counter()
        counting, size = False, 0
        for line in process.stderr:
            if line.startswith(b"Trace"):
                if size:
                    sizes[line] = size  # the block just translated runs next
                    size = 0
                if counting:
                    blocks[line] += 1
                    if line.endswith(b" end\n"):
                        counting = False
                elif line.endswith(b" begin\n"):
                    counting = True
            elif line.startswith(b"IN:"):
                size = 0
            elif line.startswith(b"0x"):
                size += 1
        printed = process.stdout.read().decode().strip()
        if process.wait() != 0:
            raise SystemExit(f"{program} failed at level {level}")
    found: Counter[tuple[int, str]] = Counter()
    for line, times in blocks.items():
        head, _, symbol = line.decode().partition("] ")
        found[int(head.split("/")[1], 16), symbol.strip()] += times * sizes[line]
    return found, printed


def cases(pictures: int) -> dict[str, list[bytes]]:
    """What goes into the programme, by codec: half of the pictures 4:4:4, half 4:2:0."""
    recipe = recipes.dino()
    out: dict[str, list[bytes]] = {"jpeg": [], "dct": []}
    all_cuts = [jpeg for _, _, jpeg in cuts(5 * pictures)]
    for number in range(pictures):
        jpeg = all_cuts[5 * number + (4 if number % 2 else 0)]
        record = _C.jpeg_to_dct(jpeg)
        assert record is not None
        header = _C.read_header(jpeg)
        plans = _C.plan_views(
            recipe.rows(), seed=0, epoch=0, record=number, height=header["height"], width=header["width"]
        )
        plans = plans.astype(_C.view_plan_dtype)
        rest = recipe.normalize_table().tobytes() + np.array([recipe.mean, recipe.std], np.float32).tobytes()
        for codec, data in (("jpeg", jpeg), ("dct", record)):
            out[codec].append(np.array([len(plans), len(data)]).tobytes() + plans.tobytes() + data + rest)
    return out


def stage_of(name: str) -> str:
    name = name.partition("-")[2]
    return STAGES.get(name) or STAGES.get(name.partition("_")[0]) or "other"


def table(counts: dict[str, Counter[str]]) -> str:
    """Return a Markdown table of a codec's counts, by stage, with those of neon over those of its neighbours."""
    base, neon, avx2 = (counts[f"{machine} {level}"] for machine, level in RUNS)
    lines = ["| million instructions | aarch64 `base` | `neon` | x86-64 `avx2` | `neon` / `base` | `neon` / `avx2` |"]
    lines.append("|---|---|---|---|---|---|")
    for name in [*dict.fromkeys(STAGES.values()), "other", WHOLE]:
        values = [base[name], neon[name], avx2[name]]
        if max(values) >= 5000:  # what is printed as more than 0.00
            cells = [f"{value / 1e6:.2f}" for value in values]
            cells += [f"{neon[name] / other:.2f}" if other else "" for other in (base[name], avx2[name])]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pages_text(all_counts: dict[str, dict[str, Counter[str]]], pictures: int) -> str:
    parts = [
        f"Codec `{codec}`, mean of {pictures} DINO samples:\n\n{table(counts)}" for codec, counts in all_counts.items()
    ]
    return "\n\n".join(parts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=int, default=2)
    options.add_argument("--symbols", action="store_true", help="also the functions that take most")
    options.add_argument("--codec", choices=["jpeg", "dct"], action="append")
    options.add_argument("--json", type=Path)
    options.add_argument("--page", type=Path, help="a page whose table is written anew")
    args = options.parse_args()
    for compiler, emulator, *_ in MACHINES.values():
        for tool in (compiler, emulator):
            if shutil.which(tool) is None:
                raise SystemExit(f"{tool} is not installed; `make aarch64` brings it")
    all_counts: dict[str, dict[str, Counter[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        programs = {machine: build(machine, Path(folder)) for machine in MACHINES}
        maps = {machine: LinkMap(Path(f"{program}.map")) for machine, program in programs.items()}
        for codec, inputs in cases(args.pictures).items():
            if args.codec and codec not in args.codec:
                continue
            counts: dict[str, Counter[str]] = {}
            sums = set()
            for machine, level in RUNS:
                count = counts[f"{machine} {level}"] = Counter()
                symbols: Counter[str] = Counter()
                for data in inputs:
                    found, printed = executed(programs[machine], machine, level, data)
                    assert printed.startswith(f"{level} "), printed
                    sums.add((inputs.index(data), printed.split()[1]))
                    for (address, symbol), instructions in found.items():
                        count[stage_of(maps[machine](address))] += instructions // len(inputs)
                        symbols[f"{maps[machine](address)} {symbol}"] += instructions // len(inputs)
                count[WHOLE] = sum(count.values())
                if args.symbols:
                    print(f"\n{machine} {level}")
                    print(*(f"{n / 1e6:8.2f} {symbol}" for symbol, n in symbols.most_common(40)), sep="\n")
            assert len(sums) == len(inputs), "the values differ between machines"
            all_counts[codec] = counts
            print(f"\n{pages_text({codec: counts}, len(inputs))}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(all_counts, indent=1))
    if args.page:
        write_between(args.page, "benchmarks/cpu/count_instructions.py", pages_text(all_counts, args.pictures))


if __name__ == "__main__":
    main()
