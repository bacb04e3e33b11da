"""Records of the codec dct, and JPEGs with entry points, decoded on a GPU by our own kernels, to the CPU's bytes:
csrc/cuda/exact.h."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_LOG = logging.getLogger(__name__)
Empty = Callable[[list[int], torch.dtype], torch.Tensor]
GROUP_BYTES = 128 << 20  # of the workspace: components, places of blocks and pictures that are decoded together


class RecordDecoder:
    """Decodes the records of a part of a batch, group by group. Belongs to one thread at a time.

    native: _cuda.ExactDecoder, whose GPU is the one of all addresses and streams here.
    """

    def __init__(self, native: Any):
        self._native = native
        self._workspace: torch.Tensor | None = None
        self.refused = 0  # pictures
        self.decoded = self.damaged = 0  # those whose verdicts have been looked at

    def decode(
        self, host: int, there: int, rows: np.ndarray, verdicts: int, stream: int, empty: Empty
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Queue the records of each group and yield which they are, with their rows for cuda.PlanRenderer.render.

        Their rendering must be queued before the next group is asked for, which takes the same memory.

        host: address of pinned memory. there: address of its copy on the GPU. rows: (N, 5) int64, as for
        cuda.PlanRenderer.render but for places in that memory, of records in the form for a GPU. verdicts: address of
        (N,) int32 on the GPU, 0 before; not 0 for a record that is not sound, whose pixels are anything. empty: returns
        memory there that belongs to the stream. What is not yielded is too large.
        """
        places = self._native.sort(
            np.ascontiguousarray(np.column_stack([host + rows[:, 0], there + rows[:, 0], rows[:, 3:]]), np.int64)
        )
        self.refused += int((places[:, 0] < 0).sum())
        workspace = self._need(self._native.workspace_bytes, empty)
        for group in range(self._native.groups):
            chosen = np.flatnonzero(places[:, 0] == group)
            self._native.decode(group, workspace, verdicts, stream)
            decoded = rows[chosen].copy()
            decoded[:, 0] = workspace + places[chosen, 1]
            yield chosen, decoded

    def judge(self, verdicts: np.ndarray) -> np.ndarray:
        """Count what the GPU has said of some records, and return (N,) bool: which are not sound."""
        bad = verdicts != 0
        self.decoded += int((~bad).sum())
        if bad.any():
            self.damaged += int(bad.sum())
            _LOG.info("%d records are not sound by the GPU, and decoded by the CPU", bad.sum())
        return bad

    def _need(self, bytes: int, empty: Empty) -> int:
        """Return the address of so much memory, which is kept."""
        if self._workspace is None or len(self._workspace) < bytes:
            self._workspace = None  # given back first: torch may give the same memory again
            self._workspace = empty([min(bytes + bytes // 4, max(bytes, GROUP_BYTES))], torch.uint8)
        return self._workspace.data_ptr()

    def stats(self) -> dict[str, Any]:
        """Return what it has decoded (docs/gpu.md)."""
        return {"decoded": self.decoded, "refused": self.refused, "damaged": self.damaged}

    @property
    def device_bytes(self) -> int:
        return 0 if self._workspace is None else len(self._workspace)

    @property
    def pinned_bytes(self) -> int:
        return self._native.pinned_bytes
