"""Where a sample's time goes, stage by stage, at each instruction-set level, beside floors taken in the same process;
and what the views of every preset cost a pixel.

The engine's own stage times (csrc/stages.h) over the timed rounds, one thread on one pinned core. `other` is what the
batch took beyond its stages: hand-over, Python, the memory's first use.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.recipes import reference

from .measure import BATCH, ROUNDS, assert_decodes, assert_equals_pillow, last, run


@pytest.mark.parametrize("recipe_name", ["dino", "swav"])
def bench_stages(benchmark: Any, pack: Path, records: list[int], recipe_name: str, isa: str) -> None:
    dataset = ShardDataset(pack, recipes.PRESETS[recipe_name]())
    loader = DataLoader(dataset, BATCH, sampler=records, num_workers=1, return_info=True)
    last(loader)
    before = loader._get_renderer().stage_times()
    batch = run(benchmark, lambda: last(loader), len(records), warmup_rounds=0, table="stages", isa=isa)
    after = loader._get_renderer().stage_times()
    samples = after.pop("samples") - before["samples"]
    seconds = {stage: (after[stage] - before[stage]) / samples for stage in after}
    seconds["other"] = benchmark.stats.stats.mean / len(records) - sum(seconds.values())
    benchmark.extra_info.update(
        recipe=recipe_name, stages=seconds, floors=floors(dataset, records), pixels_out=pixels_out(dataset)
    )
    assert samples == ROUNDS * len(records)
    assert min(seconds.values()) >= 0
    assert_equals_pillow(dataset, batch[0], batch[-1])


@pytest.mark.parametrize("recipe_name", recipes.PRESETS)
def bench_presets(benchmark: Any, pack: Path, records: list[int], recipe_name: str, isa: str) -> None:
    """Views alone, neither read nor decoded, in turn with DINO's: nanoseconds a pixel of output, of the fastest pass
    each (stage times are of the clock on the wall: neighbours slow some passes down)."""
    datasets = [ShardDataset(pack, recipes.PRESETS[name]()) for name in (recipe_name, "dino")]
    loaders = [DataLoader(dataset, BATCH, sampler=records, num_workers=1) for dataset in datasets]
    fastest = [float("inf"), float("inf")]

    def one_pass_each() -> None:
        for number, (dataset, loader) in enumerate(zip(datasets, loaders)):
            seconds = seconds_of_views(loader)
            fastest[number] = min(fastest[number], 1e9 * seconds / (len(records) * pixels_out(dataset)))

    run(benchmark, one_pass_each, 2 * len(records), rounds=2 * ROUNDS, table="presets", isa=isa, recipe=recipe_name)
    benchmark.extra_info.update(ns_per_pixel=fastest[0], ns_per_pixel_of_dino=fastest[1])
    picture = reference.decode(datasets[0].read(records[0]))
    for view, plan in zip(datasets[0].render(records[0]), datasets[0].plan(records[0]), strict=True):
        assert np.array_equal(view, np.asarray(reference.render(picture, plan)))


def seconds_of_views(loader: DataLoader) -> float:
    """A pass: all stages but reading and decoding."""
    times = loader._get_renderer().stage_times
    before = times()
    last(loader)
    after = times()
    return sum(after[stage] - before[stage] for stage in after if stage not in ("samples", "read", "decode"))


def pixels_out(dataset: ShardDataset) -> int:
    return sum(view.height * view.width for view in dataset.recipe.views)


def floors(dataset: ShardDataset, records: list[int]) -> dict[str, float]:
    """Seconds a sample: to copy a batch's float32 bytes once, and to decode its JPEG, nothing else."""
    found = {}
    source = np.random.default_rng(0).random((BATCH, 3, pixels_out(dataset)), dtype=np.float32)
    target = np.empty_like(source)
    found["copy of the output"] = median_seconds(lambda: np.copyto(target, source)) / BATCH
    assert np.array_equal(source, target)
    try:
        import simplejpeg
    except ImportError:
        return found
    data = [dataset.read(record) for record in records]
    decoded = [np.empty(0)]

    def decode_all() -> None:
        for one in data:
            decoded[0] = simplejpeg.decode_jpeg(one)

    found["libjpeg-turbo decode alone"] = median_seconds(decode_all) / len(data)
    assert_decodes(dataset, decoded[0], records[-1])
    return found


def median_seconds(work: Callable[[], None]) -> float:
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
