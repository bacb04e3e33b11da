"""How many random trials tests take: few as a rule, many where PASS_LOADER_LONG=1 (`make long`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("PASS_LOADER_LONG", "0") != "0"


def trials(usual: int, long: int) -> int:
    """Return how many random trials, seconds or repetitions a test takes: `long` of them under `make long`."""
    return long if LONG else usual


def drawn(usual: int, long: int) -> settings:
    """Return Hypothesis's settings for so many cases: the same ones in every run, at any speed, as under QEMU."""
    slow = [HealthCheck.too_slow]
    return settings(max_examples=trials(usual, long), deadline=None, derandomize=True, suppress_health_check=slow)
