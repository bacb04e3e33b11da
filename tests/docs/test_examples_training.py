"""The training examples on two ranks of the CPU: batches are those of our loader used directly; runs that were killed
go on, and end where uninterrupted ones end."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from pass_loader import DataLoader, ShardDataset, recipes

from ..helpers.processes import free_port, on_ranks

ROOT = Path(__file__).parents[2]
WORLD = 2
# 23 pictures are 6 steps of 2 x 2 an epoch, as the order wraps around.
STEPS, EPOCHS = 6, 2
TINY = f"--epochs {EPOCHS} --batch-size 2 --workers 1 --dim 32 --depth 1 --log-every 1 --save-every 4 --bf16"
NETWORKS = {"train_dino": "student", "train_swav": "network"}


def words(script: str, pack: Path, out: Path) -> list[str]:
    return [f"examples/{script}.py", "--pack", str(pack), "--out", str(out), *TINY.split()]


def kill(ranks: subprocess.Popen[bytes]) -> None:
    """Kill torchrun and the processes that it started, which would live on."""
    children = Path(f"/proc/{ranks.pid}/task/{ranks.pid}/children").read_text().split()
    for process in (ranks.pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)
    ranks.wait()


def logged(out: Path) -> list[dict[str, object]]:
    """Return the whole lines of the log."""
    file = out / "log.jsonl"
    return list(map(json.loads, file.read_text().rpartition("\n")[0].splitlines())) if file.exists() else []


def digests(views: list[torch.Tensor]) -> list[str]:
    return [hashlib.sha256(view.numpy()).hexdigest() for view in views]


class Seeing(DistributedDataParallel):
    """Notes what the network gets, and in which type it answers."""

    seen: list[tuple[list[str], torch.dtype]] = []

    def forward(self, views: list[torch.Tensor]) -> Any:
        outputs = super().forward(views)
        self.seen.append((digests(views), outputs.dtype))
        return outputs


def run_all(rank: int, world: int, pack: Path, folder: Path, ports: list[str]) -> dict[str, list[Any]]:
    """Run both scripts whole, and on from where they were killed. Returns what was seen in the whole runs."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "examples"))

    def run(script: str, out: str) -> None:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_PORT=ports.pop())
        with mock.patch.object(sys, "argv", words(script, pack, folder / out)):
            runpy.run_path(str(ROOT / "examples" / f"{script}.py"), run_name="__main__")

    found = {}
    with mock.patch("torch.nn.parallel.DistributedDataParallel", Seeing):
        for script in NETWORKS:
            Seeing.seen.clear()
            run(script, f"{script}-whole")
            found[script] = [*Seeing.seen]
            run(script, f"{script}-killed")
    return found


def killed(script: str, pack: Path, out: Path) -> None:
    """Run a script by torchrun, and kill all its processes in the second epoch, past the checkpoint of 8 steps."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORLD), "--master-port",
               free_port(), *words(script, pack, out)]  # fmt: skip
    ranks = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    while ranks.poll() is None and len(logged(out)) < 9:
        time.sleep(0.02)
    assert ranks.poll() is None, "the run was over before it was killed"
    kill(ranks)
    assert 9 <= len(logged(out)) < STEPS * EPOCHS


@pytest.fixture(scope="module")
def runs(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, list[Any]]]]:
    """Returns where the runs wrote, and what each rank saw."""
    folder = tmp_path_factory.mktemp("runs")
    for script in NETWORKS:
        killed(script, pack, folder / f"{script}-killed")
    return folder, on_ranks(run_all, pack, folder, [free_port() for _ in range(4)], world=WORLD)


@pytest.mark.slow
@pytest.mark.parametrize("script", NETWORKS)
def test_killed_and_resumed(script: str, runs: tuple[Path, Any]) -> None:
    outs = [runs[0] / f"{script}-{run}" for run in ("whole", "killed")]
    whole = {line["step"]: line["loss"] for line in logged(outs[0])}
    lines = logged(outs[1])
    assert list(whole) == list(range(1, STEPS * EPOCHS + 1))
    assert len(lines) > len(whole), "some steps ran twice"
    assert all(whole[line["step"]] == line["loss"] for line in lines)
    assert {"samples_per_second", "data_wait", "advice"} <= lines[-1].keys()
    saved = [torch.load(out / "checkpoint.pt", weights_only=True) for out in outs]
    assert saved[0]["step"] == saved[1]["step"] == len(whole) and saved[0]["loader"] == saved[1]["loader"]
    for name, weight in saved[0][NETWORKS[script]].items():
        assert torch.equal(weight, saved[1][NETWORKS[script]][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("script", NETWORKS)
def test_batches(script: str, runs: tuple[Path, list[dict[str, list[Any]]]], pack: Path) -> None:
    """Each rank's network gets our batches of its share, and computes in bfloat16."""
    recipe = recipes.dino() if script == "train_dino" else recipes.swav()
    for rank, found in enumerate(runs[1]):
        loader = DataLoader(
            ShardDataset(pack, recipe, seed=0), 2, shuffle=True, drop_last=True, rank=rank, world_size=WORLD
        )
        want = []
        for epoch in range(EPOCHS):
            loader.sampler.set_epoch(epoch)
            want += [digests(batch[0] if script == "train_dino" else batch) for batch in loader]
        assert [views for views, _ in found[script]] == want
        assert {dtype for _, dtype in found[script]} == {torch.bfloat16}
