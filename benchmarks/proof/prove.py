"""`make proof`: trains DINO, SwAV, MoCo-v2 and MAE through the official pipeline and through this loader, and compares.

Prints a row for each comparison, `equal`, `differ` or `not run`; the exit status is 1 where a row is not what it must
be.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from benchmarks.machine import describe
from benchmarks.pages import place_of, write_between
from benchmarks.pictures import cuts
from pass_loader.pack import build, convert
from pass_loader.recipes import reference

from . import batches
from .method import BATCH_SIZE
from .networks import SIZES
from .run import METHODS

Found = dict[Any, Any]  # what a run wrote: a line of each step, and "weights"


class Row(NamedTuple):
    """One comparison."""

    method: str
    what: str
    equal: bool | None  # None: one of the two was not there
    wanted: bool = True  # False: the negative control
    digest: str = ""

    @property
    def word(self) -> str:
        return {True: "equal", False: "differ", None: "not run"}[self.equal]

    @property
    def is_right(self) -> bool:
        return self.equal is self.wanted


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


def saved_after(steps: int, steps_per_epoch: int) -> list[int]:
    """Return the steps after which a run that will be killed is saved, up to five eighths of all: never after the last
    step of an epoch. Raises ValueError where there are no such steps."""
    if steps_per_epoch < 2:
        raise ValueError("an epoch of one step has no middle: give more pictures or smaller batches")
    if steps < 3:
        raise ValueError(f"{steps} steps are too few to kill and resume a run: give at least 3")
    eighths = {part * steps // 8 for part in range(1, 6)} - {0}
    return sorted(step - (step % steps_per_epoch == 0) for step in eighths)


class Proof:
    """All runs of one method. pictures: how many there are. core: where they are pinned. emulated: where `make avx512`
    has built."""

    def __init__(self, method: str, place: Path, packs: list[Path], pictures: int, steps: int, batch_size: int,
                 core: int, networks: str = "small", emulated: Path | None = None):  # fmt: skip
        self.method, self.place, self.packs, self.core = method, place, packs, core
        self.steps, self.batch_size, self.networks = steps, batch_size, networks
        self.emulated = emulated
        self.steps_per_epoch = pictures // batch_size
        self.saved_after = saved_after(steps, self.steps_per_epoch)

    def run(self) -> Iterator[Row]:
        """Yield a row for each comparison with the run through torchvision and PIL, of those that fail too."""
        official = self._train("official", "--loader", "official")
        ours = self._train("ours", "--loader", "ours")
        yield self._row("untouched JPEGs: losses and weights", official, ours)
        resumed = self._killed()
        yield self._row(f"killed, resumed in mid-epoch (step {self.saved_after[-1]}): losses and weights", official,
                        resumed)  # fmt: skip
        yield self._control(official)
        yield from self._batches("batches")
        if self.emulated:
            yield from self._batches("emulated", batches.lacking(), self.emulated)

    def _row(self, what: str, official: Found | None, found: Found | None) -> Row:
        if official is None or found is None:
            return Row(self.method, what, None)
        return Row(self.method, what, found == official, digest=found["weights"])

    def _control(self, official: Found | None) -> Row:
        """One value of one batch is changed: the weights must differ, and no other batch."""
        middle = self.steps // 2
        what = f"negative control, one value of step {middle}"
        spoiled = self._train("spoiled", "--loader", "ours", "--spoil", str(middle))
        if official is None or spoiled is None:
            return Row(self.method, what, None, wanted=False)
        steps = range(self.steps)
        if [step for step in steps if official[step]["batch"] != spoiled[step]["batch"]] != [middle]:
            return Row(self.method, f"{what}: other batches than this one differ", None, wanted=False)
        losses = sum(official[step]["loss"] != spoiled[step]["loss"] for step in steps)
        return Row(self.method, f"{what}: weights; {losses} of {self.steps - middle} losses from there on",
                   official["weights"] == spoiled["weights"], wanted=False, digest=spoiled["weights"])  # fmt: skip

    def _batches(self, name: str, emulated: Sequence[str] = (), tree: Path | None = None) -> Iterator[Row]:
        """Compare batches; the process runs in `tree`, and takes pass_loader from there."""
        arguments = ["--packs", *map(str, self.packs), "--want", str(self._file("official"))]
        arguments += ["--out", str(self._file(name)), "--emulated", *emulated]
        status = self._start("benchmarks.proof.batches", *arguments, tree=tree).wait()
        found = {row["what"]: row["equal"] for row in map(json.loads, self._lines(name))}
        for what in batches.names(self.packs, emulated):
            yield Row(self.method, f"batches: {what}", found.get(what))
        if status:
            yield Row(self.method, f"batches: exit status {status}", None)

    def _file(self, name: str) -> Path:
        return self.place / f"{self.method}-{name}.jsonl"

    def _start(self, module: str, *arguments: str, tree: Path | None = None) -> subprocess.Popen[bytes]:
        common = ["--method", self.method, "--steps", str(self.steps), "--batch-size", str(self.batch_size)]
        command = [sys.executable, "-m", module, *common, "--core", str(self.core), *arguments]
        return subprocess.Popen(command, cwd=tree)

    def _training(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start("benchmarks.proof.run", "--pack", str(self.packs[0]), "--pictures",
                           str(self.place / "pictures"), "--networks", self.networks, "--out", str(self._file(name)),
                           *arguments)  # fmt: skip

    def _train(self, name: str, *arguments: str) -> Found | None:
        status = self._training(name, *arguments).wait()
        return None if status else self._read(name)

    def _killed(self) -> Found | None:
        """Kill a run of ours by SIGKILL after it was saved in the middle of an epoch, and resume it."""
        arguments = ["--loader", "ours", "--checkpoint", str(self._file("killed").with_suffix(".pt"))]
        saved = self.saved_after[-1]
        last = saved + max(self.steps // 16, 1)
        process = self._training("killed", *arguments, "--save-after", *map(str, self.saved_after), "--wait-after",
                                 str(last))  # fmt: skip
        while process.poll() is None and len(self._lines("killed")) < last:
            time.sleep(0.01)
        process.kill()
        if process.wait() != -signal.SIGKILL or self._training("resumed", *arguments, "--resume").wait():
            return None
        steps, resumed = self._read("killed", whole=False), self._read("resumed", begin=saved)
        if steps is None or resumed is None:
            return None
        assert saved % self.steps_per_epoch, "the run went on at the beginning of an epoch"
        twice = steps.keys() & resumed.keys()
        if not twice or any(steps[step] != resumed[step] for step in twice):
            return {**resumed, "weights": "steps that ran twice differ"}
        return {**steps, **resumed}

    def _lines(self, name: str) -> list[str]:
        """Return the whole lines that a run has written."""
        file = self._file(name)
        return file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []

    def _read(self, name: str, begin: int = 0, whole: bool = True) -> Found | None:
        """Return the lines of a run by step, and its weights; None if it lacks any from step `begin` on."""
        lines = list(map(json.loads, self._lines(name)))
        found: Found = {line["step"]: line for line in lines if "step" in line}
        if not whole:
            return found
        if list(found) != list(range(begin, self.steps)) or "weights" not in lines[-1]:
            return None
        return found | lines[-1]


def table(rows: list[Row], about: str) -> str:
    """Return the page's table."""
    lines = [
        "| method | compared with the run through torchvision and PIL | | SHA-256 of the weights |",
        "|---|---|---|---|",
    ]
    for row in rows:
        note = "" if row.wanted else " (as it must)"
        lines.append(f"| {row.method} | {row.what} | {row.word}{note} | {f'`{row.digest}`' if row.digest else ''} |")
    return "\n".join([*lines, "", about])


