"""Hugging Face datasets reads a pack's tables: `python examples/with_datasets.py PACK`.

A row a record: id, size, label, and the metadata of its source. The bytes come from the pack.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
from command_line import arguments
from PIL import Image

from pass_loader.pack import Pack


def table(pack: str) -> Any:
    """Return the rows of all records as a datasets.Dataset, each with its picture as "image", opened on access."""
    opened = Pack(pack)
    reader = opened.open_reader()
    files = [str(Path(tar).with_suffix(".parquet")) for tar in opened.tar_paths()]
    rows = datasets.load_dataset("parquet", data_files=files, split="train")

    def with_pictures(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return batch | {"image": [Image.open(io.BytesIO(reader.read(record))) for record in batch["record"]]}

    return rows.with_transform(with_pictures)


def main() -> None:
    (pack,) = arguments(__doc__)
    for row in table(pack):
        print(row["id"], row["image"].size)


if __name__ == "__main__":
    main()
