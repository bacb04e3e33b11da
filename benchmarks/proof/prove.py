"""`make proof`: trains DINO, SwAV, MoCo-v2 and MAE through the official pipeline and through this loader, and compares.

Prints a row for each comparison, `equal` or `differ`; the exit status is 1 where a row is not what it must be.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import describe
from benchmarks.pages import write_between
from benchmarks.pictures import cuts
from pass_loader.pack import build, convert
from pass_loader.recipes import reference

from .run import METHODS


class Row(NamedTuple):
    """One comparison."""

    method: str
    what: str
    equal: bool
    wanted: bool = True  # False: the negative control
    digest: str = ""

    @property
    def word(self) -> str:
        return "equal" if self.equal else "differ"


def pictures_of(data: list[Path], count: int) -> Iterator[bytes]:
    """Yield the first `count` JPEGs of folders and tars that Pillow reads; without any, generated pictures."""
    if not data:
        yield from (jpeg for *_, jpeg in cuts(count))
        return
    yield from itertools.islice((file for place in data for file in _files(place) if _reads(file)), count)


def _files(place: Path) -> Iterator[bytes]:
    if place.is_dir():
        yield from (path.read_bytes() for path in sorted(place.rglob("*")) if _is_jpeg(path.name))
        return
    with tarfile.open(place) as tar:
        for member in tar:
            if member.isfile() and _is_jpeg(member.name) and (file := tar.extractfile(member)):
                yield file.read()


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg"))


def _reads(data: bytes) -> bool:
    try:
        reference.decode(data)
    except OSError:
        return False
    return True


def prepare(data: list[Path], place: Path, count: int) -> list[Path]:
    """Write untouched JPEGs into class folders and pack them in three codecs; returns the packs, jpeg first."""
    written = 0
    for written, jpeg in enumerate(pictures_of(data, count), 1):
        path = place / "pictures" / f"class-{written % 5}" / f"{written:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)
    if not written:
        raise SystemExit(f"no JPEG in {', '.join(map(str, data))}")
    build([place / "pictures"], place / "jpeg")
    for codec in ("dct", "dct-zstd"):
        convert(place / "jpeg", place / codec, codec=codec)
    return [place / codec for codec in ("jpeg", "dct", "dct-zstd")]


class Proof:
    """All runs of one method."""

    def __init__(self, method: str, place: Path, packs: list[Path], steps: int, batch_size: int):
        self.method, self.place, self.packs = method, place, packs
        self.steps, self.batch_size = steps, batch_size

    def run(self) -> Iterator[Row]:
        """Yield a row for each comparison with the run through torchvision and PIL."""
        official = self._train("official", "--loader", "official")
        ours = self._train("ours", "--loader", "ours")
        yield self._row("untouched JPEGs: losses and weights", official, ours)
        yield self._row("killed and resumed in mid-epoch: losses and weights", official, self._killed())
        middle = str(self.steps // 2)
        spoiled = self._train("spoiled", "--loader", "ours", "--spoil", middle)
        yield self._row(f"negative control, one value of step {middle}", official, spoiled, wanted=False)
        out = self._file("batches")
        self._start("benchmarks.proof.batches", "--packs", *map(str, self.packs), "--want", str(self._file("official")),
                    "--out", str(out)).wait()  # fmt: skip
        lines = out.read_text().splitlines() if out.exists() else []
        for row in map(json.loads, lines):
            yield Row(self.method, f"batches: {row['what']}", row["equal"])

    def _row(self, what: str, official: dict[Any, Any], found: dict[Any, Any], wanted: bool = True) -> Row:
        return Row(self.method, what, found == official, wanted, found.get("weights", ""))

    def _file(self, name: str) -> Path:
        return self.place / f"{self.method}-{name}.jsonl"

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, "--method", self.method, "--steps", str(self.steps)]
        return subprocess.Popen([*command, "--batch-size", str(self.batch_size), *arguments])

    def _training(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start("benchmarks.proof.run", "--pack", str(self.packs[0]), "--pictures",
                           str(self.place / "pictures"), "--out", str(self._file(name)), *arguments)  # fmt: skip

    def _train(self, name: str, *arguments: str) -> dict[Any, Any]:
        self._training(name, *arguments).wait()
        return self._read(name)

    def _killed(self) -> dict[Any, Any]:
        """Kill a run of ours by SIGKILL past two thirds of its steps, between two checkpoints, and resume it."""
        every = max(self.steps // 8, 1)
        arguments = ["--loader", "ours", "--checkpoint", str(self._file("killed").with_suffix(".pt"))]
        process = self._training("killed", *arguments, "--every", str(every))
        last = every * 5 + max(every // 2, 1)
        while process.poll() is None and len(self._lines("killed")) < last:
            time.sleep(0.01)
        process.kill()
        process.wait()
        begun = len(self._lines("killed"))
        if begun >= self.steps:
            raise RuntimeError(f"{self.method}: the run was over before it could be killed")
        self._training("resumed", *arguments, "--resume").wait()
        resumed = self._read("resumed")
        steps = {line["step"]: line for line in map(json.loads, self._lines("killed")[:begun])}
        twice = steps.keys() & resumed.keys()
        if not twice or any(steps[step] != resumed[step] for step in twice):
            return {}
        return {**steps, **resumed}

    def _lines(self, name: str) -> list[str]:
        """Return the whole lines that a run has written."""
        file = self._file(name)
        return file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []

    def _read(self, name: str) -> dict[Any, Any]:
        """Return the lines of a run by step, and its weights; of a run that failed no weights."""
        lines = list(map(json.loads, self._lines(name)))
        found: dict[Any, Any] = {line["step"]: line for line in lines if "step" in line}
        return found | {"weights": lines[-1].get("weights", f"{name} failed") if lines else f"{name} failed"}


def table(rows: list[Row], steps: int, batch_size: int, pictures: int) -> str:
    """Return the page's table."""
    machine = describe()
    lines = [
        "| method | compared with the run through torchvision and PIL | | SHA-256 of the weights |",
        "|---|---|---|---|",
    ]
    for row in rows:
        note = "" if row.wanted else " (as it must)"
        lines.append(f"| {row.method} | {row.what} | {row.word}{note} | {f'`{row.digest}`' if row.digest else ''} |")
    about = (
        f"{steps} steps of {batch_size} of {pictures} pictures; {machine['cpu']}, torch {machine['torch']}, "
        f"Pillow {machine['pillow']}."
    )
    return "\n".join([*lines, "", about])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders or tars of JPEGs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--place", type=Path, default=Path("build/proof"), help="where pictures, packs and runs go")
    parser.add_argument("--page", type=Path, help="a page whose table is written anew")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.place, ignore_errors=True)
    packs = prepare(options.data, options.place, options.count)
    rows: dict[str, list[Row]] = {}

    def prove(method: str) -> None:
        rows[method] = []
        for row in Proof(method, options.place, packs, options.steps, options.batch_size).run():
            rows[method].append(row)
            print(f"{row.word:6}  {row.method}: {row.what}", flush=True)

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), len(options.methods))) as pool:
        list(pool.map(prove, options.methods))
    ordered = [row for method in options.methods for row in rows[method]]
    short = {method for method, found in rows.items() if len(found) < 5}
    failed = [row for row in ordered if row.equal != row.wanted]
    print(
        f"{len(ordered)} rows, {len(failed)} of them not what they must be" + (f"; cut off: {short}" if short else "")
    )
    if options.page and not failed and not short:
        pictures = len(list((options.place / "pictures").rglob("*.jpg")))
        write_between(
            options.page, "benchmarks/proof/prove.py", table(ordered, options.steps, options.batch_size, pictures)
        )
    return bool(failed or short)


if __name__ == "__main__":
    sys.exit(main())
