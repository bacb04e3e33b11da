"""The generator's words in the orders in which plans use them, and a part of NIST's tests of random bits.

`python -m benchmarks.proof.generator slots | RNG_test stdin32` gives them to PractRand; dieharder.py runs dieharder.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import sys
from collections.abc import Callable
from typing import IO

import numpy as np
from scipy import special, stats

from .slots import slots
from .statistics import Outcome

ORDERS = ("slots", "views", "records", "epochs", "seeds")  # what runs fastest from one word of four to the next


def philox(counter: list[np.ndarray], key: np.ndarray) -> np.ndarray:
    """Return (N, 4) uint32 of Philox4x32-10 (Salmon et al., SC 2011) for N counters of four words and N keys."""
    low, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a, b, c, d = (word.astype(np.uint64) for word in counter)
    key0, key1 = key.astype(np.uint64) & mask, key.astype(np.uint64) >> low
    for _ in range(10):
        x, y = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (y >> low) ^ b ^ key0, y & mask, (x >> low) ^ d ^ key1, x & mask
        key0, key1 = (key0 + np.uint64(0x9E3779B9)) & mask, (key1 + np.uint64(0xBB67AE85)) & mask
    return np.stack([a, b, c, d], 1).astype(np.uint32)


def words(order: str, begin: int, count: int) -> np.ndarray:
    """Return the words of counters `begin` on, (count, 4) uint32, as csrc/draws.h makes counters."""
    place = np.arange(begin, begin + count, dtype=np.uint64)
    zero = np.zeros(count, np.uint64)
    seed, epoch, record, view, slot = zero, zero, zero, zero, zero + np.uint64(20)
    own = np.array(list(slots().values()), np.uint64)
    if order == "slots":  # then views, then records: one sample after another
        slot, rest = own[place % np.uint64(len(own))], place // np.uint64(len(own))
        view, record = rest % np.uint64(10), rest // np.uint64(10)
    elif order == "views":
        view, record = place % np.uint64(256), place // np.uint64(256)
    elif order == "records":
        record = place
    elif order == "epochs":
        epoch, record = place & np.uint64(0xFFFFFFFF), place >> np.uint64(32)
    else:
        seed = place
    return philox([epoch, record, view, slot], seed)


def of_records(slot: int, count: int) -> np.ndarray:
    """Return the words (count, 4) of a slot for view 0 of records 0, 1, ..., or of a batch's steps; seed 0, epoch 0."""
    zero = np.zeros(count, np.uint64)
    return philox([zero, np.arange(count, dtype=np.uint64), zero, zero + np.uint64(slot)], zero)


def slot_tests(count: int, make: Callable[[int, int], np.ndarray] = of_records) -> list[Outcome]:
    """Return tests of every two numbers of all slots: chi-square on their highest two bits, over so many records.

    Each slot has two numbers, of words 0 and 1 and of words 2 and 3. make: what gives a slot's words.
    """
    names = [f"{name}{part}" for name in slots() for part in ("", ", second number")]
    counts = np.zeros((4 * len(names), 4 * len(names)))
    bits = [(make(slot, count)[:, ::2] >> 30).astype(np.uint8) for slot in slots().values()]
    highest = np.stack(bits, 1).reshape(count, -1)
    for begin in range(0, count, 10_000):
        part = highest[begin : begin + 10_000]
        ones = (part[:, :, None] == np.arange(4)).reshape(len(part), -1).astype(np.float32)
        counts += ones.T @ ones  # exact: whole numbers below 2^24
    table = counts.reshape(len(names), 4, len(names), 4).transpose(0, 2, 1, 3)  # number, number, 4, 4
    expected = table.sum(3, keepdims=True) * table.sum(2, keepdims=True) / count
    p = stats.chi2.sf(((table - expected) ** 2 / np.maximum(expected, 1e-9)).sum((2, 3)), 9)
    return [Outcome(f"{names[one]} and {names[other]}", float(p[one, other]))
            for one, other in itertools.combinations(range(len(names)), 2)]  # fmt: skip


