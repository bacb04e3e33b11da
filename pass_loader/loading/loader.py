"""DataLoader: torch's keywords, batches rendered by native threads in this process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, Generic

import torch
from torch.utils.data import BatchSampler, Sampler
from typing_extensions import TypeVar

from .. import _C
from ..data.live import Served
from ..errors import RecordError
from ..keys import check_epoch
from ..pack.limits import limits
from ..recipes.mixing import Mix
from .arguments import check_device, check_samplers, refuse
from .dataset import ShardDataset
from .depth import Depth, bounds, sample_bytes
from .drawing import NONE_GONE, Drawing, EndlessDrawing, EpochDrawing
from .faults import Faults
from .foreign import ForeignDrawing
from .iteration import BatchIterator, Begun, Meter, Settings
from .mixing import check_mix
from .pinning import Pinning
from .ranks import Occasions, agree_on_generation
from .rendering import Renderer, Submitted, check_dtype
from .resume import Progress, check_fits, identity
from .sampler import EpochSampler
from .statistics import statistics
from .structures import as_samples, structured

Batch = TypeVar("Batch", default=Any)


class DataLoader(Generic[Batch]):
    """Batches of a ShardDataset, in the structure of the recipe's official script.

    Iterating gives batches rendered by threads of this process. Which structure they have is the recipe's `batch`,
    which
    a type checker cannot see: annotate the loader where it shall know, `loader: DataLoader[tuple[list[Tensor],
    Tensor]]`.

    dataset, batch_size, shuffle, sampler, batch_sampler, pin_memory, drop_last, timeout, generator: as in torch.
        Without a sampler the order is that of torch's DistributedSampler with seed 0, or with the generator's seed.
    num_workers: threads; 0 renders in the calling thread.
    prefetch_factor: how many batches the loader (not a worker) renders ahead at least; 2 unless given.
    prefetch_bytes: of batches in work beside two, for threads that would wait else, and of records that are read ahead;
        None: 64 MiB a thread, of which pinned batches get half (docs/loader.md, "Busy threads").
    read_ahead: how many records are read ahead of those in work; None: 128 a thread; 0: none (docs/loader.md, "Reading
        ahead").
    collate_fn: called with a list of samples as a map dataset gives them, (list of views, label). None gives the
        recipe's structure without a copy.
    persistent_workers, in_order, pin_memory_device: accepted. Threads persist, batches come in order and memory is
        pinned for the current accelerator in any case; without one there is a warning, as in torch.
    rank, world_size: None takes torch.distributed's at the first `len` or `iter`.
    return_info: adds a dict to each batch: records, ids, valid, padding, plans, and boxes (N, views, 4) int32: x, y,
        width, height.
    return_plan: adds the plans to each batch, (N, views) rows of pass_loader.plan_dtype, before the info.
    dtype: torch.float32, float16, bfloat16, or uint8 without normalisation (see `pass_loader.normalize`).
    channels_last: the memory format of the views.
    on_error: what happens to a record whose bytes are bad. "raise" raises; "replace" takes another record, a pure
        function of (seed, epoch, record), and `valid` is false in the info; "skip" gives a smaller batch, on one rank
        only. `errors` lists them, and the logger "pass_loader" warns. Storage that fails is read again twice and then
        raises in any case, and so do 100 bad records in a row.
    mix: a recipes.Mix: batches are mixed by Mixup and CutMix, and labels are soft (docs/loader.md, "Mixup and CutMix").
    repeats: how often each picture of an epoch comes, next to each other over the ranks, with other views each time;
        see EpochSampler.
    order: "torch", "permute" or "blocks"; block_bytes, window_bytes, lanes: of "blocks"; see EpochSampler.
    infinite: an endless stream over epochs; `len` raises TypeError.
    cpus: thread i runs on cpus[i % len(cpus)] alone.
    device: where views are rendered and stay: "cpu", or a GPU ("cuda", "cuda:1"), with the same bytes; threads then
        only decode. All else of a batch is on the CPU. `next` makes the current stream wait; it does not wait itself
        (docs/gpu.md).
    decode: on a GPU, what is decoded there: "cpu", nothing; "cuda", records of the codec dct and JPEGs with entry
        points, to the same bytes; "nvjpeg", JPEGs, whose pixels differ a little (docs/gpu.md).
    static_buffers: on a GPU, every batch at the same addresses, for CUDA graphs; the next one overwrites it.
    arena_bytes: on a GPU, pinned memory for decoded pictures on their way; None: as much as usual batches need.
    max_pixels, max_scans: a picture of more, or a JPEG with more scans, is a bad record; None for the defaults
        (docs/loader.md).

    The loader holds at most prefetch_factor batches, or two and prefetch_bytes, beside those that the caller holds, and
    never writes into one that the caller holds. Views are keyed by the dataset's seed, the epoch and the record. The
    epoch is the sampler's, or the first unused one where the sampler's was used already (docs/loader.md, "Epochs").
    A record that was removed from the pack is left out from the next epoch on. `state_dict` and `load_state_dict`
    resume in mid-epoch, on any number of ranks with the same global batch.

    Iterating raises RecordError for a record whose bytes are bad, ShardError where the storage failed, RuntimeError
    after `timeout` seconds.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[Sequence[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: None = None,
        multiprocessing_context: None = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        return_info: bool = False,
        return_plan: bool = False,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        on_error: str = "raise",
        order: str | None = None,
        infinite: bool = False,
        block_bytes: int | None = None,
        window_bytes: int | None = None,
        lanes: int | None = None,
        cpus: Sequence[int] = (),
        device: torch.device | str = "cpu",
        decode: str = "cpu",
        static_buffers: bool = False,
        arena_bytes: int | None = None,
        max_pixels: int | None = None,
        max_scans: int | None = None,
        prefetch_bytes: int | None = None,
        read_ahead: int | None = None,
        mix: Mix | None = None,
        repeats: int = 1,
    ):
        if not isinstance(dataset, ShardDataset):
            raise TypeError(
                f"dataset is {type(dataset).__name__}, want a pass_loader.ShardDataset; for a part of one give it "
                "records= or ids=, not a Subset; for several pass_loader.ConcatDataset, not torch's"
            )
        refuse(
            worker_init_fn=(worker_init_fn, "workers are threads without state of their own"),
            multiprocessing_context=(multiprocessing_context, "workers are threads"),
        )
        numbers = (rank, world_size, block_bytes, window_bytes, lanes)
        ours = shuffle or order or infinite or repeats != 1 or any(number is not None for number in numbers)
        check_samplers(batch_size, sampler, batch_sampler, drop_last, bool(ours))
        if collate_fn is not None and (return_info or return_plan):
            raise ValueError("return_info and return_plan add to the recipe's structure: give them without collate_fn")
        check_dtype(dtype, dataset.recipe)
        check_mix(mix, dataset, dtype, collate_fn)
        self.mix = mix
        self.dataset = dataset
        self.batch_size = None if batch_sampler is not None else operator.index(batch_size or 0)
        self.num_workers = operator.index(num_workers)
        self.prefetch_factor = 2 if prefetch_factor is None else operator.index(prefetch_factor)
        for name, value, least in (("batch_size", batch_size or 0, 1), ("num_workers", self.num_workers, 0),
                                   ("prefetch_factor", self.prefetch_factor, 1), ("timeout", timeout, 0),
                                   ("prefetch_bytes", prefetch_bytes or 0, 0),
                                   ("read_ahead", read_ahead or 0, 0)):  # fmt: skip
            if value < least:
                raise ValueError(f"{name} is {value}, want at least {least}")
        self.prefetch_bytes = None if prefetch_bytes is None else operator.index(prefetch_bytes)
        self.read_ahead = None if read_ahead is None else operator.index(read_ahead)
        self.collate_fn, self.timeout = collate_fn, timeout
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self._pinning = Pinning()
        self.drop_last = drop_last
        self.generator = generator
        self.worker_init_fn = self.multiprocessing_context = None  # frameworks read them
        self.persistent_workers, self.in_order = persistent_workers, in_order
        self.return_info, self.return_plan = return_info, return_plan
        self.dtype, self.channels_last, self.cpus = dtype, channels_last, tuple(cpus)
        self.sampler: Any = sampler if sampler is not None else getattr(batch_sampler, "sampler", None)
        if sampler is None and batch_sampler is None:
            self.sampler = EpochSampler(
                dataset, shuffle=bool(shuffle), seed=0 if generator is None else generator.initial_seed(), rank=rank,
                world_size=world_size, order=order, infinite=infinite, block_bytes=block_bytes,
                window_bytes=window_bytes, lanes=lanes, repeats=repeats,
            )  # fmt: skip
        self.batch_sampler: Any = batch_sampler
        if batch_sampler is None:
            self.batch_sampler = BatchSampler(self.sampler, self.batch_size or 1, drop_last)
        self._drawing: Drawing
        if batch_sampler is not None or not isinstance(self.sampler, EpochSampler):
            given = sampler if batch_sampler is None else batch_sampler
            self._drawing = ForeignDrawing(given, self.batch_size, drop_last)
        else:
            own = EndlessDrawing if self.sampler.infinite else EpochDrawing
            self._drawing = own(self.sampler, self.batch_size or 1, drop_last)
        self._faults = Faults(on_error)
        self._meter = Meter()
        self._occasions = Occasions()
        self._last: Progress | None = None  # of the latest iteration
        self._resumed: Progress | None = None  # what load_state_dict brought, until it is used
        self.device, self.decode, self.static_buffers, self.arena_bytes = device, decode, static_buffers, arena_bytes
        self.max_pixels, self.max_scans = max_pixels, max_scans
        limits(max_pixels, max_scans)  # raises what the renderer would raise later
        check_device(device, decode, static_buffers, self.batch_size, arena_bytes)
        if (gpu := self._gpu()) is not None:
            gpu.check_samples(dataset)
            self.device = gpu.gpu_of(torch.device(device), decode)
        self._renderer: tuple[int, Renderer] | None = None
        self._depth: Depth | None = None

    def __repr__(self) -> str:
        order = self.sampler if isinstance(self.sampler, EpochSampler) else type(self.batch_sampler).__name__
        if self.batch_size is not None and not isinstance(self.sampler, EpochSampler):
            order = type(self.sampler).__name__
        size = "batch sampler" if self.batch_size is None else f"batch_size={self.batch_size}"
        return (
            f"DataLoader({self.dataset!r}, {size}, {order!r}, drop_last={self.drop_last}, "
            f"num_workers={self.num_workers}, dtype={self.dtype}, device={str(self.device)!r})"
        )

    def _gpu(self) -> Any:
        """Return the module that a GPU needs, loaded only where one is named; None: the device is the CPU."""
        if torch.device(self.device).type == "cpu":
            return None
        from ..gpu import batches

        return batches

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("dataset", "batch_size", "sampler", "batch_sampler", "drop_last") and "_renderer" in self.__dict__:
            raise ValueError(f"{name} is fixed when the DataLoader is made: make another one")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}

    def __len__(self) -> int:
        """Return the number of batches of an epoch. Raises TypeError where the sampler has no length."""
        counted = self.batch_sampler if self.batch_size is None else self.sampler
        if not isinstance(counted, Sized):
            raise TypeError(f"the sampler {type(counted).__name__} has no length, so the loader has none")
        if self.batch_size is None:
            return len(counted)
        return len(counted) // self.batch_size if self.drop_last else math.ceil(len(counted) / self.batch_size)

    @property
    def errors(self) -> list[RecordError]:
        """The records that were replaced or skipped, the latest 10,000."""
        return list(self._faults.errors)

    def __iter__(self) -> BatchIterator[Batch]:
        if self._drawing.place[1] > 1 and self._faults.policy == "skip":
            raise ValueError("on_error='skip' gives ranks batches of different sizes: use 'replace' on several ranks")
        self._pinning.decide(self.pin_memory, self.pin_memory_device)
        return BatchIterator(self._begin, self._faults, self._meter)

    def _begin(self) -> Begun:
        """Begin an iteration: at the first `next` of an iterator, as torch does without workers."""
        rank, world = self._drawing.place
        progress = self._continued() or self._next_progress()
        check_epoch(progress.epoch)
        occasion = self._occasion(progress)
        live = self._live(progress, world, occasion)
        self.dataset.begin_epoch(functools.partial(self._drawing.needed, progress, live))
        gone = self.dataset.pack.removed if progress.is_inside else NONE_GONE
        with_plans = self.return_info or self.return_plan
        step = self._drawing.step
        settings = Settings(
            self._get_depth(), self.num_workers, self.timeout or math.inf, with_plans, self._structure, step, rank
        )  # fmt: skip
        drawn = self._drawing.draw(progress, live, gone, functools.partial(self._agreed, world, occasion))
        first = [*itertools.islice(drawn, 1)]  # errors show here, where a loaded state is not lost
        begun = Begun(itertools.chain(first, drawn), self._get_renderer, progress, settings)
        self._last, self._resumed = progress, None
        return begun

    def _continued(self) -> Progress | None:
        """Return the place of a loaded state; None without one, or where the sampler was set to another epoch."""
        resumed, order_epoch = self._resumed, self._drawing.epoch
        if resumed is None:
            return None
        if resumed.order_epoch == order_epoch:
            return dataclasses.replace(resumed)
        if resumed.position:
            warnings.warn(
                f"the state is of epoch {resumed.order_epoch}, the sampler was set to {order_epoch}: the position "
                f"{resumed.position} in that epoch is dropped", stacklevel=5,
            )  # fmt: skip
        self._last, self._resumed = resumed, None
        return None

    def _next_progress(self) -> Progress:
        """Return the start of the next iteration."""
        order_epoch, live = self._drawing.epoch, self.dataset.live
        epoch = self._next_epoch(order_epoch)
        return Progress(epoch, order_epoch, live.generation, len(live), 0, endless=self._drawing.endless)

    def _next_epoch(self, order_epoch: int) -> int:
        """Return the views' epoch of the next iteration: the sampler's, or the first unused one.

        An epoch that was left before its end begins again where epochs are set: a look at a batch, on one rank alone,
        changes nothing.
        """
        last = self._last
        if last is None or order_epoch < last.order_epoch:
            return order_epoch
        if order_epoch > last.order_epoch:
            return max(order_epoch, last.unused_epoch)
        again = self._drawing.epoch_is_set and not (last.finished or last.endless)
        return last.epoch if again else last.unused_epoch

    def _live(self, progress: Progress, world: int, occasion: str) -> Served:
        """Return what this epoch serves, the same on all ranks; a resumed epoch serves what it began with."""
        if progress.generation is not None:
            progress.to_running_pass()
        if not progress.is_inside or progress.generation is None:
            progress.world = world
            live = self._agreed(world, occasion, progress.passed)
            progress.generation, progress.samples = live.generation, len(live)
            progress.to_running_pass()
            return live
        self.dataset.pack.refresh()
        live = self.dataset.live_then(progress.generation)
        if len(live) != progress.samples:
            raise ValueError(f"the state is of {progress.samples} samples, the dataset had {len(live)} at that time")
        self.dataset.serve(live)
        return live

    def _agreed(self, world: int, occasion: str, passed: int) -> Served:
        """Return what is served from now on: the records that are live as the first rank finds them."""
        pack = self.dataset.pack
        pack.refresh()
        if passed:
            self.dataset.begin_epoch()
        generation = agree_on_generation(pack, f"{occasion}/{passed}") if world > 1 else pack.generation
        live = self.dataset.live_then(generation)
        if not len(live):
            raise ValueError(f"{self.dataset!r} serves no records")
        self.dataset.serve(live)
        return live

    def _occasion(self, progress: Progress) -> str:
        """Name this start of an epoch, the same on all ranks, also where one of them has other loaders or has looked at
        a batch alone."""
        own = hashlib.blake2b(repr(self._identity(0)).encode(), digest_size=8).hexdigest()
        last = self._last
        again = last is not None and (last.order_epoch, last.epoch) == (progress.order_epoch, progress.epoch)
        return self._occasions.name(own, progress.order_epoch, again)

    def _structure(self, batch: Submitted) -> Any:
        batch.hand_over()
        collate = self.collate_fn
        if self.mix is not None:
            batch.mix(self.mix)
        with _C.Section():
            whole = as_samples(batch) if collate else structured(batch, self.return_info, self.return_plan)
        if collate:  # the user's, which may wait for others
            whole = collate(whole)
        gpu = self._gpu()
        with _C.Section():
            return self._pinning.pinned(whole, None if gpu is None else gpu.pin_rest)

    def _get_depth(self) -> Depth:
        """Return how many batches are in work. What was found good is kept from epoch to epoch."""
        least = self.prefetch_factor if self.num_workers > 0 else 1
        size = sample_bytes(self.dataset.recipe, self.dtype.itemsize, self.dataset.heatmaps is not None)
        pinned = self._pinning.device is not None
        found = bounds(least, self.num_workers, self.prefetch_bytes, self.read_ahead, pinned, size)
        if (records := self.dataset.fetched_ahead()) is not None:
            found = dataclasses.replace(found, fetched=records)
        if self._gpu() is not None:  # its arena has a part for each batch
            found = dataclasses.replace(found, samples=0, unpinned=0)
        if self._drawing.endless:  # a pass begins when it is drawn, and serves what is live then
            found = found.within(len(self.dataset) // 4)
        if self._depth is None or self._depth.bounds != found:
            self._depth = Depth(found, self.batch_size or 1)
        return self._depth

    def _get_renderer(self) -> Renderer:
        """Return the renderer, made at the first iteration; made anew after a fork and after a purge."""
        kept = self._renderer
        if kept is None or kept[0] != os.getpid() or kept[1].reader is not self.dataset.reader:
            gpu = self._gpu()
            if gpu is None:
                make = functools.partial(Renderer, pinning=self._pinning, keep=self._get_depth().most + 1)
            else:
                make = functools.partial(
                    gpu.DeviceRenderer, device=self.device, depth=self._get_depth().most, arena_bytes=self.arena_bytes,
                    static_buffers=self.static_buffers, decode=self.decode,
                )  # fmt: skip
            renderer = make(
                self.dataset, self.num_workers, batch_size=self.batch_size or 1, dtype=self.dtype,
                channels_last=self.channels_last, cpus=self.cpus, max_pixels=self.max_pixels, max_scans=self.max_scans,
                read_ahead=self._get_depth().bounds.announced, read_ahead_bytes=self._get_depth().bounds.record_bytes,
            )  # fmt: skip
            kept = self._renderer = (os.getpid(), renderer)
        return kept[1]

    def state_dict(self) -> dict[str, Any]:
        """Return where the latest iteration stands, as JSON-serialisable values; equal on all ranks under our own
        order.

        Counts batches handed out by `next`, not prefetched ones. After the last batch it is the start of the next
        epoch. Starts no threads. Raises TypeError for a foreign sampler whose order cannot be brought back.
        """
        progress = self._resumed or self._last
        between = progress is None or progress.finished
        added = self._drawing.state(None if between else progress)
        state = progress or self._next_progress()
        return {**self._identity(state.samples), **state.as_state(), **added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the next iteration where the state was taken.

        The sampler's epoch becomes the state's; `set_epoch` to another one drops the position, with a warning.

        Raises ValueError for a state of another pack, subset, recipe, seed, order, sampler or global batch, or of a
        place that is not between two batches of its epoch.
        """
        self._continue_at(self._place_of(state))

    def _place_of(self, state: dict[str, Any]) -> Progress:
        """Check a state. Raises as load_state_dict; changes nothing."""
        samples, order = (state.get("samples", 0), state.get("order")) if isinstance(state, dict) else (0, None)
        check_fits(state, self._identity(samples if isinstance(samples, int) else 0, order))
        resumed = Progress.of_state(state)
        self._drawing.check(resumed)
        return resumed

    def _continue_at(self, place: Progress) -> None:
        self._resumed = place
        self._drawing.adopt(place)
        if place.order_epoch != self._drawing.epoch:
            self._drawing.set_epoch(place.order_epoch)

    def advance(self, batches: int) -> None:
        """Begin the next iteration after so many batches, as if they had been handed out.

        A restart by the number of the step, DINOv2's protocol. It costs nothing, however many they are, with
        infinite=True, order="permute" or "blocks".

        Raises TypeError for a foreign sampler, ValueError for more batches than an epoch has.
        """
        position, endless = self._drawing.position_of(batches), self._drawing.endless
        if position < 0 or (not endless and batches > len(self)):
            raise ValueError(f"advance by {batches} batches: want at least 0, and no more than an epoch has")
        whole = not endless and batches == len(self)
        self._resumed = dataclasses.replace(self._next_progress(), position=position, generation=None, finished=whole)

    def _identity(self, samples: int, order: Any = None) -> dict[str, Any]:
        mixed = {} if self.mix is None else {"mix": repr(self.mix)}
        return identity(self.dataset) | mixed | self._drawing.identity(samples, order)

    def stats(self) -> dict[str, Any]:
        """Return what the loader has done since it was made, as a dict.

        batches, samples, seconds, samples_per_second, views_per_second. data_wait: the share of the time that the
        consumer waited. busy: the share of the threads' time in which they made samples. batches_ahead,
        batches_ahead_most: in work now, and at most. stage_seconds: of all threads. errors. private_bytes: of the
        process. pinned_bytes: of batches that the loader or somebody else holds, or of decoded pictures on their way to
        a GPU. device_bytes: held there beside batches. nvjpeg, cuda: what `decode` of that name has decoded, or None
        (docs/gpu.md). blocks: the numbers of order="blocks", or None. remote: of packs in stores: bytes and requests,
        retries, hits and misses in the cache, waited_s: seconds that `next` waited for them, cache_bytes: in the folder
        now; or None. advice: a line of words.
        """
        renderer = None if self._renderer is None else self._renderer[1]
        host, there, decoding = renderer.held() if renderer else (0, 0, {})
        return statistics(
            self._meter, renderer.stage_times() if renderer else {}, views=len(self.dataset.recipe.views),
            threads=self.num_workers, depth=self._depth, errors=self._faults.count,
            read_ahead=renderer.read_ahead_counts() if renderer else None, device_bytes=there, decoding=decoding,
            pinned_bytes=host + self._pinning.bytes, blocks=self._drawing.blocks,
            remote=self.dataset.remote_counts(),
        )  # fmt: skip
