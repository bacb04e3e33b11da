"""Mixup and CutMix of a batch, beside timm's own object: `python -m benchmarks.cpu.mixing`. Needs timm.

Each in turn on the same batch, on one thread; medians of 15 turns, in milliseconds a picture.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from pass_loader.keys import BatchKey
from pass_loader.loading.mixing import mix_batch
from pass_loader.recipes import Mix

from ..torchvision_cpu import torchvision  # noqa: F401  (declares operators)

COUNT, TURNS = 64, 15
KINDS = {"Mixup": {"mixup_alpha": 0.8}, "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}}


def main() -> None:
    from timm.data.mixup import Mixup  # after torchvision's operators are declared

    torch.set_num_threads(1)
    views, labels = torch.randn(COUNT, 3, 224, 224), torch.randint(1000, (COUNT,))
    records = np.arange(COUNT)
    for mode in ("batch", "pair", "elem"):
        for name, given in KINDS.items():
            theirs, ours = Mixup(**given, mode=mode), Mix(**given, mode=mode)
            seconds: dict[str, list[float]] = {"timm": [], "ours": []}
            for turn in range(TURNS):
                start = time.perf_counter()
                theirs(views, labels)
                middle = time.perf_counter()
                mix_batch(ours, BatchKey(0, 0, turn, 0), 0, views, labels, records)
                seconds["timm"].append(middle - start)
                seconds["ours"].append(time.perf_counter() - middle)
            timm, own = (statistics.median(taken) / COUNT * 1e3 for taken in seconds.values())
            print(f"{mode:6} {name:7} timm {timm:.3f} ms a picture, ours {own:.3f}, {timm / own:.1f} times as fast")


if __name__ == "__main__":
    main()
