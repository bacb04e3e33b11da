"""Writes a file by FFCV itself, in a process of its own: its writer never ends where one of its processes fails.

python -m tests.helpers.ffcv_file FILE also prints, a line of JSON a sample, what FFCV's own reader makes of it: label,
mode, and where its picture lies.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

from .corpus import noise

COUNT = 12


def sample(number: int) -> tuple[np.ndarray, int, float, dict[str, Any], np.ndarray]:
    """Return a picture, label, score, JSON and array."""
    return (noise(40 + number, 50, number), number % 3, number / 2, {"user": f"ü {number}", "label": "x"},
            np.arange(3, dtype=np.float32))  # fmt: skip


class _Samples:
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: Any) -> tuple[Any, ...]:
        return sample(int(number))


def main() -> None:
    os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
    from ffcv.fields import FloatField, IntField, JSONField, NDArrayField, RGBImageField
    from ffcv.reader import Reader
    from ffcv.writer import DatasetWriter

    fields = {
        "image": RGBImageField(write_mode="proportion", compress_probability=0.7),
        "label": IntField(), "score": FloatField(), "about": JSONField(),
        "vector": NDArrayField(np.dtype("float32"), (3,)),
    }  # fmt: skip
    DatasetWriter(sys.argv[1], fields, num_workers=2).from_indexed_dataset(_Samples(), chunksize=2)
    reader = Reader(sys.argv[1])
    sizes = {int(row["ptr"]): int(row["size"]) for row in reader.alloc_table}
    for row in reader.metadata:
        begin = int(row["f0"]["data_ptr"])
        print(json.dumps([int(row["f1"]), int(row["f0"]["mode"]), begin, sizes[begin]]))


if __name__ == "__main__":
    main()
