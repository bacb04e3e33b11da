"""The engine's stage times: what is charged to which stage. No time is asserted but zero and not zero."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import Recipe, ShardDataset, ViewSpec, recipes
from pass_loader.pack.reader import Pack
from pass_loader.loading.rendering import Failure, Renderer
from pass_loader.keys import Keys

from ..helpers.packs import flip_a_bit


STAGES = ["read", "decode", "plan", "resize", "brightness_contrast", "saturation", "hue", "grayscale", "blur",
          "solarize", "further", "normalize", "heatmap"]  # fmt: skip
ALWAYS = {"read", "decode", "plan", "resize", "normalize"}


def render(renderer: Renderer, records: list[int]) -> list[Failure]:
    keys = Keys(np.array(records, np.int64), *np.zeros((2, len(records)), np.uint32))
    return renderer.submit(keys).wait()


def renderer_of(pack: Path, recipe: Recipe, threads: int = 1) -> Renderer:
    return Renderer(ShardDataset(pack, recipe), threads, batch_size=23)


@pytest.mark.parametrize(
    "step,want",
    [
        ({}, set()),
        ({"jitter": 1.0, "brightness": (0.5, 0.6)}, {"brightness_contrast"}),
        ({"jitter": 1.0, "contrast": (0.5, 0.6)}, {"brightness_contrast"}),
        ({"jitter": 1.0, "saturation": (0.5, 0.6)}, {"saturation"}),
        ({"jitter": 1.0, "hue": (0.1, 0.2)}, {"hue"}),
        ({"grayscale": 1.0}, {"grayscale"}),
        ({"blur": 1.0}, {"blur"}),
        ({"solarize": 1.0}, {"solarize"}),
        ({"then": (recipes.Step("invert"),)}, {"further"}),
    ],
    ids=lambda value: "-".join(value) or "none",
)
def test_a_step_is_charged_to_its_stage(pack: Path, step: dict[str, Any], want: set[str]) -> None:
    renderer = renderer_of(pack, Recipe("one", (ViewSpec(32, (0.5, 1.0), **step),)))
    render(renderer, [0, 1, 2])
    times = renderer.stage_times()
    assert {name for name in STAGES if times[name] > 0} == ALWAYS | want


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_are_summed(pack: Path, threads: int) -> None:
    renderer = renderer_of(pack, recipes.dino(local_crops=2, global_size=32, local_size=16), threads)
    before = renderer.stage_times()
    assert list(before) == [*STAGES, "samples"] and not any(before.values())
    began = time.monotonic()
    for _ in range(3):
        render(renderer, list(range(23)))
        assert renderer.stage_times()["samples"] > before["samples"]
    elapsed = time.monotonic() - began
    times = renderer.stage_times()
    assert times.pop("samples") == 3 * 23
    assert 0 < sum(times.values()) <= elapsed * max(threads, 1)


def test_a_failed_sample_is_not_counted(pack: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(pack, tmp_path / "pack")
    flip_a_bit(Pack(damaged), 1)
    renderer = renderer_of(damaged, recipes.mocov2(size=16))
    assert [slot for slot, _, _ in render(renderer, [0, 1, 2])] == [1]
    times = renderer.stage_times()
    assert times["samples"] == 2 and times["read"] > 0
