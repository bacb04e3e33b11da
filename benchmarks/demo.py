"""`make demo`: the whole way on real photographs. Packs, loads an epoch, measures beside the official pipeline."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import time
from pathlib import Path

import torch

from pass_loader import _C, DataLoader, ShardDataset, recipes
from pass_loader.data.preview import preview
from pass_loader.pack import build

from .official import batches
from .pictures import write_pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where pictures, pack and sheet go")
    parser.add_argument("--count", type=int, default=300, help="pictures")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    tar, table = write_pass(options.out, options.count)
    pack = options.out / "pack"
    print(f"{pack}: {build([tar], pack, metadata=table)}\n")

    recipe = recipes.dino()
    dataset = ShardDataset(pack, recipe, seed=0)
    print(recipe, "\n")
    threads = len(os.sched_getaffinity(0))
    ours = {count: samples_per_second(dataset, count) for count in sorted({1, threads})}
    official = official_samples_per_second(dataset, 192)
    views = len(recipe.views)
    print(f"one epoch of {len(dataset)} pictures, DINO, {views} views, float32; {platform.machine()}, {_C.isa()}")
    for count, rate in ours.items():
        print(f"  pass-loader, {count} thread{'s' * (count > 1)}:  {rate:7.1f} samples/s  {rate * views:8.0f} views/s")
    print(f"  official torchvision/PIL, 1 worker:  {official:7.1f} samples/s  {official * views:8.0f} views/s")
    print(f"  one thread against one worker: {ours[1] / official:.1f} times")
    sheet = options.out / "contact_sheet.png"
    preview(pack, recipe, sheet)
    print(f"  contact sheet: {sheet}   ({dataset.id_of(0)}: {dataset.metadata(0)})")


def samples_per_second(dataset: ShardDataset, threads: int) -> float:
    """The second of two epochs; the first touches memory and files."""
    loader = DataLoader(dataset, batch_size=32, shuffle=True, num_workers=threads)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        began, samples = time.perf_counter(), 0
        for views, labels in loader:
            samples += len(labels)
            assert torch.isfinite(views[0][0, 0, 0, 0])
    return samples / (time.perf_counter() - began)


def official_samples_per_second(dataset: ShardDataset, count: int) -> float:
    torch.set_num_threads(1)
    data = [dataset.read(record) for record in range(min(count, len(dataset)))]
    sum(1 for _ in batches(data[:32], dataset.recipe, 32))  # warms up, as our first epoch does
    began = time.perf_counter()
    done = sum(views[0].shape[0] for views in batches(data, dataset.recipe, 32))
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
