"""Packs and saved states of a past version, which later versions must still take.

`python -m tests.loading.saved_before` writes tests/loading/saved/ anew, by whichever version is installed;
test_saved_before.py reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DistributedSampler, RandomSampler

from pass_loader import Companions, ConcatDataset, DataLoader, MixedLoader, Recipe, ShardDataset, ViewSpec, recipes
from pass_loader.pack import build, convert, remove, restore

from ..helpers.corpus import jpeg, noise


SAVED = Path(__file__).parent / "saved"
COUNT = 14
TINY = Recipe("tiny", (ViewSpec(8, (0.3, 1.0)), ViewSpec(4)), pillow=13)
GENVIEW = recipes.genview(size=8)
DINOV2 = recipes.dinov2(local_crops=1, global_size=32, local_size=16)


def _pinned(recipe: Recipe) -> Recipe:
    """Whatever Pillow is installed."""
    return dataclasses.replace(recipe, pillow=13)


def _dataset(root: Path, recipe: Recipe = TINY, pack: str = "pack", **given: Any) -> ShardDataset:
    return ShardDataset(root / pack, recipe, seed=5, **given)


def _concat(root: Path, **given: Any) -> ConcatDataset:
    second = _dataset(root, pack="second", mean=0.5, std=0.25)
    return ConcatDataset([_dataset(root, ids=["a/03", "b/01", "a/06", "b/02", "a/00"]), second], **given)


def _random(root: Path) -> DataLoader:
    sampler = RandomSampler(range(COUNT - 2), generator=torch.Generator().manual_seed(3))
    return DataLoader(_dataset(root), 3, sampler=sampler, return_info=True)


def _distributed(root: Path) -> DataLoader:
    sampler = DistributedSampler(range(COUNT - 2), num_replicas=2, rank=1, seed=4)
    return DataLoader(_dataset(root), 3, sampler=sampler, return_info=True)


def _mixed(root: Path) -> MixedLoader:
    loaders = [
        DataLoader(_dataset(root), 3, shuffle=True, infinite=True, return_info=True),
        DataLoader(_dataset(root, pack="second"), 2, shuffle=True, infinite=True, return_info=True),
    ]
    return MixedLoader(loaders, [0.4, 0.6], seed=2)


# Each makes a loader over the packs below a folder.
CASES: dict[str, Callable[[Path], Any]] = {
    "shuffle": lambda root: DataLoader(_dataset(root), 3, shuffle=True, return_info=True),
    "sequential": lambda root: DataLoader(_dataset(root, pack="dct"), 3, return_info=True, drop_last=True),
    "permute": lambda root: DataLoader(_dataset(root), 3, shuffle=True, order="permute", return_info=True),
    "blocks": lambda root: DataLoader(
        _dataset(root), 3, shuffle=True, order="blocks", block_bytes=6000, window_bytes=24000, lanes=2, return_info=True
    ),
    "blocks, weights": lambda root: DataLoader(
        _concat(root, weights=[0.7, 0.3], num_samples=11),
        3,
        shuffle=True,
        order="blocks",
        block_bytes=6000,
        window_bytes=18000,
        lanes=2,
        infinite=True,
        return_info=True,
    ),
    "infinite": lambda root: DataLoader(_dataset(root), 5, shuffle=True, infinite=True, return_info=True),
    "rank 1 of 2": lambda root: DataLoader(_dataset(root), 2, shuffle=True, rank=1, world_size=2, return_info=True),
    "random sampler": _random,
    "distributed sampler": _distributed,
    "concatenation": lambda root: DataLoader(_concat(root), 3, shuffle=True, return_info=True),
    "weights": lambda root: DataLoader(
        _concat(root, weights=[0.7, 0.3], num_samples=11), 3, shuffle=True, return_info=True
    ),
    "companions by id": lambda root: DataLoader(
        _dataset(root, _pinned(GENVIEW), companions=root / "companions"), 3, shuffle=True, return_info=True
    ),
    "companions by column": lambda root: DataLoader(
        _dataset(
            root,
            _pinned(GENVIEW),
            companions=Companions(root / "companions-by-column", original="source", scale="noise_level"),
        ),
        3,
        shuffle=True,
        return_info=True,
    ),
    "gray": lambda root: DataLoader(
        _dataset(root, _pinned(recipes.mae_thorax(size=8, channels=1, mean=0.5, std=0.25))), 3, return_info=True
    ),
    "masks": lambda root: DataLoader(_dataset(root, _pinned(DINOV2)), 3, shuffle=True, return_info=True),
    "mixed": _mixed,
}


def digest(batch: Any) -> str:
    """Of all that a batch holds, plans apart, whose layout may grow, and padding, which is told since 0.2.0."""
    found = hashlib.sha256()

    def feed(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)}".encode() + part.contiguous().numpy().tobytes())
        elif isinstance(part, dict):
            for name, value in sorted(part.items()):
                if name not in ("plans", "padding"):
                    found.update(name.encode())
                    feed(value)
        elif isinstance(part, (list, tuple)):
            found.update(type(part).__name__.encode())
            for value in part:
                feed(value)
        else:
            found.update(repr(part).encode())

    feed(batch)
    return found.hexdigest()


def next_batches(loader: Any, count: int = 4) -> list[str]:
    batches = iter(loader)
    return [digest(batch) for _ in range(count) if (batch := next(batches, None)) is not None]


def write_packs(root: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        sources = Path(temporary)
        rows = ["hash,unickname,licensename,score"]
        for number in range(COUNT):
            name = f"{'ab'[number % 2]}/{number // 2:02d}"
            path = sources / "in" / f"{name}.{'png' if number == 5 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise(18 + number, 24, number)
            if number == 5:
                Image.fromarray(pixels).save(path)
            else:
                path.write_bytes(jpeg(pixels, subsampling=number % 3))
            rows.append(f"{name},J%C3%BCrgen+{number},Attribution License,{number}.5")
        (sources / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        build([sources / "in"], root / "pack", metadata=sources / "metadata.csv", shard_bytes=8000, workers=1)
        (sources / "second").mkdir()
        (sources / "companions").mkdir()
        for number in range(6):
            (sources / "second" / f"{number}.jpg").write_bytes(jpeg(noise(20, 20, 100 + number)))
            (sources / "companions" / f"{number:02d}_s-{number}.5.jpg").write_bytes(jpeg(noise(16, 16, 200 + number)))
        build([sources / "second"], root / "second", workers=1)
        named = sources / "companions"
        ids = "".join(f"{number:02d}_s-{number}.5,a/{number:02d},{number}.5\n" for number in range(6))
        (sources / "c.csv").write_text("hash,source,noise_level\n" + ids)
        build([named], root / "companions-by-column", metadata=sources / "c.csv", workers=1)
        for path in sorted(named.iterdir()):
            (named / "a").mkdir(exist_ok=True)
            path.rename(named / "a" / path.name)
        build([named], root / "companions", workers=1)
    remove(root / "pack", ["a/01", "b/04", "b/05"], reason="asked for")
    restore(root / "pack", ["b/04"], reason="the wrong one")
    convert(root / "pack", root / "dct", codec="dct-zstd", workers=1)


def main() -> None:
    shutil.rmtree(SAVED, ignore_errors=True)
    SAVED.mkdir()
    write_packs(SAVED)
    saved: dict[str, Any] = {}
    for name, make in CASES.items():
        loader = make(SAVED)
        begun = next_batches(loader, 2)
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = make(SAVED)
        resumed.load_state_dict(state)
        saved[name] = {"state": state, "begun": begun, "resumed": next_batches(resumed)}
    plans = _dataset(SAVED).plan(3, epoch=2)
    saved["plan"] = {name: np.asarray(plans[name]).tolist() for name in plans.dtype.names or ()}
    (SAVED / "states.json").write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
