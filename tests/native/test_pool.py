"""The promises of csrc/pool.h under ThreadSanitizer: tests/native/pool/storm.cpp with csrc/pool.cpp alone, no
pictures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..helpers.trials import trials

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c++20", "-O1", "-g", "-fsanitize=thread", "-pthread", "-Wall", "-Wextra", "-Werror", "-Icsrc"]
SECONDS = trials(3, 60)


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile tests/native/pool/storm.cpp")
    out = tmp_path_factory.mktemp("pool") / "storm"
    subprocess.run([compiler, *FLAGS, "tests/native/pool/storm.cpp", "csrc/pool.cpp", "-o", out], check=True, cwd=ROOT)
    return out


def test_batches_are_cancelled_and_dropped_at_random(storm: Path) -> None:
    """Kills: a cancel that does not wait; a lost wake-up; a batch that is taken off the queue by the wrong thread; a
    failure without its lock or without cleared slots; another order; two threads with one worker's memory."""
    done = subprocess.run([storm, str(SECONDS), "1"], capture_output=True, text=True, timeout=SECONDS + 60)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address layout is unknown to ThreadSanitizer")
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[2]) > 100, done.stdout
