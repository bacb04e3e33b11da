"""The scripts of examples/ run, on small packs of generated pictures."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pass_loader.pack import build

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree

ROOT = Path(__file__).parents[2]
COLOURS = {"blue": 2, "green": 1, "red": 0}
pytestmark = pytest.mark.slow


def picture(channel: int, seed: int) -> np.ndarray:
    pixels = noise(40, 50, seed) // 2
    pixels[:, :, channel] += 120
    return pixels


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Training and validation pictures; the latter have no green ones, so their own class numbers differ."""
    place = tmp_path_factory.mktemp("examples")
    for name, each, colours in (("train", 10, COLOURS), ("val", 5, {"blue": 2, "red": 0})):
        files = {f"{colour}/{name}{n}.jpg": jpeg(picture(channel, hash_of(name) + n))
                 for colour, channel in colours.items() for n in range(each)}  # fmt: skip
        build([write_tree(place / f"in-{name}", files)], place / name, workers=1)
    return str(place / "train"), str(place / "val")


def hash_of(name: str) -> int:
    return sum(name.encode())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs a script in this process, with a backbone without weights; returns the lines that it prints."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    common = ["--size", "16", "--num-workers", "1", "--device", "cpu", "--backbone", "torch.nn:AdaptiveAvgPool2d"]

    def run(script: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [script, *arguments, *common, "--arguments", '{"output_size": 2}'])
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_knn(packs: tuple[str, str], run: Callable[..., list[str]]) -> None:
    """Kills: class numbers of the validation pack in place of the training pack's."""
    assert run("knn.py", *packs, "--k", "3", "100") == [
        "3-NN: 100.00% of 10 pictures",
        "100-NN: 100.00% of 10 pictures",
    ]


def test_linear_probe(
    packs: tuple[str, str], run: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns, and goes on after the epoch of its checkpoint as if it had not been left."""
    saved, own_save = tmp_path / "probe.pth", torch.save
    states: list[bytes] = []

    def save(state: object, path: Path) -> None:
        own_save(state, path)
        states.append(path.read_bytes())

    monkeypatch.setattr(torch, "save", save)
    arguments = [*packs, "--epochs", "4", "--lr", "20", "--batch-size", "8", "--checkpoint", str(saved)]
    whole = run("linear_probe.py", *arguments)
    assert len(whole) == 4 and whole[-1].endswith("100.00% of the validation pictures")
    losses = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in whole]  # type: ignore[index]
    assert losses[-1] < losses[0] and len(states) == 4
    saved.write_bytes(states[1])
    assert run("linear_probe.py", *arguments) == whole[2:]


GIVEN = ["--backbone", "torch.nn:AdaptiveAvgPool2d", "--arguments", '{"output_size": 2}', "--device", "cpu"]


@pytest.mark.parametrize(
    "script,arguments,words",
    [
        ("knn.py", ["--k", "0"], "argument --k: 0 is below 1"),
        ("knn.py", ["--k", "few"], "argument --k: invalid number value: 'few'"),
        ("knn.py", ["--temperature", "0"], "argument --temperature: 0 is no number above 0"),
        ("knn.py", ["--size", "0"], "argument --size: 0 is below 1"),
        ("knn.py", ["--num-workers", "-1"], "argument --num-workers: -1 is below 0"),
        ("knn.py", ["--device", "gpu"], "argument --device: "),
        ("knn.py", ["--backbone", "torch.nn"], "argument --backbone: 'torch.nn' is no MODULE:NAME"),
        ("knn.py", ["--backbone", "no_such:Model"], "argument --backbone: 'no_such:Model' is no MODULE:NAME"),
        ("knn.py", ["--backbone", ":Model"], "argument --backbone: ':Model' is no MODULE:NAME"),
        ("knn.py", ["--arguments", "{"], "argument --arguments: '{' is no JSON"),
        ("knn.py", ["--arguments", "[1]"], "argument --arguments: '[1]' is no JSON object"),
        ("knn.py", ["--arguments", '{"sizes": 1}'], "--arguments: "),
        ("knn.py", ["--weights", "none.pth"], "--weights none.pth: "),
        ("knn.py", [], "none: "),  # the pack
        ("linear_probe.py", ["--epochs", "0"], "argument --epochs: 0 is below 1"),
        ("linear_probe.py", ["--lr", "nan"], "argument --lr: nan is no number above 0"),
        ("train_dino.py", ["--batch-size", "0"], "argument --batch-size: 0 is below 1"),
        ("train_swav.py", ["--save-every", "0"], "argument --save-every: 0 is below 1"),
    ],
)  # fmt: skip
def test_odd_arguments(
    script: str, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They end a script with a line that names them, not with a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    usual = ["--pack", "none", "--out", "run"] if script.startswith("train_") else ["none", "none", *GIVEN]
    monkeypatch.setattr(sys, "argv", [script, *usual, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    told = capsys.readouterr().err if ended.value.code == 2 else str(ended.value.code)
    assert words in told
