"""The side stream on which a loader queues its work on a GPU, and the pinned memory that it reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from . import cuda, exact, nvjpeg

PRIORITY = 0  # of side streams, as torch.cuda.Stream takes it; negative: before the consumer's work


class SideStream:
    """The side stream of one GPU, on which all work of a loader is queued there.

    room: bytes kept there for decoded pictures; more are given memory for the one time.
    """

    def __init__(self, device: torch.device, table: np.ndarray, dtype: torch.dtype, channels_last: bool, room: int):
        self._device = device
        self.files: nvjpeg.FileDecoder | None = None  # decodes JPEGs there
        self.records: exact.RecordDecoder | None = None  # decodes records there, to the CPU's bytes
        self._renderer = cuda.PlanRenderer(table, dtype, channels_last=channels_last, device=device)
        self._stream = torch.cuda.Stream(device, priority=PRIORITY)
        self._pictures = self.empty([room], torch.uint8)

    def __del__(self) -> None:
        with contextlib.suppress(Exception), torch.cuda.device(self._device):  # no context arises on another GPU
            self.files = self.records = None
            del self._renderer

    @contextlib.contextmanager
    def _queueing(self) -> Iterator[None]:
        """Make the side stream current. The GPU first: to restore another GPU's stream makes a context there."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def enter_thread(self) -> None:
        """Prepare a thread that queues here as long as it lives."""
        torch.cuda.set_device(self._device)
        cuda.let_others_capture()

    def open_files(self, slot_bytes: int) -> None:
        """Make nvJPEG ready, so that `render_files` can be called. slot_bytes: at most `room`."""
        with torch.cuda.device(self._device):
            self.files = nvjpeg.FileDecoder(cuda.jpeg_decoder(self._device, nvjpeg.library(), slot_bytes))

    def open_records(self) -> None:
        """Make ready for `render_records`."""
        with torch.cuda.device(self._device):
            self.records = exact.RecordDecoder(cuda.exact_decoder(self._device, exact.GROUP_BYTES))

    def pinned(self, bytes: int) -> torch.Tensor:
        """Return pinned memory, (bytes,) uint8."""
        with torch.cuda.device(self._device):
            return torch.empty(bytes, dtype=torch.uint8, pin_memory=True)

    def empty(self, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        """Return memory that belongs to the side stream: it is free again in the order of that stream."""
        with self._queueing():
            return torch.empty(shape, dtype=dtype, device=self._device)

    def empty_here(self, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        """Return memory that belongs to the consumer's stream."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    def upload(self, memory: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Queue the copy of pinned memory. Returns the copy, which lives until the next one is queued, and the event
        after which `memory` may be overwritten."""
        with self._queueing():
            kept = len(memory) <= len(self._pictures)
            there = self._pictures[: len(memory)] if kept else torch.empty_like(memory, device=self._device)
            there.copy_(memory, non_blocking=True)
            return there, self.mark()

    def render(
        self, there: torch.Tensor, rows: np.ndarray, plans: np.ndarray, picture_of: np.ndarray, outs: np.ndarray
    ) -> Any:
        """Queue the rendering, as PlanRenderer.render; rows hold places in `upload`'s copy. Returns the event after
        it."""
        with self._queueing():
            rows = rows.copy()
            rows[:, 0] += there.data_ptr()
            self._renderer.render(rows, plans, picture_of, outs)
            return self.mark()

    def render_files(
        self, memory: torch.Tensor, lengths: np.ndarray, rows: np.ndarray, plans: np.ndarray, outs: np.ndarray
    ) -> np.ndarray:
        """Queue the decoding and rendering of JPEG files in pinned `memory`, which is read until then.

        plans and outs: (N, views). Returns (N,) bool: which of them nvJPEG takes.
        """
        assert self.files is not None
        done = np.zeros(len(rows), bool)
        files = np.column_stack([memory.data_ptr() + rows[:, 0], lengths])
        with self._queueing():
            for chosen, there in self.files.decode(files, rows, self._pictures.data_ptr(), self._stream.cuda_stream):
                self._renderer.render(there, plans[chosen].ravel(), picture_of(plans[chosen]), outs[chosen].ravel())
                done[chosen] = True
        return done

    def render_records(
        self, memory: torch.Tensor, there: torch.Tensor, rows: np.ndarray, plans: np.ndarray, outs: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor, Any]:
        """Queue the decoding and rendering of records in the form for a GPU: in `memory`, and in `there`, its copy by
        upload. rows hold places in either.

        plans and outs: (N, views). Returns (N,) bool: which of them it takes; (N,) int32, the verdicts, not 0 for a
        record that is not sound; and the event after which they and the views are there.
        """
        assert self.records is not None
        done, verdicts = np.zeros(len(rows), bool), torch.empty(len(rows), dtype=torch.int32, pin_memory=True)
        with self._queueing():
            judged = torch.zeros(len(rows), dtype=torch.int32, device=self._device)
            given = memory.data_ptr(), there.data_ptr(), rows, judged.data_ptr(), self._stream.cuda_stream
            for chosen, decoded in self.records.decode(*given, self.empty):
                self._renderer.render(decoded, plans[chosen].ravel(), picture_of(plans[chosen]), outs[chosen].ravel())
                done[chosen] = True
            verdicts.copy_(judged, non_blocking=True)
            return done, verdicts, self.mark()

    def select(self, views: Sequence[torch.Tensor], slots: np.ndarray) -> tuple[list[torch.Tensor], Any]:
        """Return these samples of each view, and the event after which they are there."""
        with self._queueing():
            chosen = torch.from_numpy(slots).to(self._device)
            return [view.index_select(0, chosen) for view in views], self.mark()

    def hand_over(self, done: Any, views: Sequence[torch.Tensor]) -> None:
        """Make the consumer's current stream wait for `done`.

        The views' memory is not reused before that stream has done what is queued on it when they die.
        """
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(done)
        for view in views:
            view.record_stream(consumer)

    def mark(self) -> torch.cuda.Event:
        """Return an event after all that is queued."""
        event = torch.cuda.Event(blocking=True)  # who waits on the host sleeps
        event.record(self._stream)
        return event

    @property
    def device_bytes(self) -> int:
        decoders = [decoder for decoder in (self.files, self.records) if decoder is not None]
        return self._renderer.device_bytes + len(self._pictures) + sum(each.device_bytes for each in decoders)


def picture_of(plans: np.ndarray) -> np.ndarray:
    """Return which picture each view shows, for plans (N, views) in order: (N * views,) int32."""
    return np.repeat(np.arange(len(plans), dtype=np.int32), plans.shape[1])


class Chunk:
    """Pinned memory for the pictures of one part of a batch."""

    def __init__(self, memory: torch.Tensor, own: bool):
        self.memory, self.array = memory, memory.numpy()
        self.own = own  # made for one picture that is larger than the arena's chunks
        self.copied: Any = None  # the event after which it may be written again; None: now

    def need(self) -> None:
        """Wait until the GPU has read what was there."""
        if self.copied is not None:
            self.copied.synchronize()
        self.copied = None
