"""Rendering on a GPU: samples/s of whole recipes, each kernel's time beside the time its bytes alone would take; then
from shards with threads that decode, and training steps fed by it (gpu_loading).

    python -m benchmarks.bench_cuda [--batch 256] [--recipes dino swav mocov2] [--seconds 8] [--threads 1 4 16]
                                    [--pack PACK] [--json FILE]

About five minutes, the short tables last. For rendering, pictures are made on the device, of sizes as photographs have
them; nothing is read or decoded. Views of the first pictures are compared with the CPU's before timing. Several sets of
pictures take turns: none stays in the cache. The floor of a kernel is the bytes it must read and write over the
bandwidth of a copy measured in the same run. Kernels are timed by torch's profiler. Needs a GPU;
has not yet run on one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from pass_loader import _C, Recipe, cuda, recipes, render_plan

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
    coarse = torch.rand(1, 3, height // 16 + 2, width // 16 + 2, device="cuda", generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    noise = torch.rand(3, height, width, device="cuda", generator=generator)
    return (230 * smooth + 25 * noise).to(torch.uint8)


def make_batch(recipe: Recipe, samples: int, seed: int, dtype: torch.dtype) -> Batch:
    generator = torch.Generator("cuda").manual_seed(seed)
    pixels = [picture(*SIZES[i % len(SIZES)], generator) for i in range(samples)]
    plans = [_C.plan_views(recipe.rows(), seed=seed, epoch=0, record=i, height=p.shape[1], width=p.shape[2])
             for i, p in enumerate(pixels)]  # fmt: skip
    together = np.concatenate(plans).astype(_C.view_plan_dtype)
    sizes = values(together) * dtype.itemsize
    memory = torch.full((int(sizes.sum()),), 0xA5, dtype=torch.uint8, device="cuda")
    outs = memory.data_ptr() + np.cumsum(sizes) - sizes
    picture_of = np.repeat(np.arange(samples), len(recipe.views)).astype(np.int32)
    return Batch(pixels, cuda.picture_rows(pixels), together, picture_of, outs, memory)


def values(plans: np.ndarray) -> np.ndarray:
    return 3 * plans["out_height"].astype(np.int64) * plans["out_width"]


def check(recipe: Recipe, samples: int = 6) -> None:
    """The CPU's bytes."""
    batch = make_batch(recipe, samples, 0, torch.uint8)
    cuda.Renderer(cuda.BYTES, torch.uint8).render(batch.rows, batch.plans, batch.picture_of, batch.outs)
    found, at = batch.memory.cpu().numpy(), 0
    for plan, number in zip(batch.plans, batch.picture_of):
        pixels = batch.pixels[number].permute(1, 2, 0).cpu().numpy()
        want = render_plan(pixels, plan)[0].transpose(2, 0, 1).ravel()
        assert np.array_equal(found[at : at + want.size], want), plan
        at += want.size


def copy_bandwidth() -> float:
    """Bytes read and written a second by a large copy on the device."""
    source = torch.randint(0, 256, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (1e-3 * statistics.median(milliseconds(lambda _: target.copy_(source), 20)))


def milliseconds(call: Callable[[int], object], rounds: int) -> list[float]:
    """Of each round, by events."""
    for number in range(3):
        call(number)
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    for number, (begin, end) in enumerate(events):
        begin.record()
        call(number)
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def kernel_milliseconds(call: Callable[[int], object], rounds: int = 10) -> dict[str, float]:
    """Of each kernel a call, from torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for number in range(rounds):
            call(number)
        torch.cuda.synchronize()
    found = dict.fromkeys(KERNELS, 0.0)
    for event in profile.key_averages():
        for name in KERNELS:
            if f"::{name}>" in event.key:
                found[name] += event.device_time_total / 1e3 / rounds
    return found


def kernel_bytes(plans: np.ndarray, element_bytes: int) -> dict[str, float]:
    """What each kernel must read and write of pixels, each byte once a view."""
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


def measure(name: str, samples: int, seconds: float, bandwidth: float) -> dict[str, object]:
    recipe = recipes.PRESETS[name]()
    check(recipe)
    dtype = torch.float16
    batches = [make_batch(recipe, samples, seed, dtype) for seed in range(SETS)]
    renderer = cuda.Renderer(cuda.normalize_table(recipe, dtype), dtype)

    def call(number: int) -> None:
        batch = batches[number % SETS]
        renderer.render(batch.rows, batch.plans, batch.picture_of, batch.outs)

    once = statistics.median(milliseconds(call, 10))
    rounds = max(10, min(2000, int(1e3 * seconds / once)))
    times = milliseconds(call, rounds)
    begin = time.perf_counter()
    call(0)
    host = 1e3 * (time.perf_counter() - begin)
    torch.cuda.synchronize()
    plans = batches[0].plans
    least = sum(p.numel() for p in batches[0].pixels) + int(values(plans).sum()) * dtype.itemsize
    floors = {kernel: 1e3 * moved / bandwidth for kernel, moved in kernel_bytes(plans, dtype.itemsize).items()}
    return {
        "recipe": name, "batch": samples, "ms": statistics.median(times), "ms_p99": float(np.percentile(times, 99)),
        "samples_per_s": 1e3 * samples / statistics.median(times), "host_ms": host, "floor_ms": 1e3 * least / bandwidth,
        "device_mb": renderer.device_bytes / 1e6, "kernels": kernel_milliseconds(call), "kernel_floors": floors,
    }  # fmt: skip


def report(results: list[dict], bandwidth: float) -> None:
    print(f"{torch.cuda.get_device_name()}, copy {bandwidth / 1e9:.0f} GB/s, float16 out, median over rounds")
    print("recipe    samples/s   ms a batch   p99   floor   host ms   device MB")
    for r in results:
        print(f"{r['recipe']:9} {r['samples_per_s']:9.0f} {r['ms']:12.2f} {r['ms_p99']:5.2f} {r['floor_ms']:7.2f} "
              f"{r['host_ms']:9.2f} {r['device_mb']:11.0f}")  # fmt: skip
    print("kernel, ms (floor)  " + "  ".join(f"{r['recipe']:>15}" for r in results))
    for kernel in KERNELS:
        cells = [f"{r['kernels'][kernel]:.3f} ({r['kernel_floors'][kernel]:.3f})" for r in results]
        print(f"{kernel:19} " + "  ".join(f"{cell:>15}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--recipes", nargs="+", default=["dino", "swav", "mocov2"], choices=sorted(recipes.PRESETS))
    parser.add_argument("--seconds", type=float, default=8, help="timed, a row")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16], help="that decode, from shards")
    parser.add_argument("--pack", help="of pictures to load; generated unless given")
    parser.add_argument("--only", choices=["rendering", "loading"])
    parser.add_argument("--json", help="where the figures go too")
    arguments = parser.parse_args()
    if not cuda.cuda_available():
        parser.exit(1, f"no GPU: {cuda.cuda_reason()}\n")
    bandwidth = copy_bandwidth()
    found = {"device": torch.cuda.get_device_name(), "bandwidth": bandwidth, "results": [], "loading": None}
    if arguments.only != "loading":
        found["results"] = [measure(name, arguments.batch, arguments.seconds, bandwidth) for name in arguments.recipes]
    if arguments.only != "rendering":
        from . import gpu_loading

        found["loading"] = gpu_loading.measure(
            arguments.recipes, arguments.threads, arguments.batch, arguments.seconds, arguments.pack
        )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)
    report(found["results"], bandwidth)
    if found["loading"] is not None:
        gpu_loading.report(found["loading"])


if __name__ == "__main__":
    main()
