"""What an install needs at least: the package works without pandas and, but for the loader, without torch.

`make lowest` runs the same with the lowest versions that pyproject.toml allows, and the loader's tests with the lowest
torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def floors() -> dict[str, str]:
    """Return {"torch": its lowest version, ...} of pyproject.toml, "python" among them."""
    text = (ROOT / "pyproject.toml").read_text()
    needed = re.findall(r"^(?:dependencies|torch) = \[([^]]*)\]", text, re.M)
    python = re.search(r'^requires-python = ">=(.*)"', text, re.M)
    assert len(needed) == 2 and python is not None
    return dict(re.findall(r'"(\w+)>=([\d.]+)"', ", ".join(needed))) | {"python": python[1]}


@pytest.mark.slow
def test_a_plain_install(tmp_path: Path) -> None:
    script = ROOT / "tests/helpers/plain_install.py"
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_names_the_lowest_versions() -> None:
    line = re.search(r"^You need (Python [\d.]+, .*?) and GCC", (ROOT / "README.md").read_text(), re.M)
    assert line is not None
    named = dict(re.findall(r"(\w+) ([\d.]+)", line[1]))
    lowest = floors()
    assert {name.lower(): version for name, version in named.items()} == {name: lowest[name] for name in
        ("python", "torch", "numpy", "pyarrow", "pillow")}  # fmt: skip


def test_make_lowest_takes_the_versions_from_pyproject() -> None:
    """The text that the Makefile's `sed` reads is one line."""
    made = subprocess.run(["make", "-s", "-f", "Makefile", "print-lowest"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    want = {f"{name}=={version}" for name, version in floors().items() if name != "python"}
    assert set(made.stdout.split()) == want
