"""Tests of hypotheses on draws: two samples, independence, many tests at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 1e-3  # of all tests of a family together


class Outcome(NamedTuple):
    """What a test says: its p-value."""

    what: str
    p: float


def holm(tests: list[Outcome], level: float = LEVEL) -> list[Outcome]:
    """Return the tests that reject, by Holm's correction (1979): the smallest p-value against level / count, the next
    against level / (count - 1), until one does not reject."""
    ordered = sorted(tests, key=lambda test: test.p)
    for number, test in enumerate(ordered):
        if not test.p <= level / (len(ordered) - number):
            return ordered[:number]
    return ordered


def same_distribution(what: str, ours: np.ndarray, theirs: np.ndarray) -> Outcome:
    """Kolmogorov-Smirnov for two samples. Ties make it say less, never more."""
    return Outcome(what, float(stats.ks_2samp(ours, theirs, method="asymp").pvalue))


def same_shares(what: str, ours: np.ndarray, theirs: np.ndarray, least: int = 10) -> Outcome:
    """Chi-square for two samples of categories; those with fewer than `least` of both together count as one."""
    names, numbers = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    table = np.stack([np.bincount(part, minlength=len(names))
                      for part in (numbers[: len(ours)], numbers[len(ours) :])])  # fmt: skip
    rare = table.sum(0) < least
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return Outcome(what, 1.0)
    return Outcome(what, float(stats.chi2_contingency(table, correction=False).pvalue))


def has_share(what: str, values: np.ndarray, share: float) -> Outcome:
    """Binomial, exact: whether a thing happens as often as it must."""
    return Outcome(what, float(stats.binomtest(int(np.count_nonzero(values)), len(values), share).pvalue))


def independent(what: str, one: np.ndarray, other: np.ndarray, bins: int = 8) -> Outcome:
    """Chi-square on a table of two numbers, each cut at its quantiles; what has few values keeps them."""
    table = np.zeros((bins, bins))
    np.add.at(table, (_cut(one, bins), _cut(other, bins)), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    return Outcome(what, float(stats.chi2_contingency(table, correction=False).pvalue))


def _cut(values: np.ndarray, bins: int) -> np.ndarray:
    own = np.unique(values)
    if len(own) <= bins:
        return np.searchsorted(own, values)
    ranks = np.searchsorted(np.sort(values), values)
    return ranks * bins // len(values)


def uncorrelated(what: str, one: np.ndarray, other: np.ndarray) -> Outcome:
    """Pearson's correlation of two rows of numbers, under independence normal with deviation 1 / sqrt(count)."""
    r = float(np.corrcoef(one, other)[0, 1])
    return Outcome(what, float(2 * stats.norm.sf(abs(r) * math.sqrt(len(one)))))
