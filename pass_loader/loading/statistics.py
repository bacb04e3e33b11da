"""What a loader is doing, in numbers and one line of advice."""

from __future__ import annotations

import os
from typing import Any

from .iteration import Meter

STARVED, FED = 0.10, 0.02  # shares of time waited for data above and below which the advice is clear


def statistics(
    meter: Meter,
    stages: dict[str, float],
    *,
    views: int,
    threads: int,
    errors: int,
    pinned_bytes: int,
    device_bytes: int = 0,
    nvjpeg: dict[str, Any] | None = None,
    blocks: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of DataLoader.stats."""
    seconds = meter.waited_s + meter.worked_s
    rate = meter.samples / seconds if seconds else 0.0
    data_wait = meter.waited_s / seconds if seconds else 0.0
    return {
        "batches": meter.batches,
        "samples": meter.samples,
        "seconds": seconds,
        "samples_per_second": rate,
        "views_per_second": rate * views,
        "data_wait": data_wait,
        "stage_seconds": {name: value for name, value in stages.items() if name != "samples"},
        "errors": errors,
        "private_bytes": private_bytes(),
        "pinned_bytes": pinned_bytes,
        "device_bytes": device_bytes,
        "nvjpeg": nvjpeg,
        "blocks": blocks,
        "advice": _advice(meter, data_wait, threads),
    }


def private_bytes() -> int:
    """Return the bytes that this process shares with no other; -1 where Linux's smaps_rollup is missing."""
    try:
        with open("/proc/self/smaps_rollup") as lines:
            private = [line for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))]
    except OSError:
        return -1
    return sum(int(line.split()[1]) * 1024 for line in private)


def _advice(meter: Meter, data_wait: float, threads: int) -> str:
    if meter.batches < 2:
        return "nothing measured so far"
    if data_wait < FED:
        return f"consumer-bound: {data_wait:.0%} of the time waited for data; a faster loader would change nothing"
    cpus = len(os.sched_getaffinity(0))
    more = f"raise num_workers (now {threads}, {cpus} CPUs)" if threads < cpus else f"all {cpus} CPUs render already"
    if data_wait > STARVED:
        return f"loader-bound: {data_wait:.0%} of the time waited for data; {more}"
    return f"balanced: {data_wait:.0%} of the time waited for data; {more}"
