"""Hugging Face datasets reads a pack's tables and tars: `python examples/with_datasets.py PACK`.

Of the tables, a row a record: id, size, label, and the metadata of its source; the bytes come from the pack. The tars
are WebDataset's, which datasets reads by itself; for packs of the codec jpeg. Removed records are left out of both.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote  # dots in an id are encoded in the name of a member

import datasets
import numpy as np
from command_line import arguments
from PIL import Image

from pass_loader.pack import Pack


def table(pack: str) -> Any:
    """Return the rows of the live records as a datasets.Dataset, each with its picture as "image", opened on access."""
    opened = Pack(pack)
    reader = opened.open_reader()
    files = [str(Path(tar).with_suffix(".parquet")) for tar in opened.tar_paths()]
    rows = datasets.load_dataset("parquet", data_files=files, split="train")  # in the order of the records
    rows = rows.select(np.setdiff1d(np.arange(opened.records), opened.removed))

    def with_pictures(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return batch | {"image": [Image.open(io.BytesIO(reader.read(record))) for record in batch["record"]]}

    return rows.with_transform(with_pictures)


def tars(pack: str) -> Any:
    """Return the live records as a datasets.IterableDataset of the tars, read in place: "__key__", the id, and
    "jpg", a dict of the file's path and bytes."""
    opened = Pack(pack)
    removed = set(opened.ids(opened.removed))
    files = [str(tar) for tar in opened.tar_paths()]
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    rows = rows.cast_column("jpg", datasets.Image(decode=False))
    return rows.filter(lambda key: unquote(key) not in removed, input_columns="__key__")


def main() -> None:
    (pack,) = arguments(__doc__)
    for row in table(pack):
        print(row["id"], row["image"].size)
    for row in tars(pack):
        print(row["__key__"], len(row["jpg"]["bytes"]))


if __name__ == "__main__":
    main()
