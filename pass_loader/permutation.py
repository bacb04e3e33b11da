"""Keyed bijections of [0, count) that need no memory."""

from __future__ import annotations

import numpy as np

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's step


def permute(places: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Permute int64 places by a bijection of [0, count) keyed by the seed.

    A Feistel network on the next even number of bits, walked along its cycle until it is inside (Black and Rogaway,
    "Ciphers with Arbitrary Finite Domains", CT-RSA 2002), at most 4 steps on average.
    """
    return _walk(places, count, np.random.Philox(key=seed % 2**64).random_raw(_ROUNDS)[:, None])


def permute_each(
    places: np.ndarray, count: int, seed: int, passes: np.ndarray, own: np.ndarray | None = None
) -> np.ndarray:
    """Permute each place by a bijection of its own, keyed by the seed and the place's number in `passes`, int64.

    own: (N,) int64, the count of each place's bijection where they differ: equal within a pass, at most `count`, which
    must not depend on the places that are asked for.
    """
    return _walk(places, count, _keys_of(seed, passes), own)


def unpermute_each(values: np.ndarray, count: int, seed: int, passes: np.ndarray) -> np.ndarray:
    """Return the places, int64, whose `permute_each` is `values`."""
    return _walk(values, count, _keys_of(seed, passes), backwards=True)


def _keys_of(seed: int, passes: np.ndarray) -> np.ndarray:
    """Return (rounds, passes) uint64."""
    with np.errstate(over="ignore"):
        own = _mix(np.uint64(seed % 2**64) + passes.astype(np.uint64) * _GOLDEN)
        return np.stack([_mix(own + np.uint64(number + 1) * _GOLDEN) for number in range(_ROUNDS)])


def _walk(
    places: np.ndarray, count: int, keys: np.ndarray, own: np.ndarray | None = None, backwards: bool = False
) -> np.ndarray:
    """keys: (rounds, 1) or (rounds, places) uint64."""
    half = max((count - 1).bit_length() + 1, 2) // 2
    keys = np.broadcast_to(keys, (len(keys), len(places)))
    ends = np.broadcast_to(np.asarray(count if own is None else own, np.uint64), len(places))
    step = _feistel_back if backwards else _feistel
    out = places.astype(np.uint64)
    outside = np.arange(len(out))
    while len(outside):
        out[outside] = step(out[outside], half, keys[:, outside])
        outside = outside[out[outside] >= ends[outside]]
    return out.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << shift | right


def _feistel_back(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys[::-1]:
        left, right = right ^ (_mix(left ^ key) & mask), left
    return left << shift | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit depends on every bit."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
