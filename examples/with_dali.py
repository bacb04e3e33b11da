"""NVIDIA DALI: `python examples/with_dali.py PACK FOLDER`. A pack feeds pipelines that exist, in two ways.

`pictures` begins as a pipeline of yours may: its reader takes the pack's shards, which are WebDataset tars, of JPEGs
here. Index files, which it would else make at every start, say where the live records are; removed ones are left out.
`views` brings this loader's batches into a pipeline, for steps that only DALI has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from command_line import arguments
from nvidia.dali import Pipeline, fn, pipeline_def, types

import pass_loader
from pass_loader import recipes
from pass_loader.pack import Pack


def write_indexes(pack: str, folder: Path) -> dict[str, list[str]]:
    """Write where the live records of each shard are. Returns arguments of fn.readers.webdataset."""
    opened = Pack(pack)
    live = np.setdiff1d(np.arange(opened.records), opened.removed)
    shard, offset, length = (opened.column(name)[live] for name in ("shard", "offset", "length"))
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[str]] = {"paths": [], "index_paths": []}
    for number, tar in enumerate(opened.tar_paths()):
        of = np.flatnonzero(shard == number)
        if len(of):
            lines = [f"v1.2 {len(of)}", *(f"jpg {offset[place]} {length[place]} {live[place]}" for place in of)]
            index = folder / f"{Path(tar).stem}.idx"
            index.write_text("\n".join(lines) + "\n")
            found["paths"].append(str(tar))
            found["index_paths"].append(str(index))
    return found


@pipeline_def(num_threads=2, device_id=None)
def pictures(shards: dict[str, list[str]]) -> Any:
    """A pipeline of (encoded, decoded) pictures, in the order of the records."""
    encoded = fn.readers.webdataset(**shards, ext=["jpg"], missing_component_behavior="error")
    return encoded, fn.decoders.image(encoded, device="cpu", output_type=types.RGB)


class Fed:
    """A loader as DALI's external_source takes it: batches are a list of arrays, views and then labels."""

    def __init__(self, loader: pass_loader.DataLoader[Any]):
        self.loader = loader

    def __iter__(self) -> Any:
        for views, labels in self.loader:
            yield [*(view.numpy() for view in views), labels.numpy()]


@pipeline_def(num_threads=2, device_id=None)
def views(loader: pass_loader.DataLoader[Any]) -> Any:
    """A pipeline of a loader's views and labels. A run raises StopIteration at an epoch's end; `reset` begins the next
    one. DALI is ahead of what it hands out, so the loader's state_dict is, too."""
    count = len(loader.dataset.recipe.views) + 1
    return tuple(fn.external_source(Fed(loader), count, cycle="raise", batch=True))


def make(pack: str, batch_size: int = 4) -> tuple[pass_loader.DataLoader[Any], Pipeline]:
    """Return a loader and a pipeline of its batches."""
    dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
    loader = pass_loader.DataLoader(dataset, batch_size, shuffle=True, num_workers=2, drop_last=True)
    return loader, views(loader, batch_size=batch_size)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    pipeline = pictures(write_indexes(pack, Path(folder)), batch_size=4)
    _, decoded = pipeline.run()
    print("decoded", [picture.shape() for picture in decoded])
    loader, pipeline = make(pack)
    for number in range(len(loader)):
        *given, _ = pipeline.run()
        print(number, [view.as_array().shape for view in given])


if __name__ == "__main__":
    main()
