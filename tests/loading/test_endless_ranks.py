"""infinite=True on two processes of torch.distributed: removals that both see in the same batch, and kill -9."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from pass_loader import DataLoader, ShardDataset
from pass_loader.pack import remove

from ..helpers.epochs import COUNT, TINY, Ranks, Seen, merged, seen, whole_epoch
from ..helpers.forked import ready
from ..helpers.processes import free_port, on_ranks

pytestmark = pytest.mark.slow


BATCH = 5  # a rank's: 10 divide no pass of 62, 61, 60 or 59


def endless(pack: Path) -> DataLoader:
    return DataLoader(ShardDataset(pack, TINY, seed=5), BATCH, shuffle=True, num_workers=2, prefetch_factor=2,
                      infinite=True, return_info=True)  # fmt: skip


def finite(pack: Path, epoch: int) -> Seen:
    """An epoch of those that are live now."""
    ranks = Ranks(pack, 1, 12)
    ranks.loaders[0].sampler.set_epoch(epoch)
    return whole_epoch(ranks)


def dealt(parts: Any) -> Seen:
    """The samples of a step that two ranks have seen, in the order of the stream."""
    return [part[place] for place in range(BATCH) for part in parts]


def removing(rank: int, world: int, pack: Path) -> list[tuple[Seen, dict[str, Any]]]:
    """One of two processes: 50 steps, and what its loader says after each."""
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    loader = endless(pack)
    iterator, out = iter(loader), []

    def go_to(step: int) -> None:
        while len(out) < step:
            out.append((seen(next(iterator)), loader.state_dict()))

    def remove_at(step: int, id: str, by: int, ahead: int = 0) -> None:
        """ahead: how much farther the process is that does not remove."""
        go_to(step + (rank != by) * ahead)
        torch.distributed.barrier()
        if rank == by:
            remove(pack, [id], reason="while it runs")
        torch.distributed.barrier()

    remove_at(2, "07", by=0)  # the second pass begins in the seventh step
    remove_at(8, "11", by=1)  # the third one in the thirteenth
    remove_at(16, "13", by=0, ahead=4)  # the fourth in the nineteenth: one process has begun it with this picture
    go_to(50)  # in the 48th one process alone has a sample of the ninth pass
    torch.distributed.barrier()
    return out


def test_two_processes_agree_on_removals(tiny: Path, tmp_path: Path) -> None:
    """The union of the ranks is the order and the views of each pass in turn, and their states are the same. Kills:
    a rank that looks at the pack by itself, or not again; one that begins a pass with its own first sample of it."""
    copy, other = (Path(shutil.copytree(tiny, tmp_path / name)) for name in ("copy", "other"))
    first, second = on_ranks(removing, copy)
    want = finite(other, 0)
    for epoch, id in enumerate(("07", "11", None, "13"), start=1):
        if id is not None:
            remove(other, [id], reason="as there")
        want += finite(other, epoch)
    want += [sample for epoch in range(5, 9) for sample in finite(other, epoch)]
    assert len(first) == len(second) == 50 and [state for _, state in first] == [state for _, state in second]
    assert [sample for step in zip(first, second) for sample in dealt([part for part, _ in step])] == want[:500]
    state = first[-1][1]
    assert state["samples"] == COUNT - 3 and state["pass"] == [8, 62 + 61 + 60 + 60 + 4 * 59]


def until_killed(rank: int, port: str, pack: Path, out: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    loader = endless(pack)
    with open(out / str(rank), "w", buffering=1) as lines:
        for batch in loader:
            hex_of = [(record, view.hex()) for record, view in seen(batch)]
            lines.write(json.dumps([hex_of, loader.state_dict()]) + "\n")
            time.sleep(0.002)


def written(file: Path) -> list[tuple[Seen, dict[str, Any]]]:
    """Return the whole lines of a file."""
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [([(record, bytes.fromhex(view)) for record, view in part], state) for part, state in lines]


def wait_for(out: Path, steps: int, children: list[Any]) -> None:
    end = time.monotonic() + 120
    while min(len(written(out / str(rank))) for rank in range(2)) < steps:
        assert time.monotonic() < end and all(child.is_alive() for child in children), "a rank hangs, or is gone"
        time.sleep(0.05)


def stream(whole: Path, fewer: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield the samples of endless passes: those before number `first` have all records, later ones fewer."""
    for epoch in itertools.count():
        yield from finite(whole if epoch < first else fewer, epoch)


def test_kill_9_of_both(tiny: Path, tmp_path: Path) -> None:
    """Both processes are killed some time after a removal; one or two go on: nothing is lost, nothing comes twice."""
    copy, port = Path(shutil.copytree(tiny, tmp_path / "copy")), free_port()
    context = ready()
    children = [context.Process(target=until_killed, args=(rank, port, copy, tmp_path)) for rank in range(2)]
    try:
        for child in children:
            child.start()
        wait_for(tmp_path, 3, children)
        remove(copy, ["07"], reason="while it runs")
        begun = max(len(written(tmp_path / str(rank))) for rank in range(2))
        wait_for(tmp_path, begun + 16, children)
    finally:
        for child in children:
            child.kill()
            child.join(60)
    assert [child.exitcode for child in children] == [-signal.SIGKILL] * 2

    steps = list(zip(written(tmp_path / "0"), written(tmp_path / "1")))  # both have saved these
    assert len(steps) > 18 and all(one == other for (_, one), (_, other) in steps), "ranks differ in their state"
    got = [sample for step in steps for sample in dealt([part for part, _ in step])]
    state = steps[-1][0][1]
    assert state["samples"] == COUNT - 1 and state["position"] == len(got)
    shrunk = next(state["pass"][0] for (_, state), _ in steps if state["samples"] < COUNT)
    want = list(itertools.islice(stream(tiny, copy, shrunk), len(got) + 200))
    assert got == want[: len(got)]
    for world in (1, 2):
        rest = Ranks(copy, world, 2 * BATCH, 2, infinite=True).load(json.loads(json.dumps(state))).steps()
        assert [sample for _ in range(20) for sample in merged(next(rest))] == want[len(got) :]
