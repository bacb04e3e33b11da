"""Views rendered on a GPU. Errors: ValueError for bad arguments, RuntimeError where the GPU refuses."""

import numpy as np

view_plan_bytes: int

def unavailable() -> str: ...  # why no GPU can be used; empty: one can

class Renderer:
    def __init__(
        self,
        device: int,
        element_bytes: int,  # 4, 2 or 1
        channels_last: bool,
        table: np.ndarray,  # (3, 256) uint32: the bits of what a byte becomes
        workspace_limit: int = 1 << 29,  # bytes; a batch that needs more is rendered in parts
    ) -> None: ...
    def render(
        self,
        pictures: np.ndarray,  # (N, 5) int64: address, height, width, bytes a row, bytes a plane
        plans: np.ndarray,  # (views,) view_plan_dtype
        picture_of: np.ndarray,  # (views,) int32
        outs: np.ndarray,  # (views,) int64: addresses
        stream: int,
    ) -> None: ...
    @property
    def device_bytes(self) -> int: ...
    @property
    def allocations(self) -> int: ...
