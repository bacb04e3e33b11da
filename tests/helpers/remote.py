"""What tests of packs in stores compare: digests of whole epochs, conditional writes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.remote.store import Changed
from pass_loader.remote.writing import Version, WritableStore

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


def written_once(store: WritableStore) -> Version:
    """Write the object "a", twice, and try to write over what somebody else has written. Returns the first version."""
    first = store.write("a", b"1", None)
    with pytest.raises(Changed):
        store.write("a", b"2", None)
    assert store.read("a") == (b"1", first)
    store.write("a", b"2", first)
    with pytest.raises(Changed):
        store.write("a", b"3", first)
    store.prove_conditions("a", b"2")
    return first