def stream_tests(count: int) -> list[Outcome]:
    """Return tests of `count` words in each order, after NIST SP 800-22 rev. 1a: frequency, frequency in a block, runs,
    cumulative sums, spectral, and serial with four bits."""
    found = []
    for order in ORDERS:
        raw = words(order, 0, -(-count // 4)).ravel()[:count]
        bits = np.unpackbits(raw.view(np.uint8)).astype(np.int8)
        for test in (frequency, blocks, runs, sums, spectrum, serial):
            found.append(Outcome(f"{test.__name__}, {order} fastest", test(bits)))
    return found


def frequency(bits: np.ndarray) -> float:
    """2.1: as many ones as zeros."""
    return math.erfc(abs(2 * int(bits.sum()) - len(bits)) / math.sqrt(2 * len(bits)))


def blocks(bits: np.ndarray, size: int = 128) -> float:
    """2.2: as many ones as zeros in each block."""
    shares = bits[: len(bits) // size * size].reshape(-1, size).mean(1)
    return float(special.gammaincc(len(shares) / 2, 2 * size * ((shares - 0.5) ** 2).sum()))


def runs(bits: np.ndarray) -> float:
    """2.3: how often the bit changes."""
    share = float(bits.mean())
    even = share * (1 - share)
    changes = 1 + int(np.count_nonzero(bits[1:] != bits[:-1]))
    return math.erfc(abs(changes - 2 * len(bits) * even) / (2 * math.sqrt(2 * len(bits)) * even))


def sums(bits: np.ndarray) -> float:
    """2.13, forward: how far the walk of ones and zeros goes."""
    count, far = len(bits), int(np.abs(np.cumsum(2 * bits.astype(np.int64) - 1)).max())
    root = math.sqrt(count)

    def cdf(x: float) -> float:
        return float(special.ndtr(x / root))

    first = [cdf((4 * k + 1) * far) - cdf((4 * k - 1) * far)
             for k in range(int((-count / far + 1) / 4), int((count / far - 1) / 4) + 1)]  # fmt: skip
    second = [cdf((4 * k + 3) * far) - cdf((4 * k + 1) * far)
              for k in range(int((-count / far - 3) / 4), int((count / far - 1) / 4) + 1)]  # fmt: skip
    return min(max(1 - sum(first) + sum(second), 0.0), 1.0)


def spectrum(bits: np.ndarray, most: int = 1 << 20) -> float:
    """2.6, on the first bits: no period stands out."""
    steps = 2.0 * bits[:most] - 1
    count = len(steps)
    heights = np.abs(np.fft.rfft(steps))[: count // 2]
    below = np.count_nonzero(heights < math.sqrt(math.log(1 / 0.05) * count))
    return math.erfc(abs(below - 0.95 * count / 2) / math.sqrt(count * 0.95 * 0.05 / 4) / math.sqrt(2))


def serial(bits: np.ndarray, length: int = 4) -> float:
    """2.11, the first of its two numbers: all words of so many overlapping bits alike."""

    def psi(length: int) -> float:
        if length == 0:
            return 0.0
        around = np.concatenate([bits, bits[: length - 1]])
        values = sum(around[place : place + len(bits)].astype(np.int64) << place for place in range(length))
        counts = np.bincount(values, minlength=1 << length)
        return float((counts.astype(np.float64) ** 2).sum()) * (1 << length) / len(bits) - len(bits)

    return float(special.gammaincc(2 ** (length - 2), (psi(length) - psi(length - 1)) / 2))


def write_words(order: str, out: IO[bytes], begin: int = 0) -> None:
    """Write the words from a counter on until nobody reads them any more, and close the stream."""
    try:
        for chunk in itertools.count():
            out.write(words(order, begin + (chunk << 16), 1 << 16).tobytes())
    except BrokenPipeError:
        pass
    finally:  # whatever it is: who reads must not wait for ever
        with contextlib.suppress(BrokenPipeError):  # of what was left in its buffer
            out.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("order", choices=ORDERS)
    write_words(parser.parse_args().order, sys.stdout.buffer)


if __name__ == "__main__":
    main()
