"""Views rendered on a GPU: the same plans, the same bytes as on the CPU. csrc/cuda/render.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import _C
from ..loading.rendering import half_table
from ..recipes.recipe import Recipe
from ..recipes.steps import named_ops

try:
    from .. import _cuda
except ImportError as error:  # built without nvcc
    _cuda = None  # type: ignore[assignment]
    _MISSING = f"this build has no CUDA part ({error}): build again with CUDA's nvcc on the PATH and PASS_LOADER_CUDA=1"

BYTES = np.tile(np.arange(256, dtype=np.uint32), (3, 1))  # the table of torch.uint8


def cuda_reason() -> str:
    """Return why no GPU can be used, with the remedy; an empty string where one can."""
    return _MISSING if _cuda is None else _cuda.unavailable()


def cuda_available() -> bool:
    """Return True where views can be rendered on a GPU; `cuda_reason` tells why not."""
    return not cuda_reason()


def normalize_table(recipe: Recipe, dtype: torch.dtype) -> np.ndarray:
    """Return (3, 256) uint32: the bits of what a byte of each channel becomes."""
    if dtype == torch.uint8:
        return BYTES
    table = recipe.normalize_table()
    if dtype == torch.float32:
        return table.view(np.uint32)
    if dtype in (torch.float16, torch.bfloat16):
        return half_table(table, dtype).astype(np.uint32)
    raise ValueError(f"dtype is {dtype}, want torch.float32, float16, bfloat16 or uint8")


class PlanRenderer:
    """Executes plans on one GPU, on the current stream. Belongs to one thread at a time.

    table: `normalize_table`'s. workspace_limit: bytes on the device for tables and what lies between the steps, taken
    from torch; a batch that needs more is rendered in parts, and a single view may exceed it. Raises RuntimeError with
    `cuda_reason` where no GPU can be used.
    """

    def __init__(
        self,
        table: np.ndarray,
        dtype: torch.dtype = torch.float32,
        *,
        channels_last: bool = False,
        device: torch.device | str | int = 0,
        workspace_limit: int = 1 << 29,
    ):
        if _cuda is None or cuda_reason():
            raise RuntimeError(cuda_reason())
        asked = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        if asked.type != "cuda":
            raise ValueError(f"device is {asked}, want a GPU such as cuda:0")
        self.device, count = torch.device("cuda", asked.index or 0), torch.cuda.device_count()
        if self.device.index >= count:
            raise ValueError(f"device is {asked}: there are {count} GPUs, counted from 0")
        self.dtype, self.channels_last = dtype, channels_last
        self._workspace: torch.Tensor | None = None
        self._workspace_limit, self._workspaces = workspace_limit, 0
        with torch.cuda.device(self.device):
            self._native = _cuda.Renderer(
                self.device.index, dtype.itemsize, channels_last, np.ascontiguousarray(table, np.uint32),
                workspace_limit,
            )  # fmt: skip

    def render(self, pictures: np.ndarray, plans: np.ndarray, picture_of: np.ndarray, outs: np.ndarray) -> None:
        """Queue the rendering of views on the current stream.

        pictures: (N, 5) int64: address on the device, height, width, bytes from row to row and from plane to plane, of
        8-bit RGB in three planes. plans: (views,) rows of pass_loader.plan_dtype. picture_of: (views,) int32, which
        picture each view shows; views of one picture should follow one another. outs: (views,) int64, addresses on the
        device: (3, height, width) elements of `dtype` each, with channels_last (height, width, 3), contiguous.
        Pictures must stay as they are until the stream has come so far. Raises ValueError for a plan that cannot be
        executed on its picture, RuntimeError where CUDA refuses.
        """
        if plans.dtype != _C.view_plan_dtype:
            more = ""
            if "steps" in (plans.dtype.names or ()):
                names = named_ops(plans["steps"]["op"])
                more = f": further steps ({names}) are rendered on the CPU alone; take pass_loader.render_plan"
            raise ValueError(f"plans are of {plans.dtype}, want rows of pass_loader.plan_dtype{more}")
        plans = np.ascontiguousarray(plans)
        pictures, picture_of, outs = (
            np.ascontiguousarray(pictures, np.int64),
            np.ascontiguousarray(picture_of, np.int32),
            np.ascontiguousarray(outs, np.int64),
        )
        with torch.cuda.device(self.device):
            stream = torch.cuda.current_stream(self.device)
            begin = 0
            while begin < len(plans):
                part = slice(begin, None)
                begin += self._native.pack(pictures, plans[part], picture_of[part], outs[part])
                workspace = self._need_workspace(self._native.workspace_bytes)
                workspace.record_stream(stream)  # it may have been allocated in the order of another one
                self._native.launch(workspace.data_ptr(), len(workspace), stream.cuda_stream)

    def _need_workspace(self, bytes: int) -> torch.Tensor:
        """Return so many bytes or more. Where there are too few, the next batch that needs fewer gets those."""
        if self._workspace is None or len(self._workspace) < bytes:
            self._workspace = None  # given back first: torch may give the same memory again
            wanted = min(bytes + bytes // 4, max(bytes, self._workspace_limit))
            self._workspace = torch.empty(wanted, dtype=torch.uint8, device=self.device)
            self._workspaces += 1
        return self._workspace

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device."""
        return self._native.device_bytes + (0 if self._workspace is None else len(self._workspace))

    @property
    def allocations(self) -> int:
        """Number of times that memory was allocated, on the device or pinned; constant in the steady state."""
        return self._native.allocations + self._workspaces


