"""What tests of packs in stores compare: digests of whole epochs."""

from __future__ import annotations

import hashlib
from typing import Any

from pass_loader import DataLoader, ShardDataset, recipes

RECIPE = recipes.dino(local_crops=2, global_size=32, local_size=16)


def digest(dataset: ShardDataset, epochs: int = 1, batch_size: int = 4, **options: Any) -> str:
    """Return a digest of all batches of shuffled epochs."""
    loader = DataLoader(dataset, batch_size, shuffle=True, return_info=True, **{"num_workers": 2, **options})
    return digest_of(loader, epochs)


def digest_of(loader: DataLoader, epochs: int = 1) -> str:
    found = hashlib.sha256()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for views, labels, info in loader:
            for tensor in (*views, labels, info["records"]):
                found.update(tensor.numpy().tobytes())
    return found.hexdigest()
