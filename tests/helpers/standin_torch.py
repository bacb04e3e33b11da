"""torch's GPU on the CUDA runtime's stand-in (standin_runtime.py), so that tests marked `cuda` run without a GPU:

    PASS_LOADER_STANDIN=FOLDER python -m pytest -p tests.helpers.standin_torch -m cuda tests/gpu/test_cuda_loader.py

FOLDER: where compile_runtime has compiled it. PASS_LOADER_STANDIN_SEED: an order of execution that is drawn.
PASS_LOADER_STANDIN_NVJPEG: the library of nvjpeg_standin.py. Streams,
events, copies and the kernels are the stand-in's, in memory that only a running operation may touch. Memory is given
out as torch does: what dies is free in the order of the stream that it was made for, and of others where record_stream
named them; pinned memory, when the copies from it are done. What is computed by torch itself waits for the GPU before.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .standin_runtime import Opening, Runtime

CAPACITY = 256 << 20  # bytes of the device
RUNTIME = Runtime(Path(os.environ["PASS_LOADER_STANDIN"]))
NATIVE = RUNTIME.native
BLOCKING, NO_TIMING = 1, 2  # flags of an event
LOCAL, LOCK = threading.local(), threading.RLock()
sys.modules["pass_loader._cuda"] = RUNTIME._cuda


def call(name: str, *arguments: int) -> None:
    error = getattr(NATIVE, name)(*map(ctypes.c_void_p, arguments))
    if error:
        NATIVE.cudaGetLastError()
        raise RuntimeError(f"CUDA error: {name} {error}")


def current_device() -> int:
    number = ctypes.c_int()
    NATIVE.cudaGetDevice(ctypes.byref(number))
    return number.value


def set_device(device: Any) -> None:
    NATIVE.cudaSetDevice(index_of(device))


def index_of(device: Any) -> int:
    index = device if isinstance(device, int) or device is None else torch.device(device).index
    return current_device() if index is None else index


@contextmanager
def device(chosen: Any) -> Iterator[None]:
    before, index = current_device(), index_of(chosen)
    if index != before:
        NATIVE.cudaSetDevice(index)
    try:
        yield
    finally:
        if index != before:
            NATIVE.cudaSetDevice(before)


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        made = ctypes.c_void_p()
        NATIVE.cudaEventCreateWithFlags(ctypes.byref(made), BLOCKING * blocking | NO_TIMING * (not enable_timing))
        assert made.value is not None
        self.handle = made.value
        weakref.finalize(self, NATIVE.cudaEventDestroy, made).atexit = False

    def record(self, stream: Stream | None = None) -> None:
        call("cudaEventRecord", self.handle, (stream or current_stream()).cuda_stream)

    def synchronize(self) -> None:
        call("cudaEventSynchronize", self.handle)

    def elapsed_time(self, end: Event) -> float:
        self.synchronize(), end.synchronize()
        return 1.0

    def query(self) -> bool:
        return bool(NATIVE.standin_reached(ctypes.c_void_p(self.handle)))


class Stream:
    def __init__(self, device: Any = None, priority: int = 0, cuda_stream: int | None = None):
        self.device = torch.device("cuda", index_of(device))
        self.priority = priority
        self.cuda_stream = RUNTIME.stream() if cuda_stream is None else cuda_stream

    def wait_event(self, event: Event) -> None:
        call("cudaStreamWaitEvent", self.cuda_stream, event.handle, 0)

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        self.wait_event(event)

    def synchronize(self) -> None:
        call("cudaStreamSynchronize", self.cuda_stream)


DEFAULTS = [Stream(index, cuda_stream=0) for index in range(2)]


def current_stream(device: Any = None) -> Stream:
    index = index_of(device)
    return getattr(LOCAL, "streams", {}).get(index, DEFAULTS[index])


@contextmanager
def stream(chosen: Stream) -> Iterator[None]:
    index, streams = chosen.device.index, LOCAL.__dict__.setdefault("streams", {})
    before = streams.get(index, DEFAULTS[index])
    with device(index):
        streams[index] = chosen
        try:
            yield
        finally:
            streams[index] = before


class Pool:
    """Memory that is given out, taken back in the order of streams, and given out again at once.

    take: allocates bytes, 0: there are none.
    """

    def __init__(self, take: Callable[[int], int], give: str):
        self._take, self._give = take, give
        self._free: dict[int, list[tuple[int, int]]] = {}  # by stream: bytes, address; the youngest last
        self._waiting: list[tuple[list[Event], int, int, int]] = []
        self.used: dict[int, tuple[int, set[Stream]]] = {}  # by address: bytes, streams that its end waits for
        self.bytes = self.given = 0  # from the runtime; of those, in use

    def take(self, bytes: int, stream: int) -> int:
        with LOCK:
            self._sweep()
            wanted, free = max(512, -(-bytes // 512) * 512), self._free.setdefault(stream, [])
            for index in reversed(range(len(free))):
                if wanted <= free[index][0] <= 2 * wanted:
                    size, address = free.pop(index)
                    break
            else:
                size, address = wanted, self._take(wanted)
                if not address:
                    self.empty()
                    address = self._take(wanted)
                if not address:
                    raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {wanted} bytes.")
                self.bytes += size
            self.used[address] = size, set()
            self.given += size
            return address

    def back(self, address: int, stream: int) -> None:
        with LOCK:
            events: list[Event] = []
            size, others = self.used.pop(address)
            for other in others:
                if other.cuda_stream != stream:
                    events.append(Event())
                    events[-1].record(other)
            self.given -= size
            self._waiting.append((events, stream, size, address))
            self._sweep()

    def _sweep(self) -> None:
        waiting, self._waiting = self._waiting, []
        for events, stream, size, address in waiting:
            if all(event.query() for event in events):
                if stream == NOWHERE:
                    ctypes.memset(address, 0x5A, size)
                self._free.setdefault(stream, []).append((size, address))
            else:
                self._waiting.append((events, stream, size, address))

    def empty(self) -> None:
        with LOCK:
            self._sweep()
            for free in self._free.values():
                for size, address in free:
                    call(self._give, address)
                    self.bytes -= size
                free.clear()

    def tensor(self, shape: Any, dtype: torch.dtype, stream: int) -> torch.Tensor:
        """Return memory as a tensor on the CPU, which goes back to the pool when the last of its views dies."""
        count = math.prod(shape) * dtype.itemsize
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        address = self.take(count, stream)
        whole = np.frombuffer((ctypes.c_uint8 * count).from_address(address), np.uint8)
        weakref.finalize(whole, self.back, address, stream).atexit = False
        return torch.from_numpy(whole).view(dtype).view(shape)

    def note(self, address: int, stream: Stream) -> None:
        """The memory that holds this address is used on the stream."""
        with LOCK:
            found = self._holding(address)
            if found is not None:
                found.add(stream)

    def _holding(self, address: int) -> set[Stream] | None:
        begin = max((begin for begin in self.used if begin <= address), default=None)
        return self.used[begin][1] if begin is not None and address < begin + self.used[begin][0] else None

    def holds(self, address: int) -> bool:
        with LOCK:
            return self._holding(address) is not None


def take_device(bytes: int) -> int:
    place = ctypes.c_void_p()
    if RUNTIME.used() + bytes > CAPACITY or NATIVE.cudaMalloc(ctypes.byref(place), ctypes.c_size_t(bytes)):
        NATIVE.cudaGetLastError()
        return 0
    return place.value or 0


def take_pinned(bytes: int) -> int:
    place = ctypes.c_void_p()
    NATIVE.cudaHostAlloc(ctypes.byref(place), ctypes.c_size_t(bytes), 0)
    return place.value or 0


DEVICE, PINNED = Pool(take_device, "cudaFree"), Pool(take_pinned, "cudaFreeHost")
NOWHERE = -1  # pinned memory belongs to no stream


def is_pinned(tensor: torch.Tensor, *_: Any) -> bool:
    return PINNED.holds(tensor.data_ptr())


def pinned(shape: Any, dtype: torch.dtype) -> torch.Tensor:
    return PINNED.tensor(shape, dtype, NOWHERE)


def dense(tensor: torch.Tensor) -> bool:
    return sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride())) + 1 == max(tensor.numel(), 1)


class DeviceTensor(torch.Tensor):
    """A tensor in the stand-in's device memory, which the CPU must not touch: what makes a view passes, a copy is
    queued, all else is computed after the GPU has done everything."""

    place: torch.device
    host: torch.Tensor | None = None  # what it was copied from

    def record_stream(self, stream: Any) -> None:  # of C++, it refuses streams that are not torch's
        DEVICE.note(self.data_ptr(), stream)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        own = OWN.get(func) or OWN.get(name)
        if own is not None:
            return own(*args, **kwargs)
        if name in PASSING:
            found = super().__torch_function__(func, types, args, kwargs)
            place = next(one.place for one in args if isinstance(one, DeviceTensor))
            for one in found if isinstance(found, tuple) else [found]:
                if isinstance(one, DeviceTensor):
                    one.place = place
            return found
        if "out" in kwargs or name.endswith("_") and not name.endswith("__"):
            raise NotImplementedError(f"the stand-in for a GPU does not have {name}")
        computed = func(*map(here, args), **{name: here(value) for name, value in kwargs.items()})
        return uploaded(computed) if isinstance(computed, torch.Tensor) else computed


def here(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(here, value))
    return cpu(value) if isinstance(value, DeviceTensor) else value


def empty_there(shape: Any, dtype: torch.dtype, where: Any = None) -> DeviceTensor:
    found = DEVICE.tensor(tuple(shape), dtype, current_stream(where).cuda_stream).as_subclass(DeviceTensor)
    found.place = torch.device("cuda", index_of(where))
    return found


def memcpy(to: int, source: int, bytes: int) -> None:
    if bytes:
        call("cudaMemcpyAsync", to, source, bytes, 4, current_stream().cuda_stream)


def uploaded(tensor: torch.Tensor, where: Any = None) -> DeviceTensor:
    """Queue a copy of a tensor on the CPU, as it is now."""
    with device(where):
        found = empty_there(tensor.shape, tensor.dtype, where)
        if not tensor.is_contiguous():
            strides = tensor.stride() if dense(tensor) else tensor.contiguous().stride()
            found = found.as_strided(tensor.shape, strides)
        copy_(found, tensor)
    found.host = tensor.detach().clone()
    return found


def copy_(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if to.dtype != source.dtype or to.shape != source.shape or to.stride() != source.stride() or not dense(to):
        raise NotImplementedError("the stand-in for a GPU copies equal layouts alone")
    if not isinstance(source, DeviceTensor) and not is_pinned(source):  # staged by the runtime
        staged = pinned(source.shape, source.dtype).as_strided(source.shape, source.stride())
        staged.copy_(source)
        source = staged
    for one in (to, source):
        if not isinstance(one, DeviceTensor):
            PINNED.note(one.data_ptr(), current_stream())
    memcpy(to.data_ptr(), source.data_ptr(), to.numel() * to.element_size())
    if not non_blocking and not isinstance(to, DeviceTensor):
        current_stream().synchronize()
    return to


def cpu(tensor: DeviceTensor) -> torch.Tensor:
    current_stream(tensor.place).synchronize()
    count = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride())) + 1 if tensor.numel() else 0
    if count == 0:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    read = torch.from_numpy(RUNTIME.read(tensor.data_ptr(), count * tensor.element_size()))
    return read.view(tensor.dtype).as_strided(tensor.shape, tensor.stride(), 0)


def clone(tensor: DeviceTensor, **_: Any) -> DeviceTensor:
    found = empty_there(tensor.shape, tensor.dtype, tensor.place)
    if dense(tensor):
        found = found.as_strided(tensor.shape, tensor.stride())
        memcpy(found.data_ptr(), tensor.data_ptr(), tensor.numel() * tensor.element_size())
        return found
    rows = tensor.view(-1, tensor.shape[-1])  # raises where there are different gaps
    assert rows.stride(1) == 1
    width = rows.shape[1] * rows.element_size()
    places = found.data_ptr(), width, rows.data_ptr(), rows.stride(0) * rows.element_size()
    call("cudaMemcpy2DAsync", *places, width, len(rows), 4, current_stream().cuda_stream)
    return found


def index_select(tensor: DeviceTensor, dim: int, index: DeviceTensor) -> DeviceTensor:
    assert dim == 0 and index.host is not None and tensor.is_contiguous()
    found = empty_there((len(index), *tensor.shape[1:]), tensor.dtype, tensor.place)
    row = tensor.stride(0) * tensor.element_size()
    for to, source in enumerate(index.host.tolist()):
        memcpy(found.data_ptr() + to * row, tensor.data_ptr() + source * row, row)
    return found


def zero_(tensor: DeviceTensor) -> DeviceTensor:
    copy_(tensor, torch.zeros(tensor.shape, dtype=tensor.dtype))
    return tensor


def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    asked = kwargs.get("device", args[0] if args and not isinstance(args[0], (torch.dtype, torch.Tensor)) else None)
    if asked is None:
        assert not isinstance(tensor, DeviceTensor)
        return TO(tensor, *args, **kwargs)
    if torch.device(asked).type == "cpu":
        return cpu(tensor) if isinstance(tensor, DeviceTensor) else tensor
    return tensor if isinstance(tensor, DeviceTensor) else uploaded(tensor, asked)


def contiguous(tensor: DeviceTensor, **_: Any) -> DeviceTensor:
    return tensor if tensor.is_contiguous() else uploaded(cpu(tensor).contiguous(), tensor.place)


TO = torch.Tensor.to
OWN: dict[Any, Callable[..., Any]] = {
    "copy_": copy_, "cpu": cpu, "clone": clone, "index_select": index_select, "zero_": zero_,
    "contiguous": contiguous,
    torch.Tensor.device.__get__: lambda tensor: tensor.place,  # type: ignore[attr-defined]
    torch.Tensor.is_cuda.__get__: lambda tensor: True,  # type: ignore[attr-defined]
}  # fmt: skip
PASSING = {
    "__get__", "__getitem__", "__hash__", "__len__", "as_strided", "data_ptr", "detach", "dim", "element_size",
    "expand", "is_contiguous", "narrow", "numel", "permute", "select", "size", "split", "squeeze", "storage_offset",
    "stride", "transpose", "unbind", "unsqueeze", "view",
}  # fmt: skip


def making(name: str) -> Callable[..., Any]:
    """Return torch.`name`, which also makes tensors on the stand-in and in its pinned memory."""
    plain = getattr(torch, name)

    def make(*args: Any, **kwargs: Any) -> Any:
        where, pin = kwargs.pop("device", None), kwargs.pop("pin_memory", False)
        if name.endswith("_like") and where is None and isinstance(args[0], DeviceTensor):
            where = args[0].place
        if where is not None and torch.device(where).type == "cuda":
            if name == "empty":
                shape = args[0] if isinstance(args[0], (list, tuple, torch.Size)) else args
                return empty_there(shape if isinstance(shape, tuple) else tuple(shape), kwargs["dtype"], where)
            if name == "empty_like":
                return empty_there(args[0].shape, args[0].dtype, where)
            return uploaded(plain(*args, **kwargs), where)
        if pin:
            shape = args[0] if isinstance(args[0], (list, tuple, torch.Size)) else args
            return pinned(tuple(shape), kwargs["dtype"])
        return plain(*args, **kwargs, **({} if where is None else {"device": where}))

    return make


def sleep(cycles: int) -> None:
    """Let other streams be executed first."""
    NATIVE.standin_sleep(ctypes.c_void_p(current_stream().cuda_stream))


def take_over() -> None:
    for name in ("empty", "zeros", "full", "empty_like", "randint", "rand"):
        setattr(torch, name, making(name))
    torch.Tensor.to = to  # type: ignore[method-assign, assignment]
    torch.Tensor.cuda = lambda tensor, where=None: to(tensor, torch.device("cuda", index_of(where)))  # type: ignore
    torch.Tensor.is_pinned = is_pinned  # type: ignore[method-assign, assignment]
    torch.Tensor.pin_memory = lambda tensor: pinned(tensor.shape, tensor.dtype).copy_(tensor)  # type: ignore
    own = {"Event": Event, "Stream": Stream, "current_device": current_device, "current_stream": current_stream,
           "default_stream": lambda device=None: DEFAULTS[index_of(device)], "device": device, "stream": stream,
           "set_device": set_device, "device_count": lambda: 2, "is_available": lambda: True,
           "synchronize": lambda device=None: RUNTIME.synchronize(), "empty_cache": DEVICE.empty,
           "mem_get_info": lambda device=None: (CAPACITY - RUNTIME.used(), CAPACITY),
           "memory_allocated": lambda device=None: DEVICE.given,
           "memory_reserved": lambda device=None: DEVICE.bytes, "_sleep": sleep,
           "set_sync_debug_mode": lambda mode: None}  # fmt: skip
    for attribute, value in own.items():
        setattr(torch.cuda, attribute, value)


def open_nvjpeg(library: str) -> None:
    """Put native/cuda/nvjpeg_standin.cpp in nvJPEG's place. It writes to the device when it is called."""
    from pass_loader.gpu import cuda, nvjpeg

    made = cuda.jpeg_decoder
    cuda.jpeg_decoder = lambda *given: Opening(RUNTIME, made(*given))  # type: ignore[assignment]
    nvjpeg.library = lambda: library  # type: ignore[assignment]


take_over()
if "PASS_LOADER_STANDIN_NVJPEG" in os.environ:
    open_nvjpeg(os.environ["PASS_LOADER_STANDIN_NVJPEG"])
RUNTIME.shuffle(int(os.environ["PASS_LOADER_STANDIN_SEED"]) if "PASS_LOADER_STANDIN_SEED" in os.environ else None)
