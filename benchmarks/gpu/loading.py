"""Batches on a GPU from shards, by each way there: decoding alone, whole recipes, and training steps fed by them.

A way is measured in a process that has so many cores (rows.py). What lies ready when the clock starts has been taken
before; the GPU's work on the last batch is counted.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pass_loader import _C, DataLoader, Recipe, ShardDataset, recipes
from pass_loader.gpu import stream
from pass_loader.pack import Pack, build
from pass_loader.pack.convert import convert
from pass_loader.pack.index_points import index_points

from ..pictures import write_pass
from . import models, peers
from .on_device import count_in, free_kept, used_bytes

MODELS = {"dino": ("DINO ViT-S/16", models.dino), "swav": ("SwAV ResNet-50", models.swav)}
OURS = "ours, decode='cpu'"
NVJPEG = "ours, decode='nvjpeg'"
EXACT = {
    "dct": "ours, decode='cuda', dct",
    "dct-zstd": "ours, decode='cuda', dct-zstd",
    "points": "ours, decode='cuda', JPEG with entry points",
}
ON_CPU = "ours, rendered on the CPU"
DALI = "DALI, mixed"
OFFICIAL = "official DataLoader"
SYNTHETIC = "synthetic"
CV_CUDA, TORCHVISION = "CV-CUDA, torchvision decodes", "torchvision v2 and its decoder"
PARTS = 8
LARGEST_BATCH = {OFFICIAL: 32, CV_CUDA: 64, TORCHVISION: 64}  # where 256 samples take seconds


def make_pack(folder: Path, pictures: int) -> Path:
    """The pictures are made on all cores: one takes tens of milliseconds."""
    parts = min(PARTS, pictures)
    with ProcessPoolExecutor(min(parts, len(os.sched_getaffinity(0)))) as pool:
        made = pool.map(
            write_pass, (folder / f"part{n}" for n in range(parts)), itertools.repeat(pictures // parts), range(parts)
        )
        build([tar for tar, _ in made], folder / "pack")
    return folder / "pack"


def coded(pack: str | Path, codec: str) -> Path:
    """Return the pack of the same pictures whose records decode="cuda" takes, made beside the pack where it is missing.
    codec: of EXACT."""
    out = Path(f"{pack}-{codec}")
    if out.exists():
        return out
    part = Path(f"{out}.part")
    shutil.rmtree(part, ignore_errors=True)
    if codec == "points":
        shutil.copytree(pack, part)
        index_points(Pack(part))
    else:
        convert(pack, part, codec)
    return part.rename(out)


def write_files(pack: Path, folder: Path) -> None:
    """The pack's pictures as files, which the official code reads. Brings both into the page cache."""
    dataset = ShardDataset(pack, recipes.mocov2())
    folder.mkdir()
    for record in range(dataset.pack.records):
        (folder / f"{record}.jpg").write_bytes(dataset.read(record))


@dataclasses.dataclass
class Feed:
    """Batches on the device: views, or what a library has in their place."""

    batches: Iterator[Any]
    samples: int  # of each
    ahead: int  # batches that may lie ready
    stats: Callable[[], dict[str, Any]] = dict


@dataclasses.dataclass(frozen=True)
class Place:
    """The data that a feed is made from and for. files: a folder of the pack's pictures."""

    pack: str
    files: str
    recipe: Recipe
    batch: int
    cores: int
    device: str
    dtype: torch.dtype = torch.float16

    def dataset(self) -> ShardDataset:
        return ShardDataset(self.pack, self.recipe)


def views_of(batch: Any) -> list[torch.Tensor]:
    """Return the views of a batch: DINO's is (list, labels), SwAV's a list."""
    return list(batch[0] if isinstance(batch[0], (list, tuple)) else batch)


def ours(place: Place, **options: Any) -> Feed:
    loader = DataLoader(
        place.dataset(), place.batch, shuffle=True, num_workers=place.cores, dtype=place.dtype, infinite=True, **options
    )
    moved = ([view.to(place.device, non_blocking=True) for view in views_of(one)] for one in loader)
    return Feed(moved, place.batch, loader.prefetch_factor, loader.stats)


class Files(torch.utils.data.Dataset):
    """The official code's dataset: a file a sample, PIL, torchvision's transforms."""

    def __init__(self, folder: Path, recipe: Recipe):
        from ..official import OfficialViews

        self.paths, self.views = sorted(folder.glob("*.jpg")), OfficialViews(recipe)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        return self.views(self.paths[index].read_bytes()), 0


def official(place: Place) -> Feed:
    loader = torch.utils.data.DataLoader(
        Files(Path(place.files), place.recipe),
        place.batch,
        shuffle=True,
        num_workers=place.cores,
        pin_memory=place.device != "cpu",
        drop_last=True,
        persistent_workers=True,
    )
    passes = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
    moved = ([view.to(place.device, non_blocking=True) for view in views] for views, _ in passes)
    return Feed(moved, place.batch, 2 * place.cores)


def exact(place: Place, codec: str) -> Feed:
    return ours(dataclasses.replace(place, pack=str(coded(place.pack, codec))), device=place.device, decode="cuda")


