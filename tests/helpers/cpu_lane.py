"""A stand-in for gpu.stream.SideStream: the same queue, executed by the CPU as late as it may be. Code that does not
wait, or overwrites what has not been copied yet, gets other bytes than the CPU's loader."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import _C, DataLoader
from pass_loader.gpu import batches as device
from pass_loader.gpu import exact, nvjpeg
from pass_loader.gpu.stream import picture_of

from .batches import assert_batches_equal


class Event:
    def __init__(self, lane: CpuLane) -> None:
        self.lane, self.place = lane, len(lane.queue)

    def synchronize(self) -> None:
        self.lane.run(self.place)


def memory_at(address: int, bytes: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_uint8 * bytes).from_address(address), np.uint8)


class CpuLane:
    made: list[CpuLane] = []
    # What the next renderings raise. Changed in place: before 3.13 another thread may still find a class's attribute in
    # CPython's cache while its old value is being freed.
    fail: list[Exception] = []
    host_gpu: Any = None  # nvjpeg_standin.py's module and library, where decode="nvjpeg" is tested
    library = ""

    def __init__(self, device: torch.device, table: np.ndarray, dtype: torch.dtype, channels_last: bool, room: int):
        self.table, self.dtype, self.channels_last, self.room = table, dtype, channels_last, room
        self.queue: list[Callable[[], object]] = []
        self.ran = 0
        self.renderings: list[int] = []  # pictures of each
        self.handed_over = self.entered = 0
        self.memory: list[torch.Tensor] = []  # what is queued may outlive the batch
        self.files: nvjpeg.FileDecoder | None = None
        self.records: exact.RecordDecoder | None = None
        self.pictures = self.empty([room], torch.uint8)
        self.made.append(self)

    def enter_thread(self) -> None:
        self.entered += 1

    def pinned(self, bytes: int) -> torch.Tensor:
        return torch.full((bytes,), 0x5A, dtype=torch.uint8)

    def empty(self, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        taken = torch.empty(shape, dtype=dtype)
        taken.view(torch.uint8).fill_(0xA5)
        self.memory.append(taken)
        return taken

    empty_here = empty

    def open_files(self, slot_bytes: int) -> None:
        """Decode by csrc/cuda/nvjpeg.cpp on this queue, with a stand-in for nvJPEG's library."""
        assert slot_bytes <= self.room
        self.rgb = self.empty([slot_bytes], torch.uint8)
        self.stream = self.host_gpu.stream(self)
        self.files = nvjpeg.FileDecoder(self.host_gpu.JpegDecoder(self, self.library, slot_bytes))

    def open_records(self) -> None:
        """Decode by csrc/cuda/exact.cpp on this queue."""
        self.stream = self.host_gpu.stream(self)
        self.records = exact.RecordDecoder(self.host_gpu.ExactDecoder(self, exact.GROUP_BYTES))

    def render_records(
        self, memory: torch.Tensor, there: torch.Tensor, rows: np.ndarray, plans: np.ndarray, outs: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor, Any]:
        assert self.records is not None
        judged, verdicts = (torch.full((len(rows),), 0x5A5A, dtype=torch.int32) for _ in range(2))
        self.queue.append(judged.zero_)
        done = np.zeros(len(rows), bool)
        given = memory.data_ptr(), there.data_ptr(), rows, judged.data_ptr(), self.stream
        for chosen, decoded in self.records.decode(*given, self.empty):
            self._queue_rendering(0, decoded, plans[chosen].ravel(), picture_of(plans[chosen]), outs[chosen].ravel())
            done[chosen] = True
        self.queue.append(lambda: verdicts.copy_(judged))
        return done, verdicts, Event(self)

    def render_files(
        self, memory: torch.Tensor, lengths: np.ndarray, rows: np.ndarray, plans: np.ndarray, outs: np.ndarray
    ) -> np.ndarray:
        assert self.files is not None
        files = np.column_stack([memory.data_ptr() + rows[:, 0], lengths])
        done = np.zeros(len(rows), bool)
        for chosen, there in self.files.decode(files, rows, self.rgb.data_ptr(), self.stream):
            self._queue_rendering(0, there, plans[chosen].ravel(), picture_of(plans[chosen]), outs[chosen].ravel())
            done[chosen] = True
        return done

    def mark(self) -> Event:
        return Event(self)

    def upload(self, memory: torch.Tensor) -> tuple[torch.Tensor, Any]:
        there = self.pictures[: len(memory)] if len(memory) <= self.room else self.empty([len(memory)], torch.uint8)
        self.queue.append(lambda: there.copy_(memory))
        return there, Event(self)

    def render(
        self, there: torch.Tensor, rows: np.ndarray, plans: np.ndarray, picture_of: np.ndarray, outs: np.ndarray
    ) -> Any:
        self._queue_rendering(there.data_ptr(), rows, plans, picture_of, outs)
        return Event(self)

    def _queue_rendering(self, base: int, rows: np.ndarray, *given: np.ndarray) -> None:
        if self.fail:
            raise self.fail.pop()
        kept = [part.copy() for part in (rows, *given)]
        self.queue.append(lambda: self._render(base, *kept))
        self.renderings.append(len(rows))

    def _render(self, base: int, rows: np.ndarray, plans: np.ndarray, numbers: np.ndarray, outs: np.ndarray) -> None:
        element = {1: np.uint8, 2: np.uint16, 4: np.uint32}[self.dtype.itemsize]
        for plan, number, out in zip(plans, numbers, outs):
            begin, height, width, row, plane = rows[number]
            at = [memory_at(int(base + begin + c * plane), int(height * row)) for c in range(3)]
            planes = [pixels.reshape(height, row)[:, :width] for pixels in at]
            view = _C.render_plan(np.ascontiguousarray(np.stack(planes, axis=-1)), plan.reshape(1))[0]
            values = self.table[np.arange(3), view].astype(element)
            values = values if self.channels_last else values.transpose(2, 0, 1)
            memory_at(int(out), values.nbytes)[:] = np.ascontiguousarray(values).view(np.uint8).ravel()

    def run(self, until: int) -> None:
        while self.ran < until:
            self.queue[self.ran]()
            self.ran += 1

    def select(self, views: Sequence[torch.Tensor], slots: np.ndarray) -> tuple[list[torch.Tensor], Any]:
        self.run(len(self.queue))
        chosen = torch.from_numpy(slots)
        return [view.index_select(0, chosen) for view in views], Event(self)

    def hand_over(self, done: Any, views: Sequence[torch.Tensor]) -> None:
        done.synchronize()
        self.handed_over += 1

    @property
    def device_bytes(self) -> int:
        decoders = [decoder for decoder in (self.files, self.records) if decoder is not None]
        return self.room + sum(decoder.device_bytes for decoder in decoders)


def use(monkeypatch: pytest.MonkeyPatch) -> list[CpuLane]:
    """Give such lanes to loaders of device="cuda"; returns the list of those that are made."""
    monkeypatch.setattr(device, "SideStream", CpuLane)
    monkeypatch.setattr(device, "gpu_of", lambda asked, decode="cpu": torch.device("cuda", asked.index or 0))
    monkeypatch.setattr(CpuLane, "made", [])
    monkeypatch.setattr(CpuLane, "fail", [])
    return CpuLane.made


def compare_epochs(decode: str, make: Callable[..., DataLoader], epochs: int = 1, **gpu: Any) -> DataLoader:
    """Compare all batches of a GPU with the CPU's when they come, and once more when all have come."""
    on_gpu, on_cpu = make(device="cuda", decode=decode, **gpu), make()
    for _ in range(epochs):
        held = []
        for batch in zip(on_gpu, on_cpu, strict=True):
            assert_batches_equal(*batch)
            held.append(batch)
        for batch in held:
            assert_batches_equal(*batch)
    return on_gpu
