"""Orders of an epoch, with random access: which position stands at the i-th place."""

from __future__ import annotations

import numpy as np
import torch

PERMUTE_ABOVE = 10**7  # records: torch's permutation costs 8 bytes and about 100 ns each, at every start of an epoch
KINDS = ("sequential", "torch", "permute")
_ROUNDS = 6


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


def permute(places: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A bijection of [0, count): a Feistel network on the next even number of bits, walked along its cycle until it is
    inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002), at most 4 steps on average.
    """
    half = max((count - 1).bit_length() + 1, 2) // 2
    keys = np.random.Philox(key=seed % 2**64).random_raw(_ROUNDS)
    out = places.astype(np.uint64)
    outside = np.arange(len(out))
    while len(outside):
        out[outside] = _feistel(out[outside], half, keys)
        outside = outside[out[outside] >= count]
    return out.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << shift | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit depends on every bit."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
