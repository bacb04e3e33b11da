"""The native half. Errors: ValueError for bad arguments, BadPictureError for bad bytes, OSError for bad storage."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

class PassLoaderError(Exception): ...
class BadPictureError(PassLoaderError, ValueError): ...

class Header(TypedDict):
    height: int
    width: int
    components: int  # 1 gray, 3 colour, 4 CMYK or YCCK
    progressive: bool  # or interlaced
    exif_orientation: int  # 1..8; 1 for a PNG
    bits: int  # of a component: 8 or 16
    ends: bool  # the bytes end as their format ends

view_spec_dtype: np.dtype[Any]  # csrc/recipe.h
view_plan_dtype: np.dtype[Any]  # csrc/plan.h
step_spec_dtype: np.dtype[Any]
step_plan_dtype: np.dtype[Any]
step_values: int  # that a StepSpec holds

# Returns view_plan_dtype, and with steps the field "steps" of so many after it.
def plan_dtype(steps: int) -> np.dtype[Any]: ...

plan_version: int
max_draws: int  # csrc/draws.h

max_pixels: int  # csrc/image.h. Below, max_pixels is 1 to this, and max_scans 0 for the default

def crc32c(data: bytes | np.ndarray, before: int = 0) -> int: ...
def read_header(data: bytes, max_pixels: int = ...) -> Header: ...

# Returns (height, width, channels) uint8. A gray picture has three equal channels; with channels=1, any picture is
# convert("L"). A picture of 16 bits gives (height, width, 1) uint16.
def decode(data: bytes, channels: int = 3) -> np.ndarray: ...
def decodes_as_baseline(data: bytes) -> bool: ...  # by the project's own decoder; for tests
def decodes_as_progressive(data: bytes) -> bool: ...  # the same

# Raises BadPictureError for what Pillow would refuse, and for what exceeds a limit.
def check_decodes(data: bytes, max_pixels: int = ..., max_scans: int = 0) -> None: ...

# Raises as check_decodes. Returns whether there was no warning, and a JPEG's entry points (csrc/entry_points.h).
def prove(data: bytes, max_pixels: int = ..., max_scans: int = 0) -> tuple[bool, bytes]: ...

# (height, width, channels) of a window (top, bottom, left, right), and by what a JPEG was decoded: "points", "baseline"
# (from the beginning), "" for libjpeg. For tests.
def decode_part(
    data: bytes, window: tuple[int, int, int, int], points: bytes | np.ndarray = b""
) -> tuple[np.ndarray, str]: ...

# Each record's check in points.arrow, (N,) uint32, of entry points at ends[i] to ends[i + 1].
def checks_of_points(
    points: bytes | np.ndarray, ends: np.ndarray, crc32c: np.ndarray, length: np.ndarray
) -> np.ndarray: ...
def check_scans(data: bytes, max_scans: int = 0) -> None: ...  # reads all of a JPEG, decodes nothing

class Decoder:  # for tests and benchmarks; keeps its memory from picture to picture
    def __init__(self, libjpeg_alone: bool = False) -> None: ...
    def decode(self, data: bytes) -> None: ...  # throws the pixels away

# Returns None if the file stays a JPEG.
def jpeg_to_dct(file: bytes, zstd: bool = False, max_scans: int = 0) -> bytes | None: ...
def is_read_without_libjpeg(file: bytes) -> bool: ...  # by jpeg_to_dct; for tests
def layer_dct(record: bytes, zstd: bool) -> bytes: ...  # the same record with zstd frames or without
def dct_to_jpeg(record: bytes) -> bytes: ...
def gpu_form(record: bytes, points: bytes = b"") -> bytes | None: ...  # None if GPUs do not take it; for tests

# Returns how many steps a plan has room for. steps: rows of step_spec_dtype.
def check_recipe(recipe: np.ndarray, steps: np.ndarray | None = None) -> int: ...
def plan_views(
    recipe: np.ndarray, *, seed: int, epoch: int, record: int, draw: int = 0, height: int, width: int,
    steps: np.ndarray | None = None,
) -> np.ndarray: ...  # (views,) of plan_dtype  # fmt: skip
def drawn_alternatives(
    recipe: np.ndarray, seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray
) -> np.ndarray: ...  # (N, views) int32: which of a view's alternatives, from 1; 0: its own row
def draw_companions(
    seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray, companions: np.ndarray, views: int,
    probability: float,
) -> tuple[np.ndarray, np.ndarray]: ...  # views (N,) int32, -1 for none; companions (N,) int64  # fmt: skip

# pixels: (height, width, 3 or 1) uint8, or (height, width, 1) uint16. The views have the same type and channels.
def render_plan(pixels: np.ndarray, plans: np.ndarray) -> list[np.ndarray]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def supported_isas() -> list[str]: ...

# Masks (csrc/masks.h). N samples: records (N,) int64, draws and epochs (N,) uint32. Sizes are (rows, columns).
def block_masks(
    seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray, view: int, grid: tuple[int, int],
    targets: np.ndarray, min_area: float, max_area: float, aspect_min: float, exact: bool,
) -> np.ndarray: ...  # (N, rows, columns) bool  # fmt: skip
def rolled_blocks(
    seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray, view: int, grid: tuple[int, int],
    counts: np.ndarray, aspect_min: float, roll: bool,
) -> np.ndarray: ...  # (N, rows, columns) bool, True in the block; counts (N,) int64  # fmt: skip
def mask_uniforms(
    seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray, view: int
) -> np.ndarray: ...  # (N, 2) float64
def orders(
    seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray, view: int, count: int
) -> np.ndarray: ...  # (N, count) int64, permutations
def multi_block(
    seed: int, records: np.ndarray, draws: np.ndarray, epochs: np.ndarray, grid: tuple[int, int],
    predictor: tuple[int, int], encoder: tuple[int, int], predictors: int, encoders: int, min_keep: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...  # cells (N, blocks, all) and counts, twice  # fmt: skip
def batch_uniforms(
    seed: int, epoch: int, step: int, rank: int, purpose: int, count: int
) -> np.ndarray: ...  # (count,) float64

class ShardReader:
    def __init__(
        self, paths: Sequence[str], shard: np.ndarray, offset: np.ndarray, length: np.ndarray, crc32c: np.ndarray,
        proven: np.ndarray = ..., check: np.ndarray = ..., ends: np.ndarray = ..., points: np.ndarray = ...,
    ) -> None: ...  # the last four: csrc/entry_points.h, ProofColumns  # fmt: skip
    @staticmethod
    def of_packs(readers: list[ShardReader]) -> ShardReader: ...  # numbers the records through all packs
    def read(self, record: int) -> bytes: ...

class PendingBatch:
    plans: np.ndarray | None
    done: bool  # `wait` would return at once
    # Returns the failures as (slot, fault, message), or None if the seconds pass first.
    def wait(self, seconds: float = 1e9) -> list[tuple[int, str, str]] | None: ...
    # Makes no further sample, and returns when no thread writes to the batch's memory any more. So does dropping it
    def cancel(self) -> None: ...

class Engine:
    def __init__(
        self,
        reader: ShardReader,
        recipe: np.ndarray,
        seed: int,
        table: np.ndarray,  # (sources, channels, 256) float32: what a byte becomes; 3 channels or 1
        half: np.ndarray,  # (sources, channels, 256) uint16: the bits of the half type, if that is the element
        mean: np.ndarray,  # (sources, channels) float32
        std: np.ndarray,  # (sources, channels) float32
        threads: int,
        element: str = "float32",  # float16, bfloat16, uint8
        channels_last: bool = False,
        cpus: Sequence[int] = (),  # thread i runs on cpus[i % len(cpus)] alone
        heatmaps: ShardReader | None = None,  # where the heatmap_records of batches are read
        max_pixels: int = ...,  # limits of every picture
        max_scans: int = 0,
        steps: np.ndarray | None = None,  # the recipe's rows of step_spec_dtype
        read_ahead: int = 0,  # records that are announced and not yet taken; 0: none is read ahead
        read_ahead_bytes: int = 0,  # of those that are read and not yet taken
        one_a_view: bool = False,  # normalisations are (sources * views, ...) in place of (sources, ...)
    ) -> None: ...
    # Has records read ahead: those of samples, (N,) int64, and of companions or heatmaps, -1 for none
    def announce(self, records: np.ndarray, others: np.ndarray | None = None) -> Announced: ...
    def read_ahead_counts(self) -> dict[str, float]: ...  # csrc/read_ahead.h
    def submit(
        self,
        records: np.ndarray,  # (N,) int64
        draws: np.ndarray,  # (N,) uint32
        epochs: np.ndarray,  # (N,) uint32
        # One for each view, written in place: (N, channels, height, width), or with channels_last (N, height, width,
        # channels), of the element's type (bfloat16 as uint16)
        views: list[np.ndarray],
        plans: np.ndarray | None = None,  # (N, views) of the recipe's plan_dtype, written in place
        sources: np.ndarray | None = None,  # (N,) uint16: whose mean and std; None: the first's for all
        heatmap_records: np.ndarray | None = None,  # (N,) int64
        heatmaps: list[np.ndarray] = [],  # one for each view, or none: (N, 1, height, width) float32, written in place
        # Pictures that stand in for the originals in one view each: their records, (N,) int64, and the views, (N,)
        # int32, -1 for none
        companions: np.ndarray | None = None,
        companion_views: np.ndarray | None = None,
        announced: Announced | None = None,  # what `announce` gave for the same records
    ) -> PendingBatch: ...
    def decode(
        self,
        records: np.ndarray,  # as above
        draws: np.ndarray,
        epochs: np.ndarray,
        arena: np.ndarray,  # (bytes,) uint8; written in place
        # (N, 5) int64, written in place: offset in the arena, height, width, bytes from row to row, bytes from plane to
        # plane, for three planes of 8-bit RGB. Offset -1: the arena had no room, nothing was decoded. All zero: failed
        pictures: np.ndarray,
        plans: np.ndarray,  # (N, views), written in place, except for pictures without room
        # (N,) int64, written in place. Before: 1 if a plain JPEG may go into the arena as it is, 2 if a record of the
        # codec dct or a JPEG with entry points may in the form for a GPU (csrc/gpu_form.h). After: the bytes of either;
        # 0 if the arena holds pixels
        files: np.ndarray | None = None,
        announced: Announced | None = None,
    ) -> PendingBatch: ...
    def thread_times(self) -> tuple[float, float]: ...  # seconds busy and idle, of all threads
    def stage_times(self) -> dict[str, float]: ...  # seconds in each stage (csrc/stages.h), and "samples"

class Section:
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

class Announced:
    """Records that an engine reads ahead, until this dies."""

class BufferPool:
    def __init__(self, keep: int) -> None: ...
    def take(self, bytes: int) -> np.ndarray: ...  # uint8; returns to the pool when it dies
