"""The host code of csrc/cuda/*.cu as nvcc compiles it, and the bindings, without a GPU: on a stand-in for the CUDA
runtime (helpers/standin_runtime.py), with nvJPEG's. The situations run in one process, which a mistake may end."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.nvjpeg_standin import ROOT, library  # noqa: F401  fixture
from ..helpers.standin_runtime import compile_runtime, find_nvcc
from .standin_situations import SITUATIONS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not on the PATH")]


# Tests marked `cuda`, which run here as on a GPU: those of streams, of memory that is used again, given back or runs
# out, and of each way of decoding. The others need a GPU: graphs, pinning by torch itself (test_where_things_lie), its
# arithmetic (test_normalize_on_the_device), nvJPEG's pixels; or would take long.
LIKE_ON_A_GPU = {
    "tests/gpu/test_cuda_loader.py": [
        "test_parts", "test_a_slow_consumer", "test_a_slow_renderer", "test_next_does_not_synchronise",
        "test_held_batches_stay", "test_loaders_give_their_memory_back", "test_out_of_memory", "test_nvjpegs_batches",
        "test_nvjpegs_memory", "test_exact_decoding", "test_the_benchmark_of_exact_decoding[dct-zstd]",
    ],
    "tests/gpu/test_cuda.py": [
        "test_a_slow_stream", "test_two_streams", "test_a_workspace_that_grows",
        "test_renderers_give_their_memory_back", "test_out_of_memory", "test_refused", "test_element_types",
    ],
    "tests/native/test_cuda_decode.py": ["test_rows_by_hand[device]", "test_a_running_dc_beyond_16_bits[device]"],
}  # fmt: skip
LONG_ON_A_GPU = {"tests/gpu/test_cuda_loader.py": ["test_nvjpeg_after_a_slow_stream"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-in and the extension on it are."""
    pytest.importorskip("pybind11")
    nvcc = find_nvcc()
    assert nvcc is not None
    return compile_runtime(tmp_path_factory.mktemp("runtime"), nvcc)


@pytest.mark.parametrize(
    "wanted,seed",
    [
        (LIKE_ON_A_GPU, None),
        pytest.param(LIKE_ON_A_GPU, 3, marks=pytest.mark.long),
        pytest.param(LONG_ON_A_GPU, None, marks=pytest.mark.long),
    ],
    ids=["late", "drawn", "long"],
)
def test_like_on_a_gpu(folder: Path, library: Path, wanted: dict[str, list[str]], seed: int | None) -> None:
    """torch's streams, events and memory are the stand-in's, too (helpers/standin_torch.py). Kills, as late as may be
    or in a drawn order: memory that is given to the next batch while a consumer still reads it (record_stream), a
    stream that does not wait for another, pinned memory that is written before it was copied, a verdict that is read
    early; and memory that is kept."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-p", "tests.helpers.standin_torch"]
    tests = [f"{file}::{name}" for file, names in wanted.items() for name in names]
    command += ["-m", "cuda", *tests]
    order = {} if seed is None else {"PASS_LOADER_STANDIN_SEED": str(seed)}
    environment = os.environ | order
    environment |= {"PASS_LOADER_STANDIN": str(folder), "PASS_LOADER_STANDIN_NVJPEG": str(library)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[:5000]  # a crash names its threads first
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= len(tests) and "skipped" not in done.stdout, done.stdout[-500:]


@pytest.fixture(scope="module")
def found(folder: Path, library: Path) -> dict[str, str | None]:
    """What went wrong in each situation that has ended."""
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
