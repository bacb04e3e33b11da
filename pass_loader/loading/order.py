"""Orders of an epoch, with random access: which position stands at the i-th place."""

from __future__ import annotations

import numpy as np
import torch

from ..data.permutation import permute

__all__ = ["KINDS", "PERMUTE_ABOVE", "Order", "permute"]

PERMUTE_ABOVE = 10**7  # records: torch's permutation costs 8 bytes and about 100 ns each, at every start of an epoch
KINDS = ("sequential", "torch", "permute")


class Order:
    """A permutation of [0, count).

    "torch": `randperm` under a torch.Generator of this seed, DistributedSampler's order. "permute": a keyed bijection
    of O(1) memory. "sequential": the identity.
    """

    def __init__(self, kind: str, count: int, seed: int):
        if kind not in KINDS:
            raise ValueError(f"order is {kind!r}, want one of {KINDS}")
        self.kind, self.count, self.seed = kind, count, seed
        self._all = None
        if kind == "torch":
            self._all = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()

    def at(self, places: np.ndarray) -> np.ndarray:
        """int64 places, any from 0 on, to positions; the order repeats where they pass its end."""
        places = places % self.count
        if self._all is not None:
            return self._all[places]
        return places if self.kind == "sequential" else permute(places, self.count, self.seed)
