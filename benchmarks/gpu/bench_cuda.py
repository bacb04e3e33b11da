"""Rendering on a GPU, decoding, loading from shards and training steps, beside other libraries; and the bar.

    python -m benchmarks.gpu.bench_cuda [--seconds 450] [--only rendering decoding shards training choices]
                                        [--pack PACK] [--json FILE] [--commit NAME] [--dry]

--seconds is for the whole run; how long a row is timed follows from it. Rows run in fresh processes (rows.py), those of
the bar first; what cannot run says why in its row. Machine, driver, commit and all figures go to the JSON, also where
the run is ended by SIGTERM; short tables last. choices: training steps fed with other settings of the loader, in turns
with its own. PACK is made where there is none. What to carry: README.md. --dry runs all of it on the CPU with tiny
sizes, to find mistakes: its figures mean nothing. Has not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from pass_loader import Recipe, recipes

from .. import machine
from . import exact, loading, on_device, rendering, rows, tables
from .loading import CV_CUDA, DALI, EXACT, MODELS, NVJPEG, OFFICIAL, ON_CPU, OURS, SYNTHETIC, TORCHVISION, Place
from .rows import Row

RECIPES = ["dino", "swav", "mocov2"]
SECTIONS = ["rendering", "decoding", "shards", "training", "choices"]
LOADED = {"decoding", "shards", "training", "choices"}  # sections that need a pack
CORES, EXACT_CORES = [1, 4, 16], [4, 8, 16]
CHOICES = {"as it is": {}, "prefetch_factor=1": {"prefetch_factor": 1}, "prefetch_factor=4": {"prefetch_factor": 4},
           "a stream of higher priority": {"priority": -1}}  # fmt: skip
START_S, SET_UP_S = 4.0, 2.0  # estimates: of a process, of a row before it is timed
SHALLOW = {"dino": {"outputs": 64, "depth": 1, "turns": 1}, "swav": {"depths": (1, 1, 1, 1), "turns": 1}}  # dry
TRAINED = [OURS, EXACT["points"], NVJPEG, ON_CPU, SYNTHETIC, OFFICIAL]
TRAINING = 2  # times as long as another row, and the same again on tensors that lie there
Group = tuple[int, list[Row]]  # cores, rows
Data = tuple[str, str]  # pack, folder of files


def there(cores: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({min(wanted, len(os.sched_getaffinity(0))) for wanted in cores}))


@dataclasses.dataclass(frozen=True)
class Sizes:
    device: str = "cuda"
    pictures: int = 1024
    batch: int = 256
    torch_batch: int = 64  # where 256 samples take seconds
    train_batch: int = 64
    cores: tuple[int, ...] = there(CORES)
    exact_cores: tuple[int, ...] = there(EXACT_CORES)  # where decode="cuda" is measured
    dry: bool = False

    def recipe(self, name: str) -> Recipe:
        recipe = recipes.PRESETS[name]()
        if not self.dry:
            return recipe
        views = [dataclasses.replace(view, size=32) for view in (*recipe.views[:2], *recipe.views[-1:])]
        return dataclasses.replace(recipe, views=tuple(views))


DRY = Sizes("cpu", pictures=24, batch=4, torch_batch=4, train_batch=2, cores=(1, 2), exact_cores=(2,), dry=True)


def rendering_rows(sizes: Sizes, seconds: float) -> Iterator[Group]:
    def keys(name: str, library: str) -> dict[str, Any]:
        return {"section": "rendering", "recipe": name, "library": library}

    yield (
        max(sizes.cores),
        [
            Row(
                keys(name, "ours"),
                rendering.ours,
                {"recipe": sizes.recipe(name), "samples": sizes.batch, "seconds": seconds, "device": sizes.device},
            )
            for name in RECIPES
        ],
    )
    batches = {"DALI": sizes.batch, "CV-CUDA": sizes.torch_batch, "torchvision v2": sizes.torch_batch}
    for library, batch in batches.items():
        yield (
            max(sizes.cores),
            [
                Row(
                    keys(name, library),
                    rendering.peer,
                    {
                        "library": library,
                        "recipe": sizes.recipe(name),
                        "samples": batch,
                        "seconds": seconds,
                        "device": sizes.device,
                    },
                )
                for name in RECIPES
            ],
        )


def decoding_rows(sizes: Sizes, data: Data, seconds: float) -> Iterator[Group]:
    most = max(sizes.cores)
    tiny = recipes.mocov2()
    tiny = dataclasses.replace(tiny, views=(dataclasses.replace(tiny.views[0], size=32),))

    def row(how: str, cores: int, measure: Any = loading.decoding) -> Row:
        place = Place(*data, tiny, sizes.batch, cores, sizes.device)
        keys = {"section": "decoding", "decoder": how, "cores": cores}
        return Row(keys, measure, {"way": how, "place": place, "seconds": seconds / 2})

    for cores in sizes.cores:
        yield cores, [row(how, cores) for how in ("libjpeg", "simplejpeg", "ours")]
    engines = Row(
        {"section": "decoding", "decoder": "engines", "cores": 0}, on_device.jpeg_engines, {"device": sizes.device}
    )
    alone = [
        Row(
            {"section": "decoding", "decoder": exact.NAMES[codec], "cores": most},
            exact.alone,
            {"pack": data[0], "codec": codec, "samples": sizes.batch, "seconds": seconds, "device": sizes.device},
        )
        for codec in EXACT
    ]
    yield most, [*alone, *(row(way, most, loading.from_shards) for way in EXACT.values())]
    yield most, [engines, row(NVJPEG, most, loading.from_shards), row("torchvision", most), row("DALI", most)]


def shards_rows(sizes: Sizes, data: Data, seconds: float) -> Iterator[Group]:
    def made(cores: int, ways: list[str], names: list[str] = RECIPES) -> list[Row]:
        return [
            Row(
                {"section": "shards", "recipe": name, "way": way, "cores": cores},
                loading.from_shards,
                {
                    "way": way,
                    "place": Place(*data, sizes.recipe(name), sizes.batch, cores, sizes.device),
                    "seconds": seconds,
                },
            )
            for way in ways
            for name in names
        ]

    for cores in sizes.cores[::-1]:
        yield cores, made(cores, [OURS, NVJPEG, ON_CPU])
    for cores in sizes.exact_cores[::-1]:
        yield cores, made(cores, [*EXACT.values()], RECIPES[:1])
    for cores in sorted(sizes.cores, key=lambda cores: cores != 4):  # the bar compares at 4
        yield cores, made(cores, [DALI])
    for cores in sizes.cores[::-1]:
        recipes_of_official = RECIPES if cores == max(sizes.cores) else RECIPES[:1]
        yield cores, [*made(cores, [OFFICIAL], recipes_of_official), *made(cores, [CV_CUDA, TORCHVISION], RECIPES[:1])]


def training_rows(sizes: Sizes, data: Data, seconds: float) -> Iterator[Group]:
    most, together = max(sizes.cores), []
    for way, (name, (title, _)) in itertools.product(TRAINED, MODELS.items()):
        place = Place(*data, sizes.recipe(name), sizes.train_batch, most, sizes.device, torch.bfloat16)
        together.append(
            Row(
                {"section": "training", "model": title, "fed_by": way},
                loading.training,
                {
                    "way": way,
                    "model": name,
                    "place": place,
                    "seconds": TRAINING * seconds,
                    **(SHALLOW[name] if sizes.dry else {}),
                },
            )
        )
    yield most, together


def choices_rows(sizes: Sizes, data: Data, seconds: float) -> Iterator[Group]:
    most, together = max(sizes.cores), []
    for name, (title, _) in MODELS.items():
        place = Place(*data, sizes.recipe(name), sizes.train_batch, most, sizes.device, torch.bfloat16)
        for choice, settings in CHOICES.items():
            shallow = SHALLOW[name] if sizes.dry else {}
            keys = {"section": "choices", "model": title, "choice": choice}
            given = {"settings": settings, "model": name, "place": place, "seconds": TRAINING * seconds, **shallow}
            together.append(Row(keys, loading.choice, given))
    yield most, together


def groups_of(sections: list[str], sizes: Sizes, data: Data, seconds: float) -> list[Group]:
    """Return the groups, those of the bar first."""
    made = {
        "rendering": [*rendering_rows(sizes, seconds)],
        "decoding": [*decoding_rows(sizes, data, seconds)],
        "shards": [*shards_rows(sizes, data, seconds)],
        "training": [*training_rows(sizes, data, seconds)],
        "choices": [*choices_rows(sizes, data, seconds)],
    }
    ours_first = [made[name].pop(0) for name in ("rendering",) if name in sections]
    first = len(sizes.cores) + len(sizes.exact_cores) + 1
    in_order = [
        *made["decoding"],
        *made["shards"][:first],
        *made["training"],
        *made["shards"][first:],
        *made["rendering"],
    ]
    in_order += made["choices"]
    return [*ours_first, *(group for group in in_order if group[1][0].keys["section"] in sections)]


def row_seconds(groups: list[Group], seconds: float) -> float:
    """Return how long a row may be timed so that all take `seconds`, the making of pictures not counted."""
    count = sum(len(members) for _, members in groups)
    training = sum(len(members) for _, members in groups if members[0].keys["section"] in ("training", "choices"))
    timed = count + (2 * TRAINING - 1) * training
    return min(10.0, max(0.2, (seconds - START_S * len(groups) - SET_UP_S * count) / timed))


def run(
    sections: list[str], sizes: Sizes, data: Data, seconds: float, deadline: float, found: list[dict[str, Any]]
) -> None:
    """Measure all rows, and add them to `found` as they come. seconds: of a row."""
    for cores, members in groups_of(sections, sizes, data, seconds):
        for row in rows.measured(members, cores, deadline, patience=45 + 8 * seconds):
            found.append(row)
            print(tables.line(row), flush=True)


def data_of(folder: Path, pack: Path, sizes: Sizes) -> Data:
    """Return the pack, made where it is missing, and a folder of its files."""
    if not (pack / "pack.json").exists():
        made = loading.make_pack(folder, sizes.pictures)
        pack.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, pack)
    for codec in EXACT:
        loading.coded(pack, codec)
    loading.write_files(pack, folder / "files")
    return str(pack), str(folder / "files")


def end_rows(*_: object) -> None:
    """Of SIGTERM: the process of the row that runs is ended, too (rows.Fresh)."""
    sys.exit("ended by SIGTERM")


def main(given: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=450, help="of the whole run")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--pack", help="of pictures to load; generated unless given")
    parser.add_argument("--json", help="where the figures go too")
    parser.add_argument("--commit", default=machine.commit(), help="unless this checkout knows it")
    parser.add_argument("--dry", action="store_true", help="on the CPU, tiny: finds mistakes, measures nothing")
    arguments = parser.parse_args(given)
    before = signal.signal(signal.SIGTERM, end_rows)
    sizes, began = DRY if arguments.dry else Sizes(), time.monotonic()
    deadline = began + arguments.seconds
    groups = groups_of(arguments.only, sizes, ("", ""), 0.0)
    count = sum(len(members) for _, members in groups)
    found: list[dict[str, Any]] = []
    whole = {
        "machine": {**machine.describe(), **machine.describe_gpu(), "commit": arguments.commit or "unknown"},
        "dry": arguments.dry, "row_seconds": 0.0, "rows": found,
    }  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as folder:
            pack = Path(arguments.pack or f"{folder}/made")
            data = data_of(Path(folder), pack, sizes) if LOADED & {*arguments.only} else ("", "")
            seconds = 0.05 if arguments.dry else row_seconds(groups, deadline - time.monotonic())
            whole["row_seconds"] = seconds
            print(f"{count} rows in {len(groups)} processes, {seconds:.2f} s each", flush=True)
            run(arguments.only, sizes, data, seconds, deadline, found)
    finally:
        signal.signal(signal.SIGTERM, before)
        whole |= {"took_s": time.monotonic() - began, "bars": tables.bars(found, arguments.dry)}
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(whole, indent=1) + "\n")
    print(tables.report(whole))
    return whole


if __name__ == "__main__":
    main()
