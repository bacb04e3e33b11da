"""How far the loader works ahead of its consumer: batches in work and records to be read, under one bound in bytes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ..recipes.recipe import Recipe

BYTES_A_THREAD = 64 << 20  # of batches in work beside two, and of records that are read ahead
RECORDS_A_THREAD = 128  # read ahead: a thread takes 50 in the 50 ms of a slow read
RECORDS_SHARE = 4  # one part in so many of the bytes is for records
SAMPLES_A_THREAD = 32  # in work beside two batches: the slowest pictures of ImageNet cost 21 times the mean
LARGE_BATCHES = 4096  # samples of two batches: the usual ones have fewer
IDLE = 0.02  # share of the threads' time that may be lost to waiting for batches


def sample_bytes(recipe: Recipe, item_bytes: int, heatmaps: bool) -> int:
    """Return the bytes of one sample in a batch. item_bytes: of one value."""
    pixels = sum(view.height * view.width for view in recipe.views)
    return pixels * (recipe.channels * item_bytes + 4 * heatmaps)


@dataclass(frozen=True)
class Bounds:
    """least: batches in work in any case. samples: in work beside the first two batches. records, record_bytes: read
    ahead of those in work. unpinned: samples, if batches did not lie in pinned memory; 0 where they do not.
    bytes_for_all: the prefetch_bytes that give pinned batches as many. fetched: records that are fetched from stores
    ahead of those in work."""

    least: int
    samples: int
    records: int
    record_bytes: int
    unpinned: int = 0
    bytes_for_all: int = 0
    fetched: int = 0

    def within(self, samples: int) -> Bounds:
        """Return bounds by which no more than so many samples are drawn beside two batches."""
        in_work, unpinned = min(self.samples, samples), min(self.unpinned, samples)
        records, fetched = (min(ahead, samples - in_work) for ahead in (self.records, self.fetched))
        return dataclasses.replace(self, samples=in_work, unpinned=unpinned, records=records, fetched=fetched)

    @property
    def drawn(self) -> int:
        """The most records that are drawn ahead of those in work."""
        return max(self.records, self.fetched)

    @property
    def announced(self) -> int:
        """The most records that are announced to readers at a time: those in work too, and a second one a sample."""
        return 2 * (self.records + self.samples + LARGE_BATCHES) if self.record_bytes else 0

    def most(self, batch_size: int) -> int:
        """Return the most batches in work, all of this size."""
        return max(self.least, 2 + self.samples // batch_size) if self.samples else self.least

    def most_unpinned(self, batch_size: int) -> int:
        """Return the same if batches did not lie in pinned memory."""
        return dataclasses.replace(self, samples=max(self.samples, self.unpinned)).most(batch_size)


def bounds(
    least: int, threads: int, prefetch_bytes: int | None, read_ahead: int | None, pinned: bool, bytes_a_sample: int
) -> Bounds:
    """Return how far a loader may work ahead.

    prefetch_bytes: of batches beside two and of records; None takes BYTES_A_THREAD for each thread. Batches in pinned
    memory, which torch rounds up to a power of two, get half of it. read_ahead: records; None takes RECORDS_A_THREAD
    for each thread.
    """
    if read_ahead is None:
        read_ahead = RECORDS_A_THREAD * threads
    if prefetch_bytes is None:
        prefetch_bytes = BYTES_A_THREAD * max(1, threads)
    record_bytes = prefetch_bytes // RECORDS_SHARE if read_ahead else 0
    records = read_ahead if record_bytes else 0
    size, enough = max(1, bytes_a_sample), SAMPLES_A_THREAD * threads
    samples = min((prefetch_bytes - record_bytes) // size, enough)
    if not pinned:
        return Bounds(least, samples, records, record_bytes)
    in_half = min(prefetch_bytes // 2 // size, enough)
    return Bounds(least, in_half, records, record_bytes, unpinned=samples, bytes_for_all=2 * samples * size)


class Depth:
    """The number of batches in work. It grows where threads wait for batches while the consumer waits for them.

    A batch's slowest picture holds up the batches after it: threads then need other batches to work on.
    """

    def __init__(self, bounds: Bounds, batch_size: int):
        self.bounds = bounds
        self.most, self.most_unpinned = bounds.most(batch_size), bounds.most_unpinned(batch_size)
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
