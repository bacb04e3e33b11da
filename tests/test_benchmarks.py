"""The rooms of benchmarks/: every module can be imported, and no room imports from another."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"cpu", "gpu", "official_objects", "orders", "packing", "proof", "remote"}
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    """Without the libraries that are compared with: those are imported when they are timed."""
    names = [".".join(path.with_suffix("").parts) for path in MODULES]
    code = f"import importlib\nfor name in {names}:\n    importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_rooms_share_only_what_stands_above_them() -> None:
    assert {path.parts[1] for path in MODULES if len(path.parts) > 2} == ROOMS
    for path in MODULES:
        above = ROOMS - set(path.parts[1:-1])
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*path.parts[: -node.level], *(node.module or "").split(".")]
                for alias in node.names:
                    assert not above & {*base, alias.name}, f"{path} imports {alias.name} from another room"


def test_modules_that_are_named_elsewhere_exist() -> None:
    """In commands and in words: pages, sources, Makefile."""
    files = [ROOT / "Makefile", *ROOT.glob("*.md")]
    for folder in ("benchmarks", "csrc", "docs", "pass_loader", "tests"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".h", ".cpp", ".cu")]
    found = 0
    for file in files:
        text = file.read_text()
        modules = re.findall(r"-m (benchmarks\.[a-z_.]*[a-z_])", text)
        for name in [f"{module.replace('.', '/')}.py" for module in modules] + re.findall(
            r"benchmarks/[a-z_/]+\.py", text
        ):
            assert (ROOT / name).exists(), f"{file.relative_to(ROOT)}: {name}"
            found += 1
    assert found > 20
