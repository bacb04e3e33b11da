"""Clocks and memory of a GPU, or of a CPU in its place where none is at hand."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def free_kept(device: str) -> None:
    """Give back what torch keeps without using it."""
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def used_bytes(device: str) -> int:
    """Return the bytes that are used on the whole GPU."""
    if device == "cpu":
        return 0
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def milliseconds(call: Callable[[int], object], rounds: int, device: str) -> list[float]:
    """Return the milliseconds of each round: on a GPU between two events, else of the wall's clock."""
    for number in range(3):
        call(number)
    if device == "cpu":
        times = [time.perf_counter()]
        for number in range(rounds):
            call(number)
            times.append(time.perf_counter())
        return [1e3 * (end - begin) for begin, end in zip(times, times[1:])]
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    for number, (begin, end) in enumerate(events):
        begin.record()
        call(number)
        end.record()
    torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) for begin, end in events]


@functools.cache
def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by a large copy on the device."""
    source = torch.randint(0, 256, (1 << (30 if device != "cpu" else 22),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2e3 * source.numel() / statistics.median(milliseconds(lambda _: target.copy_(source), 20, device))


def count_in(batches: Iterator[Any], seconds: float, device: str, warm_up: int) -> tuple[int, float]:
    """Return how many came, and in what time, the GPU's work on them included. warm_up: batches before; as many as
    lie ready make the first ones come too fast."""
    for _ in range(warm_up):
        next(batches)
    synchronize(device)
    begin, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - begin < seconds:
        batch = next(batches)
        del batch
        count += 1
    synchronize(device)
    return count, time.perf_counter() - begin


HARDWARE, ARCH_MISMATCH = 3, 7  # nvjpeg.h: NVJPEG_BACKEND_HARDWARE, NVJPEG_STATUS_ARCH_MISMATCH


def jpeg_engines(device: str) -> dict[str, Any]:
    """Return how many decoders of JPEG the GPU has, and of how many cores each, as nvJPEG says."""
    torch.zeros(1, device=device).sum().item()
    nvjpeg, handle = _nvjpeg(), ctypes.c_void_p()
    engines, cores = ctypes.c_uint(), ctypes.c_uint()
    for status in (
        nvjpeg.nvjpegCreateEx(HARDWARE, None, None, 0, ctypes.byref(handle)),
        nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores)),
    ):
        if status:
            words = {ARCH_MISMATCH: ": no engine, or a container without the driver's capability 'video'"}
            raise RuntimeError(f"nvJPEG's status {status}{words.get(status, '')}")
    return {"engines": engines.value, "cores_per_engine": cores.value}


def _nvjpeg() -> ctypes.CDLL:
    """Open the library of the package nvidia-nvjpeg, of torchvision's wheel, or where the system has it."""
    names = ["libnvjpeg.so.13", "libnvjpeg.so.12", "libnvjpeg.so"]
    for package, pattern in (("nvidia", "*/lib/libnvjpeg.so*"), ("torchvision", "../torchvision.libs/libnvjpeg*.so*")):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            names[:0] = sorted(map(str, Path(folder).glob(pattern)))
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            pass
    raise RuntimeError("no libnvjpeg: install the package nvidia-nvjpeg")
