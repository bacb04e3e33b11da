"""The rooms of benchmarks/: every module can be imported, no room imports from another, bars have their verdicts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cpu import against, busy_threads, table

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


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a table by their first cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def test_the_bar_of_packing() -> None:
    rows = [{"way": way, "samples_per_second": 400.0, "megabytes_per_second": 1.0} for way in ("JPEG to dct", "other")]
    assert [row[-1] for row in cells(table.packing_table(rows)).values()] == ["400: met", ""]
    rows[0]["samples_per_second"] = 399.9
    assert cells(table.packing_table(rows))["JPEG to dct"][-1] == "400: missed"


def test_the_bar_of_two_threads() -> None:
    rows = [{"threads": n, "samples_per_second": 100.0 * n * 0.96, "samples_per_second_of_one": 100.0} for n in (2, 4)]
    assert [row[-1] for row in cells(table.threads_table(rows)).values()] == ["1.9x: met", ""]
    rows[0]["samples_per_second"] = 189.0
    assert cells(table.threads_table(rows))["2"][-1] == "1.9x: missed"


def test_the_bar_of_bfloat16_is_avx2s() -> None:
    rows = [
        {"peer": "pass-loader", "isa": isa, "samples_per_second": 9.9, "samples_per_second_of_float32": 10.0}
        for isa in ("avx2", "base")
    ]
    found = cells(table.dtypes_table(rows))
    assert found["pass-loader, JPEG (avx2)"][-1] == "1x: missed" and found["pass-loader, JPEG (base)"][-1] == ""
    rows[0]["samples_per_second"] = 10.0
    assert cells(table.dtypes_table(rows))["pass-loader, JPEG (avx2)"][-1] == "1x: met"


def test_the_bars_of_fine_tuning() -> None:
    """Of the rate beside timm's, and of the further steps alone: those at levels that have kernels for them."""
    rows = [
        {"peer": peer, "isa": isa, "samples_per_second": rate, "stages": {"further": 1e-6 * further}}
        for peer, isa, rate, further in (
            ("pass-loader", "avx512", 42.1, 79.9), ("pass-loader, dct", "avx2", 54.9, 80.1),
            ("pass-loader, dct", "base", 1.0, 500.0),
        )
    ]  # fmt: skip
    rows.append({"peer": "timm on PIL", "isa": "", "samples_per_second": 10.0})
    found = cells(table.fine_tuning_table(rows))
    assert found["pass-loader, JPEG (avx512)"][1:4] == ["4.2x: met", "80", "80 us: met"]
    assert found["pass-loader, dct (avx2)"][1:4] == ["5.5x: missed", "80", "80 us: missed"]
    assert found["pass-loader, dct (base)"][1:4] == ["", "500", ""]
    assert found["timm on PIL"][1:4] == ["", "", ""]


def test_bars_beside_an_earlier_commit() -> None:
    """Each of the three recipes at each level; of the aim it is said whether it was reached. Bars are for
    photographs."""
    levels = {"avx2", "avx512", "avx512vbmi"}
    for recipe in ("dino", "swav", "mocov2"):
        assert {level for name, codec, level in against.BARS if (name, codec) == (recipe, "jpeg")} == levels
    dino, swav = ("dino", "jpeg", "avx512"), ("swav", "jpeg", "avx2")
    for row, ours, words in (
        (dino, 0.84, "bar 1.2: missed, aim 1.25: not reached"), (dino, 0.82, "bar 1.2: met, aim 1.25: not reached"),
        (dino, 0.8, "bar 1.2: met, aim 1.25: reached"), (swav, 0.9, "bar 1.08: met"), (swav, 0.95, "bar 1.08: missed"),
    ):  # fmt: skip
        assert against.report(row, ours, 1.0, against.BARS[row], photographs=True).endswith(f" times, {words}")
        generated = against.report(row, ours, 1.0, against.BARS[row], photographs=False)
        assert generated.endswith(": no verdict, generated pictures") and "met" not in generated
    assert against.report(swav, 0.95, 1.0, None, photographs=True).endswith(" times")


@pytest.mark.parametrize("pinned", [False, True])
def test_bars_of_busy_threads(pinned: bool) -> None:
    """Pinned batches of DINO take half as much again: torch rounds each allocation up to a power of two."""
    most = 4 if pinned else 5
    found = {"busy": 0.95, "samples_per_second": 1.0, "batches_ahead": 2, "most": most}
    assert "bar 0.95: met" in (row := busy_threads.report(8, 64, pinned, found)) and "bar 64: met" in row
    found |= {"busy": 0.949, "most": most + 1}
    assert "bar 0.95: missed" in (row := busy_threads.report(8, 64, pinned, found)) and "bar 64: missed" in row
    two, four = (busy_threads.bytes_a_thread(batches, 1, 64, pinned) for batches in (2, 4))
    sample = 4 * 3 * (2 * 224**2 + 8 * 96**2)
    assert two == 16 << 20 and four - two == 2 * (192 << 20 if pinned else 64 * sample)
