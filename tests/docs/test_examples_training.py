"""The training examples: two ranks by torchrun on the CPU, killed and resumed, end where an uninterrupted run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ..helpers.processes import free_port

ROOT = Path(__file__).parents[2]


def begin(script: str, pack: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start two ranks; 23 pictures are 6 steps of 2 x 2 an epoch, as the order wraps around."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    options = "--epochs 3 --batch-size 2 --workers 1 --dim 32 --depth 1 --log-every 1 --save-every 4".split()
    return subprocess.Popen(
        [*command, f"examples/{script}.py", "--pack", str(pack), "--out", str(out), *options],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


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


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_dino", pytest.param("train_swav", marks=pytest.mark.long)])
def test_killed_and_resumed(script: str, pack: Path, tmp_path: Path) -> None:
    assert begin(script, pack, tmp_path / "whole").wait(300) == 0
    ranks = begin(script, pack, tmp_path / "killed")
    while ranks.poll() is None and len(logged(tmp_path / "killed")) < 9:  # past 8 steps: in the second epoch
        time.sleep(0.02)
    kill(ranks)
    before = logged(tmp_path / "killed")
    assert 9 <= len(before) < 18, "the run was over before it was killed"
    assert begin(script, pack, tmp_path / "killed").wait(300) == 0
    whole = {line["step"]: line["loss"] for line in logged(tmp_path / "whole")}
    lines = logged(tmp_path / "killed")
    assert list(whole) == list(range(1, 19))
    assert len(lines) > 18, "some steps ran twice"
    assert all(whole[line["step"]] == line["loss"] for line in lines)
    assert {"samples_per_second", "data_wait", "advice"} <= lines[-1].keys()
    saved = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "killed")]
    assert saved[0]["step"] == saved[1]["step"] == 18 and saved[0]["loader"] == saved[1]["loader"]
    network = {"train_dino": "student", "train_swav": "network"}[script]
    for name, weight in saved[0][network].items():
        assert torch.equal(weight, saved[1][network][name]), name
