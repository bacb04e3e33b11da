"""Pinned memory, queued copies and normalisation on a device, on an accelerator that every machine has
(helpers/accelerator). It is torch's for a whole process: pinning_checks.py runs in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ..helpers.accelerator import LIBRARY, build
from . import pinning_checks

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[2]
CHECKS = [name for name in vars(pinning_checks) if name.startswith("test_")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Run the checks; returns what is wrong, by the name of the check."""
    folder = tmp_path_factory.mktemp("accelerator")
    report, environment = folder / "report.xml", {LIBRARY: str(build(folder)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
               "-p", "tests.helpers.accelerator.plugin", "tests/loading/pinning_checks.py",
               "tests/native/test_normalize.py::test_on_an_accelerator"]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900
    )
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [part.get("message", "") + (part.text or "") for part in case]
        found.setdefault(case.attrib["name"].split("[")[0], []).extend(f"{case.attrib['name']}: {one}" for one in wrong)
    return found


@pytest.mark.parametrize("name", [*CHECKS, "test_on_an_accelerator"])
def test_in_its_process(outcomes: dict[str, list[str]], name: str) -> None:
    assert name in outcomes, "it did not run"
    assert not outcomes[name], "\n".join(outcomes[name])
