"""Batches on a GPU: threads decode into pinned memory, a side stream (stream.py) copies and renders the pictures."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import _C
from ..data.samples import Samples
from ..keys import Keys
from ..loading.rendering import Failure, Renderer, Submitted
from ..recipes.steps import named_ops
from . import cuda, nvjpeg
from .launcher import Launcher
from .stream import Chunk, SideStream, picture_of

_LOG = logging.getLogger(__name__)
ALIGN = 256  # bytes
MOST_ARENA_BYTES = 1 << 30  # unless arena_bytes says otherwise
SAMPLED = 512  # records whose sizes tell how large an arena has to be
PIXELS, FILES, RECORDS = range(3)  # what the arena may hold of a picture (csrc/decode_batch.h: Held)
Allocator = Callable[[list[int], torch.dtype], torch.Tensor]


def check_samples(samples: Samples) -> None:
    """Raise ValueError for what the GPU's renderer does not have, with the way out."""
    sources = samples.normalized_recipes()
    steps = samples.recipe.step_rows()
    missing = {
        "a recipe of one channel": samples.recipe.channels != 3,
        "heatmaps": samples.heatmaps is not None,
        "views that are a Window": any(view.window is not None for view in samples.recipe.views),
        f"a recipe with further steps ({'' if steps is None else named_ops(steps['op'])})": steps is not None,
        "views with alternatives": any(view.alternatives for view in samples.recipe.views),
        "mean and std that differ between views": samples.recipe.norms_differ,
        "interpolation other than bilinear and bicubic": any(
            view.interpolation not in ("bilinear", "bicubic", "random") for view in samples.recipe.views
        ),
        "companions": samples.pairs is not None,
        "mean and std that differ between packs": len({(source.mean, source.std) for source in sources}) > 1,
    }
    for what, present in missing.items():
        if present:
            raise ValueError(f"{what}: rendered on the CPU alone; take device='cpu' and move the batches to the GPU")


def gpu_of(device: torch.device, decode: str = "cpu") -> torch.device:
    """Return the device with its index, the current device's where it has none.

    Raises RuntimeError with the reason where no GPU can be used or what decodes there is missing, ValueError where
    there is no such device.
    """
    reason = cuda.cuda_reason()
    if not reason and not torch.cuda.is_available():
        reason = "torch sees no GPU: install a build of torch with CUDA (torch.version.cuda tells)"
    if reason:
        raise RuntimeError(reason)
    if decode == "nvjpeg":
        nvjpeg.check_library()
    index, count = torch.cuda.current_device() if device.index is None else device.index, torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"device is {device}: there are {count} GPUs, counted from 0")
    return torch.device("cuda", index)


class BatchPart:
    """Slots of a batch that are being decoded into one chunk of the arena, which is free again when this dies.

    Batches themselves have no `__del__`: the launching thread knows them weakly, and as CPython calls `__del__` before
    it clears weak references, that thread would get hold of a batch that is giving back its chunk.
    """

    def __init__(self, chunk: Chunk, free: deque[Chunk]):
        self.chunk = chunk
        self._lent, self._free = [] if chunk.own else [chunk], free
        self.slots = self.rows = self.plans = self.lengths = np.empty(0, np.int64)
        self.pending: _C.PendingBatch | None = None

    def end(self) -> None:
        """Stop decoding, and make the chunk free. A second call, from any thread, does nothing."""
        if self.pending is not None:
            self.pending.cancel()  # first no thread writes there any more; the launcher may wait for it
        with contextlib.suppress(IndexError):
            self._free.append(self._lent.pop())

    def __del__(self) -> None:
        self.end()


