"""The GPU's benchmark without a GPU and without other libraries: every row is measured or says why not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import bench_cuda, exact, loading, rendering, rows, slim, tables
from benchmarks.gpu.bench_cuda import DRY
from benchmarks.gpu.loading import DALI, EXACT, NVJPEG, OFFICIAL, ON_CPU, OURS, SYNTHETIC, TORCHVISION, Place
from benchmarks.gpu.models import Step
from benchmarks.gpu.rows import Row
from pass_loader import _C, DataLoader
from pass_loader.gpu import cuda

from ..helpers.cpu_lane import CpuLane


def inline(members: Iterable[Row], cores: int, deadline: float, patience: float) -> Iterator[dict[str, Any]]:
    return ({**row.keys, **rows.figures(row)} for row in members)


@pytest.fixture
def place(pack: Path, tmp_path: Path) -> Place:
    loading.write_files(pack, tmp_path / "files")
    return Place(str(pack), str(tmp_path / "files"), DRY.recipe("dino"), 4, 2, "cpu")


class HostRenderer:
    """In place of cuda.PlanRenderer: the same call, executed by the CPU's engine."""

    device_bytes = 0

    def __init__(self, table: np.ndarray, dtype: torch.dtype):
        self.lane = CpuLane(torch.device("cpu"), table, dtype, False, 0)

    def render(self, rows: np.ndarray, plans: np.ndarray, picture_of: np.ndarray, outs: np.ndarray) -> None:
        self.lane._render(0, rows, plans, picture_of, outs)


def step_of_nothing(device: str, **shallow: Any) -> Step:
    assert shallow
    return lambda views: torch.stack([view.float().mean() for view in views]).sum()


@pytest.mark.slow
def test_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Kills: a wrong keyword anywhere on a row's way, a row that is lost, a section without a table."""
    monkeypatch.setattr(rows, "measured", inline)
    monkeypatch.setattr(cuda, "PlanRenderer", HostRenderer)
    monkeypatch.setattr(rendering, "SIZES", [(60, 80), (80, 60)])
    monkeypatch.setattr(bench_cuda, "DRY", dataclasses.replace(DRY, cores=(2,)))
    models = {name: (title, step_of_nothing) for name, (title, _) in loading.MODELS.items()}
    for module in (loading, bench_cuda):
        monkeypatch.setattr(module, "MODELS", models)
    bench_cuda.main(["--dry", "--json", str(tmp_path / "found.json"), "--commit", "abc"])
    found = json.loads((tmp_path / "found.json").read_text())
    groups = bench_cuda.groups_of(bench_cuda.SECTIONS, bench_cuda.DRY, ("", ""), 0)
    assert len(found["rows"]) == sum(len(members) for _, members in groups)
    assert len({json.dumps({key: row[key] for key in tables.NAMES if key in row}) for row in found["rows"]}) == len(
        found["rows"]
    ), "no row twice"
    measured = [row for row in found["rows"] if "reason" not in row]
    assert {row["section"] for row in measured} == set(bench_cuda.SECTIONS)
    for row in found["rows"]:
        way = row.get("way", row.get("fed_by", row.get("decoder", row.get("library"))))
        if way in (OURS, ON_CPU, OFFICIAL, SYNTHETIC, "ours", "torchvision v2", "libjpeg"):
            assert "reason" not in row, row
        if way in (NVJPEG, *EXACT.values(), *exact.NAMES.values()):
            assert "reason" in row, "on the CPU"
            assert way == NVJPEG or "no NVIDIA driver" in row["reason"] or "device='cuda'" in row["reason"], row
        if row["section"] == "choices":
            assert "reason" not in row, row
    assert found["machine"]["commit"] == "abc" and found["machine"]["cores"] > 0
    printed = capsys.readouterr().out
    titles = ("rendering alone", "SecondPass", "decoding alone", "from shards", "training step", "absent:", "the bar")
    assert all(words in printed for words in titles)
    assert {bar["verdict"] for bar in found["bars"]} == {"dry run"}


