"""Loading for a GPU, from shards: samples/s by threads, memory, and training steps fed in three ways."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from pass_loader import _C, DataLoader, ShardDataset, recipes
from pass_loader.pack import build

from . import gpu_models
from .pictures import write_pass

PICTURES = 1024
MODELS = {"dino": ("DINO ViT-S/16", gpu_models.dino, 64), "swav": ("SwAV ResNet-50", gpu_models.swav, 64)}
WARM_UP = 3  # batches


def make_pack(folder: Path) -> Path:
    tar, table = write_pass(folder, PICTURES)
    build([tar], folder / "pack", metadata=table)
    return folder / "pack"


def seconds_of(batches: Iterator[Any], seconds: float) -> tuple[int, float]:
    """How many came, and in what time, the GPU's work on them included."""
    for _ in range(WARM_UP):
        next(batches)
    torch.cuda.synchronize()
    begin, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - begin < seconds:
        batch = next(batches)
        del batch
        count += 1
    torch.cuda.synchronize()
    return count, time.perf_counter() - begin


def decode_rate(dataset: ShardDataset, seconds: float = 1.0) -> float:
    """Pictures a second of one thread, by this library's decoder alone."""
    decoder, pictures = _C.Decoder(), [dataset.read(record) for record in range(64)]
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        decoder.decode(pictures[count % len(pictures)])
        count += 1
    return count / (time.perf_counter() - begin)


def from_shards(pack: Path, names: Iterable[str], threads: Iterable[int], batch: int, seconds: float) -> list[dict]:
    rows: list[dict] = []
    for name, workers, device in itertools.product(names, threads, ("cuda", "cpu")):
        dataset = ShardDataset(pack, recipes.PRESETS[name]())
        loader = DataLoader(dataset, batch, shuffle=True, num_workers=workers, dtype=torch.float16, infinite=True,
                            device=device, pin_memory=device == "cpu")  # fmt: skip
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        batches = iter(loader)
        fed = batches if device == "cuda" else (_to_device(views_of(one)) for one in batches)
        count, took = seconds_of(iter(fed), seconds)
        found = loader.stats()
        native = loader._renderer[1].lane._renderer.device_bytes if device == "cuda" else 0  # beside torch's memory
        rows.append({
            "recipe": name, "threads": workers, "rendered_on": device, "samples_per_s": count * batch / took,
            "of_bare_decode": count * batch / took / (workers * decode_rate(dataset)),
            "device_mb": (torch.cuda.max_memory_allocated() + native) / 1e6, "pinned_mb": found["pinned_bytes"] / 1e6,
        })  # fmt: skip
        del batches, fed, loader
    return rows


def views_of(batch: Any) -> list[torch.Tensor]:
    """Of DINO's (list, labels), SwAV's list."""
    return batch[0] if isinstance(batch, tuple) else batch


def _to_device(views: list[torch.Tensor]) -> list[torch.Tensor]:
    return [view.cuda(non_blocking=True) for view in views]


def feeds(pack: Path, name: str, batch: int, threads: int) -> dict[str, Iterator[list[torch.Tensor]]]:
    """The same batches three ways: tensors that lie there, ours rendered on the GPU, ours rendered on the CPU."""
    recipe = recipes.PRESETS[name]()

    def ours(device: str) -> Iterator[list[torch.Tensor]]:
        loader = DataLoader(ShardDataset(pack, recipe), batch, shuffle=True, num_workers=threads, dtype=torch.bfloat16,
                            infinite=True, device=device, pin_memory=device == "cpu")  # fmt: skip
        for one in loader:
            yield _to_device(views_of(one))

    there = [torch.randn(batch, 3, view.height, view.width, dtype=torch.bfloat16, device="cuda")
             for view in recipe.views]  # fmt: skip
    return {"synthetic": itertools.repeat(there), "ours on GPU": ours("cuda"), "ours on CPU": ours("cpu")}


def training(pack: Path, threads: int, seconds: float) -> list[dict]:
    rows: list[dict] = []
    for name, (title, make, batch) in MODELS.items():
        step = make("cuda")
        for how, fed in feeds(pack, name, batch, threads).items():
            count, took = seconds_of((step(views) for views in fed), seconds)
            rows.append({"model": title, "batch": batch, "fed_by": how, "steps_per_s": count / took})
        alone = rows[-3]["steps_per_s"]
        for row in rows[-3:]:
            row["share"] = row["steps_per_s"] / alone
        del step
        torch.cuda.empty_cache()
    return rows


def measure(names: list[str], threads: list[int], batch: int, seconds: float, pack: str | None) -> dict[str, Any]:
    """seconds: of each row."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(pack) if pack else make_pack(Path(folder))
        return {"from_shards": from_shards(place, names, threads, batch, seconds),
                "training": training(place, max(threads), seconds)}  # fmt: skip


def report(found: dict[str, Any]) -> None:
    print("from shards, decode='cpu'    rendered on   samples/s   of bare decode   device MB   pinned MB")
    for r in found["from_shards"]:
        print(f"{r['recipe']:9} {r['threads']:3} threads {'':8} {r['rendered_on']:11} {r['samples_per_s']:11.0f} "
              f"{r['of_bare_decode']:16.0%} {r['device_mb']:11.0f} {r['pinned_mb']:11.0f}")  # fmt: skip
    print("training step                batch   fed by        steps/s   of synthetic")
    for r in found["training"]:
        print(f"{r['model']:28} {r['batch']:5}   {r['fed_by']:12} {r['steps_per_s']:8.2f} {r['share']:14.1%}")
