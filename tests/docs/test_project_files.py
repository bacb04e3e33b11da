"""What stands at the root beside the code says what is true: versions, files, targets of make."""

from __future__ import annotations

import os
import re
import subprocess
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


def test_conda_forge_finds_what_it_asks_for() -> None:
    """Its linter wants a page, a licence with its file, maintainers, a number of the build, and tests."""
    recipe = (ROOT / "recipe/recipe.yaml").read_text()
    parts = {part.partition(":")[0]: part for part in re.split(r"\n(?=\w)", recipe)}
    homepage = re.search(r"\n  homepage: (https://\S+)\n", parts["about"])
    assert homepage is not None and f'"{homepage[1]}"' in (ROOT / "pyproject.toml").read_text()
    for field in ("summary", "license", "license_file"):
        assert re.search(rf"\n  {field}: \S", parts["about"]), field
    assert re.search(r"\n  recipe-maintainers:.*\n    - \S", parts["extra"])
    assert "\n  number: " in parts["build"] and "\n  - script:" in parts["tests"]


def test_the_conda_recipe_is_one() -> None:
    """rattler-build, which conda-forge builds with, reads and renders it. It refuses fields that it does not know."""
    conda = pytest.importorskip("rattler_build")
    recipe = conda.Stage0Recipe.from_file(str(ROOT / "recipe/recipe.yaml"))
    stdlib = {"c_stdlib": ["sysroot"], "c_stdlib_version": ["2.28"]}
    rendered = recipe.render(conda.VariantConfig({"python": ["3.11.* *_cpython", "3.13.* *_cp313"], **stdlib}))
    found = [(one.recipe.package.name, str(one.recipe.package.version)) for one in rendered]
    assert found == [("pass-loader", pass_loader.__version__)] * 2


def test_the_workflow_of_releases_tests_wheels_without_a_compiler(tmp_path: Path) -> None:
    """Its own PATH for building has compilers, which the scenario refuses. Its wheels have names of one platform."""
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    found = re.search(r"\n( +)CIBW_TEST_COMMAND: >-\n((?:\1  .*\n)+)", workflow)
    assert found is not None
    programs = {"tools/g++": "exit 1", "venv/bin/python": f'command -v g++ && exit 1; echo "$@" > {tmp_path}/told'}
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}/venv/bin:{tmp_path}/tools:{os.environ['PATH']}"
    environment = {"PATH": path, "VIRTUAL_ENV": f"{tmp_path}/venv"}
    command = " ".join(found[2].split()).replace("{project}", str(ROOT))
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True)
    script, *words = (tmp_path / "told").read_text().split()
    assert Path(script).exists() and words == ["run", "torch", "pandas"] and (tmp_path / "run").is_dir()
    assert "auditwheel repair --only-plat " in workflow


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
