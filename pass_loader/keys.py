"""Keys of random numbers: which sample, in which epoch, or which batch. The Python side of csrc/draws.h."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import _C

MAX_DRAWS: int = _C.max_draws  # of one record in one epoch


def check_epoch(epoch: int) -> None:
    """Raise ValueError for an epoch outside [0, 2^32)."""
    if not 0 <= epoch < 2**32:
        raise ValueError(f"epoch is {epoch}, want [0, 2^32)")


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed outside [0, 2^64)."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}, want [0, 2^64)")


def check_draw(draw: int) -> None:
    """Raise ValueError for a draw outside [0, MAX_DRAWS)."""
    if not 0 <= draw < MAX_DRAWS:
        raise ValueError(f"draw is {draw}, want [0, {MAX_DRAWS})")


@dataclass(frozen=True)
class Keys:
    """N samples to render, each named by (record, draw, epoch)."""

    records: np.ndarray  # (N,) int64
    draws: np.ndarray  # (N,) uint32
    epochs: np.ndarray  # (N,) uint32

    @staticmethod
    def of(record: int, draw: int, epoch: int) -> Keys:
        """Return the keys of one sample. Raises ValueError for an epoch out of range."""
        check_epoch(epoch)
        return Keys(np.array([record], np.int64), np.array([draw], np.uint32), np.array([epoch], np.uint32))

    def __len__(self) -> int:
        return len(self.records)

    def at(self, slots: np.ndarray) -> Keys:
        """Return the keys of the samples in these slots."""
        return Keys(self.records[slots], self.draws[slots], self.epochs[slots])

    def seeded(self, seed: int) -> SampleKeys:
        """Return the same samples under a dataset's seed."""
        return SampleKeys(seed, self.records, self.draws, self.epochs)


class SampleKeys(NamedTuple):
    """N samples under a seed: all that the draws of a sample depend on."""

    seed: int
    records: np.ndarray  # (N,) int64
    draws: np.ndarray  # (N,) uint32
    epochs: np.ndarray  # (N,) uint32


class BatchKey(NamedTuple):
    """One rank's part of the `step`-th batch of an epoch: all that the draws of a batch depend on."""

    seed: int
    epoch: int
    step: int
    rank: int

    def uniforms(self, purpose: int, count: int) -> np.ndarray:
        """Return `count` numbers in [0, 1), float64. Each purpose has a stream of its own."""
        return _C.batch_uniforms(*self, purpose, count)
