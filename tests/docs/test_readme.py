"""The README tells the truth: its Python runs, every option of pass-pack stands in it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import pass_loader.pack
from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.loading.faults import ATTEMPTS, IN_A_ROW, IO_RETRIES_S, POLICIES
from pass_loader.pack import build
from pass_loader.cli.main import _parser
from pass_loader.loading.statistics import FED, STARVED

from ..helpers.corpus import jpeg, noise
from ..helpers.official_classes import DataAugmentationDINO
from ..helpers.trees import write_tree


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LOADER = (ROOT / "docs" / "loader.md").read_text()


def test_python_blocks_run(pack: Path) -> None:
    names: dict[str, object] = {"transform": DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 8)}
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    for block in blocks:
        small = block.replace('"pass-v3/"', repr(str(pack))).replace("batch_size=64", "batch_size=8")
        exec(small.replace("range(100)", "range(2)").replace("id_of(17)", "id_of(7)"), names)
    views, labels = names["views"], names["labels"]
    assert [tuple(v.shape) for v in views] == [(8, 3, 224, 224)] * 2 + [(8, 3, 96, 96)] * 8  # type: ignore[attr-defined]
    assert labels.shape == (8,)  # type: ignore[attr-defined]
    assert names["recipe"].views == recipes.dino().views  # type: ignore[attr-defined]


def test_the_loaders_page(pack: Path) -> None:
    """Its Python runs; every argument and every field of the statistics has a line."""
    loader = DataLoader(ShardDataset(pack, recipes.mocov2(size=16)), 4, shuffle=True)
    names: dict[str, object] = {"loader": loader}
    for _ in loader:
        for block in re.findall(r"```python\n(.*?)```", LOADER, re.S):
            exec(block, names)
    first_cells = re.findall(r"^\| (`[^|]*) \|", LOADER, re.M)
    told = {name for cell in first_cells for name in re.findall(r"`\"?(\w+)\"?`", cell)}
    assert told == {*inspect.signature(DataLoader).parameters, *loader.stats(), *POLICIES, "on_error"}
    assert f"than {IN_A_ROW} bad records in a row, and {ATTEMPTS} bad repl" in LOADER
    assert "{} and\n{} s".format(*IO_RETRIES_S) in LOADER and f"above {STARVED:.0%}".replace("%", " %") in LOADER
    assert f"below {FED:.0%}".replace("%", " %") in LOADER and "docs/loader.md" in README


def test_the_page_of_several_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python runs, line by line as a user would have it."""
    monkeypatch.chdir(tmp_path)
    header = "hash,Edema,Pneumonia,Fracture,source,noise_level\n"
    (tmp_path / "m.csv").write_text(header + "".join(f"{i},1,0,{'' if i else 1},{i % 2},{i}00\n" for i in range(4)))
    for name in ("nih", "chexpert", "originals", "generated"):
        files = {f"{i}.jpg": jpeg(noise(16, 16, i)) for i in range(4)}
        build([write_tree(tmp_path / f"in-{name}", files)], name, metadata=tmp_path / "m.csv", workers=1)
    (tmp_path / "train_official.txt").write_text("3\n1\n")
    names: dict[str, object] = {"numpy": np}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "several-packs.md").read_text(), re.S)
    lengths = []
    for block in blocks:
        exec(block, names)
        lengths.append(len(names["dataset"]))  # type: ignore[arg-type]
    assert lengths == [6, 100, 8, 4, 4] and names["companions"].scale == "noise_level"  # type: ignore[attr-defined]


def test_every_command_and_option_is_documented() -> None:
    commands = next(a for a in _parser()._actions if a.dest == "command").choices
    for name, command in commands.items():  # type: ignore[union-attr]
        assert f"pass-pack {name} " in README, name
        assert inspect.isfunction(getattr(pass_loader.pack, name, None)), f"{name}: no function of the same name"
        for action in command._actions:
            option = action.option_strings[-1] if action.option_strings else None
            if option and option != "--help":
                assert f"`{option}" in README or f" {option} " in README, f"{name} {option}"
                assert action.help or action.metavar, f"{name} {option} explains nothing"


def test_pages_name_commands_that_exist() -> None:
    commands = next(a for a in _parser()._actions if a.dest == "command").choices
    for page in (Path(__file__).parents[2] / "docs").glob("*.md"):
        assert f"docs/{page.name}" in README, f"nothing links to {page.name}"
        for name, rest in re.findall(r"^\$ pass-pack (\w+)(.*)", page.read_text(), re.M):
            options = commands[name]._option_string_actions  # type: ignore[index]
            assert set(re.findall(r"--[\w-]+", rest)) <= set(options), f"{page.name}: {name}{rest}"


@pytest.mark.parametrize("name", sorted(recipes.PRESETS))
def test_every_preset_is_in_the_table(name: str) -> None:
    source = recipes.PRESETS[name]().source.split()
    assert f"`recipes.{name}()`" in README and source[0] in README and source[1] in README
