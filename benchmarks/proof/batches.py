"""Batches without training: the SHA-256 of each, for every codec, number of threads and instruction-set level, and on
two ranks. `python -m benchmarks.proof.batches --help`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from pass_loader import _C, DataLoader, ShardDataset

from .method import BATCH_SIZE
from .run import METHODS, SEED, add_core, digest_of, flat


def digests(pack: Path, method: str, batch_size: int, steps: int, threads: int) -> list[str]:
    """Return the SHA-256 of the batches of a run's steps."""
    return [digest_of(batch) for batch in _batches(pack, method, batch_size, steps, threads)]


def _batches(pack: Path, method: str, batch_size: int, steps: int, threads: int) -> Iterator[Any]:
    dataset = ShardDataset(pack, METHODS[method].recipe, seed=SEED)
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=threads, drop_last=True)
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            if steps == 0:
                return
            steps -= 1
            yield batch


def _rank(rank: int, file: str, out: str, pack: Path, method: str, batch_size: int, steps: int) -> None:
    """One of two ranks; the first gathers each global batch, slot by slot from rank to rank, and writes its SHA-256."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    found = []
    for batch in _batches(pack, method, batch_size // 2, steps, threads=1):
        whole = []
        for part in flat(batch):
            parts = [torch.empty_like(part) for _ in range(2)] if rank == 0 else None
            torch.distributed.gather(part, parts)
            if parts:
                whole.append(torch.stack(parts, 1).flatten(0, 1))
        if rank == 0:
            found.append(digest_of(whole))
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def on_two_ranks(pack: Path, method: str, batch_size: int, steps: int) -> list[str]:
    """Return the SHA-256 of the global batches of two ranks."""
    with tempfile.TemporaryDirectory() as place:
        arguments = (f"{place}/meet", f"{place}/out.json", pack, method, batch_size, steps)
        torch.multiprocessing.spawn(_rank, arguments, nprocs=2)
        return json.loads(Path(place, "out.json").read_text())


def levels() -> list[str]:
    """Return the instruction-set levels of this machine; the slow one only where there is no other."""
    return [level for level in _C.supported_isas() if level != "base"] or ["base"]


def lacking() -> list[str]:
    """Return the levels of x86-64 that this machine lacks, and that `make avx512` emulates."""
    wide = ["avx512", "avx512vbmi"] if platform.machine() == "x86_64" else []
    return [level for level in wide if level not in _C.supported_isas()]


def names(packs: list[Path], emulated: Sequence[str] = ()) -> list[str]:
    """Return what is compared, in order: a name for each row of `main`. emulated: these levels alone."""
    note = " (emulated)" if emulated else ""
    compared = itertools.product(packs, emulated or levels())
    found = [f"{pack.name}, {level}{note}; 0, 1 and 2 threads" for pack, level in compared]
    return found if emulated else [*found, *(f"{pack.name}; 2 ranks (gloo)" for pack in packs)]


def compare(options: argparse.Namespace) -> Iterator[bool]:
    """Yield for each of `names` whether all batches are those of the run. Without threads the process is pinned to its
    core, else to none."""
    want = [json.loads(line)["batch"] for line in options.want.read_text().splitlines()[: options.steps]]
    run = (options.method, options.batch_size, options.steps)
    cores = os.sched_getaffinity(0)
    for pack, level in itertools.product(options.packs, options.emulated or levels()):
        _C.set_isa(level)
        os.sched_setaffinity(0, {options.core})
        alone = digests(pack, *run, threads=0)
        os.sched_setaffinity(0, cores)
        yield alone == want and all(digests(pack, *run, threads) == want for threads in (1, 2))
    for pack in () if options.emulated else options.packs:
        yield on_two_ranks(pack, *run) == want


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, required=True)
    add_core(parser)
    parser.add_argument("--packs", type=Path, nargs="+", required=True, help="the same pictures in several codecs")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--want", type=Path, required=True, help="what a run wrote")
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each row: what, equal")
    parser.add_argument("--emulated", nargs="*", default=[], help="only these levels, in the build of `make avx512`")
    options = parser.parse_args(arguments)
    with open(options.out, "w") as out:
        for what, equal in zip(names(options.packs, options.emulated), compare(options)):
            print(json.dumps({"what": what, "equal": equal}), file=out, flush=True)


if __name__ == "__main__":
    main()
