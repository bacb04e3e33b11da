"""benchmarks/on_gpu.sh: a step that fails or hangs does not stop the others, and none takes longer than it may."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/on_gpu.sh"
STEPS = {"A": ["kernels", "decode", "streams", "loader", "memcheck"], "B": ["probe", "decoder"],
         "C": ["rendering", "first_pass", "training", "choices"], "D": ["decoding", "shards"]}  # fmt: skip
PYTHON = """#!/bin/bash
# In Python's place: says what it was asked for, and does what the test wants of it.
echo "python $*" >>"$ASKED"
echo "$PYTHONPATH $LD_LIBRARY_PATH" >>"$ASKED.paths"
[ -z "${HANG:-}" ] || exec sleep 60
case "$*" in
  *tests/gpu/test_cuda.py*) trap '' TERM; sleep 60 & wait; sleep 60 ;;
  *test_cuda_kernels.py*) echo "1 failed"; exit 3 ;;
esac
echo "the last line"
"""
SANITIZER = """#!/bin/bash
echo "$*" >>"$ASKED.tools"
exec "${@:5}"
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-ins for Python and compute-sanitizer were asked for, a line each."""
    for name, text in {"python": PYTHON, "compute-sanitizer": SANITIZER}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHON", str(tmp_path / "python"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return tmp_path / "asked"


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", SCRIPT, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_a_step_that_fails_or_hangs(asked: Path, tmp_path: Path) -> None:
    """Kills: an end at the first failure, a hang that ignores SIGTERM, a summary that calls them well."""
    began = time.monotonic()
    done = run("A", "--seconds", 20, tmp_path / "out")
    assert time.monotonic() - began < 15
    lines = (tmp_path / "out/A.txt").read_text().splitlines()
    assert done.stdout.splitlines() == lines and done.returncode == 1
    assert (tmp_path / "out/A.log").read_text().count("the last line\n") == 4
    found = {line.split()[1]: line for line in lines[:-1]}
    assert list(found) == ["prepare", "machine", *STEPS["A"]]
    assert re.search(r"kernels +failed \(3\) +\d+ s   1 failed$", found["kernels"])
    assert re.search(r"streams +timed out +[3-6] s", found["streams"])
    assert re.search(r"memcheck +failed \(3\)", found["memcheck"])
    for name in ("prepare", "machine", "loader"):
        assert re.search(rf"{name} +ok +\d+ s   the last line$", found[name])
    assert re.fullmatch(r"A  \d+ s, 3 steps not ok", lines[-1])
    assert "== loader, at most 6 s: " in (tmp_path / "out/A.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("dry", [["--dry"], []])
@pytest.mark.parametrize("stage", STEPS)
def test_every_stage(stage: str, dry: list[str], asked: Path, tmp_path: Path) -> None:
    """Kills: a step that is left out, a dry run that asks for a GPU, tests on a GPU that need none, figures that do not
    come back, a tool that is not used, packages of the kit that are not found."""
    done = run(stage, *dry, "--seconds", 20, "--kit", "its/place", tmp_path / "out")
    assert [line.split()[1] for line in done.stdout.splitlines()[:-1]] == ["prepare", "machine", *STEPS[stage]]
    commands = asked.read_text().splitlines()
    assert commands[0].startswith("python -m benchmarks.gpu.kit use its/place --work build/on_gpu")
    for command in commands:
        is_test = "-m pytest" in command
        if not is_test and "machine" not in command:
            assert ("--dry" in command) == bool(dry), command
        assert ("-m cuda" in command) == (is_test and not dry), command
        if " benchmarks.gpu." in command and "gpu.kit" not in command:
            assert f"--json {tmp_path}/out/{stage}-" in command
    tools = tmp_path / "asked.tools"
    told = tools.read_text() if tools.exists() else ""
    assert told.startswith(f"--tool memcheck --error-exitcode 1 {tmp_path}/python -m pytest") == (stage == "A"), told
    for line in (tmp_path / "asked.paths").read_text().splitlines()[1:]:
        assert f"{ROOT}/build/on_gpu/site " in line and f" {ROOT}/build/on_gpu/site/nvidia/cu13/lib" in line
    assert stage != "C" or dry or done.returncode == 0


def test_no_time_is_left(asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a step that begins after the stage's end, results that lie elsewhere than $OUT says."""
    monkeypatch.setenv("OUT", str(tmp_path / "its/out"))
    done = run("C", "--seconds", 1)
    assert (tmp_path / "its/out/C.txt").read_text() == done.stdout
    assert "choices        left out: no time" in done.stdout and done.returncode == 1
    assert not asked.exists() or "choices" not in asked.read_text()


@pytest.mark.slow
def test_a_stage_ends(asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all steps hang the last one has what is left. Kills: a stage that takes longer than it may."""
    monkeypatch.setenv("HANG", "1")
    done = run("D", "--seconds", 7, tmp_path / "out")
    assert done.returncode == 1 and "4 steps not ok" in done.stdout
    limits = re.findall(r"^== (\w+), at most (\d+) s", (tmp_path / "out/D.log").read_text(), re.M)
    assert limits[0] == ("prepare", "3")
    assert int(dict(limits).get("shards", 0)) < 4, "its share of the whole stage"


@pytest.mark.parametrize("arguments", [[], ["E"], ["--dry"], ["A", "B"], ["A", "--fast"], ["A", "--seconds", "no"]])
def test_refused(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.returncode == 2 or arguments == ["E"] and done.returncode == 2
    assert "on_gpu.sh STAGE" in done.stderr and done.stdout == ""


def test_the_time_of_all_stages() -> None:
    """Below 21 minutes with the grace of each stage's last step."""
    text = SCRIPT.read_text()
    seconds = dict(re.findall(r"\[([A-D])\]=(\d+)", text))
    assert [*seconds] == [*STEPS] and sum(map(int, seconds.values())) + 10 * len(seconds) < 21 * 60
    for stage, named in re.findall(r"^#   ([A-D])  .* (\d+) s", text, re.M):
        assert seconds[stage] == named


def test_what_it_runs_exists() -> None:
    """Kills: a file that has another name now, an expression of pytest's -k that chooses nothing."""
    text = SCRIPT.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        for module in re.findall(r"-m (benchmarks\.[\w.]+)", line):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
        files = re.findall(r"tests/[\w/]+\.py", line)
        names = {node.name for file in files for node in ast.walk(ast.parse((ROOT / file).read_text()))
                 if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}  # fmt: skip
        wanted = re.search(r"-k (?:'([^']*)'|(\w+))", line)
        for word in re.split(r" or |not ", wanted[1] or wanted[2]) if files and wanted else []:
            assert not word or any(word in name for name in names), f"{files}: -k {word}"
