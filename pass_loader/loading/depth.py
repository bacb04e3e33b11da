"""How far the loader works ahead of its consumer: batches in work, under a bound in bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..recipes.recipe import Recipe

BYTES_A_THREAD = 64 << 20  # of batches in work beside two
SAMPLES_A_THREAD = 32  # in work beside two batches: the slowest pictures of ImageNet cost 21 times the mean
IDLE = 0.02  # share of the threads' time that may be lost to waiting for batches


def sample_bytes(recipe: Recipe, item_bytes: int, heatmaps: bool) -> int:
    """Return the bytes of one sample in a batch. item_bytes: of one value."""
    pixels = sum(view.height * view.width for view in recipe.views)
    return pixels * (recipe.channels * item_bytes + 4 * heatmaps)


@dataclass(frozen=True)
class Bounds:
    """least: batches in work in any case. samples: in work beside the first two batches."""

    least: int
    samples: int

    def most(self, batch_size: int) -> int:
        """Return the most batches in work, all of this size."""
        return max(self.least, 2 + self.samples // batch_size) if self.samples else self.least


def bounds(least: int, threads: int, prefetch_bytes: int | None, pinned: bool, bytes_a_sample: int) -> Bounds:
    """Return what a loader may have in work.

    prefetch_bytes: of batches beside two; None takes BYTES_A_THREAD for each thread, and half of that for pinned
    memory, which torch rounds up to a power of two.
    """
    if prefetch_bytes is None:
        prefetch_bytes = BYTES_A_THREAD * threads // (2 if pinned else 1)
    return Bounds(least, min(prefetch_bytes // max(1, bytes_a_sample), SAMPLES_A_THREAD * threads))


class Depth:
    """The number of batches in work. It grows where threads wait for batches while the consumer waits for them.

    A batch's slowest picture holds up the batches after it: threads then need other batches to work on.
    """

    def __init__(self, bounds: Bounds, batch_size: int):
        self.bounds = bounds
        self.most = bounds.most(batch_size)
        self.batches = bounds.least
        self._batches_seen = 0
        self._idle_s = self._thread_s = 0.0

    def allows(self, batches: int, samples: int) -> bool:
        """Return whether one more batch may be in work.

        batches: in work. samples: in work with the new batch, but without the first two batches.
        """
        return batches < self.bounds.least or (batches < self.batches and samples <= self.bounds.samples)

    def note(self, idle_s: float, thread_s: float) -> None:
        """Take in a batch that was waited for, while more were there to be rendered.

        idle_s: of all threads while the consumer waited. thread_s: of all threads since the batch before.
        """
        self._idle_s += idle_s
        self._thread_s += thread_s
        self._batches_seen += 1
        if 2 * self._batches_seen < self.batches:
            return
        if self._idle_s > IDLE * self._thread_s:
            self.batches = min(self.most, self.batches + math.ceil(self.batches / 4))
        self._batches_seen, self._idle_s, self._thread_s = 0, 0.0, 0.0
