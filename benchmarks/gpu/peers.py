"""Other libraries' renderings of our recipes on a GPU, and their ways there from shards. Compositions are those of
benchmarks/peers.py: as close as each library comes, with its own randomness and its own roundings.

CV-CUDA runs torchvision v2's transforms as they stand (cvcuda.tv.Compose). Libraries are imported when they are asked
for. With device "cpu" the same pipelines run there, but for CV-CUDA, which has a GPU's only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from pass_loader import Recipe, ShardDataset

from ..peers import dali_view, v2_steps

Views = list[torch.Tensor]
Render = Callable[[], Any]


def _transforms(library: str, recipe: Recipe, dtype: torch.dtype) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """Return the transform of each view, from uint8 (3, height, width) on the device."""
    if library == "CV-CUDA":
        from cvcuda import tv as maker
    else:
        from torchvision.transforms import v2 as maker
    return [maker.Compose(v2_steps(view, recipe, dtype)) for view in recipe.views]


def _render(transforms: list[Callable[[torch.Tensor], torch.Tensor]], pictures: list[torch.Tensor]) -> Views:
    return [torch.stack([transform(picture) for picture in pictures]) for transform in transforms]


def rendering(library: str, sets: list[list[torch.Tensor]], recipe: Recipe, dtype: torch.dtype, device: str) -> Render:
    """sets: pictures that take turns, uint8 (3, height, width) on the device. What renders the next set: all its views,
    (pictures, 3, height, width) each."""
    if library == "DALI":
        return _dali_rendering(sets, recipe, dtype, device)
    transforms, turns = _transforms(library, recipe, dtype), itertools.cycle(sets)
    return lambda: _render(transforms, next(turns))


def _dali_pipeline(batch: int, cores: int, device: str, recipe: Recipe, dtype: torch.dtype, picture: Callable) -> Any:
    """picture: called while the pipeline is made, the node of the decoded pictures."""
    from nvidia.dali import pipeline_def, types

    types_of = {torch.float16: types.FLOAT16, torch.float32: types.FLOAT}

    @pipeline_def(
        batch_size=batch, num_threads=cores, device_id=None if device == "cpu" else 0, enable_conditionals=True
    )
    def pipeline():  # noqa: ANN202
        decoded = picture()
        return tuple(dali_view(decoded, view, recipe, dtype=types_of[dtype]) for view in recipe.views)

    made = pipeline()
    made.build()
    return made


def _dali_rendering(sets: list[list[torch.Tensor]], recipe: Recipe, dtype: torch.dtype, device: str) -> Render:
    from nvidia.dali import fn, types

    where = "cpu" if device == "cpu" else "gpu"
    interleaved = [[one.permute(1, 2, 0).contiguous() for one in pictures] for pictures in sets]
    arrays = [[one.numpy() for one in pictures] for pictures in interleaved] if where == "cpu" else interleaved
    there = itertools.cycle(arrays)

    def picture() -> Any:
        return fn.external_source(
            source=lambda: next(there), device=where, batch=True, no_copy=True, layout="HWC", dtype=types.UINT8, ndim=3
        )

    return _dali_pipeline(len(sets[0]), 4, device, recipe, dtype, picture).run


def _dali_reader(dataset: ShardDataset) -> Any:
    """The node of JPEGs out of our shards, which are tars."""
    from nvidia.dali import fn

    paths = [str(dataset.pack.path / shard["tar"]) for shard in dataset.pack.shards]
    return fn.readers.webdataset(
        paths=paths, ext=["jpg"], random_shuffle=True, initial_fill=512, missing_component_behavior="error"
    )


def dali_shards(dataset: ShardDataset, batch: int, cores: int, dtype: torch.dtype, device: str) -> Iterator[Any]:
    """Batches of views, which the next one overwrites, without end."""
    from nvidia.dali import fn, types

    def picture() -> Any:
        return fn.decoders.image(
            _dali_reader(dataset), device="cpu" if device == "cpu" else "mixed", output_type=types.RGB
        )

    pipeline = _dali_pipeline(batch, cores, device, dataset.recipe, dtype, picture)
    while True:
        yield pipeline.run()


def dali_decoding(dataset: ShardDataset, batch: int, cores: int, device: str) -> Iterator[Any]:
    """Batches of decoded pictures, without end."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=batch, num_threads=cores, device_id=None if device == "cpu" else 0)
    def pipeline():  # noqa: ANN202
        return fn.decoders.image(
            _dali_reader(dataset), device="cpu" if device == "cpu" else "mixed", output_type=types.RGB
        )

    made = pipeline()
    made.build()
    while True:
        yield made.run()


def torchvision_decoding(dataset: ShardDataset, batch: int, cores: int, device: str) -> Iterator[list[torch.Tensor]]:
    """Lists of uint8 (3, height, width) on the device, by nvJPEG through torchvision; threads read one batch ahead."""
    from torchvision import io

    def read(records: list[int]) -> list[torch.Tensor]:
        return [torch.frombuffer(bytearray(dataset.read(record)), dtype=torch.uint8) for record in records]

    def order() -> Iterator[list[int]]:
        while True:
            shuffled = torch.randperm(len(dataset)).tolist()
            yield from (shuffled[at : at + batch] for at in range(0, len(shuffled) - batch + 1, batch))

    with ThreadPoolExecutor(cores) as pool:
        batches = order()
        share = -(-batch // cores)

        def submit() -> list[Any]:
            records = next(batches)
            return [pool.submit(read, records[at : at + share]) for at in range(0, batch, share)]

        ahead = submit()
        while True:
            files = [file for part in ahead for file in part.result()]
            ahead = submit()
            yield io.decode_jpeg(files, mode=io.ImageReadMode.RGB, device=device)


def torch_shards(
    library: str, dataset: ShardDataset, batch: int, cores: int, dtype: torch.dtype, device: str
) -> Iterator[Views]:
    """Batches of views, without end: torchvision decodes, `library` renders."""
    transforms = _transforms(library, dataset.recipe, dtype)
    for pictures in torchvision_decoding(dataset, batch, cores, device):
        yield _render(transforms, pictures)


def check_views(found: Any, recipe: Recipe, samples: int) -> None:
    """Check that all views are there, in the recipe's sizes, and none is of one value: tensors, or what DALI gives."""
    assert len(found) == len(recipe.views), f"{len(found)} views"
    for view, spec in zip(found, recipe.views):
        tensor = view.cpu() if isinstance(view, torch.Tensor) else torch.from_numpy(view.as_cpu().as_array())
        assert tensor.shape == (samples, 3, spec.height, spec.width), tensor.shape
        values = tensor.float()
        assert bool(torch.isfinite(values).all()) and float(values.std()) > 0, "empty views"
