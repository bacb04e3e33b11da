"""`make proof`: training through this loader is training through torchvision and PIL; what is not is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.proof import prove
from benchmarks.proof.run import METHODS, Run, parser


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("proof")
    prove.prepare([], place, 9)
    return place


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What a run sets in its process is put back."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    torch.use_deterministic_algorithms(False)


def train(place: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run in this process, and return what the run wrote."""
    out = place / "out.jsonl"
    out.unlink(missing_ok=True)
    common = ["--steps", "3", "--batch-size", "4", "--pack", str(place / "jpeg"), "--pictures", str(place / "pictures")]
    Run(parser().parse_args([*common, "--out", str(out), *arguments])).go()
    return list(map(json.loads, out.read_text().splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_both_loaders_train_alike(prepared: Path, one_thread: None, method: str) -> None:
    """Over the end of an epoch; a value that is changed by one level is found."""
    official = train(prepared, "--method", method, "--loader", "official")
    assert train(prepared, "--method", method, "--loader", "ours", "--threads", "1") == official
    spoiled = train(prepared, "--method", method, "--loader", "ours", "--threads", "0", "--spoil", "1")
    assert spoiled[0] == official[0] and len(official) == len(spoiled) == 4
    assert spoiled[1]["batch"] != official[1]["batch"]
    # MAE's loss, of few pixels in float32, may round to the same on one processor and not on another; weights do not.
    assert method == "mae" or spoiled[1]["loss"] != official[1]["loss"]
    assert spoiled[3]["weights"] != official[3]["weights"]


@pytest.mark.slow
def test_all_rows_of_a_method(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed and resumed, codecs, threads, levels and ranks; the page gets its table."""
    page = tmp_path / "page.md"
    page.write_text("<!-- benchmarks/proof/prove.py -->\n\n<!-- /benchmarks/proof/prove.py -->\n")
    small = ["--methods", "mae", "--steps", "16", "--count", "12", "--batch-size", "4"]
    assert prove.main([*small, "--place", str(tmp_path / "runs"), "--page", str(page)]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith(("equal", "differ"))]
    assert [row.split()[0] for row in rows].count("differ") == 1 and "negative control" in rows[2]
    assert "killed" in rows[1] and "2 ranks" in rows[-1] and len(rows) >= 7
    assert page.read_text().count("| mae |") == len(rows)


def test_a_run_that_failed_is_not_equal(tmp_path: Path) -> None:
    proof = prove.Proof("mae", tmp_path, [], 2, 4)
    assert proof._read("official") != proof._read("ours")
    (tmp_path / "mae-official.jsonl").write_text('{"step": 0}\n{"weights": "x"}\n')
    (tmp_path / "mae-ours.jsonl").write_text('{"step": 0}\n')
    assert not proof._row("", proof._read("official"), proof._read("ours")).equal
