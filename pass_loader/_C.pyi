"""The native half. Errors: ValueError for bad arguments, BadPictureError for bad bytes, OSError for bad storage."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

class BadPictureError(ValueError): ...

class Header(TypedDict):
    height: int
    width: int
    components: int  # 1 gray, 3 colour, 4 CMYK or YCCK
    progressive: bool
    exif_orientation: int  # 1..8
    ends_with_eoi: bool

view_spec_dtype: np.dtype[Any]  # csrc/recipe.h
view_plan_dtype: np.dtype[Any]  # csrc/plan.h
plan_version: int

def crc32c(data: bytes) -> int: ...
def read_header(data: bytes) -> Header: ...
def decode(data: bytes) -> np.ndarray: ...  # (height, width, 3) uint8
def decodes_without_libjpeg(data: bytes) -> bool: ...  # for tests
def check_decodes(data: bytes) -> None: ...
def check_recipe(recipe: np.ndarray) -> None: ...
def plan_views(
    recipe: np.ndarray, *, seed: int, epoch: int, record: int, draw: int = 0, height: int, width: int
) -> np.ndarray: ...  # (views,) view_plan_dtype
def render_plan(pixels: np.ndarray, plans: np.ndarray) -> list[np.ndarray]: ...  # (height, width, 3) uint8 each
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def supported_isas() -> list[str]: ...

class ShardReader:
    def __init__(
        self, paths: Sequence[str], shard: np.ndarray, offset: np.ndarray, length: np.ndarray, crc32c: np.ndarray
    ) -> None: ...
    def read(self, record: int) -> bytes: ...

class PendingBatch:
    plans: np.ndarray | None
    def wait(self) -> list[tuple[int, str, str]]: ...  # failures: (slot, fault, message)

class Engine:
    def __init__(
        self,
        reader: ShardReader,
        recipe: np.ndarray,
        seed: int,
        table: np.ndarray,  # (3, 256) float32: what a byte becomes
        mean: Sequence[float],
        std: Sequence[float],
        threads: int,
    ) -> None: ...
    def submit(
        self,
        records: np.ndarray,  # (N,) int64
        draws: np.ndarray,  # (N,) uint32
        epoch: int,
        views: list[np.ndarray],  # (N, 3, height, width) float32 each, written in place
        plans: np.ndarray | None = None,  # (N, views), written in place
    ) -> PendingBatch: ...

class BufferPool:
    def __init__(self, keep: int) -> None: ...
    def take(self, shape: Sequence[int]) -> np.ndarray: ...  # float32; returns to the pool when it dies
