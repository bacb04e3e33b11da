"""Packing, also shuffled, in place and verifying beside `cp` and fsync of the same bytes.

python -m benchmarks.packing.bench_packing [--gigabytes 1] [--rounds 9] [--folder DIR] [--metadata-rows N] [--base]

With --base also packing and indexing as commit d9caee4 does it, the last one before packing by tasks: it is checked out
and built below build/, as `benchmarks.cpu.against` does. Bars are printed as met or missed; the exit status is 1 where
one is missed. Packing is held against cp only where the disk is what limits cp, at most 500 MB/s: a faster one shows
how many cores there are.

A tar in PASS's shape of generated pictures, all different, is written into DIR (a temporary folder unless given); the
page cache holds it. Rounds take turns; the figure is the median. Each runs in a process of its own, which gives its
peak memory. Reported: MB/s, share of cp's speed, seconds of CPU, peak memory.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from ..earlier import tree_of
from ..pictures import LICENCE, cuts

CONTESTANTS = ("cp", "build", "build_shuffled", "index", "verify", "verify_one_thread")
BASE, INDEX_BEFORE, BUILD_BEFORE = "d9caee4", "index_before", "build_before"
# Beside whom, and how much of its speed.
BARS = (("build", "cp", 0.88), ("build", BUILD_BEFORE, 0.95), ("index", INDEX_BEFORE, 0.95))
SLOW_DISK = 500  # MB/s of cp
# Run in the tree of BASE, with names that it has.
BEFORE = """
import json, os, shutil, sys, time
from pass_loader.pack import build, index
folder, name = sys.argv[1:]
out = os.path.join(folder, name)
shutil.rmtree(out, ignore_errors=True)
os.sync()
make, options = (build, {"shard_bytes": 256 << 20}) if name.startswith("build") else (index, {})
began = time.monotonic()
make([os.path.join(folder, "PASS.0.tar")], out, metadata=os.path.join(folder, "pass_metadata.csv"), **options)
seconds = time.monotonic() - began
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"seconds": seconds, "peak_mib": peak, "cpu": sum(os.times()[:4])}))
"""


def write_source(folder: Path, size: int, metadata_rows: int) -> tuple[Path, Path]:
    """PASS.0.tar of about `size` bytes, and pass_metadata.csv with at least a row a picture."""
    pictures = [data for _, _, data in cuts(256)]
    tar_path, table_path = folder / "PASS.0.tar", folder / "pass_metadata.csv"
    count = 0
    with tarfile.open(tar_path, "w") as tar, open(table_path, "w") as table:
        table.write("hash,unickname,licensename,latitude,longitude,datetaken\n")
        while tar.offset < size:  # type: ignore[attr-defined]
            data = pictures[count % len(pictures)]
            comment = f"{count:032x}".encode()
            data = data[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + data[2:]
            member = tarfile.TarInfo(f"PASS_dataset/{count % 10}/{count:030x}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            tar.members = []  # type: ignore[attr-defined]
            count += 1
        for row in range(max(count, metadata_rows)):
            table.write(f"{row:030x},user+{row % 30000},{LICENCE},,,2011-03-05 02:19:44.0\n")
    return tar_path, table_path


def run_one(name: str, folder: Path) -> float:
    """Seconds."""
    tar, out = folder / "PASS.0.tar", folder / name
    if name.startswith("verify"):
        out = folder / "packed"
    else:
        shutil.rmtree(out, ignore_errors=True)
    os.sync()
    began = time.monotonic()
    if name == "cp":
        out.mkdir()
        subprocess.run(["cp", str(tar), str(out)], check=True)
        for path in (out / tar.name, out):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return time.monotonic() - began
    from pass_loader.pack import build, index, verify

    began = time.monotonic()
    if name in ("build", "build_shuffled", "packed"):
        shuffle = 0 if name == "build_shuffled" else None
        build([tar], out, metadata=folder / "pass_metadata.csv", shard_bytes=256 << 20, shuffle=shuffle)
    elif name == "index":
        index([tar], out, metadata=folder / "pass_metadata.csv")
    else:
        assert verify(out, workers=1 if name == "verify_one_thread" else None) == []
    return time.monotonic() - began


def child(name: str, folder: Path) -> dict[str, float]:
    if name in (INDEX_BEFORE, BUILD_BEFORE):
        command = [sys.executable, "-c", BEFORE, str(folder), name]
        return json.loads(subprocess.check_output(command, text=True, cwd=tree_of(BASE)))
    command = [sys.executable, "-m", "benchmarks.packing.bench_packing", "--one", name, "--folder", str(folder)]
    return json.loads(subprocess.check_output(command, text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--metadata-rows", type=int, default=0)
    parser.add_argument("--base", action="store_true", help=f"pack and index as commit {BASE} does too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        seconds = run_one(options.one, options.folder)
        status = Path("/proc/self/status").read_text()  # getrusage's figure is inherited from who started us
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        times = os.times()
        cpu = times.user + times.system + times.children_user + times.children_system
        print(json.dumps({"seconds": seconds, "peak_mib": peak, "cpu": cpu}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        tar, _ = write_source(folder, int(options.gigabytes * 1e9), options.metadata_rows)
        child("packed", folder)
        contestants = (*CONTESTANTS, BUILD_BEFORE, INDEX_BEFORE) if options.base else CONTESTANTS
        results: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        for number in range(options.rounds):  # each follows each other: deleting the last one's files takes its time
            turn = number % len(contestants)
            for contestant in contestants[turn:] + contestants[:turn]:
                results[contestant].append(child(contestant, folder))
        size = tar.stat().st_size
        speed = {k: size / statistics.median(r["seconds"] for r in rounds) / 1e6 for k, rounds in results.items()}
        print(f"{size / 1e9:.2f} GB, {os.cpu_count()} cores, median of {options.rounds}")
        for contestant, rounds in results.items():
            peak = max(r["peak_mib"] for r in rounds)
            share = speed[contestant] / speed["cp"]
            cpu = statistics.median(r["cpu"] for r in rounds)
            print(f"{contestant:18} {speed[contestant]:6.0f} MB/s {share:5.2f} of cp {cpu:5.2f} s CPU {peak:4.0f} MiB")
        missed = 0
        for name, beside, least in BARS:
            if beside in speed and (beside != "cp" or speed["cp"] <= SLOW_DISK):
                found = speed[name] / speed[beside]
                missed += found < least
                print(f"bar: {name} at least {least} of {beside}, {found:.3f}: {'met' if found >= least else 'missed'}")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
