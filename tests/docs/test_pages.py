"""The pages of docs/ tell the truth: their code runs, and what they list is all that there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import pass_loader.drop_in
import pass_loader.pack
from docs.make_transcript import BLOCK, transcript
from pass_loader import DataLoader, EpochSampler, ShardDataset, recipes
from pass_loader.cli.main import _parser
from pass_loader.data.blocks import BLOCK_BYTES, WINDOW_BYTES
from pass_loader.loading.faults import ATTEMPTS, IN_A_ROW, IO_RETRIES_S, POLICIES
from pass_loader.loading.statistics import FED, STARVED
from pass_loader.pack import build

from ..helpers.corpus import jpeg, noise
from ..helpers.official_classes import DataAugmentationDINO
from ..helpers.trees import write_tree

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COMMANDS = next(action for action in _parser()._actions if action.dest == "command").choices


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(page), re.S)


@pytest.mark.slow
def test_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in python_of("quick-start"):
        exec(block, names)
    views, labels = names["views"], names["labels"]
    assert [tuple(v.shape) for v in views] == [(8, 3, 224, 224)] * 2 + [(8, 3, 96, 96)] * 8  # type: ignore[attr-defined]
    assert labels.tolist() == [-1] * 8 and (tmp_path / "views.png").exists()  # type: ignore[attr-defined]


def test_loader(pack: Path) -> None:
    """Its Python runs; every argument and every field of the statistics has a line."""
    page = text_of("loader")
    loader = DataLoader(ShardDataset(pack, recipes.mocov2(size=16)), 4, shuffle=True)
    names: dict[str, object] = {"loader": loader}
    for _ in loader:
        for block in python_of("loader"):
            exec(block, names)
    names["logging"].getLogger("pass_loader").handlers.clear()  # type: ignore[attr-defined]
    first_cells = re.findall(r"^\| (`[^|]*) \|", page, re.M)
    told = {name for cell in first_cells for name in re.findall(r"`\"?(\w+)\"?`", cell)}
    assert told == {*inspect.signature(DataLoader).parameters, *loader.stats(), *POLICIES, "on_error"}
    words = " ".join(page.split())
    assert f"than {IN_A_ROW} bad records in a row" in words and f"{ATTEMPTS} bad replacements" in words
    assert "{} and {} s".format(*IO_RETRIES_S) in words and f"above {STARVED * 100:.0f} %" in words
    assert f"below {FED * 100:.0f} %" in words


def test_several_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python runs, line by line as a user would have it."""
    monkeypatch.chdir(tmp_path)
    header = "hash,Edema,Pneumonia,Fracture,source,noise_level\n"
    (tmp_path / "m.csv").write_text(header + "".join(f"{i},1,0,{'' if i else 1},{i % 2},{i}00\n" for i in range(4)))
    for name in ("nih", "chexpert", "originals", "generated"):
        files = {f"{i}.jpg": jpeg(noise(16, 16, i)) for i in range(4)}
        build([write_tree(tmp_path / f"in-{name}", files)], name, metadata=tmp_path / "m.csv", workers=1)
    (tmp_path / "train_official.txt").write_text("3\n1\n")
    names: dict[str, object] = {"numpy": np}
    lengths = []
    for block in python_of("several-packs"):
        exec(block, names)
        lengths.append(len(names["dataset"]))  # type: ignore[arg-type]
    assert lengths == [6, 100, 8, 4, 4] and names["companions"].scale == "noise_level"  # type: ignore[attr-defined]


def test_evaluation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom; each picture is counted once."""
    monkeypatch.chdir(tmp_path)
    files = {f"{'ab'[i % 2]}/{i}.jpg": jpeg(noise(40, 40, i)) for i in range(40)}
    build([write_tree(tmp_path / "in", files)], "pictures", workers=1)
    names: dict[str, object] = {}
    for block in python_of("evaluation"):
        exec(block, names)
    assert names["counted"] == len(names["val"]) > 0  # type: ignore[arg-type]
    assert len(names["train"]) + len(names["val"]) == 40  # type: ignore[arg-type]
    assert np.isfinite(names["scores"]).all() and (tmp_path / "pairs.png").exists()  # type: ignore[call-overload]


def test_exactness_runs(pack: Path) -> None:
    names: dict[str, object] = {"pass_loader": pass_loader, "dataset": ShardDataset(pack, recipes.dino())}
    (block,) = python_of("exactness")
    exec(block, names)


def test_from_torchvision_runs(pack: Path) -> None:
    transform = DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 8)
    names: dict[str, object] = {"pass_loader": pass_loader, "transform": transform}
    (block,) = python_of("from-torchvision")
    exec(block.replace('"my-pack"', repr(str(pack))), names)
    assert names["recipe"].views == recipes.dino().views  # type: ignore[attr-defined]


def test_gray_and_medical_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nih", "nih-heatmaps"):
        files = {f"{i}.jpg": jpeg(noise(16, 16, i)[..., 0]) for i in range(4)}
        build([write_tree(tmp_path / f"in-{name}", files)], name, workers=1)
    names: dict[str, object] = {"pass_loader": pass_loader, "recipes": recipes}
    for block in python_of("gray-and-medical"):
        exec(block, names)
    views, heatmaps = names["views"], names["heatmaps"]
    assert views.shape == (4, 3, 224, 224) and heatmaps.shape == (4, 1, 224, 224)  # type: ignore[attr-defined]
    assert names["nih"].normalized_recipes()[0].std == (0.252,) * 3  # type: ignore[attr-defined]


def test_the_list_of_removed_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line of Python on the page of takedowns."""
    build([write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(noise(16, 16, i)) for i in range(4)})], tmp_path / "p")
    pass_loader.pack.remove(tmp_path / "p", ["3", "1"], reason="asked")
    code = re.search(r'python -c "(.*)" >', text_of("takedown"))
    assert code
    exec(code[1].replace("'PACK'", repr(str(tmp_path / "p"))))
    assert capsys.readouterr().out == "1\n3\n"


