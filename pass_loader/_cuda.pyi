"""Views rendered on a GPU. Errors: ValueError for bad arguments, RuntimeError where the GPU refuses."""

import numpy as np

view_plan_bytes: int

def unavailable() -> str: ...  # why no GPU can be used; empty if one can

# From now on this thread may call what a capture of a graph by another thread forbids: allocate, wait
def let_others_capture() -> None: ...

class JpegDecoder:
    def __init__(self, device: int, library: str, slot_bytes: int) -> None: ...
    # files (N, 6) int64: address in pinned memory, bytes, height, width, bytes from row to row and from plane to plane
    # of the RGB. Returns (N, 2) int64: the file's group, or -1 if it is not decoded here, and the offset of its RGB
    def sort(self, files: np.ndarray) -> np.ndarray: ...
    # Decodes to rgb, the address of slot_bytes. Waits if the slot is still read. Returns False if nvJPEG has failed
    def decode(self, group: int, rgb: int, stream: int) -> bool: ...
    @property
    def groups(self) -> int: ...
    @property
    def reason(self) -> str: ...  # why no hardware decodes; empty if it does
    @property
    def engines(self) -> int: ...
    @property
    def cores(self) -> int: ...  # of each engine
    @property
    def version(self) -> str: ...
    @property
    def last_failure(self) -> str: ...
    @property
    def device_bytes(self) -> int: ...
    @property
    def pinned_bytes(self) -> int: ...

class ExactDecoder:
    def __init__(self, device: int, group_bytes: int) -> None: ...
    # records (N, 4) int64: addresses of the form on the host and of its copy on the device (csrc/gpu_form.h), bytes
    # from row to row and from plane to plane of the RGB. Returns (N, 2) int64: the record's group, or -1 if it alone
    # needs more than group_bytes, and the offset of its RGB in the workspace
    def sort(self, records: np.ndarray) -> np.ndarray: ...
    # workspace: the address of workspace_bytes. verdicts: of (N,) int32 on the device, 0 before; not 0 where the record
    # is not sound. Waits if four groups are queued and none has begun
    def decode(self, group: int, workspace: int, verdicts: int, stream: int) -> None: ...
    @property
    def groups(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def pinned_bytes(self) -> int: ...

class Renderer:
    def __init__(
        self,
        device: int,
        element_bytes: int,  # 4, 2 or 1
        channels_last: bool,
        table: np.ndarray,  # (3, 256) uint32: the bits of what a byte becomes
        workspace_limit: int = 1 << 29,  # bytes; `pack` takes no more views than fit, but always one
    ) -> None: ...
    # Prepares the first views; returns how many. `launch` then renders them
    def pack(
        self,
        pictures: np.ndarray,  # (N, 5) int64: address, height, width, bytes from row to row, from plane to plane
        plans: np.ndarray,  # (views,) view_plan_dtype
        picture_of: np.ndarray,  # (views,) int32
        outs: np.ndarray,  # (views,) int64: addresses
    ) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...  # device memory that `launch` needs for what is packed
    # workspace: the address of so many bytes, a multiple of 256, untouched by others until the stream has come so far
    def launch(self, workspace: int, bytes: int, stream: int) -> None: ...
    @property
    def device_bytes(self) -> int: ...
    @property
    def allocations(self) -> int: ...  # of pinned memory
