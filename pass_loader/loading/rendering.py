"""Between the native engine and torch: memory for batches, their submission, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import _C
from ..data.companions import NO_COMPANION, companions_dict
from ..data.samples import Samples
from ..keys import BatchKey, Keys, SampleKeys
from ..pack.limits import limits
from ..recipes.mixing import Mix
from ..recipes.recipe import Recipe
from .mixing import Mixed, mix_batch
from .pinning import Pinning

# torch's element types, the names of csrc/cpu/normalize.h and numpy's types of the same size.
ELEMENTS = {
    torch.float32: ("float32", np.float32),
    torch.float16: ("float16", np.float16),
    torch.bfloat16: ("bfloat16", np.uint16),
    torch.uint8: ("uint8", np.uint8),
}
Failure = tuple[int, str, str]  # slot, fault, message


def check_dtype(dtype: torch.dtype, recipe: Recipe) -> None:
    """Raise TypeError for an output that there is not, ValueError for one in which the recipe cannot be."""
    if dtype not in ELEMENTS:
        raise TypeError(f"dtype is {dtype}, want one of {', '.join(map(str, ELEMENTS))}")
    if dtype == torch.uint8 and recipe.erases:
        raise ValueError(
            "a step of the recipe erases after normalisation, and uint8 output is not normalised: ask for float32, "
            "float16 or bfloat16, or leave erase out"
        )


class ThreadTimes(NamedTuple):
    busy_s: float  # making samples
    idle_s: float  # waiting for a batch


@dataclass
class Submitted:
    """A batch in work. `wait` returns its failures; dropping it stops the threads from writing into its memory."""

    samples: Samples
    keys: Keys
    views: list[torch.Tensor]  # of (N, channels, height, width)
    arrays: list[np.ndarray]  # the memory of the views
    plans: np.ndarray | None  # (N, views)
    pending: _C.PendingBatch | None
    heatmaps: list[torch.Tensor]  # of (N, 1, height, width), one a view, or none
    heatmap_arrays: list[np.ndarray]
    companions: np.ndarray | None  # (N,) companions.DRAWN; None where the dataset has none
    valid: np.ndarray = field(init=False)  # (N,) bool: the slot holds the sample that was asked for
    padding: np.ndarray = field(init=False)  # (N,) bool: the sample came before, and fills up this rank's share
    key: BatchKey = field(init=False)  # of what is drawn for the batch as a whole
    mixed: Mixed | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.valid = np.ones(len(self.keys), dtype=bool)
        self.padding = np.zeros(len(self.keys), dtype=bool)
        self.key = BatchKey(self.samples.seed, 0, 0, 0)

    def sample_keys(self) -> SampleKeys:
        """Return what the draws of its samples depend on."""
        return self.keys.seeded(self.samples.seed)

    @property
    def done(self) -> bool:
        return self.pending is not None and self.pending.done

    def wait(self, timeout: float = math.inf) -> list[Failure]:
        """Wait until the batch is done and return its failures. Raises TimeoutError after `timeout` seconds."""
        assert self.pending is not None
        failures = self.pending.wait(timeout)
        if failures is None:
            raise TimeoutError(f"no batch within timeout={timeout:g} s")
        return failures

    def raise_first(self, failures: Sequence[Failure]) -> None:
        """Raise the first of these failures as an error that names its record; nothing where there is none."""
        if failures:
            slot, fault, message = failures[0]
            if len(failures) > 1:
                message += f" (and {len(failures) - 1} more records of this batch failed)"
            raise self.samples.error(int(self.keys.records[slot]), fault, message)

    def labels(self) -> torch.Tensor:
        """Return the labels, (N,) or (N, L), int64 or float32; of a mixed batch its soft labels."""
        if self.mixed is not None:
            return self.mixed.targets
        return torch.from_numpy(self.samples.labels_of(self.keys.records))

    def mix(self, mix: Mix) -> None:
        """Mix the views, once they are handed over. Raises ValueError for a label that is no class."""
        (views,), epoch = self.views, int(self.keys.epochs[0])
        self.mixed = mix_batch(mix, self.key, epoch, views, self.labels(), self.keys.records)

    def companions_dict(self) -> dict[str, torch.Tensor]:
        """Return which view of each sample shows a companion: tensors (N,), see companions.companions_dict."""
        drawn = np.full(len(self.keys), NO_COMPANION) if self.companions is None else self.companions
        return {name: torch.from_numpy(column) for name, column in companions_dict(drawn).items()}

    def replace(self, slot: int, other: Submitted) -> None:
        """Note that the single sample of `other` was rendered into this slot."""
        self.keys.records[slot] = other.keys.records[0]
        if self.companions is not None and other.companions is not None:
            self.companions[slot] = other.companions[0]

    def keep(self, slots: np.ndarray) -> None:
        """Drop all other slots. Copies what is kept."""
        chosen = torch.from_numpy(slots)
        self.keys = self.keys.at(slots)
        self.views = [view.index_select(0, chosen) for view in self.views]
        self.heatmaps = [heatmap.index_select(0, chosen) for heatmap in self.heatmaps]
        self.plans = None if self.plans is None else self.plans[slots]
        self.companions = None if self.companions is None else self.companions[slots]
        self.valid, self.padding = self.valid[slots], self.padding[slots]

    def hand_over(self) -> None:
        """Called before the consumer is given the views."""

    def info(self) -> dict[str, Any]:
        """Return what `return_info` adds to a batch."""
        samples, pack = self.samples, self.samples.pack
        datasets = {"datasets": torch.from_numpy(samples.datasets_of(self.keys.records))} if samples.is_several else {}
        companions = {} if self.companions is None else {"companions": self.companions_dict()}
        mixed = {} if self.mixed is None else {"mix": self.mixed.info(self.keys.records)}
        return (
            datasets
            | companions
            | mixed
            | {
                "records": torch.from_numpy(self.keys.records),
                "epochs": torch.from_numpy(self.keys.epochs.astype(np.int64)),
                "draws": torch.from_numpy(self.keys.draws.astype(np.int64)),
                "ids": pack.ids(self.keys.records),
                "valid": torch.from_numpy(self.valid),
                "padding": torch.from_numpy(self.padding),
                "plans": self.plans,
                "boxes": None if self.plans is None else boxes_of(self.plans),
            }
        )


class Renderer:
    """Renders batches of a dataset on `threads` threads; 0: in the thread that waits.

    Pageable memory comes from a pool and returns to it when the last tensor of a batch dies; pinned memory is torch's,
    whose allocator recycles it safely. keep: how many unused pageable buffers are kept. Every buffer has room for the
    largest batch so far, so that a smaller last batch takes one of the same size. cpus: thread i runs on cpus[i % len]
    alone. max_pixels, max_scans: limits of every picture; None for the defaults (docs/loader.md). read_ahead,
    read_ahead_bytes: records that are announced and not yet read by who renders them, and the memory for them.
    """

    def __init__(
        self,
        samples: Samples,
        threads: int,
        *,
        batch_size: int = 1,
        pinning: Pinning | None = None,
        keep: int = 2,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        cpus: Sequence[int] = (),
        max_pixels: int | None = None,
        max_scans: int | None = None,
        read_ahead: int = 0,
        read_ahead_bytes: int = 0,
    ):
        self.samples = samples
        self.reader = samples.reader
        self._pinning = pinning or Pinning()
        self.batch_size = batch_size
        self._largest_batch = 1
        self.dtype, self.channels_last = dtype, channels_last
        recipe = samples.recipe
        sources = samples.normalized_recipes()
        numbers = range(len(recipe.views) if recipe.norms_differ else 1)
        table = np.stack([source.normalize_table(number) for source in sources for number in numbers])
        norms = [source.norms()[number] for source in sources for number in numbers]
        mean, std = (np.array([norm[place] for norm in norms], np.float32) for place in range(2))
        name, _ = ELEMENTS[dtype]
        self._engine = _C.Engine(
            self.reader, recipe.rows(), samples.seed, table, half_table(table, dtype), mean, std,
            threads, element=name, channels_last=channels_last, cpus=list(cpus),
            heatmaps=None if samples.heatmaps is None else samples.heatmaps.reader,
            read_ahead=read_ahead, read_ahead_bytes=read_ahead_bytes, steps=recipe.step_rows(),
            one_a_view=recipe.norms_differ, **limits(max_pixels, max_scans),
        )  # fmt: skip
        self._busy_s = 0.0
        self._reads_ahead = read_ahead > 0
        self._channels, self._plan_dtype = recipe.channels, recipe.plan_dtype
        self._groups: dict[tuple[int, int], list[int]] = {}  # views of one size lie in one allocation
        for index, view in enumerate(recipe.views):
            self._groups.setdefault((view.height, view.width), []).append(index)
        self._on_channels = recipe.structure.on_channels
        if self._on_channels and channels_last:
            raise ValueError(f"batch {recipe.batch!r} has its views on the channels: channels_last is not possible")
        self._pool = _C.BufferPool(keep * (len(self._groups) + (samples.heatmaps is not None)))

    def announce(self, keys: Keys) -> Any:
        """Have the records of these samples read ahead. Returns what `submit` is to be given with them.

        Reading stops when that is dropped.
        """
        if not self._reads_ahead:
            return None
        samples, others = self.samples, None
        if (drawn := samples.draw_companions(keys)) is not None:
            others = np.where(drawn["view"] >= 0, drawn["record"], -1)
        elif samples.heatmaps is not None:
            others = samples.heatmaps.records_of(keys.records)
        return self._engine.announce(keys.records, others)

    def submit(self, keys: Keys, with_plans: bool = False, announced: Any = None) -> Submitted:
        """Start to render these samples into fresh memory. announced: what `announce` returned for them."""
        count = len(self.samples.recipe.views)
        arrays: list[np.ndarray] = [np.empty(0)] * count
        with _C.Section():
            views: list[torch.Tensor] = [torch.empty(0)] * count
            for size, members in self._groups.items():
                tensor, array = self._allocate(self._shape(len(members), len(keys), size), self.dtype)
                array = array.swapaxes(0, 1) if self._on_channels else array
                for index, view, place in zip(members, self._apart(tensor), array):
                    views[index], arrays[index] = view, place
            heatmaps = self._heatmaps(len(keys))
        plans = np.zeros((len(keys), len(views)), dtype=self._plan_dtype) if with_plans else None
        return self._start(keys, views, arrays, plans, *heatmaps, announced)

    def _shape(self, views: int, samples: int, size: tuple[int, int]) -> list[int]:
        """Return the shape of the memory for views of one size: view after view, or on the channels sample after
        sample."""
        sides = [*size, self._channels] if self.channels_last else [self._channels, *size]
        return [samples, views, *sides] if self._on_channels else [views, samples, *sides]

    def _apart(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return such memory as views (samples, channels, height, width)."""
        views = (tensor.transpose(0, 1) if self._on_channels else tensor).unbind()
        return [view.permute(0, 3, 1, 2) for view in views] if self.channels_last else [*views]

    def _heatmaps(self, samples: int) -> tuple[list[torch.Tensor], list[np.ndarray]]:
        if self.samples.heatmaps is None:
            return [], []
        found = [
            self._allocate([1, samples, 1, view.height, view.width], torch.float32)
            for view in self.samples.recipe.views
        ]
        return [tensor[0] for tensor, _ in found], [array[0] for _, array in found]

    def resubmit(self, batch: Submitted, slot: int, keys: Keys) -> Submitted:
        """Start to render another sample, or the same once more, into one slot of a batch that is done."""
        place = slice(slot, slot + 1)
        plans = None if batch.plans is None else batch.plans[place]
        arrays, heatmaps = ([array[place] for array in part] for part in (batch.arrays, batch.heatmap_arrays))
        return self._start(keys, batch.views, arrays, plans, batch.heatmaps, heatmaps)

    def _start(
        self, keys: Keys, views: list[torch.Tensor], arrays: list[np.ndarray], plans: np.ndarray | None,
        heatmaps: list[torch.Tensor], heatmap_arrays: list[np.ndarray], announced: Any = None,
    ) -> Submitted:  # fmt: skip
        samples, records = self.samples, keys.records
        drawn = samples.draw_companions(keys)
        theirs = None if samples.heatmaps is None else samples.heatmaps.records_of(records)
        companions = None if drawn is None else np.ascontiguousarray(drawn["record"])
        views_of_them = None if drawn is None else np.ascontiguousarray(drawn["view"])
        pending = self._engine.submit(
            records, keys.draws, keys.epochs, arrays, plans, samples.sources_of(records), theirs, heatmap_arrays,
            companions, views_of_them, announced,
        )  # fmt: skip
        return Submitted(samples, keys, views, arrays, plans, pending, heatmaps, heatmap_arrays, drawn)

    @property
    def pinned_bytes(self) -> int:
        """Pinned memory held beside the batches."""
        return 0

    @property
    def device_bytes(self) -> int:
        """Memory held on a GPU beside the batches."""
        return 0

    @property
    def decoding(self) -> dict[str, dict[str, Any]]:
        """Counts of what a GPU has decoded, by the value of `decode`."""
        return {}

    def held(self) -> tuple[int, int, dict[str, dict[str, Any]]]:
        """Return the three above, for statistics."""
        return self.pinned_bytes, self.device_bytes, self.decoding

    def stage_times(self) -> dict[str, float]:
        """Return the seconds that all threads together have spent in each stage since the start, and "samples"
        rendered.

        Stages are in the order in which a sample meets them (csrc/stages.h). Take the difference of two readings.
        """
        return self._engine.stage_times()

    def read_ahead_counts(self) -> dict[str, Any]:
        """Return what became of the records that were asked for since the start (csrc/read_ahead.h)."""
        return self._engine.read_ahead_counts()

    def thread_times(self) -> ThreadTimes:
        """Return what all threads together have done since the start."""
        return ThreadTimes(*self._engine.thread_times())

    def busy_since_then(self) -> float:
        """Return the seconds that all threads together have been busy since the last call."""
        before, self._busy_s = self._busy_s, self.thread_times().busy_s
        return self._busy_s - before

    def _allocate(self, shape: list[int], dtype: torch.dtype) -> tuple[torch.Tensor, np.ndarray]:
        """Return the same memory as both. shape: one of the first two numbers counts samples, the other views."""
        values, (_, numpy_type) = math.prod(shape), ELEMENTS[dtype]
        if self._pinning.device is not None:
            tensor = self._pinning.empty(shape, dtype)
            plain = tensor.view(torch.int16) if dtype == torch.bfloat16 else tensor
            array = plain.numpy().view(numpy_type)
        else:
            samples = shape[0 if self._on_channels else 1]
            self._largest_batch = max(self._largest_batch, samples)
            room = values // max(samples, 1) * self._largest_batch
            memory = self._pool.take(room * dtype.itemsize)[: values * dtype.itemsize]
            tensor = torch.from_numpy(memory).view(dtype).view(shape)
            array = memory.view(numpy_type).reshape(shape)
        return tensor, array