def test_every_command_and_option_is_documented() -> None:
    """Each command has its section, which names each of its options; and a function of its name."""
    sections = dict(re.findall(r"^### ([\w-]+)\n(.*?)(?=^##|\Z)", text_of("packing"), re.M | re.S))
    for name, command in COMMANDS.items():  # type: ignore[union-attr]
        assert f"`pass-pack {name} " in sections[name], name
        assert inspect.isfunction(getattr(pass_loader.pack, name.replace("-", "_"), None)), (
            f"{name}: no function of the same name"
        )
        for action in command._actions:
            option = action.option_strings[-1] if action.option_strings else None
            as_build = name == "index" or (name == "plan" and option in COMMANDS["build"]._option_string_actions)  # type: ignore[index]
            if option and option not in ("--help", "--out") and not as_build:
                assert f"`{option}`" in sections[name] or f"`{option} " in sections[name], f"{name} {option}"
            if option and option != "--help":
                assert action.help or action.metavar, f"{name} {option} explains nothing"
    told = set(re.findall(r"`(--[\w-]+)", sections["index"]))
    lacks = {*COMMANDS["build"]._option_string_actions} - {*COMMANDS["index"]._option_string_actions}  # type: ignore[index]
    assert told == lacks


def test_where_packs_lie(pack: Path) -> None:
    names: dict[str, object] = {"pass_loader": pass_loader, "dataset": ShardDataset(pack, recipes.mocov2(size=16))}
    (block,) = python_of("where-packs-lie")
    exec(block, names)
    assert len(list(names["loader"])) == 1  # type: ignore[call-overload]
    for page in ("where-packs-lie", "loader"):
        assert f"({BLOCK_BYTES >> 20} MiB)" in text_of(page) and f"({WINDOW_BYTES >> 30} GiB)" in text_of(page)
    told = EpochSampler.__doc__
    assert told and f"None: {BLOCK_BYTES >> 20} MiB" in told and f"None: {WINDOW_BYTES >> 30} GiB" in told


@pytest.mark.slow
def test_transcript() -> None:
    shown = BLOCK.search(text_of("packing"))
    assert shown and shown[0] == transcript(), "run python -m docs.make_transcript"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_pages_name_commands_that_exist(page: Path) -> None:
    for name, rest in re.findall(r"^\s*\$ pass-pack (\w+)(.*)", page.read_text(), re.M):
        options = COMMANDS[name]._option_string_actions  # type: ignore[index]
        assert set(re.findall(r"--[\w-]+", rest)) <= set(options), f"{name}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_pages_have_no_private_names(page: Path) -> None:
    assert not re.search(r"\b_C\b|\b_cuda\b|(?<!\w)import _", page.read_text())


def test_every_page_is_in_the_index() -> None:
    index, api = text_of("index"), text_of("api")
    links = re.findall(r"\]\(([^)]+)\)", index)
    for page in DOCS.glob("*.md"):
        shown = re.fullmatch(r"\[.*\]\((\.\./.*)\)\n", page.read_text())  # a file outside docs/: conf.py
        assert page.stem == "index" or (shown[1] if shown else page.name) in links, page
        assert page.stem == "index" or re.search(rf"\b{page.stem}(>|$)", index, re.M), (
            f"{page}: in no table of contents"
        )
    for page in (DOCS / "api").glob("*.md"):
        assert f"](api/{page.name})" in api, page


def test_every_module_has_a_line() -> None:
    """And no line is of a module that is gone."""
    sections = re.findall(r"^### `pass_loader(.*?)`\n(.*?)(?=^##|\Z)", text_of("architecture"), re.M | re.S)
    told = {f"{room}.{name}" for room, lines in sections for name in re.findall(r"^\| `(\w+)` \|", lines, re.M)}
    package = ROOT / "pass_loader"
    files = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py")]
    modules = {f"{'.'.join(['', *path.parts])}" for path in files if path.name != "__init__" or len(path.parts) == 1}
    rooms = {f".{path.parts[0]}" for path in files if len(path.parts) > 1}
    assert {room for room, _ in sections} == {"", *rooms} and told == modules


@pytest.mark.parametrize(
    "module", [pass_loader, recipes, pass_loader.pack, pass_loader.drop_in], ids=lambda m: m.__name__
)
def test_every_public_name_is_on_its_page(module: object) -> None:
    name = module.__name__  # type: ignore[attr-defined]
    page = (DOCS / "api" / f"{name.split('.')[-1]}.md").read_text()
    told = set(re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)", page, re.M)) | set(re.findall(rf"`{name}\.(\w+)`", page))
    elsewhere = {"recipes"} if module is pass_loader else set()
    assert told == {*module.__all__} - elsewhere  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=["README", *(page.stem for page in PAGES)])
def test_files_that_pages_name_are_there(page: Path) -> None:
    rooms = "csrc|tests|benchmarks|docs|examples|pass_loader"
    for name in re.findall(rf"`((?:{rooms})/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (benchmarks[\w.]+|docs[\w.]+)", page.read_text()):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
