"""What a loader is doing, in numbers and one line of advice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .depth import Depth
from .iteration import Meter

STARVED, FED = 0.10, 0.02  # shares of time waited for data above and below which the advice is clear
IDLE = 0.10  # share of the threads' time in such waits, above which they lack batches
FETCHING = 0.5  # share of the waiting that was for a store, above which that is the limit
READING = 0.5  # share of the time that threads are busy, above which storage is the limit


def statistics(
    meter: Meter,
    stages: dict[str, float],
    *,
    views: int,
    threads: int,
    depth: Depth | None,
    read_ahead: dict[str, Any] | None,
    errors: int,
    pinned_bytes: int,
    device_bytes: int = 0,
    decoding: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    blocks: dict[str, Any] | None = None,
    remote: dict[str, Any] | None = None,
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
        "busy": meter.busy_s / (seconds * max(1, threads)) if seconds else 0.0,
        "batches_ahead": 0 if depth is None else depth.batches,
        "batches_ahead_most": 0 if depth is None else depth.most,
        "stage_seconds": {name: value for name, value in stages.items() if name != "samples"},
        "read_ahead": read_ahead,
        "errors": errors,
        "private_bytes": private_bytes(),
        "pinned_bytes": pinned_bytes,
        "device_bytes": device_bytes,
        "nvjpeg": decoding.get("nvjpeg"),
        "cuda": decoding.get("cuda"),
        "blocks": blocks,
        "remote": remote,
        "advice": _advice(meter, data_wait, stages, threads, depth, remote),
    }


def private_bytes() -> int:
    """Return the bytes that this process shares with no other; -1 where Linux's smaps_rollup is missing."""
    try:
        with open("/proc/self/smaps_rollup") as lines:
            private = [line for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))]
    except OSError:
        return -1
    return sum(int(line.split()[1]) * 1024 for line in private)


def _advice(
    meter: Meter, data_wait: float, stages: dict[str, float], threads: int, depth: Depth | None,
    remote: dict[str, Any] | None,
) -> str:  # fmt: skip
    if meter.batches < 2:
        return "nothing measured so far"
    if data_wait < FED:
        return f"consumer-bound: {data_wait:.0%} of the time waited for data; a faster loader would change nothing"
    bound, words = _limit(meter, stages, threads, depth)
    if remote is not None and remote["waited_s"] > FETCHING * meter.waited_s:
        share = remote["waited_s"] / meter.waited_s
        bound = "storage-bound"
        words = (
            f"{share:.0%} of that for the store, which sent {remote['bytes']:,} bytes: a pack that fits into "
            "cache_bytes is fetched once; for a larger one order='blocks' fetches less"
        )
    kind = bound if data_wait > STARVED else "balanced"
    return f"{kind}: {data_wait:.0%} of the time waited for data; {words}"


def _limit(meter: Meter, stages: dict[str, float], threads: int, depth: Depth | None) -> tuple[str, str]:
    """Return what limits the loader, and what helps."""
    idle = meter.idle_s / (threads * meter.waited_s) if threads else 0.0
    if idle > IDLE and depth is not None:
        if depth.batches < depth.most:
            return "loader-bound", f"threads waited for batches, {idle:.0%} of that; more are in work from now on"
        if depth.most < depth.most_unpinned:
            return "loader-bound", (
                f"threads waited for batches, {idle:.0%} of that: pinned memory allows {depth.most} of "
                f"{depth.most_unpinned} batches, prefetch_bytes={depth.bounds.bytes_for_all} all of them"
            )
        return "loader-bound", (
            f"threads waited for batches, {idle:.0%} of that: raise prefetch_bytes or prefetch_factor (now "
            f"{depth.most} batches in work)"
        )
    rendering = sum(value for name, value in stages.items() if name not in ("samples", "read"))
    reading = stages.get("read", 0.0) / max(stages.get("read", 0.0) + rendering, 1e-9)
    if reading > READING:
        return "storage-bound", f"threads spent {reading:.0%} of their time reading: raise num_workers (now {threads})"
    cpus = len(os.sched_getaffinity(0))
    more = f"raise num_workers (now {threads}, {cpus} CPUs)" if threads < cpus else f"all {cpus} CPUs render already"
    return "loader-bound", more