class DeviceSubmitted(Submitted):
    """A batch on its way to a GPU, decoded part by part: a part is what finds room in one chunk of the arena.

    parent: the batch of which this is one sample, rendered once more or in place of another.
    """

    def __init__(self, renderer: DeviceRenderer, keys: Keys, plans: np.ndarray, with_plans: bool,
                 parent: DeviceSubmitted | None = None, views: Sequence[torch.Tensor] = ()):  # fmt: skip
        super().__init__(renderer.samples, keys, [*views], [], plans if with_plans else None, None, [], [], None)
        self._renderer, self._parent = renderer, parent
        self._asked, self._all_plans = keys, plans
        self._left = np.arange(len(keys))  # slots still to be decoded
        self._part: BatchPart | None = None
        self._as_file = np.full(len(keys), renderer.held_as != PIXELS)  # slots that a GPU may decode
        self._verdicts: list[Verdicts] = []  # on records that the GPU decodes
        self.announced: Any = None
        self._too_large = 0  # bytes of the first picture that is left, where no chunk has room for it
        self._failures: list[Failure] = []
        self._done: Any = None  # the event after which the views are rendered

    @property
    def launched(self) -> bool:
        return not len(self._left)

    @property
    def being_decoded(self) -> _C.PendingBatch | None:
        part = self._part
        return None if part is None else part.pending

    @property
    def done(self) -> bool:
        pending = self.being_decoded
        return self.launched or (pending is not None and pending.done)

    def begin(self) -> bool:
        """Start to decode what is left. Returns False where there is no chunk for it."""
        if self._part is None:
            self._part = self._renderer.take_part(self._too_large)
        part = self._part
        if part is None:
            return False
        if part.pending is None:
            part.slots = self._left[:1] if self._too_large else self._left
            may = self._as_file[part.slots] & (self._too_large == 0)
            part.lengths = np.where(may, self._renderer.held_as, PIXELS).astype(np.int64)
            part.rows = np.zeros((len(part.slots), 5), np.int64)
            part.plans = np.zeros((len(part.slots), self._all_plans.shape[1]), _C.view_plan_dtype)
            whole = len(part.slots) == len(self._asked)
            part.pending = self._renderer.decode(
                self._asked.at(part.slots), part, self.announced if whole else None
            )  # fmt: skip
        return True

    def wait(self, timeout: float = math.inf) -> list[Failure]:
        """Wait until all is decoded and queued on the GPU, and what the GPU decodes is known to be sound.

        Raises TimeoutError after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        with self._renderer.lock:
            while not self.launched or self._verdicts:
                if self.launched:
                    self._hear_verdicts()
                elif self.begin():
                    self.launch(end - time.monotonic(), timeout)
                else:  # another iterator's batches hold all memory
                    self._renderer.launch_oldest(end - time.monotonic(), timeout)
        return sorted(self._failures)

    def _hear_verdicts(self) -> None:
        """Wait for the GPU's verdicts. Records that are not sound are left for the CPU, which says what is wrong."""
        bad = [self._renderer.judge(verdicts) for verdicts in self._verdicts]
        self._verdicts = []
        self._left = np.sort(np.concatenate(bad))
        self._as_file[self._left] = False
        if len(self._left):
            self._renderer.take_up(self)

    def launch(self, seconds: float, timeout: float) -> None:
        """Wait for the part and queue it. Where that fails nothing has changed, and it can be tried again."""
        part = self._part
        assert part is not None and part.pending is not None
        failures = part.pending.wait(seconds) if seconds >= 0 or part.pending.done else None
        if failures is None:
            raise TimeoutError(f"no batch within timeout={timeout:g} s")
        rows, slots, late = part.rows, part.slots, part.rows[:, 0] < 0
        decoded = ~late & (rows[:, 1] > 0)
        too_large = int(3 * rows[0, 4]) if late.all() else 0
        taken, verdicts = np.ones(len(rows), bool), None
        if decoded.any():
            chosen = np.flatnonzero(decoded)
            taken[chosen], verdicts, done = self._renderer.render(
                part.chunk, rows[chosen], part.lengths[chosen], part.plans[chosen], slots[chosen], self.room()
            )
            self._note(done)
        late |= ~taken
        self._as_file[slots[~taken]] = False
        if verdicts is not None:
            self._verdicts.append(verdicts)
        self._all_plans[slots] = part.plans
        self._failures += [(int(slots[slot]), fault, message) for slot, fault, message in failures]
        self._too_large = too_large
        self._left = np.concatenate([slots[late], self._left[len(slots) :]])
        self._part = None
        part.end()  # an error that somebody keeps may hold a reference

    def _note(self, done: Any) -> None:
        self._done = done
        if self._parent is not None:
            self._parent._note(done)

    def room(self) -> list[torch.Tensor]:
        """Return the views, whose memory is taken when it is needed."""
        if not self.views:
            self.views = self._renderer.views_of(len(self._asked))
        return self.views

    def again(self, slot: int, keys: Keys) -> DeviceSubmitted:
        place = slice(slot, slot + 1)
        views = [view[place] for view in self.room()]
        return DeviceSubmitted(self._renderer, keys, self._all_plans[place], self.plans is not None, self, views)

    def keep(self, slots: np.ndarray) -> None:
        views, self.views = self.views, []
        super().keep(slots)
        if views:
            with self._renderer.lock:
                self.views, self._done = self._renderer.stream.select(views, slots)

    def hand_over(self) -> None:
        """Make the consumer's current stream wait for the views."""
        with self._renderer.lock:
            if self._done is not None:
                self._renderer.stream.hand_over(self._done, self.views)
                self.views = self._renderer.at_stable_addresses(self.views)
        self._renderer.wake_launcher()


