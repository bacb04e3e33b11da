"""README: short, true, and its code runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cpu import table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def between(text: str, which: str) -> str:
    found = re.search(
        f"<!-- benchmarks/cpu/table.py, {which}: begin -->\n(.*)\n<!-- benchmarks/cpu/table.py, {which}: end",
        text,
        re.S,
    )
    assert found
    return found[1]


def test_it_is_short() -> None:
    assert len(README.split()) <= 900


@pytest.mark.slow
def test_ten_lines_run_in_an_empty_directory(tmp_path: Path) -> None:
    """They make their pictures, pack them, draw a contact sheet and load every batch."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    sizes = "[" + ", ".join(["(8, 3, 224, 224)"] * 2 + ["(8, 3, 96, 96)"] * 8) + "]"
    assert done.stdout == f"{sizes} tensor([-1, -1, -1, -1, -1, -1, -1, -1])\n" * 4
    assert (tmp_path / "my-pack" / "pack.json").exists() and (tmp_path / "views.png").stat().st_size > 10_000


def test_both_tables_are_printed_from_the_json_that_is_kept() -> None:
    """As benchmarks/cpu/table.py writes all three from one run: no figure that it has not printed."""
    tables = table.two_tables(json.loads(table.KEPT.read_text()))
    assert between(README, "small") == tables["small"]
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert between(page, "large") == tables["large"]
    assert between(page, "avx2") == table.section_avx2(json.loads(table.KEPT_AVX2.read_text()))


@pytest.mark.parametrize("kept", [table.KEPT, table.KEPT_AVX2], ids=lambda path: path.name)
def test_it_is_kept_as_it_is_read(tmp_path: Path, kept: Path) -> None:
    table.keep(json.loads(kept.read_text()), tmp_path / "kept.json")
    assert (tmp_path / "kept.json").read_bytes() == kept.read_bytes()


def test_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).is_file(), link


def test_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert re.search(f"^{target}:", makefile, re.M), target
    assert "make demo" in README and "make test" in README
