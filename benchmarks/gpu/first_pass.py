"""The first pass of a resize on a GPU, by each way that first_pass.h lists: time, registers, occupancy, equal bytes.

    python -m benchmarks.gpu.first_pass [--samples 256] [--seconds 30] [--json FILE] [--dry]

Pictures and plans are those of rendering.py; the floor is the time that a copy of so many bytes takes. A way with other
bytes than the renderer's is said to be wrong. Ways take turns, so that a clock that drifts shifts all alike. They are
compiled by nvcc where build/gpu has no library that is newer than csrc. --dry runs them on the CPU, tiny, compiled by
g++: its times mean nothing. Has not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pass_loader import Recipe, recipes

from . import rendering
from .native import compiled
from .on_device import copy_bandwidth

RECIPES = ["dino", "swav", "mocov2"]
WORDS_BYTES = 512  # first_pass.cu: kWordsBytes
RESOURCES = ("registers", "local_bytes", "blocks", "occupancy")


class Ways:
    """The library, with the first pass of one batch ready to run."""

    def __init__(self, library: Path, batch: rendering.Batch):
        self._native = ctypes.CDLL(str(library))
        self._native.first_pass_name.restype = ctypes.c_char_p
        self._opened, self._reason = ctypes.c_void_p(), ctypes.create_string_buffer(WORDS_BYTES)
        self._batch = batch  # whose pictures are read
        rows, plans = np.ascontiguousarray(batch.rows, np.int64), np.ascontiguousarray(batch.plans)
        numbers = np.ascontiguousarray(batch.picture_of, np.int32)
        self._check(
            self._native.first_pass_open(
                _place(rows), ctypes.c_int64(len(rows)), _place(plans), _place(numbers), ctypes.c_int64(len(plans)),
                ctypes.byref(self._opened), self._reason,
            )
        )  # fmt: skip
        self.names = [self._native.first_pass_name(way).decode() for way in range(self._native.first_pass_ways())]

    def _check(self, failed: int) -> None:
        if failed:
            raise RuntimeError(self._reason.value.decode())

    def close(self) -> None:
        self._native.first_pass_close(self._opened)
        self._opened = ctypes.c_void_p()

    def time(self, way: int, rounds: int) -> dict[str, Any]:
        """Return the milliseconds of each round, whether its bytes are the renderer's, and what it takes of a GPU."""
        took, resources = np.zeros(rounds, np.float32), np.zeros(len(RESOURCES), np.int32)
        equal = ctypes.c_int32()
        self._check(
            self._native.first_pass_time(
                self._opened, way, rounds, _place(took), ctypes.byref(equal), _place(resources), self._reason
            )
        )
        return {"ms": took.tolist(), "equal": bool(equal.value), **dict(zip(RESOURCES, resources.tolist()))}


def _place(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def measure(library: Path, recipe: Recipe, samples: int, seconds: float, device: str) -> list[dict[str, Any]]:
    """Return a row for each way. seconds: of all of them."""
    batch = rendering.make_batch(recipe, samples, 0, torch.float16, device)
    floor = 1e3 * rendering.kernel_bytes(batch.plans, 2)["FirstPass"] / copy_bandwidth(device)
    ways = Ways(library, batch)
    try:
        once = statistics.median(ways.time(0, 3)["ms"])
        rounds = max(3, min(200, int(1e3 * seconds / 4 / len(ways.names) / max(once, 1e-3))))
        turns = [[ways.time(way, rounds) for way in range(len(ways.names))] for _ in range(2)]
    finally:
        ways.close()
    rows = []
    for name, one, other in zip(ways.names, *turns):
        found = {**one, "ms": statistics.median(one["ms"] + other["ms"]), "equal": one["equal"] and other["equal"]}
        rows.append({"way": name, "recipe": recipe.name, "batch": samples, "floor_ms": floor, **found})
    return rows


def report(rows: list[dict[str, Any]], dry: bool) -> str:
    lines = ["DRY: on the CPU, tiny; the times mean nothing"] if dry else []
    lines.append(f"{'first pass, ms a batch (floor)':48} {'registers':>9} {'local B':>8} {'occupancy':>9}  recipes")
    for name in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == name]
        times = "  ".join(
            f"{row['recipe']} {row['ms']:.3f} ({row['floor_ms']:.3f})" + ("" if row["equal"] else " WRONG BYTES")
            for row in mine
        )
        taken = mine[0]
        lines.append(f"{name:48} {taken['registers']:9} {taken['local_bytes']:8} {taken['occupancy']:7} %  {times}")
    return "\n".join(lines)


def main(given: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256, help="of a batch")
    parser.add_argument("--seconds", type=float, default=30, help="of all ways of all recipes")
    parser.add_argument("--json", help="where the figures go too")
    parser.add_argument("--dry", action="store_true", help="on the CPU, tiny: finds mistakes, measures nothing")
    arguments = parser.parse_args(given)
    device, samples, names = ("cpu", 2, RECIPES[:1]) if arguments.dry else ("cuda", arguments.samples, RECIPES)
    library = compiled(on_cpu=arguments.dry)
    rows: list[dict[str, Any]] = []
    for name in names:
        seconds = 0.0 if arguments.dry else arguments.seconds / len(names)
        rows += measure(library, recipes.PRESETS[name](), samples, seconds, device)
    print(report(rows, arguments.dry))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    wrong = [row["way"] for row in rows if not row["equal"]]
    if wrong:
        raise SystemExit(f"other bytes than the renderer's: {', '.join(wrong)}")
    return rows


if __name__ == "__main__":
    main()