class Verdicts(NamedTuple):
    """What a GPU says of records that it decodes."""

    slots: np.ndarray
    places: np.ndarray  # where each one's number stands
    numbers: torch.Tensor  # int32, pinned; not 0: the record is not sound
    there: Any  # the event after which they are there


class DeviceRenderer(Renderer):
    """Renders batches on a GPU. Belongs to one stream of the consumer at a time.

    With threads, a batch is queued on the GPU when its decoding ends, by a thread of its own (launcher.py); without
    any, when it is waited for.

    device: with its index. depth: batches in work. arena_bytes: pinned memory for decoded pictures; None: what depth
    + 1 usual batches need, at most 1 GiB. A batch that needs more goes in parts, and a picture that is larger than a
    part gets memory of its own on its way. static_buffers: every batch has the same addresses. decode: "nvjpeg" leaves
    plain JPEGs to the GPU, "cuda" records of the codec dct and JPEGs with entry points. Other arguments as Renderer.
    """

    def __init__(self, samples: Samples, threads: int, *, device: torch.device, depth: int = 2,
                 arena_bytes: int | None = None, static_buffers: bool = False, decode: str = "cpu",
                 **options: Any):  # fmt: skip
        check_samples(samples)
        super().__init__(samples, threads, keep=0, **options)
        self._static_buffers = static_buffers
        self._static: list[torch.Tensor] = []
        chunks = depth + 1
        whole = _usual_arena(samples, self.batch_size, chunks) if arena_bytes is None else arena_bytes
        self._chunk_bytes = max(whole // chunks // ALIGN * ALIGN, ALIGN)
        recipe = samples.normalized_recipes()[0]
        self.stream = SideStream(device, cuda.normalize_table(recipe, self.dtype), self.dtype, self.channels_last,
                         self._chunk_bytes)  # fmt: skip
        _LOG.info("%s: %d MB of pinned memory for decoded pictures", device, chunks * self._chunk_bytes >> 20)
        if decode == "nvjpeg":
            self.stream.open_files(min(self._chunk_bytes, nvjpeg.SLOT_BYTES))
        elif decode == "cuda":
            self.stream.open_records()
        self.held_as = {"nvjpeg": FILES, "cuda": RECORDS}.get(decode, PIXELS)
        self._on_cpu = 0  # pictures
        self._pinned = self.stream.pinned(chunks * self._chunk_bytes)
        self._free = deque(Chunk(part, own=False) for part in self._pinned.split(self._chunk_bytes))
        self._under_way: list[weakref.ref[DeviceSubmitted]] = []
        self.lock = threading.RLock()
        self._launcher = Launcher(self) if threads > 0 else None

    def submit(self, keys: Keys, with_plans: bool = False, announced: Any = None) -> DeviceSubmitted:
        plans = np.zeros((len(keys), len(self.samples.recipe.views)), _C.view_plan_dtype)
        batch = DeviceSubmitted(self, keys, plans, with_plans)
        batch.announced = announced
        with self.lock:
            self._under_way = [weakref.ref(other) for other in [*self._waiting(), batch]]
            self._begin()
        self.wake_launcher()
        return batch

    def resubmit(self, batch: Submitted, slot: int, keys: Keys) -> DeviceSubmitted:
        assert isinstance(batch, DeviceSubmitted)
        with self.lock:  # takes memory of the side stream where nothing of the batch was rendered
            return batch.again(slot, keys)

    def decode(self, keys: Keys, part: BatchPart, announced: Any) -> _C.PendingBatch:
        given = part.chunk.array, part.rows, part.plans, part.lengths
        return self._engine.decode(keys.records, keys.draws, keys.epochs, *given, announced)

    def render(
        self, chunk: Chunk, rows: np.ndarray, lengths: np.ndarray, plans: np.ndarray, slots: np.ndarray,
        views: list[torch.Tensor],
    ) -> tuple[np.ndarray, Verdicts | None, Any]:  # fmt: skip
        """Queue pictures of a chunk, whose views go into these slots.

        lengths: 0 for pixels, else the bytes of a file or record that the GPU decodes. Returns (N,) bool: which are
        taken, as the GPU does not take every one; what it will say of records; the event after all of it.
        """
        outs, taken, done, verdicts = places_of(slots, views), np.ones(len(rows), bool), None, None
        pixels, others = np.flatnonzero(lengths == 0), np.flatnonzero(lengths > 0)
        copied = pixels if self.held_as == FILES else np.arange(len(rows))
        if len(copied):
            sizes = np.where(lengths > 0, lengths, 3 * rows[:, 4])
            used = int((rows[:, 0] + sizes)[copied].max())
            there, chunk.copied = self.stream.upload(chunk.memory[:used])
        if len(pixels):
            numbers = picture_of(plans[pixels])
            done = self.stream.render(there, rows[pixels], plans[pixels].ravel(), numbers, outs[pixels].ravel())
            self._on_cpu += len(pixels)
        given = rows[others], plans[others], outs[others]
        if len(others) and self.held_as == FILES:
            try:
                taken[others] = self.stream.render_files(chunk.memory, lengths[others], *given)
            finally:  # also after what was queued before an error
                chunk.copied = done = self.stream.mark()
        elif len(others):
            taken[others], judged, done = self.stream.render_records(chunk.memory, there, *given)
            places = np.flatnonzero(taken[others])
            verdicts = Verdicts(slots[others[places]], places, judged, done)
        return taken, verdicts, done

    def views_of(self, count: int, allocate: Allocator | None = None) -> list[torch.Tensor]:
        """Return memory for the views of `count` samples, (count, 3, height, width) each."""
        views = [torch.empty(0)] * len(self.samples.recipe.views)
        for size, members in self._groups.items():
            tensor = (allocate or self.stream.empty)(self._shape(len(members), count, size), self.dtype)
            for index, view in zip(members, self._apart(tensor)):
                views[index] = view
        return views

    def at_stable_addresses(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the views; with static_buffers a copy, made in the order of the consumer's stream.

        So the consumer's work on the batch before is done with that one.
        """
        if not self._static_buffers:
            return views
        if not self._static:
            self._static = self.views_of(self.batch_size, self.stream.empty_here)
        kept = [static[: len(view)] for static, view in zip(self._static, views)]
        for static, view in zip(kept, views):
            static.copy_(view)
        return kept

    def take_part(self, too_large: int) -> BatchPart | None:
        """Return a part in a free chunk of the arena, or in memory for a picture larger than one; None: all chunks are
        in use."""
        if too_large:
            return BatchPart(Chunk(self.stream.pinned(-(-too_large // ALIGN) * ALIGN), own=True), self._free)
        if not self._free:
            return None
        part = BatchPart(self._free.popleft(), self._free)
        part.chunk.need()
        return part

    def _waiting(self) -> list[DeviceSubmitted]:
        """Return the batches that somebody holds and that are not wholly queued, in their order."""
        return [batch for ref in self._under_way if (batch := ref()) is not None and not batch.launched]

    def launch_oldest(self, seconds: float, timeout: float) -> None:
        oldest = next((batch for batch in self._waiting() if batch.being_decoded is not None), None)
        if oldest is None:
            raise RuntimeError("no part of the arena is free, and no batch under way holds one")
        oldest.launch(seconds, timeout)

    def judge(self, verdicts: Verdicts) -> np.ndarray:
        """Wait for verdicts. Returns the slots whose records are not sound."""
        assert self.stream.records is not None
        verdicts.there.synchronize()
        return verdicts.slots[self.stream.records.judge(verdicts.numbers.numpy()[verdicts.places])]

    def take_up(self, batch: DeviceSubmitted) -> None:
        """Put a batch back to the front of those under way, as something of it has to be decoded again."""
        self._under_way.insert(0, weakref.ref(batch))

    def _begin(self) -> None:
        """Start to decode as many batches as there are chunks for, in their order."""
        for batch in self._waiting():
            if not batch.begin():
                break

    def launch_decoded(self) -> _C.PendingBatch | None:
        """Queue what is decoded, in the batches' order. Returns what has to be decoded next; None: nothing can be done.

        What fails here stays as it was, and fails again where it is waited for.
        """
        with self.lock:
            try:
                for batch in self._waiting():
                    while not batch.launched:
                        if not batch.begin():
                            return None
                        if not batch.done:
                            self._begin()
                            return batch.being_decoded
                        batch.launch(0.0, 0.0)
            except Exception as error:
                _LOG.info("a batch could not be queued ahead: %s", error)
            return None

    def wake_launcher(self) -> None:
        if self._launcher is not None:
            self._launcher.wake()

    @property
    def pinned_bytes(self) -> int:
        decoders = [decoder for decoder in (self.stream.files, self.stream.records) if decoder is not None]
        return len(self._pinned) + sum(decoder.pinned_bytes for decoder in decoders)

    @property
    def decoding(self) -> dict[str, dict[str, Any]]:
        found = {"nvjpeg": self.stream.files, "cuda": self.stream.records}
        return {name: {**of.stats(), "on_cpu": self._on_cpu} for name, of in found.items() if of is not None}

    @property
    def device_bytes(self) -> int:
        return self.stream.device_bytes + sum(view.nbytes for view in self._static)


def places_of(slots: np.ndarray, views: Sequence[torch.Tensor]) -> np.ndarray:
    """Return (slots, views): the addresses of these samples' views."""
    return np.stack([view.data_ptr() + slots * view.stride(0) * view.element_size() for view in views], axis=1)


def pin_rest(whole: Any) -> Any:
    """Pin the tensors of a batch, but those on a GPU."""
    if isinstance(whole, torch.Tensor):
        return whole.pin_memory() if whole.device.type == "cpu" else whole
    if isinstance(whole, dict):
        return {name: pin_rest(part) for name, part in whole.items()}
    if type(whole) in (list, tuple):
        return type(whole)(pin_rest(part) for part in whole)
    return whole


def _usual_arena(samples: Samples, batch_size: int, chunks: int) -> int:
    """Return bytes: a power of two, to which torch rounds pinned memory up."""
    positions = np.linspace(0, len(samples.live) - 1, min(len(samples.live), SAMPLED)).astype(np.int64)
    none = np.zeros(len(positions), np.uint32)
    records, _ = samples.live.at(positions, none, none)
    sizes = [samples.pack.size_of(int(record)) for record in records]
    bytes = [3 * height * (width + 15) for height, width in sizes]
    batch = 1.1 * batch_size * float(np.mean(bytes)) + max(bytes)
    return min(1 << math.ceil(math.log2(chunks * batch)), MOST_ARENA_BYTES)
