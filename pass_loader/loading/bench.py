"""`pass-pack bench`: samples a second on this machine and this pack, the share of each stage, and what is the limit."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .. import _C
from ..errors import PackError
from ..pack.build import build
from ..pack.inspect import codec_of
from ..pack.layout import INDEX
from ..pack.reader import Pack
from ..recipes.recipe import Recipe
from .demand import Pieces, Setting
from .depth import sample_bytes
from .limits import Limits, limits_of, pack_bytes

BATCH_SIZE = 32
SAMPLE = 256  # records that are packed in each codec
ITEM_BYTES = {"float32": 4, "uint8": 1, "bfloat16": 2}  # in the order in which they are advised
_CODECS = ("jpeg", "dct-zstd", "dct")  # in that order, too


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement.

    stages: the share of the threads' time that each stage took, in the order in which a sample meets them. What is
    missing to 1 is waiting: for work, or for a batch to be taken. process_bytes, thread_bytes: private memory of the
    process before it, and what each thread added beside batches.
    """

    threads: int
    samples_per_second: float
    stages: dict[str, float]
    process_bytes: int = 0
    thread_bytes: int = 0

    @property
    def sample_s(self) -> float:
        """Seconds of a thread for a sample, without reading and waiting."""
        busy = sum(share for name, share in self.stages.items() if name != "read")
        return busy * self.threads / self.samples_per_second


def bench(pack: str | Path | Pack, recipe: Recipe, threads: int, seconds: float, dtype: str = "float32") -> Measured:
    """Load batches as a training loop does, records drawn at random, for so many seconds after a warm-up.

    dtype: of the views, a name of torch's.
    Raises ImportError without torch, PackError, RecordError for a record whose bytes are bad.
    """
    try:
        import torch

        from .dataset import ShardDataset
        from .loader import DataLoader
        from .statistics import private_bytes
    except ImportError as error:
        raise ImportError(
            f"bench loads batches as training does, which needs torch ({error}): pip install torch"
        ) from None

    dataset = ShardDataset(pack, recipe)
    if len(dataset) == 0:
        raise PackError(f"{dataset.pack.path} has no live records")
    private = private_bytes()
    loader = DataLoader(
        dataset, BATCH_SIZE, sampler=_positions(len(dataset)), num_workers=threads, dtype=getattr(torch, dtype)
    )
    times = loader._get_renderer().stage_times
    batches = iter(loader)
    for _ in range(2):  # every buffer has been written to and waits to be used again
        for _ in range(loader.stats()["batches_ahead_most"] + 1):
            next(batches)
    before, began = times(), time.perf_counter()
    while time.perf_counter() < began + seconds or times()["samples"] == before["samples"]:
        next(batches)
    after, elapsed = times(), time.perf_counter() - began
    spent = {stage: after[stage] - before[stage] for stage in after}
    samples = spent.pop("samples")
    shares = {name: took / (threads * elapsed) for name, took in spent.items()}
    held = (loader.stats()["batches_ahead"] + 1) * BATCH_SIZE * sample_bytes(recipe, ITEM_BYTES[dtype], False)
    added = max(private_bytes() - private - held, 0)
    return Measured(threads, samples / elapsed, shares, private, added // threads)


def limits(pack: str | Path | Pack, measured: Measured, seconds: float) -> Limits:
    """Measure storage by itself for so many seconds, and say what limits the loader that was measured.

    Raises OSError where storage fails.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    return limits_of(pack, measured.stages, measured.samples_per_second, measured.threads, seconds)


def pieces(pack: Pack, recipe: Recipe, found: list[Measured], alone: Limits, seconds: float) -> Pieces:
    """Return what an Advice is made of: what was measured of the pack, and a sample of its records in each codec and
    dtype, for so many seconds each. found: with one thread, and with more where they were measured.

    Raises PackError where none of the sample can be packed, OSError.
    """
    sizes: dict[tuple[int, int], int] = {}  # pixels of all views of a size
    for view in recipe.views:
        size = view.height, view.width
        sizes[size] = sizes.get(size, 0) + view.height * view.width
    settings = []
    with tempfile.TemporaryDirectory() as folder:
        for codec, sample in _samples(pack, Path(folder)):
            for dtype in ITEM_BYTES:
                if dtype == "uint8" and recipe.erases:
                    continue  # it erases after normalisation
                rate = bench(sample, recipe, 1, seconds, dtype).samples_per_second
                item = recipe.channels * ITEM_BYTES[dtype]
                mean = float(sample.column("length").mean())
                settings.append(Setting(codec, dtype, rate, mean, tuple(item * pixels for pixels in sizes.values())))
    settings.sort(key=lambda setting: setting.dtype == "bfloat16")  # the only one that has other values
    live = ~pack.is_removed(np.arange(pack.records))
    most = found[-1]
    return Pieces(
        settings=tuple(settings),
        crowding=max(1.0, most.sample_s / found[0].sample_s),
        cores=len(os.sched_getaffinity(0)),
        storage_bytes=alone.storage * float(pack.column("length")[live].mean()),
        keeps=alone.keeps,
        process_bytes=found[0].process_bytes,
        thread_bytes=most.thread_bytes,
        index_bytes=(pack.path / pack.manifest.get("index", INDEX)).stat().st_size,
        shard_bytes=pack_bytes(pack),
    )


def _samples(pack: Pack, folder: Path) -> Iterator[tuple[str, Pack]]:
    """Yield the codec and a pack of some of the records: first in the pack's own, then in others."""
    live = np.flatnonzero(~pack.is_removed(np.arange(pack.records)))
    reader, codecs = pack.open_reader(), set()
    (folder / "files").mkdir()
    for record in np.random.default_rng(0).permutation(live)[:SAMPLE].tolist():
        data = pack.read(record, partial(reader.read, record))
        codecs.add(codec := codec_of(data))
        name = f"{record}.png" if codec == "png" else f"{record}.jpg"
        (folder / "files" / name).write_bytes(_C.dct_to_jpeg(data) if codec == "dct" else data)
    own = pack.manifest["codec"]
    others = [] if codecs == {"png"} else [codec for codec in _CODECS if codec != own]
    proven = pack.remote is None and pack.open_points() is not None
    for codec in (own, *others):
        build([folder / "files"], folder / codec, codec=codec, decode=proven)
        yield ("png" if codecs == {"png"} else codec), Pack(folder / codec)


def _positions(live: int, seed: int = 0) -> Iterator[int]:
    """Yield random positions without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.integers(live, size=4096).tolist()
