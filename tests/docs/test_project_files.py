"""What stands at the root beside the code says what is true: versions, files, targets of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pass_loader

ROOT = Path(__file__).parents[2]
PAGES = ["CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", "CHANGELOG.md", ".github/pull_request_template.md"]
FOLDERS = ("csrc", "pass_loader", "tests", "benchmarks", "docs", "wheels", "recipe", "examples")
# A tree without its hidden files, as `make sanitize` and the sdist have it, has nothing to check here.
pytestmark = pytest.mark.skipif(not (ROOT / ".github").exists(), reason="not a checkout")


def test_versions() -> None:
    version = pass_loader.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()
    assert f'\n  version: "{version}"\n' in (ROOT / "recipe/recipe.yaml").read_text()


def test_conda_requires_what_pip_requires() -> None:
    needed = re.search(r"^dependencies = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.M)
    run = re.search(r"\n  run:\n    - python\n((?:    - .*\n)*)", (ROOT / "recipe/recipe.yaml").read_text())
    assert needed is not None and run is not None
    assert re.findall(r"- (.*)", run[1].replace(" >=", ">=")) == re.findall(r'"(.*?)"', needed[1])


def test_the_conda_recipe_is_one() -> None:
    """rattler-build, which conda-forge builds with, reads and renders it. It refuses fields that it does not know."""
    conda = pytest.importorskip("rattler_build")
    recipe = conda.Stage0Recipe.from_file(str(ROOT / "recipe/recipe.yaml"))
    stdlib = {"c_stdlib": ["sysroot"], "c_stdlib_version": ["2.28"]}
    rendered = recipe.render(conda.VariantConfig({"python": ["3.11.* *_cpython", "3.13.* *_cp313"], **stdlib}))
    found = [(one.recipe.package.name, str(one.recipe.package.version)) for one in rendered]
    assert found == [("pass-loader", pass_loader.__version__)] * 2


def test_commits_are_checked_by_the_linters_of_make_lint() -> None:
    extra = re.search(r"^lint = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.M)
    assert extra is not None
    pinned = re.findall(r"additional_dependencies: \[(.*)\]", (ROOT / ".pre-commit-config.yaml").read_text())
    assert {*pinned} < {*re.findall(r'"(\S+==\S+)"', extra[1])} and len(pinned) == 3


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    names = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    for word in re.findall(r"`([\w/.-]+)`", (ROOT / page).read_text()):
        if re.search(r"\.(py|pyi|h|cpp|md)$", word) and "/" not in word:
            assert word in names or (ROOT / word).exists(), f"{page}: {word}"
        elif word.split("/")[0] in FOLDERS and "/" in word:
            assert (ROOT / word).exists(), f"{page}: {word}"


def test_targets_of_make_exist() -> None:
    made = {*re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.M)}
    for page in [*PAGES, ".ci/run", *(path.relative_to(ROOT) for path in (ROOT / ".github/workflows").iterdir())]:
        named = {*re.findall(r"(?:`|^|: )make ([a-z0-9]+)", (ROOT / page).read_text(), re.M)}
        assert named <= made, f"{page}: {named - made}"


def test_constants_in_the_changelog() -> None:
    """The versions of what lies on disk, as the newest release states them."""
    from pass_loader import _C
    from pass_loader.loading.resume import STATE_VERSION
    from pass_loader.pack.manifest import FORMAT_VERSION

    codec = re.search(r"kDctVersion = (\d+)", (ROOT / "csrc/jpeg/dct_codec.h").read_text())
    assert codec is not None
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    found = [int(number) for number in re.findall(r"^\| .* \| (\d+) \|$", newest, re.M)]
    assert found == [FORMAT_VERSION, int(codec[1]), STATE_VERSION, _C.plan_version]
