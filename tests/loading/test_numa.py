"""Where batches lie on a machine of several NUMA nodes (docs/loader.md, "Several GPUs in a node")."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from pass_loader import DataLoader, ShardDataset, recipes

MOVE_PAGES = {"x86_64": 279, "aarch64": 239}.get(platform.machine())  # the system call's number
EDGE = 2 << 20  # a large page at either end may be another mapping's too


def cpus_of_nodes() -> dict[int, list[int]]:
    """Return those of each node's CPUs that we may use, of nodes that have some."""
    mine, found = os.sched_getaffinity(0), {}
    for place in Path("/sys/devices/system/node").glob("node[0-9]*"):
        ends = [(part.split("-") * 2)[:2] for part in (place / "cpulist").read_text().split(",") if part.strip()]
        cpus = [cpu for first, last in ends for cpu in range(int(first), int(last) + 1) if cpu in mine]
        found |= {int(place.name[4:]): cpus} if cpus else {}
    return found


def nodes_of(tensor: torch.Tensor) -> set[int]:
    """Return the nodes of a tensor's pages, without its ends; an error's number, negative, where move_pages has one."""
    pages = np.arange(tensor.data_ptr() + EDGE, tensor.data_ptr() + tensor.nbytes - EDGE, 4096, dtype=np.uint64)
    nodes = np.full(len(pages), -1, np.int32)
    where, status = (ctypes.c_void_p(array.ctypes.data) for array in (pages, nodes))
    count, none = ctypes.c_ulong(len(pages)), ctypes.c_void_p(None)
    assert ctypes.CDLL(None).syscall(ctypes.c_long(MOVE_PAGES or 0), 0, count, where, none, status, 0) == 0
    return set(nodes.tolist())


@pytest.mark.skipif(MOVE_PAGES is None or len(cpus_of_nodes()) < 2, reason="needs two NUMA nodes")
def test_batches_lie_where_their_threads_run(tiny: Path) -> None:
    """On the node of `cpus`, whichever the consumer runs on. Kills: memory that the caller touches first."""
    for node, cpus in cpus_of_nodes().items():
        dataset = ShardDataset(tiny, recipes.mocov2())
        loader = DataLoader(dataset, 16, num_workers=2, drop_last=True, cpus=cpus)
        for views, _ in loader:
            assert [nodes_of(view) for view in views] == [{node}] * 2