def let_others_capture() -> None:
    """Let this thread allocate and wait while another one captures a CUDA graph, whatever the mode of the capture."""
    if _cuda is not None:
        _cuda.let_others_capture()


def jpeg_decoder(device: torch.device, library: str, slot_bytes: int) -> Any:
    """Return the native decoder for nvjpeg.FileDecoder. library: as dlopen takes it.

    Raises RuntimeError where it cannot be opened, where nvJPEG refuses, and where no GPU can be used.
    """
    if _cuda is None:
        raise RuntimeError(cuda_reason())
    return _cuda.JpegDecoder(device.index, library, slot_bytes)


def exact_decoder(device: torch.device, group_bytes: int) -> Any:
    """Return the native decoder for exact.RecordDecoder. Raises RuntimeError where no GPU can be used."""
    if _cuda is None:
        raise RuntimeError(cuda_reason())
    return _cuda.ExactDecoder(device.index, group_bytes)


def picture_rows(pictures: Sequence[torch.Tensor]) -> np.ndarray:
    """Return PlanRenderer.render's rows of planar pictures: uint8 tensors (3, height, width) with contiguous rows."""
    rows = []
    for picture in pictures:
        if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3 or picture.stride(2) != 1:
            raise ValueError(f"want uint8 (3, height, width), rows contiguous; got {picture.dtype} {picture.shape}")
        rows.append([picture.data_ptr(), *picture.shape[1:], picture.stride(1), picture.stride(0)])
    return np.array(rows, np.int64).reshape(-1, 5)


def render_plan(pixels: torch.Tensor, plan: np.ndarray, **options: Any) -> list[torch.Tensor]:
    """Execute plan rows on a picture on a GPU, as `pass_loader.render_plan`.

    pixels: (height, width, 3) uint8 RGB on a GPU. plan: rows of pass_loader.plan_dtype, one or more. options:
    PlanRenderer's.
    Returns a list of (out_height, out_width, 3) uint8 on that GPU. Raises ValueError where a plan cannot be executed.
    """
    plans = np.atleast_1d(plan)
    planar = pixels.permute(2, 0, 1).contiguous()
    renderer = PlanRenderer(BYTES, torch.uint8, channels_last=True, device=pixels.device, **options)
    sizes = [(int(p["out_height"]), int(p["out_width"]), 3) for p in plans]
    views = [torch.empty(size, dtype=torch.uint8, device=pixels.device) for size in sizes]
    outs = np.array([view.data_ptr() for view in views], np.int64)
    with torch.cuda.device(pixels.device):
        renderer.render(picture_rows([planar]), plans, np.zeros(len(plans), np.int32), outs)
    return views
