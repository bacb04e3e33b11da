"""JPEG files decoded on a GPU by NVIDIA's nvJPEG, with upsampling and colour of our own: csrc/cuda/nvjpeg.h."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

_LOG = logging.getLogger(__name__)
LIBRARY = "libnvjpeg.so.13"
SLOT_BYTES = 64 << 20  # of each of three slots for components, at most; and of a group's pictures


def library() -> str:
    """Return what dlopen takes: the library of the package nvidia-nvjpeg where that is installed, else the system's."""
    try:
        spec = find_spec("nvidia.cu13")
    except ModuleNotFoundError:
        spec = None
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders if (path := Path(folder) / "lib" / LIBRARY).exists()]
    return str(found[0]) if found else LIBRARY


def check_library() -> None:
    """Raise RuntimeError, with the way out, where nvJPEG is missing."""
    try:
        ctypes.CDLL(library())
    except OSError as error:
        raise RuntimeError(
            f"decode='nvjpeg': nvJPEG cannot be opened ({error}): pip install 'pass-loader[nvjpeg]' brings it; "
            "decode='cpu' needs none"
        ) from error


class FileDecoder:
    """Decodes the JPEG files of a part of a batch, group by group. Belongs to one thread at a time.

    native: _cuda.JpegDecoder, whose GPU is the one of all addresses and streams here.
    """

    def __init__(self, native: Any):
        self._native = native
        if native.reason:
            _LOG.info("nvJPEG decodes by kernels, not by the hardware decoder: %s", native.reason)
        self.decoded = self.refused = self.failed = 0  # pictures

    def decode(
        self, files: np.ndarray, rows: np.ndarray, rgb: int, stream: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Queue the pictures of each group and yield which they are, with their rows for cuda.PlanRenderer.render.

        Their rendering must be queued before the next group is asked for, which takes the same place.

        files: (N, 2) int64, addresses in pinned memory and bytes. rows: (N, 5) int64, as for cuda.PlanRenderer.render
        but for the addresses. rgb: address of device memory of the decoder's slot_bytes. What is not yielded was
        refused by nvJPEG, or has failed there.
        """
        places = self._native.sort(np.ascontiguousarray(np.column_stack([files, rows[:, 1:]]), np.int64))
        self.refused += int((places[:, 0] < 0).sum())
        for group in range(self._native.groups):
            chosen = np.flatnonzero(places[:, 0] == group)
            if not self._native.decode(group, rgb, stream):
                self.failed += len(chosen)
                _LOG.info("nvJPEG failed on a group of %d pictures, which the CPU decodes", len(chosen))
                continue
            self.decoded += len(chosen)
            there = rows[chosen].copy()
            there[:, 0] = rgb + places[chosen, 1]
            yield chosen, there

    def stats(self) -> dict[str, Any]:
        """Return what it has decoded, and by which engine (docs/gpu.md)."""
        native = self._native
        return {
            "backend": "kernels" if native.reason else "hardware",
            "reason": native.reason,
            "engines": native.engines,
            "cores_per_engine": native.cores,
            "version": native.version,
            "decoded": self.decoded,
            "refused": self.refused,
            "failed": self.failed,
            "last_failure": native.last_failure,
        }

    @property
    def device_bytes(self) -> int:
        return self._native.device_bytes

    @property
    def pinned_bytes(self) -> int:
        return self._native.pinned_bytes
