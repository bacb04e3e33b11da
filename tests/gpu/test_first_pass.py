"""The benchmark of the first pass, on the CPU; and what is read of ptxas. The ways' bytes: test_cuda_kernels.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import first_pass, native, registers, rendering
from pass_loader import recipes

SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN11pass_loader4cuda3runINS0_9FirstPassEEEvT_' for 'sm_90'
ptxas info    : Function properties for _ZN11pass_loader4cuda3runINS0_9FirstPassEEEvT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 120 registers, used 1 barriers
ptxas info    : Compiling entry function '_ZN11pass_loader4cuda3runINS0_8BlurDownEEEvT_' for 'sm_90'
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 32768 bytes smem, 8 bytes cmem[2]
"""


@pytest.mark.slow
def test_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Kills: a way that is not run, one whose bytes are not compared, a layout that differs from the library's."""
    monkeypatch.setattr(native, "BUILD", tmp_path)
    monkeypatch.setattr(rendering, "SIZES", [(60, 80), (80, 60)])
    rows = first_pass.main(["--dry", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text()) == rows and len(rows) > 8
    assert all(row["equal"] and row["ms"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["way"] in printed for row in rows) and printed.startswith("DRY")

    library, batch = native.compiled(on_cpu=True), rendering.make_batch(recipes.mocov2(), 2, 0, torch.uint8, "cpu")
    batch.picture_of[0] = 7
    with pytest.raises(RuntimeError, match="a view's picture is number 7"):
        first_pass.Ways(library, batch)
    nothing = {"ms": [1.0], **dict.fromkeys(first_pass.RESOURCES, 0)}
    monkeypatch.setattr(first_pass.Ways, "time", lambda self, way, rounds: {**nothing, "equal": way != 3})
    with pytest.raises(SystemExit, match="other bytes than the renderer's"):
        first_pass.main(["--dry"])
    assert capsys.readouterr().out.count("WRONG BYTES") == 1


def test_what_ptxas_says() -> None:
    first, blur = registers.told(SAID)
    assert registers.plain(first.name) == "FirstPass"
    assert (first.registers, first.shared, first.spilled) == (120, 0, 0)
    assert (blur.registers, blur.shared, blur.spilled) == (40, 32768, 16)
    assert [first.occupancy(sm) for sm in (80, 90)] == [0.25, 0.25]
    assert [blur.blocks(sm) for sm in (80, 90)] == [4, 6], "shared memory, registers"


@pytest.mark.parametrize("count,blocks", [(32, 8), (33, 6), (42, 5), (64, 4), (65, 3), (80, 3), (128, 2), (255, 1)])
def test_occupancy(count: int, blocks: int) -> None:
    assert registers.Kernel("", count, 0, 0).blocks(90) == blocks
