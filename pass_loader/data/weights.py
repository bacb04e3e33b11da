"""Weights: several packs in given shares, and which records an epoch draws."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..keys import MAX_DRAWS
from ..permutation import permute_each
from .blocks import along_blocks, interleaved
from .live import ConcatLive, Generation

MAX_PASSES = MAX_DRAWS - 2  # of a dataset in one epoch: a pass is a draw


@dataclass(frozen=True)
class Mixture:
    """Several datasets in given shares.

    An epoch holds num_samples samples (None: as many as there are live records). Each dataset has its share of them by
    weight, rounded to whole samples. It gives its records pass by pass, every pass in another order keyed by (seed,
    dataset, pass), and an epoch goes on where the one before ended. So a record comes again only when all others of its
    dataset have come; where it comes twice in an epoch, the second time has another `draw` and other views. Which
    records an epoch draws is a pure function of (seed, epoch) and the live records.
    """

    weights: tuple[float, ...]
    num_samples: int | None
    seed: int

    @staticmethod
    def of(weights: Sequence[float], num_samples: int | None, seed: int, datasets: int) -> Mixture:
        """Check what a user gave. Raises ValueError for what are no weights of so many datasets."""
        given = tuple(float(weight) for weight in weights)
        if len(given) != datasets:
            raise ValueError(f"{len(given)} weights for {datasets} datasets: want one each")
        if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not sum(given) > 0:
            raise ValueError(f"weights {given}: want finite numbers from 0 on, not all of them 0")
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, want at least 1")
        return Mixture(given, num_samples, seed)

    def identity(self) -> list[Any]:
        """Return what a saved state holds of it."""
        return [list(self.weights), self.num_samples]

    def counts(self, live: int) -> np.ndarray:
        """Return (datasets,) int64: samples of each in an epoch, by the largest remainders. live: records of all."""
        shares = np.array(self.weights) / sum(self.weights) * (live if self.num_samples is None else self.num_samples)
        counts = np.floor(shares).astype(np.int64)
        left = round(shares.sum()) - int(counts.sum())
        counts[np.argsort(counts - shares, kind="stable")[:left]] += 1
        return counts

    def over(self, live: ConcatLive) -> MixedLive:
        """Return what an epoch draws from. Raises ValueError where a dataset with a weight has too few records."""
        counts = self.counts(len(live))
        for number, (count, part) in enumerate(zip(counts.tolist(), live.parts)):
            if count > len(part) * MAX_PASSES:
                raise ValueError(
                    f"dataset {number} has {len(part)} live records and weight {self.weights[number]:g}, which is "
                    f"{count} samples an epoch: want at most {MAX_PASSES} times its records"
                )
        return MixedLive(live, counts, self.seed)


@dataclass(frozen=True)
class MixedLive:
    """The records that epochs under weights draw from.

    The positions of one dataset's samples precede those of the next. The record at a position depends on the epoch.

    blocks: with order="blocks", records of a block of each dataset. Positions are then places of a line on which each
    dataset has its share everywhere, and a pass over a dataset goes along its blocks in a keyed order.
    """

    live: ConcatLive
    counts: np.ndarray  # samples of each dataset in an epoch
    seed: int
    blocks: tuple[int, ...] | None = None

    @property
    def generation(self) -> Generation:
        return self.live.generation

    @cached_property
    def ends(self) -> np.ndarray:
        return np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def at(self, positions: np.ndarray, draws: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (records, draws) as Served.at. Raises ValueError for draws: here they count passes of an epoch."""
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"a position outside [0, {len(self)})")
        if draws.any():
            raise ValueError("a dataset with weights draws itself: want positions of a sampler, not (position, draw)")
        if self.blocks is not None:
            positions = interleaved(positions, self.counts)
        records, passed = np.empty(len(positions), np.int64), np.empty(len(positions), np.uint32)
        parts = np.searchsorted(self.ends, positions, side="right")
        for number in np.unique(parts).tolist():
            chosen = parts == number
            part, count = self.live.parts[number], int(self.counts[number])
            begun = epochs[chosen].astype(np.int64) * count  # samples of earlier epochs
            steps = begun + positions[chosen] - (self.ends[number] - count)
            passes = steps // len(part)
            inside, key = steps % len(part), self._key(number)
            if self.blocks is None:
                places = permute_each(inside, len(part), key, passes)
            else:
                places = along_blocks(inside, len(part), self.blocks[number], key, passes)
            records[chosen] = part.records_at(places) + self.live.first_record[number]
            passed[chosen] = passes - begun // len(part)
        return records, passed

    def _key(self, number: int) -> int:
        return int.from_bytes(hashlib.blake2b(struct.pack("<QI", self.seed, number), digest_size=8).digest(), "little")