def boxes_of(plans: np.ndarray) -> torch.Tensor:
    """Return the crop boxes of plans (N, views): (N, views, 4) int32, x, y, width, height in pixels of the picture."""
    columns = [plans[name] for name in ("crop_x", "crop_y", "crop_width", "crop_height")]
    return torch.from_numpy(np.stack(columns, axis=-1))


def half_table(table: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Return the bits of a table's values in a half type, uint16 of the same shape; zeros for other types."""
    if dtype not in (torch.float16, torch.bfloat16):
        return np.zeros(table.shape, np.uint16)
    return torch.from_numpy(table).to(dtype).view(torch.int16).numpy().view(np.uint16)


def normalize(
    views: torch.Tensor, recipe: Recipe, dtype: torch.dtype = torch.float32, *, view: int | None = None
) -> torch.Tensor:
    """Normalise a uint8 tensor (..., channels, height, width), as a loader with dtype=torch.uint8 gives it.

    The result is what a loader with `dtype` would have given. Runs on the tensor's device and keeps its memory format:
    torchvision's ToTensor and Normalize in float32, then a cast. view: its number, where views have means or standard
    deviations of their own. Raises ValueError for another tensor.
    """
    if view is None and recipe.norms_differ:
        raise ValueError(f"views of {recipe.name} have mean and std of their own: give view, the number of this one")
    channels = recipe.channels
    if not isinstance(views, torch.Tensor):
        raise TypeError(
            f"views is a {type(views).__name__}, want one tensor: [normalize(view, recipe) for view in views]"
        )
    if views.dtype != torch.uint8 or views.dim() < 3 or views.shape[-3] != channels:
        raise ValueError(
            f"want a uint8 tensor (..., {channels}, height, width), got {views.dtype} {tuple(views.shape)}"
        )
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=views.device)[:, None, None]
        for values in recipe.norms()[view or 0]
    )
    # A divisor on the device: by a number of Python, CUDA multiplies with its reciprocal, which rounds otherwise.
    scale = torch.tensor(255.0, device=views.device)
    return views.to(torch.float32).div_(scale).sub_(mean).div_(std).to(dtype)
