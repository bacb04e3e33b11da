"""What happens to a batch when some of its records fail: raise, replace or skip."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import struct
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from ..data.live import Served
from ..errors import RecordError
from ..keys import Keys
from .rendering import Failure, Renderer, Submitted

_LOG = logging.getLogger(__name__)
POLICIES = ("raise", "replace", "skip")
IO_RETRIES_S = (0.05, 0.5)  # pauses before reading once more from storage that failed
FETCH_ATTEMPTS = 5  # to render a record of a store's cache, fetched anew before each
WRONG_BYTES = "CRC32C is"  # begins what is said of them (csrc/shard.cpp)
NO_FILE = f"cannot open the shard: {os.strerror(errno.ENOENT)}"
IN_A_ROW = 100  # failures without a good sample between them: the data are broken, not a picture
ATTEMPTS = 16  # replacements tried for one slot
KEPT_ERRORS = 10_000
LOGGED_ERRORS = 5  # the first ones, of which each has a line in the log


class Faults:
    """Applies a policy to records that failed, and remembers them.

    Bad bytes and wrong checksums obey the policy. Failing storage is read again after IO_RETRIES_S and then raises,
    whatever the policy: another try of the job may succeed, and the samples are not lost. A recipe that cannot be
    applied to a record (a jitter of 16 bits) raises too.
    """

    def __init__(self, policy: str):
        if policy not in POLICIES:
            raise ValueError(f"on_error is {policy!r}, want one of {POLICIES}")
        self.policy = policy
        self.errors: deque[RecordError] = deque(maxlen=KEPT_ERRORS)
        self.count = 0
        self._in_a_row = 0

    def settle(self, batch: Submitted, failures: Sequence[Failure], renderer: Renderer, live: Served) -> None:
        """Make all valid slots of a batch hold good samples; others are replaced, or dropped under "skip"."""
        failures = settled(batch, failures, renderer)
        if not failures:
            self._in_a_row = 0
            return
        asked = [failure for failure in failures if failure[1] == "argument"]  # the recipe is at fault, not a record
        if self.policy == "raise" or asked:
            batch.raise_first(asked or failures)
        bad = dict.fromkeys(range(len(batch.keys)), None) | {slot: message for slot, _, message in failures}
        for slot, message in bad.items():
            self._in_a_row = 0 if message is None else self._in_a_row + 1
            if message is not None:
                self._note(batch, slot, message)
                if self.policy == "replace":
                    self._replace(batch, slot, renderer, live)
        if self.policy == "skip":
            batch.keep(np.flatnonzero(batch.valid))

    def _note(self, batch: Submitted, slot: int, message: str) -> None:
        error = batch.samples.error(int(batch.keys.records[slot]), "record", message)
        batch.valid[slot] = False
        self._remember(error)
        if self._in_a_row > IN_A_ROW:
            raise RuntimeError(f"more than {IN_A_ROW} records in a row failed, the last one: {error}") from error

    def _remember(self, error: RecordError) -> None:
        """Silent replacement has hurt long runs: the log tells."""
        self.errors.append(error)
        self.count += 1
        if is_logged(self.count):
            _LOG.warning("bad record, on_error=%r, number %d of this loader: %s", self.policy, self.count, error)

    def _replace(self, batch: Submitted, slot: int, renderer: Renderer, live: Served) -> None:
        keys = batch.keys
        record, draw, epoch = (int(column[slot]) for column in (keys.records, keys.draws, keys.epochs))
        for attempt in range(ATTEMPTS):
            position = replacement(batch.samples.seed, epoch, record, attempt, len(live))
            drawn, _ = live.at(np.array([position]), np.zeros(1, np.uint32), np.array([epoch], np.uint32))
            other = int(drawn[0])
            if batch.samples.pack.is_removed(np.array(other)):
                continue
            fetching = batch.samples.fetching(Keys.of(other, draw, epoch))
            if fetching is not None:
                fetching.wait()
            again = renderer.resubmit(batch, slot, Keys.of(other, draw, epoch))
            failed = settled(again, again.wait(), renderer)
            if not failed:
                batch.replace(slot, again)
                return
            self._remember(batch.samples.error(other, "record", failed[0][2]))
        raise RuntimeError(
            f"{ATTEMPTS} replacements for record {record} failed as well, the last one: {self.errors[-1]}"
        )


def is_logged(number: int) -> bool:
    """Return True for the first events of a kind, and then at every power of ten."""
    return number <= LOGGED_ERRORS or int(f"1{'0' * (len(str(number)) - 1)}") == number


def replacement(seed: int, epoch: int, record: int, attempt: int, count: int) -> int:
    """Return the position that stands in for a record: the same on every run, rank and machine."""
    key = struct.pack("<QIqI", seed, epoch, record, attempt)
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") % count


def _mended(batch: Submitted, failures: Sequence[Failure], renderer: Renderer) -> list[Failure]:
    """Fetch records anew whose bytes in the cache of a store are wrong or gone; return all other failures.

    Another process may have dropped them meanwhile, so this may happen more than once. Raises ShardError.
    """
    left = [failure for failure in failures if not _is_wrong(failure)]
    for slot, fault, message in (failure for failure in failures if _is_wrong(failure)):
        keys = batch.keys.at(np.array([slot]))
        fetching = batch.samples.fetching(keys)
        again: list[Failure] = [(slot, fault, message)]
        for _ in range(FETCH_ATTEMPTS):
            if fetching is None:
                break
            fetching.mend()
            again = renderer.resubmit(batch, slot, keys).wait()
            if not again or not _is_wrong(again[0]):
                break
        left += [(slot, fault, message) for _, fault, message in again]
    return sorted(left)


def _is_wrong(failure: Failure) -> bool:
    """Return True for bytes that are not those that were packed, or whose file was deleted."""
    return failure[2].startswith(WRONG_BYTES if failure[1] == "record" else NO_FILE)


def settled(batch: Submitted, failures: Sequence[Failure], renderer: Renderer) -> list[Failure]:
    """Read or fetch again where the storage failed; return all other failures. Raises ShardError where it fails
    again."""
    failures = _mended(batch, failures, renderer)
    lasting = [failure for failure in failures if failure[1] != "io"]
    for slot, _, cause in (failure for failure in failures if failure[1] == "io"):
        error = batch.samples.error(int(batch.keys.records[slot]), "io", cause)
        keys = Keys(*(column[slot : slot + 1] for column in (batch.keys.records, batch.keys.draws, batch.keys.epochs)))
        again: list[Failure] = []
        for pause in IO_RETRIES_S:
            _LOG.info("storage failed, reading once more in %g s: %s", pause, error)
            time.sleep(pause)
            submitted = renderer.resubmit(batch, slot, keys)
            again = submitted.wait()
            if not again or again[0][1] != "io":
                break
        else:
            submitted.raise_first(again)
        lasting += [(slot, fault, message) for _, fault, message in again]
    return sorted(lasting)
