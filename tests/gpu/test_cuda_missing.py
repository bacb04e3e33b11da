"""What users see where no GPU can be used. Runs everywhere; a GPU is hidden from the child processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ASK = """
import sys, numpy as np, torch, pass_loader
assert not any(name.endswith("_cuda") for name in sys.modules), "imported before it is needed"
from pass_loader.gpu import cuda
print(pass_loader.cuda_available(), pass_loader.cuda_reason())
try:
    cuda.PlanRenderer(cuda.BYTES, torch.uint8)
except RuntimeError as error:
    assert str(error) == pass_loader.cuda_reason(), error
else:
    raise AssertionError("a renderer without a GPU")
"""


def ask(program: str) -> str:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_gpu() -> None:
    """Kills: a driver asked at import, False without a reason, a crash."""
    answer = ask(ASK)
    assert answer.startswith("False ")
    reasons = ("no CUDA part", "no NVIDIA driver was found", "no GPU is visible", "driver 580 or later")
    assert any(words in answer for words in reasons), answer


def test_not_built() -> None:
    answer = ask("import sys; sys.modules['pass_loader._cuda'] = None\n" + ASK.replace("assert not any", "any"))
    assert "no CUDA part" in answer and "PASS_LOADER_CUDA=1" in answer


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH, so that nothing was built by it")
def test_built_where_nvcc_is() -> None:
    assert "no CUDA part" not in ask(ASK)