def dali(place: Place) -> Feed:
    batches = peers.dali_shards(place.dataset(), place.batch, place.cores, place.dtype, place.device)
    return Feed(batches, place.batch, 2)


def by_torch(place: Place, library: str) -> Feed:
    batches = peers.torch_shards(library, place.dataset(), place.batch, place.cores, place.dtype, place.device)
    return Feed(batches, place.batch, 1)


def synthetic(place: Place) -> Feed:
    views = [
        torch.randn(place.batch, 3, view.height, view.width, dtype=place.dtype, device=place.device)
        for view in place.recipe.views
    ]
    return Feed(itertools.repeat(views), place.batch, 0)


FEEDS: dict[str, Callable[[Place], Feed]] = {
    OURS: lambda place: ours(place, device=place.device),
    NVJPEG: lambda place: ours(place, device=place.device, decode="nvjpeg"),
    **{way: partial(exact, codec=codec) for codec, way in EXACT.items()},
    ON_CPU: lambda place: ours(place, pin_memory=True),
    DALI: dali,
    CV_CUDA: lambda place: by_torch(place, "CV-CUDA"),
    TORCHVISION: lambda place: by_torch(place, "torchvision v2"),
    OFFICIAL: official,
    SYNTHETIC: synthetic,
}


def from_shards(way: str, place: Place, seconds: float) -> dict[str, Any]:
    """Samples/s, and the memory that is taken on the GPU beyond what was taken before: batches, what torch keeps for
    the next ones and the library's code included."""
    place = dataclasses.replace(place, batch=min(place.batch, LARGEST_BATCH.get(way, place.batch)))
    torch.zeros(1, device=place.device)
    free_kept(place.device)
    before = used_bytes(place.device)
    feed = FEEDS[way](place)
    peers.check_views(next(feed.batches), place.recipe, feed.samples)
    count, took = count_in(feed.batches, seconds, place.device, feed.ahead + 1)
    stats = {name: value for name, value in feed.stats().items() if isinstance(value, (int, float))}
    return {
        "batch": feed.samples,
        "samples_per_s": count * feed.samples / took,
        "device_mb": (used_bytes(place.device) - before) / 1e6,
        "stats": stats,
    }


def decoding(way: str, place: Place, seconds: float) -> dict[str, Any]:
    """Pictures a second. On the CPU each core decodes in a thread of its own."""
    if way in ("DALI", "torchvision"):
        made = peers.dali_decoding if way == "DALI" else peers.torchvision_decoding
        count, took = count_in(made(place.dataset(), place.batch, place.cores, place.device), seconds, place.device, 3)
        return {"samples_per_s": count * place.batch / took}
    dataset = place.dataset()
    pictures = [dataset.read(record) for record in range(min(256, len(dataset)))]

    def decode_all(first: int) -> int:
        decode = _decoder(way)
        end, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            decode(pictures[(first + count) % len(pictures)])
            count += 1
        return count

    with ThreadPoolExecutor(place.cores) as pool:
        begin = time.perf_counter()
        count = sum(pool.map(decode_all, range(0, 16 * place.cores, 16)))
        return {"samples_per_s": count / (time.perf_counter() - begin)}


def _decoder(way: str) -> Callable[[bytes], Any]:
    if way == "simplejpeg":
        import simplejpeg

        return simplejpeg.decode_jpeg
    return _C.Decoder(libjpeg_alone=way == "libjpeg").decode


def training(
    way: str, model: str, place: Place, seconds: float, turns: int = 2, loader: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Steps/s in turns with steps on tensors that lie on the device, so that a clock that drifts shifts both alike.
    loader: further arguments of ours. options: the model's."""
    step = MODELS[model][1](place.device, **options)
    there = synthetic(place)
    feed = FEEDS[way](place) if loader is None else ours(place, device=place.device, **loader)
    begun: dict[str, list[float]] = {"fed": [0, 0.0], "there": [0, 0.0]}
    for _ in range(turns):
        for name, each, warm_up in (("there", there, 2), ("fed", feed, feed.ahead + 2)):
            steps = (step(views_of(one)) for one in each.batches)
            count, took = count_in(steps, seconds / turns, place.device, warm_up)
            begun[name][0] += count
            begun[name][1] += took
    fed, alone = (count / took for count, took in (begun["fed"], begun["there"]))
    return {
        "batch": place.batch,
        "steps_per_s": fed,
        "synthetic_steps_per_s": alone,
        "of_synthetic": fed / alone,
        "loading_share": max(0.0, 1 - fed / alone),
    }


def choice(settings: dict[str, Any], model: str, place: Place, seconds: float, **options: Any) -> dict[str, Any]:
    """Training steps fed by ours with other settings: arguments of the loader, and `priority`, that of the stream on
    which it queues its work (negative: before the consumer's)."""
    loader = dict(settings)
    with mock.patch.object(stream, "PRIORITY", loader.pop("priority", stream.PRIORITY)):
        return training(OURS, model, place, seconds, loader=loader, **options)
