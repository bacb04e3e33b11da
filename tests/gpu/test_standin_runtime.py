"""The host code of csrc/cuda/*.cu as nvcc compiles it, and the bindings, without a GPU: on a stand-in for the CUDA
runtime (helpers/standin_runtime.py), with nvJPEG's. The situations run in one process, which a mistake may end."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.nvjpeg_standin import ROOT, library  # noqa: F401  fixture
from ..helpers.standin_runtime import compile_runtime, find_nvcc
from .standin_situations import SITUATIONS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not on the PATH")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, library: Path) -> dict[str, str | None]:
    """What went wrong in each situation that has ended."""
    pytest.importorskip("pybind11")
    nvcc = find_nvcc()
    assert nvcc is not None
    folder = compile_runtime(tmp_path_factory.mktemp("runtime"), nvcc)
    command = [sys.executable, "-m", "tests.gpu.standin_situations", str(folder), str(library)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    ended = dict(map(json.loads, done.stdout.splitlines()))
    for situation in SITUATIONS:
        if situation.__name__ not in ended:
            ended[situation.__name__] = f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
            break
    return ended


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_host_code(situation: object, found: dict[str, str | None]) -> None:
    name = situation.__name__  # type: ignore[attr-defined]
    assert name in found, "a situation before it has ended the process"
    assert found[name] is None, found[name]