def sizes_table() -> str:
    """Return the table of what differs here from the official scripts."""
    lines = ["| method | official script | here | `PROOF_NETWORKS=full` |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        for (official, small), (_, full) in zip(method.smaller(SIZES["small"]), method.smaller(SIZES["full"])):
            lines.append(f"| {name} | {official} | {small} | {'as here' if full == small else full} |")
    return "\n".join(lines)


def short_table(rows: list[Row], about: str) -> str:
    """Return a table of one row a method, for a second set of pictures or networks."""
    lines = ["| method | rows as they must be | SHA-256 of the weights, through both |", "|---|---|---|"]
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        lines.append(f"| {method} | {sum(row.is_right for row in own)} of {len(own)} | `{own[0].digest}` |")
    return "\n".join([*lines, "", about])


def emulated_table(rows: list[Row], about: str) -> str:
    """Return the table of the batches of emulated levels, a row a method and level."""
    lines = ["| method | level, emulated | codecs, as they must be |", "|---|---|---|"]
    for method, level in itertools.product(dict.fromkeys(row.method for row in rows), batches.lacking()):
        own = [row for row in rows if row.method == method and f" {level} (emulated)" in row.what]
        lines.append(f"| {method} | {level} | {sum(row.is_right for row in own)} of {len(own)} |")
    return "\n".join([*lines, "", about])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders or tars of JPEGs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--networks", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--place", type=Path, default=Path("build/proof"), help="where pictures, packs and runs go")
    parser.add_argument("--emulated", type=Path, help="where `make avx512` has built: the batches of levels that this "
                        "machine lacks are compared too")  # fmt: skip
    parser.add_argument("--page", type=Path, help="a page whose table is written anew: the large one, or with --data, "
                        "--networks or --emulated the short one that it has for that")  # fmt: skip
    options = parser.parse_args(arguments)
    emulated = options.emulated if batches.lacking() else None
    marks = {" --data": options.data, " --networks": options.networks != "small", " --emulated": emulated}
    kind = "".join(name for name, given in marks.items() if given)
    mark = f"benchmarks/proof/prove.py{kind}"
    if options.page:
        place_of(options.page, mark)
    began = time.monotonic()
    place = options.place.absolute()
    shutil.rmtree(place, ignore_errors=True)
    packs = prepare(options.data, place, options.count)
    pictures = len(list((place / "pictures").rglob("*.jpg")))
    rows: dict[str, list[Row]] = {}

    cores = sorted(os.sched_getaffinity(0))[: len(options.methods)]
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores:
        free.put(core)

    def prove(method: str) -> None:
        rows[method] = []
        core = free.get()
        try:
            proof = Proof(method, place, packs, pictures, options.steps, options.batch_size, core, options.networks,
                          emulated)  # fmt: skip
            for row in proof.run():
                rows[method].append(row)
                print(f"{row.word:7} {row.method}: {row.what}", flush=True)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(prove, options.methods))
    ordered = [row for method in options.methods for row in rows[method]]
    failed = [row for row in ordered if not row.is_right]
    machine, minutes = describe(), (time.monotonic() - began) / 60
    print(f"{len(ordered)} rows, {len(failed)} of them not what they must be; {minutes:.1f} minutes")
    weights = {method: METHODS[method].weights(options.networks) for method in options.methods}
    about = (
        f"{options.steps} steps of {options.batch_size} of {pictures} {'own' if options.data else 'generated'} "
        f"pictures; weights, in millions: {', '.join(f'{name} {count / 1e6:.2g}' for name, count in weights.items())}. "
        f"{minutes:.1f} minutes on {len(cores)} cores; {machine['cpu']}, torch {machine['torch']}, "
        f"Pillow {machine['pillow']}."
    )
    if options.page and not failed:
        made = emulated_table if emulated else short_table if kind else table
        write_between(options.page, mark, made(ordered, about))
        write_between(options.page, "benchmarks/proof/prove.py sizes", sizes_table())
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
