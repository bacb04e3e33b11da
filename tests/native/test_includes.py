"""The dependency rules of csrc/README.md, read off the includes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"

# bindings -> {render_batch, decode_batch} -> engine -> {pool, read_ahead -> shard, decode -> {jpeg png}, plan, cpu} ->
# small headers, and bindings_cuda -> cuda -> {plan} -> small headers. A room may include itself and what stands here.
SMALL = {"error", "image", "memory", "rng", "recipe", "weights", "isa", "crc32c", "buffers", "stages", "draws",
         "portable_math", "blur_weights", "filters", "host_device", "pixels", "system_calls",
         "entry_points", "gpu_form"}  # fmt: skip
ENGINE = {"pool", "shard", "decode", "plan", "cpu"} | SMALL
MAY_INCLUDE = {
    "bindings": {"bindings_gil", "plan", "cpu"} | SMALL,
    "bindings_gil": set(),
    "bindings_gpu": {"bindings_gil", "cuda"},
    "bindings_cuda": {"bindings_gil", "bindings_gpu", "cuda"} | SMALL,
    "bindings_nvjpeg": {"bindings_gil", "bindings_gpu", "cuda"} | SMALL,
    "bindings_exact": {"bindings_gil", "bindings_gpu", "cuda"} | SMALL,
    "bindings_loading": {"bindings", "render_batch", "decode_batch", "engine"} | ENGINE,
    "bindings_masks": {"bindings", "masks", "plan"} | SMALL,
    "bindings_pictures": {"bindings", "decode", "jpeg", "cpu"} | SMALL,
    "render_batch": {"engine", "read_ahead"} | ENGINE,
    "decode_batch": {"engine", "read_ahead"} | ENGINE,
    "engine": {"read_ahead"} | ENGINE,
    "pool": {"error", "system_calls"},
    "read_ahead": {"shard"} | SMALL,
    "decode": {"jpeg", "png"} | SMALL,
    "shard": SMALL,
    "jpeg": SMALL,
    "png": SMALL,
    "cpu": {"plan"} | SMALL,
    "cuda": {"plan"} | SMALL,
    "plan": SMALL,
    "masks": SMALL,
    "plan_checks": {"plan"} | SMALL,
    "plan_steps": {"plan"} | SMALL,
} | {name: SMALL for name in SMALL}


def room(path: Path) -> str:
    relative = path.relative_to(CSRC)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def test_includes() -> None:
    sources = sorted(path for suffix in ("h", "cpp", "cu", "cuh") for path in CSRC.rglob(f"*.{suffix}"))
    assert len(sources) > 20
    for path in sources:
        text = path.read_text()
        for name in re.findall(r'#include "([^"]+)"', text):
            included = CSRC / name
            assert included.exists(), f"{path}: {name} is not below csrc/"
            target = room(included)
            assert target == room(path) or target in MAY_INCLUDE[room(path)], f"{path} includes {name}"
        outside = set(re.findall(r"#include <([^>]+)>", text))
        if not path.stem.startswith("bindings"):
            assert not any(name.startswith(("pybind11", "Python")) for name in outside), path
        assert not any("torch" in name or name.startswith("ATen") for name in outside), path
        if path.suffix not in (".cu", ".cuh"):  # so that all else compiles, and runs, without CUDA
            assert not any("cuda" in name for name in outside), path
        if path.stem not in ("pool", "read_ahead", "system_calls"):
            assert not outside & {"thread", "condition_variable", "pthread.h"}, path
