"""The promises of csrc/pool.h and csrc/read_ahead.h under sanitizers: the storms in tests/native/pool with these files
and what they need, no pictures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..helpers.trials import trials

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c++20", "-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Werror", "-Icsrc"]
SECONDS = trials(3, 60)


def run_storm(folder: Path, storm: str, sanitizer: str, sources: list[str], *arguments: str) -> list[str]:
    """Compile a storm and run it for SECONDS. Returns the words that it has printed."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile tests/native/pool")
    out, files = folder / "storm", [f"tests/native/pool/{storm}.cpp", *(f"csrc/{name}.cpp" for name in sources)]
    subprocess.run([compiler, *FLAGS, f"-fsanitize={sanitizer}", *files, "-o", out], check=True, cwd=ROOT)
    command = [str(out), str(SECONDS), "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 60)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address layout is unknown to ThreadSanitizer")
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.split()


def test_batches_are_cancelled_and_dropped_at_random(tmp_path: Path) -> None:
    """Kills: a cancel that does not wait; a lost wake-up; a batch that is taken off the queue by the wrong thread; a
    failure without its lock or without cleared slots; another order; two threads with one worker's memory; times that
    two threads write."""
    said = run_storm(tmp_path, "storm", "thread", ["pool"])
    assert int(said[2]) > 100, said


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_records_are_announced_taken_and_dropped_at_random(tmp_path: Path, sanitizer: str) -> None:
    """Kills: room that is used again too early; a reader that writes for a dropped batch into another's room; a wait
    for a read that nobody begins; bytes whose CRC does not fit; a failed read that is an error of its own; a failed
    read that is handed on; a record lent twice; tickets or room that are not given back; another record's ticket;
    bytes beyond the ring's end; a look at the pages alone that a record shares with its neighbours."""
    sources = ["read_ahead", "shard", "entry_points", "crc32c", "isa"]
    said = run_storm(tmp_path, "read_ahead_storm", sanitizer, sources, str(tmp_path / "a.tar"))
    from_ring, late, cached, left, readers = (int(said[place]) for place in (0, 4, 6, 8, 10))
    assert min(from_ring, late, cached, left, readers) > 5, said
