"""Time to the first batch and memory of a loader, in a process of its own: python -m benchmarks.cpu.fresh_process PACK

Prints JSON. Memory is anonymous (RssAnon: the process's own, not mapped files), beyond that after torch's import.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from ..memory import private_bytes


def measure(pack: str, *, threads: int, samples: int, epochs: int, drop_last: bool) -> dict[str, Any]:
    """`first_batch_s`: from after torch's import to the first batch in hand. `private_bytes`: after each epoch, batches
    included; `live_bytes`: those of the batches in work and of the one held."""
    torch.empty(8).sum()
    before, began = private_bytes(), time.perf_counter()
    import pass_loader

    dataset = pass_loader.ShardDataset(pack, pass_loader.recipes.dino())
    positions = [index % len(dataset) for index in range(samples)]
    # Two batches in work, however busy the machine is.
    loader = pass_loader.DataLoader(
        dataset, 64, sampler=positions, num_workers=threads, drop_last=drop_last, prefetch_bytes=0
    )
    first, batch_bytes, private = None, 0, []
    for _ in range(epochs):
        for views, labels in loader:
            assert torch.isfinite(views[0][0]).all() and len(labels) == len(views[-1])
            first = first or time.perf_counter() - began
            batch_bytes = max(batch_bytes, sum(view.nbytes for view in views))
        private.append(private_bytes() - before)
        del views, labels
    live = batch_bytes * (loader.stats()["batches_ahead"] + 1)
    return {"first_batch_s": first, "live_bytes": live, "private_bytes": private}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=200, help="of an epoch of batches of 64")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--drop-last", action="store_true")
    print(json.dumps(measure(**vars(parser.parse_args()))))
