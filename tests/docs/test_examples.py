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


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("knn.py", ["--k", "0"], "argument --k: 0 is less than 1"),
        ("knn.py", ["--temperature", "0"], "argument --temperature: 0 is not above 0"),
        ("knn.py", ["--backbone", "torch"], "'torch' cannot be had as MODULE:NAME"),
        ("knn.py", ["--backbone", "no_such:thing"], "No module named 'no_such'"),
        ("knn.py", ["--arguments", "[1]"], "'[1]' is no JSON object"),
        ("knn.py", ["--arguments", "{"], "'{' is no JSON"),
        ("knn.py", ["--device", "abacus"], "argument --device: "),
        ("knn.py", ["--size", "x"], "argument --size: invalid number value: 'x'"),
        ("linear_probe.py", ["--epochs", "-1"], "argument --epochs: -1 is less than 1"),
        ("linear_probe.py", ["--weights", "none.pth"], "there is no file 'none.pth'"),
        ("train_dino.py", ["--pack", "none"], "argument --pack: none"),
        ("train_dino.py", ["--dim", "33"], "33 is no multiple of 32"),
        ("train_swav.py", ["--workers", "-1"], "-1 is less than 0"),
    ],
)
def test_wrong_arguments(
    script: str, words: list[str], message: str, packs: tuple[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They are told in a line."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    usual = ["--pack", packs[0], "--out", "x"] if "train" in script else [*packs, "--backbone", "torch.nn:Identity"]
    monkeypatch.setattr(sys, "argv", [script, *usual, *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert ended.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("words", "message"), [
    (["--arguments", '{"odd": 1}'], "error: --backbone with these --arguments: "),
    (["--weights", __file__], "error: --weights "),
])  # fmt: skip
def test_a_backbone_that_cannot_be_made(
    words: list[str], message: str, packs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    usual = [*packs, "--backbone", "torch.nn:AdaptiveAvgPool2d", "--arguments", '{"output_size": 2}']
    monkeypatch.setattr(sys, "argv", ["knn.py", *usual, *words])
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(ROOT / "examples" / "knn.py"), run_name="__main__")
