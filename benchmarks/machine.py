"""What a figure was measured on: processor, GPU, driver, commit, versions. `python -m benchmarks.machine` prints it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Any

import PIL
import torch
from PIL import features

from pass_loader import _C

PEERS = ["torchvision", "nvidia-dali-cuda130", "cvcuda-cu13", "nvidia-nvjpeg", "nvidia-nvimgcodec-cu13", "simplejpeg"]


def commit() -> str:
    """Return the commit of this checkout; empty where it has no history."""
    root = Path(__file__).parent.parent
    return _said("git", "-C", str(root), "describe", "--always", "--dirty")


def describe() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "commit": commit(),
        "cpu": model[0] if model else "unknown",
        "isa": _C.isa(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "pillow_libjpeg_turbo": features.version("libjpeg_turbo"),
    }


def describe_gpu() -> dict[str, Any]:
    """Starts nothing on the GPU in this process."""
    said = _said("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    return {
        "gpu": said or "none",
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
        "peers": {name: version for name in PEERS if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    from pass_loader.gpu import cuda

    for name, value in {**describe(), **describe_gpu(), "no GPU": cuda.cuda_reason()}.items():
        print(f"{name}: {value}")