@pytest.mark.slow
@pytest.mark.parametrize("model", loading.MODELS)
def test_steps(model: str, place: Place) -> None:
    """On what a loader gives: bfloat16, each recipe's structure."""
    own = dataclasses.replace(place, recipe=DRY.recipe(model), batch=2, dtype=torch.bfloat16)
    shallow = {name: value for name, value in bench_cuda.SHALLOW[model].items() if name != "turns"}
    step = loading.MODELS[model][1]("cpu", **shallow)
    losses = [step(loading.views_of(next(loading.FEEDS[way](own).batches))) for way in (OURS, SYNTHETIC)]
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses)


def test_what_is_timed_is_what_is_wanted(place: Place, lanes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a feed of ours that is not the loader's batches."""
    feed = loading.ours(place, device="cuda")
    want = DataLoader(place.dataset(), 4, shuffle=True, dtype=torch.float16, infinite=True)
    for found, (views, _) in zip(range(3), want):
        assert all(torch.equal(one, other) for one, other in zip(next(feed.batches), views, strict=True)), found
    assert len(lanes) == 1 and feed.stats()["device_bytes"] > 0


def test_the_check_of_rendering_sees_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PlanRenderer", HostRenderer)
    rendering.check(DRY.recipe("dino"), "cpu", 2)
    monkeypatch.setattr(HostRenderer, "render", lambda *_: None)
    with pytest.raises(AssertionError):
        rendering.check(DRY.recipe("dino"), "cpu", 2)


@pytest.mark.slow
def test_torchvision_from_shards(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder is not in every build: ours in its place."""
    from torchvision import io

    def decode(files: list[torch.Tensor], mode: io.ImageReadMode, device: str) -> list[torch.Tensor]:
        assert mode == io.ImageReadMode.RGB and len(files) == 4
        return [torch.from_numpy(_C.decode(file.numpy().tobytes())).permute(2, 0, 1).contiguous() for file in files]

    monkeypatch.setattr(io, "decode_jpeg", decode)
    assert loading.from_shards(TORCHVISION, place, 0.01)["samples_per_s"] > 0
    assert loading.decoding("torchvision", place, 0.01)["samples_per_s"] > 0


class Late:
    """Takes longer to arrive than a row has."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (4,)


def affinity(arrived: Any = None) -> dict[str, Any]:
    return {"cores": len(os.sched_getaffinity(0)), "torch": torch.get_num_threads(), "pid": os.getpid()}


def fail() -> dict[str, Any]:
    raise ValueError("two\nlines")


def crash() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def hang() -> dict[str, Any]:
    time.sleep(100)
    return {}


@pytest.mark.slow
def test_rows_in_fresh_processes() -> None:
    """Kills: a crash or a hang that takes other rows along, cores that are not limited, a process for each row,
    imports that count as a row's time."""
    members = [Row({"n": n}, measure, {}) for n, measure in enumerate((affinity, fail, affinity, crash, affinity, hang,
                                                                       affinity))]  # fmt: skip
    members[4].arguments["arrived"] = Late()
    found = list(rows.measured(members, 1, time.monotonic() + 100, patience=3.0))
    assert [row["n"] for row in found] == list(range(7))
    assert all((found[n]["cores"], found[n]["torch"]) == (1, 1) for n in (0, 2, 4, 6))
    pids = [found[n]["pid"] for n in (0, 2, 4, 6)]
    assert pids[0] == pids[1] and len(set(pids)) == 3 and os.getpid() not in pids
    assert found[1]["reason"] == "ValueError: two"
    assert found[3]["reason"] == "the process ended with -11"
    assert found[5]["reason"] == "no answer within 3 s"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_rows_that_cannot_begin() -> None:
    there = len(os.sched_getaffinity(0))
    (late,) = rows.measured([Row({}, affinity, {})], 1, time.monotonic() - 1, 1.0)
    assert late == {"reason": rows.NO_TIME}
    (few,) = rows.measured([Row({}, affinity, {})], there + 1, time.monotonic() + 1, 1.0)
    assert few == {"reason": f"this machine has {there} cores"}


def test_the_time_of_a_row() -> None:
    """All rows together take what was asked for."""
    for seconds in (300.0, 450.0):
        groups = bench_cuda.groups_of(bench_cuda.SECTIONS, bench_cuda.Sizes(), ("", ""), 0)
        each = bench_cuda.row_seconds(groups, seconds)
        groups = bench_cuda.groups_of(bench_cuda.SECTIONS, bench_cuda.Sizes(), ("", ""), each)
        timed = 0.0
        for _, members in groups:
            timed += bench_cuda.START_S
            for row in members:
                twice = 2 if row.keys["section"] in ("training", "choices") else 1
                timed += bench_cuda.SET_UP_S + twice * row.arguments.get("seconds", 0.0)
        assert 0.2 < each and timed <= seconds


def of_bar(**figures: float) -> list[dict[str, Any]]:
    """Return rows that a bar is read from."""
    keys = {"section": "shards", "recipe": "dino"}
    return [
        {"section": "rendering", "recipe": "dino", "library": "ours", "samples_per_s": figures["rendering"]},
        *(
            {"section": "decoding", "decoder": name, "cores": 16, "samples_per_s": figures["alone"]}
            for name in exact.NAMES.values()
        ),
        {"section": "decoding", "decoder": "libjpeg", "cores": 16, "samples_per_s": 9000.0},
        {"section": "decoding", "decoder": "simplejpeg", "cores": 16, "samples_per_s": 13000.0},
        {**keys, "way": OURS, "cores": 16, "samples_per_s": figures["exact"], "device_mb": figures["memory"]},
        {**keys, "way": NVJPEG, "cores": 4, "samples_per_s": figures["nvjpeg"]},
        {**keys, "way": NVJPEG, "cores": 16, "samples_per_s": 1.0},
        {**keys, "way": DALI, "cores": 4, "samples_per_s": 5000.0},
        {"section": "training", "model": "DINO ViT-S/16", "fed_by": OURS, "of_synthetic": figures["dino"]},
        {"section": "training", "model": "SwAV ResNet-50", "fed_by": OURS, "of_synthetic": figures["swav"]},
    ]


def test_the_bar() -> None:
    good = of_bar(rendering=1.1e5, exact=12000.0, memory=1200.0, nvjpeg=10001.0, dino=0.995, swav=0.99, alone=4.1e4)
    assert [bar["verdict"] for bar in tables.bars(good)] == ["met"] * 9
    bad = of_bar(rendering=9e4, exact=9999.0, memory=1500.0, nvjpeg=9999.0, dino=0.98, swav=0.989, alone=3.9e4)
    found = tables.bars(bad)
    assert [bar["verdict"] for bar in found] == ["missed"] * 9
    assert found[4]["figure"] == pytest.approx(9999 / 13000), "of the faster libjpeg-turbo"
    assert found[5]["figure"] == pytest.approx(9999 / 5000)
    without = [{**row, "reason": "gone"} if row.get("way") == DALI else row for row in good]
    assert [bar["verdict"] for bar in tables.bars(without)] == ["met"] * 5 + ["not measured"] + ["met"] * 3
    assert tables.bars(without)[5]["reason"] == "gone"
    assert {bar["verdict"] for bar in tables.bars([])} == {"not measured"}


def fat_binary(*members: tuple[int, int, bytes]) -> bytes:
    """Return a fat binary. codes: (kind, compute capability, code) each."""
    body = b"".join(
        struct.pack("<HHIQ12xI", kind, 0, 64, len(code), capability).ljust(64, b"\0") + code
        for kind, capability, code in members
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_slim(tmp_path: Path) -> None:
    """Kills: code that is kept for other GPUs, the wanted one's lost, bytes outside, a length that changes."""
    both = fat_binary((2, 80, b"eighty" * 4), (2, 90, b"ninety" * 4), (1, 120, b"ptx" * 8))
    want = fat_binary((2, 80, bytes(24)), (2, 90, b"ninety" * 4), (1, 120, bytes(24)))
    other = fat_binary((2, 80, b"eighty" * 4), (1, 80, b"ptx" * 8))
    cut_off = both[:60]
    (tmp_path / "in").mkdir()
    library = tmp_path / "in" / "lib.so.1"
    library.write_bytes(b"before" + both + b"between" + other + both + cut_off)
    for version in ("312", "313t"):
        (tmp_path / f"x.cpython-{version}-x86_64-linux-gnu.so").write_bytes(b"x")
    slim.slim(tmp_path, 90, "312")
    assert library.read_bytes() == b"before" + want + b"between" + other + want + cut_off
    assert [path.name for path in tmp_path.glob("x.*")] == ["x.cpython-312-x86_64-linux-gnu.so"]
