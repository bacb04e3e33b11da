"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(system: Path = Path("/")) -> int:
    """Return the number of cores that the process may use, at least 1: those of its affinity, and no more than the CPU
    quota of its cgroup, rounded up. system: the root of /proc and /sys, for tests."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(-(-quota // period) for quota, period in _quotas(system))]))


def _quotas(system: Path) -> list[tuple[int, int]]:
    """Yield quota and period, in microseconds, of the process's cgroup and of those above it.

    Source: Linux, cgroup-v2.rst, "cpu.max"; cgroup-v1's sched-bwc.rst.
    """
    found = []
    for folder in _cgroups(system):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):  # "max" and -1: no quota
            found.append((int(words[0]), int(words[1])))
    return found


def _cgroups(system: Path) -> list[Path]:
    """Yield the folders of the process's cgroup and of those above it, in both versions; some may not exist."""
    folders: list[Path] = []
    try:
        lines = (system / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:  # hierarchy:controllers:path
        _, controllers, path = (line + "::").split(":", 3)[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ["sys/fs/cgroup"] if not controllers else [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        for mount in mounts:
            own = Path(os.path.normpath("/" + path.lstrip("/"))).relative_to("/")
            folders += [system / mount / part for part in (own, *own.parents)]
    return folders


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").split()
    except OSError:  # there is no such file
        return []
