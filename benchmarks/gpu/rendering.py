"""Rendering alone on a GPU, pixels in its memory, float16 out: ours with each kernel's time beside the time its bytes
alone would take, and other libraries.

Pictures are made on the device, of sizes as photographs have them; nothing is read or decoded. Views of the first
pictures are compared with the CPU's before timing. Several sets of pictures take turns: none stays in the cache. The
floor of a kernel is the bytes it must read and write over the bandwidth of a copy measured in the same process. Kernels
are timed by torch's profiler.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pass_loader import _C, Recipe, render_plan
from pass_loader.gpu import cuda

from . import peers
from .on_device import copy_bandwidth, count_in, milliseconds, synchronize

SIZES = [(375, 500), (500, 375), (333, 500), (500, 333), (500, 500), (768, 1024)]  # height, width
SETS = 3
KERNELS = ["Weights", "FirstPass", "SecondPass", "Finish", "BlurAcross", "BlurDown", "KernelBlur"]


@dataclasses.dataclass
class Batch:
    """Pictures and plans of one call, and where its views go."""

    pixels: list[torch.Tensor]  # (3, height, width) uint8
    rows: np.ndarray
    plans: np.ndarray
    picture_of: np.ndarray
    outs: np.ndarray
    memory: torch.Tensor


def picture(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Smooth shapes with noise on them."""
    device = generator.device
    coarse = torch.rand(1, 3, height // 16 + 2, width // 16 + 2, device=device, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    noise = torch.rand(3, height, width, device=device, generator=generator)
    return (230 * smooth + 25 * noise).to(torch.uint8)


def pictures(samples: int, seed: int, device: str) -> list[torch.Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    return [picture(*SIZES[i % len(SIZES)], generator) for i in range(samples)]


def make_batch(recipe: Recipe, samples: int, seed: int, dtype: torch.dtype, device: str) -> Batch:
    pixels = pictures(samples, seed, device)
    plans = [
        _C.plan_views(recipe.rows(), seed=seed, epoch=0, record=i, height=p.shape[1], width=p.shape[2])
        for i, p in enumerate(pixels)
    ]
    together = np.concatenate(plans).astype(_C.view_plan_dtype)
    sizes = values(together) * dtype.itemsize
    memory = torch.full((int(sizes.sum()),), 0xA5, dtype=torch.uint8, device=device)
    outs = memory.data_ptr() + np.cumsum(sizes) - sizes
    picture_of = np.repeat(np.arange(samples), len(recipe.views)).astype(np.int32)
    return Batch(pixels, cuda.picture_rows(pixels), together, picture_of, outs, memory)


def values(plans: np.ndarray) -> np.ndarray:
    return 3 * plans["out_height"].astype(np.int64) * plans["out_width"]


def check(recipe: Recipe, device: str, samples: int = 6) -> None:
    """Demand the CPU's bytes."""
    batch = make_batch(recipe, samples, 0, torch.uint8, device)
    cuda.PlanRenderer(cuda.BYTES, torch.uint8).render(batch.rows, batch.plans, batch.picture_of, batch.outs)
    synchronize(device)
    found, at = batch.memory.cpu().numpy(), 0
    for plan, number in zip(batch.plans, batch.picture_of):
        pixels = batch.pixels[number].permute(1, 2, 0).cpu().numpy()
        want = render_plan(pixels, plan)[0].transpose(2, 0, 1).ravel()
        assert np.array_equal(found[at : at + want.size], want), plan
        at += want.size


def kernel_milliseconds(call: Callable[[int], object], device: str, rounds: int = 10) -> dict[str, float]:
    """Return the milliseconds of each kernel in a call, from torch's profiler."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if device != "cpu" else activity.CPU]) as profile:
        for number in range(rounds):
            call(number)
        synchronize(device)
    found = dict.fromkeys(KERNELS, 0.0)
    for event in profile.key_averages():
        for name in KERNELS:
            if f"::{name}>" in event.key:
                found[name] += event.device_time_total / 1e3 / rounds
    return found


def kernel_bytes(plans: np.ndarray, element_bytes: int) -> dict[str, float]:
    """Return the bytes that each kernel must read and write of pixels, each byte once a view."""
    out = values(plans)
    crop = 3.0 * plans["crop_height"] * plans["crop_width"]
    between = 3.0 * plans["crop_height"] * plans["out_width"]
    box = (plans["blur_sigma"] > 0) & (plans["blur_kernel"] == 0)
    kernel = (plans["blur_sigma"] > 0) & (plans["blur_kernel"] > 0)
    plain = ~box & ~kernel
    waits = (plans["jitter_order"] == 1).any(axis=1) | plans["grayscale"]  # a view with a blur that Finish touches
    store = 1 + element_bytes
    return {
        "Weights": 0.0,
        "FirstPass": float((crop + between).sum()),
        "SecondPass": float((between + out).sum()),
        "Finish": float((out * (store * plain + 2 * (~plain & waits))).sum()),
        "BlurAcross": float(2 * out[box].sum()),
        "BlurDown": float(store * out[box].sum()),
        "KernelBlur": float(store * out[kernel].sum()),
    }


def ours(recipe: Recipe, samples: int, seconds: float, device: str) -> dict[str, Any]:
    """Samples/s, the floor of all bytes, what a batch costs the host, and of each kernel its time and floor."""
    check(recipe, device, min(samples, 6))
    dtype, bandwidth = torch.float16, copy_bandwidth(device)
    batches = [make_batch(recipe, samples, seed, dtype, device) for seed in range(SETS)]
    renderer = cuda.PlanRenderer(cuda.normalize_table(recipe, dtype), dtype)

    def call(number: int) -> None:
        batch = batches[number % SETS]
        renderer.render(batch.rows, batch.plans, batch.picture_of, batch.outs)

    once = statistics.median(milliseconds(call, 10, device))
    times = milliseconds(call, max(10, min(2000, int(1e3 * seconds / once))), device)
    begin = time.perf_counter()
    call(0)
    host = 1e3 * (time.perf_counter() - begin)
    synchronize(device)
    plans = batches[0].plans
    least = sum(p.numel() for p in batches[0].pixels) + int(values(plans).sum()) * dtype.itemsize
    floors = {kernel: 1e3 * moved / bandwidth for kernel, moved in kernel_bytes(plans, dtype.itemsize).items()}
    return {
        "batch": samples, "ms": statistics.median(times), "ms_p99": float(np.percentile(times, 99)),
        "samples_per_s": 1e3 * samples / statistics.median(times), "host_ms": host, "floor_ms": 1e3 * least / bandwidth,
        "copy_bytes_per_s": bandwidth, "renderer_mb": renderer.device_bytes / 1e6,
        "kernels": kernel_milliseconds(call, device), "kernel_floors": floors,
    }  # fmt: skip


def peer(library: str, recipe: Recipe, samples: int, seconds: float, device: str) -> dict[str, Any]:
    sets = [pictures(samples, seed, device) for seed in range(SETS)]
    render = peers.rendering(library, sets, recipe, torch.float16, device)
    peers.check_views(render(), recipe, samples)
    count, took = count_in((render() for _ in itertools.count()), seconds, device, warm_up=2)
    return {"batch": samples, "ms": 1e3 * took / count, "samples_per_s": count * samples / took}
